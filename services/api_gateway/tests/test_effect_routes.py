"""Effects over REST."""

from datetime import UTC, datetime

import pytest

from paracle_domain.ids import derive_id
from paracle_domain.task.effects import EffectFilter, EffectPage, EffectView, GetEffect, ListEffects, ResolveEffect

RUN = "run_01JDZ7T6C4W2V9M3N5K8Q0XHRB"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def an_effect():
    return EffectView(
        key=derive_id("eff", RUN, "pay"), state="in_doubt", effect="at_most_once", tool="pay", revision=1, run_id=RUN,
        step="pay", attempt=1, task_id=derive_id("task", RUN, "pay", 1), call_id="c", scope="pay",
        arguments_digest="d", intended_at=AT, changed_at=AT,
    )  # fmt: skip


async def test_effects_are_listed_and_shown(client, world):
    view = an_effect()
    world.bus.answers |= {ListEffects: EffectPage(effects=(view,)), GetEffect: view}
    query = f"state=in_doubt&tool=pay&run_id={RUN}&since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"
    listed = await client.get(f"/v1/effects?{query}&limit=3&cursor=c")
    assert EffectPage.model_validate(listed.json()).effects == (view,)
    assert EffectView.model_validate((await client.get(f"/v1/effects/{view.key}")).json()) == view
    which = EffectFilter(state="in_doubt", tool="pay", run_id=RUN, since=AT, until=AT.replace(day=2))
    assert [question for question, _ in world.bus.asked] == [
        ListEffects(filter=which, limit=3, cursor="c"),
        GetEffect(key=view.key),
    ]


async def test_an_effect_is_resolved(client, world):
    view = an_effect()
    world.bus.answers[ResolveEffect] = view
    body = {"outcome": "done", "output": {"id": 7}, "reason": "the bank says so"}
    answer = await client.post(f"/v1/effects/{view.key}/resolution", json=body)
    assert (answer.status_code, EffectView.model_validate(answer.json())) == (200, view)
    assert world.bus.commanded[0][0] == ResolveEffect(key=view.key, **body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/effects?since=2026-01-01T00:00:00", None),
        ("/v1/effects?state=perhaps", None),
        ("/v1/effects/7", None),
        (f"/v1/effects/{derive_id('eff', RUN, 'pay')}/resolution", {"outcome": "done"}),
        (f"/v1/effects/{derive_id('eff', RUN, 'pay')}/resolution", {"outcome": "perhaps", "reason": "r"}),
    ],
)
async def test_what_is_no_question_is_refused(client, path, body):
    answer = await (client.get(path) if body is None else client.post(path, json=body))
    assert answer.status_code == 422
