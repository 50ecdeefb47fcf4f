"""Asking and answering, over real NATS."""

import asyncio

import nats
import pytest
from paracle_chassis.testing.sample import Echo, Echoed, Work

from paracle_chassis.nats_bus import NatsBus
from paracle_chassis.routes import Routes
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, Finding, InternalError, MalformedMessage, NotFound, RateLimited, Unavailable

pytestmark = pytest.mark.connected
CONTEXT = Context("acme", "user:ann", correlation_id="run_1")


async def echo(request: Echo, call: Context) -> Echoed:
    return Echoed(text=request.text, tenant=call.tenant)


async def test_an_answer_is_typed_and_the_tenant_is_that_of_the_subject(serve):
    table = Routes("testing")
    table.rpc(Echo, echo)
    await serve(table)
    bus = await serve()
    assert await bus.call(Echo(text="hi"), CONTEXT) == Echoed(text="hi", tenant="acme")


async def test_without_anybody_who_answers_it_is_unavailable_at_once(serve):
    bus = await serve()
    with pytest.raises(Unavailable, match="no testing is running"):
        await bus.call(Echo(text="hi"), CONTEXT, timeout_s=30)
