"""Tests of pure machines that read as a specification.

    (scenario(machine)
        .given(RunStarted(…), StepCompleted(…))
        .when(TaskDone(…))
        .then([StepCompleted(…)], [DispatchTask(…)]))

`machine` is anything with `decide(state, message) -> Decision`, `evolve(state, event) -> state` and an initial state: a
module (with `initial`), an object, or the three given one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from paracle_domain.errors import ParacleError
from paracle_domain.machine import Decision, fold


class Machine[S, M, E, D](Protocol):
    """A pure state machine and the state that it begins in."""

    initial: S

    def decide(self, state: S, message: M, /) -> Decision[E, D]: ...
    def evolve(self, state: S, event: E, /) -> S: ...


@dataclass(frozen=True, slots=True)
class Scenario[S, M, E, D]:
    """A machine after some events, and what a message led to."""

    decide: Callable[[S, M], Decision[E, D]]
    evolve: Callable[[S, E], S]
    state: S
    decision: Decision[E, D] | None = None
    refusal: ParacleError | None = None

    def given(self, *events: E) -> Self:
        """After `events`."""
        return replace(self, state=fold(self.evolve, self.state, events))

    def when(self, *messages: M) -> Self:
        """`messages` arrive, one after the other; what the last one led to is looked at."""
        current = self
        for message in messages:
            current = current._one(message)
        return current

    def _one(self, message: M) -> Self:
        try:
            decision = self.decide(self.state, message)
        except ParacleError as error:
            return replace(self, decision=None, refusal=error)
        return replace(self, decision=decision, refusal=None, state=fold(self.evolve, self.state, decision.events))

    def then(self, events: Sequence[E] = (), directives: Sequence[D] | None = None) -> Self:
        """It led to exactly `events` and (if given) `directives`."""
        decision = self._decided()
        assert list(decision.events) == list(events), f"events:\n{_shown(decision.events)}\nwanted:\n{_shown(events)}"
        if directives is not None:
            found = decision.directives
            assert list(found) == list(directives), f"directives:\n{_shown(found)}\nwanted:\n{_shown(directives)}"
        return self

    def then_nothing(self) -> Self:
        """It changed nothing."""
        return self.then((), ())

    def then_refused(self, kind: type[ParacleError], match: str = "") -> Self:
        """It was refused with a `kind` whose text contains `match`."""
        assert isinstance(self.refusal, kind), f"wanted {kind.__name__}, got {self.refusal!r} and {self.decision!r}"
        assert match in str(self.refusal), f"{match!r} is not in {str(self.refusal)!r}"
        return self

    def then_state(self, check: Callable[[S], bool]) -> Self:
        """The state now passes `check`."""
        assert check(self.state), f"not of this state: {self.state!r}"
        return self

    def _decided(self) -> Decision[E, D]:
        assert self.refusal is None, f"refused: {self.refusal!r}"
        assert self.decision is not None, "nothing happened yet: say .when(…)"
        return self.decision


def scenario(machine: Any, initial: Any = None) -> Scenario[Any, Any, Any, Any]:
    """A scenario of `machine`, which begins in `initial` or in its own `initial`."""
    start = machine.initial if initial is None else initial
    return Scenario(machine.decide, machine.evolve, start)


def _shown(items: Sequence[object]) -> str:
    return "\n".join(f"  {item!r}" for item in items) or "  nothing"
