"""Transactions of replicas that get in each other's way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg

_TRIES: Final = 5
_CLASHES: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError)


async def in_turns[R](transaction: Callable[[], Awaitable[R]]) -> R:
    """What `transaction` gives; it is done again where another one got in its way."""
    for _ in range(_TRIES - 1):
        try:
            return await transaction()
        except _CLASHES:
            continue
    return await transaction()
