"""The ledger of effects across the attempts of a step: what one attempt has done, the next does not do again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from paracle_domain.ids import derive_id
from paracle_domain.plan import PlannedTool
from paracle_domain.task import events as ev
from paracle_domain.task.effects import EffectState, EffectView, ProbeView, Resolution
from paracle_domain.task.messages import Task
from paracle_domain.task.state import MadeCall, TaskState, called_as

_MOST_ALIKE: Final = 1_000  # calls of one tool with the same arguments in one task


@dataclass(frozen=True, slots=True)
class Entry:
    """How a task left an effect with its event number `seq`. `sent`: whether it is that task that called the tool."""

    view: EffectView
    seq: int
    sent: bool


def entries(state: TaskState, events: Sequence[ev.TaskEvent], first_seq: int, at: datetime) -> tuple[Entry, ...]:
    """What `events` (the first is number `first_seq`), which led to `state`, change in the ledger: one entry a key."""
    calls = {call.id: call for call in state.calls}
    found: dict[str, Entry] = {}
    for seq, event in enumerate(events, start=first_seq):
        match event:
            case ev.EffectIntended():
                stands, reason = EffectState.INTENDED, None
            case ev.EffectSent():
                stands, reason = EffectState.SENT, None
            case ev.EffectConfirmed():
                stands, reason = EffectState.CONFIRMED, None
            case ev.EffectFailed():
                stands, reason = EffectState.FAILED, event.error.message
            case ev.EffectInDoubt():
                stands, reason = EffectState.IN_DOUBT, event.reason
            case ev.EffectProbed():
                stands, reason = EffectState.IN_DOUBT, _doubted(calls[event.call_id])
            case _:
                continue
        call = calls[event.call_id]
        found[event.key] = Entry(_view(state, call, event.key, stands, reason, at), seq, call.sent)
    return tuple(found.values())


def _view(
    state: TaskState, call: MadeCall, key: str, stands: EffectState, reason: str | None, at: datetime
) -> EffectView:
    task, tool = state.job.task, state.job.tools[call.tool]
    called = called_as(state, call) if stands is EffectState.IN_DOUBT else key
    return EffectView(
        key=key,
        state=stands,
        effect=tool.spec.effect,
        tool=call.tool,
        revision=tool.revision,
        run_id=task.run_id,
        step=task.step,
        attempt=task.attempt,
        task_id=task.task_id,
        call_id=call.id,
        scope=task.effect_scope,
        arguments_digest=call.fingerprint,
        reason=reason,
        called=called if called != key else None,
        probe=_probe(call, tool),
        intended_at=at,
        changed_at=at,
    )


def _doubted(call: MadeCall) -> str | None:
    """Why `call` is in doubt while it is probed. Once it is not any more, a later event says how it stands."""
    return call.doubt.reason if call.doubt is not None else None


def _probe(call: MadeCall, tool: PlannedTool) -> ProbeView | None:
    """What probes of `call` came to; nothing if it was never in need of one."""
    said = call.probed
    if tool.spec.probe is None or (said is None and call.doubt is None):
        return None
    return ProbeView(
        tool=tool.spec.probe.tool,
        tried=said.tried if said is not None else 0,
        outcome=said.outcome if said is not None else None,
        reason=said.reason if said is not None else None,
        open=call.doubt is not None,
    )


def believing(
    earlier: Iterable[ev.EarlierEffect], resolutions: Mapping[str, Resolution]
) -> tuple[ev.EarlierEffect, ...]:
    """`earlier` with what people found out about the effects in doubt: what was not done is not in it any more."""
    told = ((effect, None if effect.done else resolutions.get(effect.key)) for effect in earlier)
    return tuple(
        effect if found is None else _believed(effect.key, found)
        for effect, found in told
        if found is None or found.outcome == "done"
    )


def _believed(key: str, found: Resolution) -> ev.EarlierEffect:
    return ev.EarlierEffect(key=key, done=True, output=found.output)


def inherited(task: Task, doubtful: Iterable[EffectView]) -> tuple[ev.EarlierEffect, ...]:
    """What a task of a fork has to know of the `doubtful` effects of the run that it is forked from.

    A fork does its steps anew, under keys of its own. But what is in doubt must not be done again by itself, and what
    somebody knows to be done is not done twice.
    """
    found = []
    for effect in doubtful:
        key = _key_here(task, effect)
        if key is None or (effect.resolution is not None and effect.resolution.outcome == "not_done"):
            continue
        known = effect.resolution
        doubt = ev.EarlierEffect(key=key, called=effect.called or effect.key, done=False)
        found.append(doubt if known is None else _believed(key, known))
    return tuple(found)


def _key_here(task: Task, effect: EffectView) -> str | None:
    """The key of the same call in `task`; none if it is another task's."""
    if effect.scope != task.effect_scope:
        return None
    for nth in range(_MOST_ALIKE):
        parts = (effect.scope, effect.tool, effect.arguments_digest, nth)
        if derive_id("eff", effect.run_id, *parts) == effect.key:
            return derive_id("eff", task.run_id, *parts)
    return None


def earlier_effects(histories: Iterable[Iterable[ev.TaskEvent]]) -> tuple[ev.EarlierEffect, ...]:
    """What stands in the ledger after `histories`, those of the earlier attempts in their order."""
    found: dict[str, ev.EarlierEffect] = {}
    for history in histories:
        for effect in _of_one(history):
            known = found.get(effect.key)
            if known is None or not known.done:
                found[effect.key] = effect
    return tuple(found.values())


def _of_one(history: Iterable[ev.TaskEvent]) -> list[ev.EarlierEffect]:
    """Every effect of one attempt that was sent and is not known to have failed."""
    sent: dict[str, str] = {}
    confirmed: set[str] = set()
    returned: dict[str, ev.ToolReturned] = {}
    for event in history:
        match event:
            case ev.EffectSent():
                sent[event.key] = event.call_id
            case ev.EffectConfirmed():
                sent[event.key] = event.call_id
                confirmed.add(event.key)
            case ev.EffectFailed():
                sent.pop(event.key, None)
            case ev.ToolReturned():
                returned[event.call_id] = event
            case _:
                pass
    return [_effect(key, returned.get(call_id) if key in confirmed else None) for key, call_id in sent.items()]


def _effect(key: str, result: ev.ToolReturned | None) -> ev.EarlierEffect:
    if result is None:
        return ev.EarlierEffect(key=key, done=False)
    return ev.EarlierEffect(key=key, done=True, output=result.output, error=result.error)
