"""From a Python function to a guard: it is shown the texts of a model call, and says what is to be done."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from paracle_client.worker.threads import Thread
from paracle_domain.errors import ParacleError, SpecInvalid, quote
from paracle_domain.guard.messages import SERVICE, GuardAnswer, GuardQuestion
from paracle_domain.subjects import is_token
from paracle_domain.tool.calls import ToolCall


@dataclass(frozen=True, slots=True)
class GuardFunction:
    """A function as a guard."""

    name: str
    concurrency: int | None
    call: Callable[..., Any]
    what: str = "guard"
    service: str = SERVICE
    meant: tuple[type[ParacleError], ...] = (ParacleError,)

    async def answer(self, body: bytes, _call: ToolCall, thread: Thread) -> bytes:
        """What it says about the question in `body`; a function that says nothing lets it pass.

        A function that is no coroutine runs in `thread`, where nothing can stop it.
        """
        question = GuardQuestion.decode(body)
        assert isinstance(question, GuardQuestion)
        inline = inspect.iscoroutinefunction(self.call)
        answer = await (self.call(question) if inline else thread.run(partial(self.call, question)))
        if answer is None:
            answer = GuardAnswer.passed()
        if not isinstance(answer, GuardAnswer):
            raise TypeError(f"guard {self.name!r} gave {type(answer).__name__}; give a GuardAnswer, or nothing")
        return answer.encode()


def guard_function(call: Callable[..., Any], *, name: str | None, concurrency: int | None) -> GuardFunction:
    """`call` as a guard.

    Raises
    ------
    SpecInvalid
        If its name can be none.
    """
    named = name or call.__name__
    if not is_token(named):
        message = f"{quote(named)} is no name of a guard: 1 to 64 of A-Z, a-z, 0-9, _ and -; give a `name`"
        raise SpecInvalid(message, path=named)
    return GuardFunction(named, concurrency, call)
