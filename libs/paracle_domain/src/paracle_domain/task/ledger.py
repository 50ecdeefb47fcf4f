"""The ledger of effects across the attempts of a step: what one attempt has done, the next does not do again."""

from __future__ import annotations

from collections.abc import Iterable

from paracle_domain.task import events as ev


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
