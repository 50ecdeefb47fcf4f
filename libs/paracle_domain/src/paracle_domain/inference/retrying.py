"""What whoever waits for a model's reply is told while the call for it fails, or is not even made."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from paracle_domain.errors import ErrorInfo
from paracle_domain.messages import Message


class Retrying(Message, type_name="inference.retrying"):
    """The model call `call_id` failed with `error`, or waits because of it, and is tried again at `at`.

    Told on subject `out.{task_id}` by whoever tries again: the gateway within a call, the runtime with a call anew.
    `tried` counts its tries so far; it is 0 where a limit let none be made, and while a guard is waited for. `at` is
    estimated where others decide. `agent`: whose call it is, if not that of the task on whose subject it is told: of an
    agent that this one turned to, or that one in its turn. A `Retried` follows then.
    """

    call_id: str
    error: ErrorInfo
    tried: int = Field(default=0, ge=0)
    at: datetime
    agent: str | None = None

    @property
    def message_id(self) -> str:
        return ".".join((self.call_id, "retrying", self.at.isoformat(), *(() if self.agent is None else (self.agent,))))


class Retried(Message, type_name="inference.retried"):
    """The model call `call_id` of `agent`, which may have been waited for, has ended; `error` is what it failed with.

    Told where a `Retrying` of another task is told: what that task's model says is not.
    """

    call_id: str
    agent: str
    error: str | None = None

    @property
    def message_id(self) -> str:
        return f"{self.call_id}.retried"
