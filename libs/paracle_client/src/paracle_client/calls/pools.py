"""Worker pools: what they have to do, and draining them."""

from __future__ import annotations

from paracle_client.calls.call import Call, part_of
from paracle_domain.task.pools import PoolList, PoolView


def pools() -> Call[PoolList]:
    """Worker pools: what waits for each, who serves it, and whether anything new is taken."""
    return Call("GET", "/v1/pools", PoolList)


def get_pool(pool: str) -> Call[PoolView]:
    """One of them."""
    return Call("GET", f"/v1/pools/{part_of(pool)}", PoolView)


def drain_pool(pool: str, *, reason: str = "") -> Call[PoolView]:
    """Take no new tasks of a pool, in no process, until it is resumed; what is in hand is finished."""
    return Call("POST", f"/v1/pools/{part_of(pool)}/drain", PoolView, json={"reason": reason})


def resume_pool(pool: str) -> Call[PoolView]:
    """Take tasks of a pool again that was drained."""
    return Call("POST", f"/v1/pools/{part_of(pool)}/resume", PoolView)
