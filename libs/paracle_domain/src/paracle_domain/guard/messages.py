"""What guards of a tenant's own are asked, and what they may say."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from paracle_domain import subjects
from paracle_domain.guard.spec import Direction
from paracle_domain.ids import RunId, TaskId
from paracle_domain.messages import Message, Value

SERVICE: Final = "guards"

type Speaker = Literal["system", "user", "assistant", "tool", "reasoning", "arguments"]
"""Who said a text: a role; `reasoning` is what a model thought, `arguments` a value that it called a tool with."""


class Passage(Value):
    """A text of a model call, and who said it."""

    speaker: Speaker
    text: str


class GuardQuestion(Message, type_name="guard.question"):
    """May these texts pass? Asked on `paracle.v1.{tenant}.rpc.guards.{guard}`.

    `guard` is the guard's name in the manifest of `agent`. On input `passages` are all texts that the model is to read,
    in their order; on output, all that it said, and `calls_tools` whether it calls tools rather than answers.
    """

    guard: str
    direction: Direction
    passages: tuple[Passage, ...]
    calls_tools: bool = False
    call_id: str
    model: str
    agent: str | None = None
    run_id: RunId | None = None
    task_id: TaskId | None = None
    step: str | None = None


class GuardAnswer(Message, type_name="guard.answer"):
    """What is to be done: `pass`, `refuse` (for a `reason`, which is shown), or go on with other `texts`.

    `texts` are as many as there were passages, each in the place of one.
    """

    verdict: Literal["pass", "refuse", "replace"]
    reason: Annotated[str, Field(max_length=1_000)] = ""
    texts: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _texts_of_a_replacement(self) -> Self:
        if (self.verdict == "replace") != (self.texts is not None):
            raise ValueError("give texts with verdict: replace, and with no other")
        return self

    @classmethod
    def passed(cls) -> Self:
        return cls(verdict="pass")

    @classmethod
    def refused(cls, reason: str) -> Self:
        return cls(verdict="refuse", reason=reason)

    @classmethod
    def replaced(cls, *texts: str) -> Self:
        return cls(verdict="replace", texts=texts)


def subject_of(guard: str, tenant: str) -> str:
    """Where the workers of `guard` listen for `tenant`."""
    return subjects.rpc(tenant, SERVICE, guard)
