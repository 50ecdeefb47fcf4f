"""Who the API says that calls: nobody can name himself, unless something that authenticates does."""

import httpx2
import pytest

from paracle_api_gateway.app import create_app
from paracle_api_gateway.edge import Edge
from paracle_domain.run.commands import ListRuns, RunPage

ANN = {"X-Paracle-Principal": "user:ann", "X-Paracle-Roles": "finance, lead"}


@pytest.fixture
async def trusting(world):
    """A client of an API that believes what is in front of it."""
    settings = world.settings.model_copy(update={"api_trust_identity": True})
    app = create_app(settings, bus=world.bus, bells=world.bells, outputs=world.outputs, check=world.check)
    transport = httpx2.ASGITransport(app=Edge(app, only_local=True), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as found:
        yield found


@pytest.fixture(autouse=True)
def answers(world):
    world.bus.answers[ListRuns] = RunPage(runs=())


async def test_everybody_is_anonymous_and_has_no_roles(client, world):
    assert (await client.get("/v1/runs")).status_code == 200
    [(_, context)] = world.bus.asked
    assert (context.principal, context.roles) == ("anonymous", ())


@pytest.mark.parametrize("headers", [ANN, {"x-paracle-principal": "ann"}, {"X-Paracle-Roles": "finance"}])
async def test_a_client_cannot_name_itself(client, world, headers):
    response = await client.get("/v1/runs", headers=headers)
    assert response.status_code == 403
    assert "PARACLE_API_TRUST_IDENTITY=true" in response.json()["detail"]
    assert world.bus.asked == []


async def test_what_authenticates_in_front_is_believed_if_that_is_set(trusting, world):
    assert (await trusting.get("/v1/runs", headers=ANN)).status_code == 200
    assert (await trusting.get("/v1/runs", headers={"X-Paracle-Principal": "bob"})).status_code == 200
    assert (await trusting.get("/v1/runs")).status_code == 200
    assert [(context.principal, context.roles) for _, context in world.bus.asked] == [
        ("user:ann", ("finance", "lead")),
        ("bob", ()),
        ("anonymous", ()),
    ]


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ([("X-Paracle-Roles", "finance")], "X-Paracle-Principal"),
        ([("X-Paracle-Principal", "ann"), ("x-paracle-principal", "eve")], "X-Paracle-Principal"),
        ([("X-Paracle-Principal", "ann"), ("X-Paracle-Roles", "a"), ("X-Paracle-Roles", "b")], "X-Paracle-Roles"),
        ([("X-Paracle-Principal", "ann lee")], "X-Paracle-Principal"),
        ([("X-Paracle-Principal", "")], "X-Paracle-Principal"),
        ([("X-Paracle-Principal", "ann"), ("X-Paracle-Roles", "two words")], "X-Paracle-Roles"),
        ([("X-Paracle-Principal", "ann"), ("X-Paracle-Roles", ",".join(map(str, range(101))))], "X-Paracle-Roles"),
    ],
)
async def test_what_cannot_be_meant_is_refused(trusting, world, headers, path):
    response = await trusting.get("/v1/runs", headers=headers)
    assert (response.status_code, response.json()["path"]) == (422, path)
    assert world.bus.asked == []
