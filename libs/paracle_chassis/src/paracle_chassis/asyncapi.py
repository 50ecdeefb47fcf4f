"""The AsyncAPI 3.0 document of a routing table, drawn up by FastStream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.specification import AsyncAPI

from paracle_chassis.routes import MailboxRoute, Routes, RpcRoute
from paracle_domain import subjects

VERSION: Final = "1.0.0"


def document(routes: Routes) -> Mapping[str, Any]:
    """What `routes` answers, obeys and hears; the broker that it is drawn from is never started."""
    broker = NatsBroker(logger=None)
    for rpc in routes.rpcs:
        _declare_rpc(broker, routes.service, rpc)
    for mailbox in routes.mailboxes:
        _declare_mailbox(broker, mailbox)
    for listen in routes.listens:
        title = f"{routes.service}.hears.{listen.subject}"
        broker.subscriber(listen.subject, title=title, no_reply=True)(_undefined(bytes, None))
    specification = AsyncAPI(broker, title=f"paracle {routes.service}", version=VERSION, schema_version="3.0.0")
    found: Mapping[str, Any] = specification.to_specification().to_jsonable()
    return found


def _declare_rpc(broker: NatsBroker, service: str, route: RpcRoute) -> None:
    subject = subjects.rpc("{tenant}", service, route.method)
    broker.subscriber(
        subject,
        queue=service,
        title=f"{service}.{route.method}",
        description=route.request.__doc__,
    )(_undefined(route.request, route.request.answer))


def _declare_mailbox(broker: NatsBroker, route: MailboxRoute) -> None:
    broker.subscriber(
        route.filter,
        stream=JStream(route.stream, declare=False),
        durable=route.durable,
        pull_sub=PullSub(batch_size=route.batch),
        ack_policy=AckPolicy.MANUAL,
        title=f"{route.stream}.{route.durable}",
        description=route.handler.__doc__,
    )(_undefined(list[bytes], None))


def _undefined(takes: Any, gives: Any) -> Callable[[Any], Awaitable[Any]]:
    """A handler that only has a signature: FastStream reads types from it."""

    async def handler(message: Any) -> Any:
        raise AssertionError(f"declared only, but called with {message!r}")

    handler.__annotations__ = {"message": takes, "return": gives}
    return handler
