"""Worker pools over REST."""

import pytest

from paracle_domain.task.pools import DrainPool, GetPool, ListPools, PoolList, PoolView, ResumePool

GPU = PoolView(pool="gpu", state="open", waiting=1, in_hand=0, concurrency=4)


async def test_pools_are_listed_and_shown(client, world):
    world.bus.answers |= {ListPools: PoolList(pools=(GPU,)), GetPool: GPU}
    assert PoolList.model_validate((await client.get("/v1/pools")).json()).pools == (GPU,)
    assert PoolView.model_validate((await client.get("/v1/pools/gpu")).json()) == GPU
    assert [question for question, _ in world.bus.asked] == [ListPools(), GetPool(pool="gpu")]


async def test_a_pool_is_drained_and_resumed(client, world):
    world.bus.answers |= {DrainPool: GPU, ResumePool: GPU}
    drained = await client.post("/v1/pools/gpu/drain", json={"reason": "new drivers"})
    resumed = await client.post("/v1/pools/gpu/resume")
    assert [(each.status_code, PoolView.model_validate(each.json())) for each in (drained, resumed)] == [(200, GPU)] * 2
    commands = [command for command, *_ in world.bus.commanded]
    assert commands == [DrainPool(pool="gpu", reason="new drivers"), ResumePool(pool="gpu")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/pools/GPU/drain", {}),
        ("/v1/pools/a.b/resume", {}),
        ("/v1/pools/gpu/drain", {"why": "typo"}),
        ("/v1/pools/gpu/drain", {"reason": "x" * 1_001}),
    ],
)
async def test_what_is_no_order_is_refused(client, path, body):
    assert (await client.post(path, json=body)).status_code == 422
