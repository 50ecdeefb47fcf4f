"""What builtin functions get that reach beyond this process: the call as a whole, not only its arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import JsonValue

from paracle_agent_runtime.tools.permissions import Grants
from paracle_agent_runtime.tools.workers import Caller
from paracle_domain.messages import JsonObject


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `given` by whoever calls, with `options` that the manifest fixes and nobody else can."""

    given: JsonObject
    options: JsonObject
    grants: Grants
    key: str | None
    """The idempotency key; `None` if the tool says that it has no effect."""
    timeout_s: float
    caller: Caller

    @property
    def arguments(self) -> JsonObject:
        """What was given, overruled by the options."""
        return {**self.given, **self.options}


type Acting = Callable[[Call], Awaitable[JsonValue]]
