"""Signals: what a run is told from outside, and the steps that wait for it."""

from __future__ import annotations

from paracle_domain.errors import DeadlineExceeded
from paracle_domain.run.draft import Draft
from paracle_domain.run.events import SignalReceived, StepCompleted
from paracle_domain.run.inbox import Signal
from paracle_domain.run.nodes import Node
from paracle_domain.run.state import StepState, Waiting
from paracle_domain.run.timing import due


def receive(draft: Draft, message: Signal) -> None:
    """Keep a signal, and hand it on if a step waits for it. The same message counts once."""
    state = draft.state
    if state.started is None or state.terminal or message.id in state.aside.heard:
        return
    draft.happen(SignalReceived(id=message.id, name=message.name, payload=message.payload, principal=message.principal))
    take(draft, message.name)


def take(draft: Draft, name: str) -> None:
    """Give signals called `name` to the steps that wait for one, to the one that has waited longest first."""
    kept = next((signal for signal in draft.state.aside.signals if signal.name == name), None)
    node = _first_waiting(draft, name)
    if kept is None or node is None:
        return
    draft.happen(StepCompleted(step=node.name, attempt=0, output=kept.payload, signal=kept.id))
    draft.after(node)


def _first_waiting(draft: Draft, name: str) -> Node | None:
    waiting = [
        (step.started_at or draft.now, place)
        for place, step in draft.state.table.open_entries()
        if isinstance(step.detail, Waiting) and step.detail.signal == name
    ]
    return draft.nodes[draft.state.graph.order[min(waiting)[1]]] if waiting else None


def tick(draft: Draft, node: Node, step: StepState, waiting: Waiting) -> None:
    """Time has come to a step that waits: it goes on, or has waited too long."""
    if due(waiting.until, draft.now):
        draft.complete(node)
    elif due(step.deadline_at, draft.now):
        late = DeadlineExceeded(f"the wait did not end within the step's timeout_s of {node.spec.timeout_s:g} s")
        draft.fail(node, late.to_info(), timed_out=True)
