"""Signals: what a run is told from outside, and the steps that wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paracle_domain.errors import Conflict, DeadlineExceeded, LimitExceeded, ParacleError
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import SignalReceived, StepCompleted
from paracle_domain.run.inbox import Signal
from paracle_domain.run.nodes import Node
from paracle_domain.run.state import RunState, StepState, Waiting
from paracle_domain.run.timing import due

MOST_KEPT: Final = 1_000
"""Signals of one run that no step has taken: they are held in memory, and found one by one."""


def receive(draft: Draft, message: Signal) -> None:
    """Keep a signal, and hand it on if a step waits for it. The same message counts once."""
    state = draft.state
    if state.started is None or message.id in state.aside.heard or objection(state, message) is not None:
        return
    draft.happen(SignalReceived(id=message.id, name=message.name, payload=message.payload, principal=message.principal))
    take(draft, message.name)


def objection(state: RunState, message: Signal) -> ParacleError | None:
    """Why a signal does not reach a run that stands as `state` does; nothing if it does, or did when it came first."""
    if message.id in state.aside.heard:
        return None
    if state.terminal:
        return Conflict(f"the run is {state.status}; signals do not reach it any more")
    if len(state.aside.signals) < MOST_KEPT or any(True for _ in _waiting(state, message.name)):
        return None
    return LimitExceeded(
        f"{MOST_KEPT:,} signals of this run wait to be taken by a step, and it keeps no more; send it again once steps "
        "have taken some"
    )


def take(draft: Draft, name: str) -> None:
    """Give signals called `name` to the steps that wait for one, to the one that has waited longest first."""
    kept = next((signal for signal in draft.state.aside.signals if signal.name == name), None)
    node = _first_waiting(draft, name)
    if kept is None or node is None:
        return
    draft.happen(StepCompleted(step=node.name, attempt=0, output=kept.payload, signal=kept.id))
    draft.after(node)


def _first_waiting(draft: Draft, name: str) -> Node | None:
    waiting = [(step.started_at or draft.now, place) for place, step in _waiting(draft.state, name)]
    return draft.nodes[draft.state.graph.order[min(waiting)[1]]] if waiting else None


def _waiting(state: RunState, name: str) -> Iterator[tuple[int, StepState]]:
    for place, step in state.table.open_entries():
        if isinstance(step.detail, Waiting) and step.detail.signal == name:
            yield place, step


def tick(draft: Draft, node: Node, step: StepState, waiting: Waiting) -> None:
    """Time has come to a step that waits: it goes on, or has waited too long."""
    if due(waiting.until, draft.now):
        draft.complete(node)
    elif due(step.deadline_at, draft.now):
        late = DeadlineExceeded(f"the wait did not end within the step's timeout_s of {node.spec.timeout_s:g} s")
        draft.fail(node, late.to_info(), timed_out=True)
