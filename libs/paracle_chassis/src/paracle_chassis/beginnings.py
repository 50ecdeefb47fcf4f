"""Answering which histories there are, for services that keep copies of them."""

from __future__ import annotations

from paracle_chassis.event_store import EventStore
from paracle_domain.envelope import Context
from paracle_domain.errors import Forbidden
from paracle_domain.histories import Beginnings, Begun, ListRunsBegun, ListTasksBegun
from paracle_domain.subjects import EVERYONE


async def list_begun(store: EventStore, request: ListRunsBegun | ListTasksBegun, call: Context) -> Beginnings:
    """The actors of `store` that `request` asks for.

    Raises
    ------
    Forbidden
        If it is asked on behalf of one tenant: the answer is about all of them.
    """
    if call.tenant != EVERYONE:
        raise Forbidden("only services may ask for the histories of all tenants")
    born = await store.born(request.since, request.after, request.until, request.limit)
    return Beginnings(begun=tuple(Begun(tenant=one.tenant, id=one.id, at=one.at) for one in born))
