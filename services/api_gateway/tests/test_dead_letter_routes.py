"""What the routes of dead letters ask of observability."""

import pytest
from api_fakes import AT, RUN

from paracle_domain.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterPage,
    DeadLettersSettled,
    DeadLetterView,
    DropDeadLetter,
    DropDeadLetters,
    GetDeadLetter,
    ListDeadLetters,
    RedriveDeadLetter,
    RedriveDeadLetters,
    dead_letter_id,
)
from paracle_domain.errors import NotFound

LETTER = dead_letter_id("example")
ABOUT = DeadLetter(
    id=LETTER,
    service="orchestrator",
    code="internal",
    reason="it broke",
    type="task.result",
    message_id="m",
    principal="ann",
    run_id=RUN,
    at=AT,
)
DONE = DeadLettersSettled(settled=(LETTER,), until=AT, after="place")


async def test_letters_are_listed_and_shown(client, world):
    page = DeadLetterPage(letters=(ABOUT,), next_cursor="n")
    view = DeadLetterView(letter=ABOUT, headers={"own": "x"}, text="{}")
    world.bus.answers |= {ListDeadLetters: page, GetDeadLetter: view}
    query = f"service=orchestrator&code=internal&run_id={RUN}&since=2026-01-01T00:00:00Z&limit=7&cursor=c"
    listed = await client.get(f"/v1/dead-letters?{query}")
    assert DeadLetterPage.model_validate(listed.json()) == page
    which = DeadLetterFilter.model_validate(
        {"service": "orchestrator", "code": "internal", "run_id": RUN, "since": "2026-01-01T00:00:00Z"}
    )
    assert world.bus.asked[0][0] == ListDeadLetters(which=which, limit=7, cursor="c")
    shown = await client.get(f"/v1/dead-letters/{LETTER}")
    assert DeadLetterView.model_validate(shown.json()) == view


async def test_one_letter_is_settled(client, world):
    world.bus.answers |= {RedriveDeadLetter: DONE, DropDeadLetter: DONE}
    redriven = await client.post(f"/v1/dead-letters/{LETTER}/redrive")
    assert DeadLettersSettled.model_validate(redriven.json()) == DONE
    assert (await client.post(f"/v1/dead-letters/{LETTER}/drop", json={"reason": "old"})).status_code == 200
    assert [asked for asked, _ in world.bus.asked] == [
        RedriveDeadLetter(id=LETTER),
        DropDeadLetter(id=LETTER, reason="old"),
    ]


async def test_letters_are_settled_by_what_they_are(client, world):
    world.bus.answers |= {RedriveDeadLetters: DONE, DropDeadLetters: DONE}
    body = {"code": "internal", "limit": 9, "after": "place", "until": AT.isoformat()}
    assert (await client.post("/v1/dead-letters/redrive", json=body)).status_code == 200
    assert (await client.post("/v1/dead-letters/drop", json={"all": True, "reason": "old"})).status_code == 200
    assert [asked for asked, _ in world.bus.asked] == [
        RedriveDeadLetters(which=DeadLetterFilter(code="internal", until=AT), limit=9, after="place"),
        DropDeadLetters(reason="old"),
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/dead-letters/redrive", {}),
        ("POST", "/v1/dead-letters/redrive", {"code": None}),
        ("POST", "/v1/dead-letters/redrive", {"codes": "x"}),
        ("POST", "/v1/dead-letters/drop", {"all": True}),
        ("POST", f"/v1/dead-letters/{LETTER}/drop", {}),
        ("POST", f"/v1/dead-letters/{LETTER}/drop", {"reason": ""}),
        ("POST", "/v1/dead-letters/dead_1/redrive", None),
        ("GET", "/v1/dead-letters/redrive", None),
        ("GET", "/v1/dead-letters?run_id=run_1", None),
        ("GET", "/v1/dead-letters?since=yesterday", None),
        ("GET", "/v1/dead-letters?since=2026-01-01T00:00:00", None),
        ("GET", "/v1/dead-letters?until=2026-01-01T00:00:00", None),
    ],
)
async def test_what_is_not_meant_is_refused_and_asked_of_nobody(client, world, method, path, body):
    response = await client.request(method, path, json=body)
    assert response.status_code == 422
    assert response.json()["path"]
    assert world.bus.asked == []


async def test_a_letter_that_is_gone(client, world):
    world.bus.answers[RedriveDeadLetter] = NotFound("gone", path="id")
    assert (await client.post(f"/v1/dead-letters/{LETTER}/redrive")).status_code == 404
