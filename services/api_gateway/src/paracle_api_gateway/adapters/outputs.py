"""What tasks say, read from the stream OUTPUT without a consumer: a page a request, so that nobody keeps a place."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from nats.errors import Error as NatsError
from pydantic import ValidationError

from paracle_api_gateway.adapters.nats import NatsBells
from paracle_api_gateway.ports import Heard
from paracle_chassis.link import status_of
from paracle_domain import subjects
from paracle_domain.envelope import CE_TYPE
from paracle_domain.errors import Unavailable
from paracle_domain.inference.deltas import Delta
from paracle_domain.inference.retrying import Retried, Retrying
from paracle_domain.task.output import BudgetProgress, Said, SummaryProgress, ToolProgress

if TYPE_CHECKING:
    from paracle_chassis.inlet import Incoming
    from paracle_chassis.link import Link

_GET: Final = f"$JS.API.DIRECT.GET.{subjects.OUTPUT}"
_SEQUENCE: Final = "Nats-Sequence"
_TIMEOUT_S: Final = 5.0
log = logging.getLogger(__name__)


class NatsOutputs:
    """`Outputs` on the service's connection."""

    def __init__(self, link: Link, bells: NatsBells) -> None:
        self._link = link
        self._bells = bells

    @asynccontextmanager
    async def watch(self, tenant: str, task_id: str) -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
        """See `Outputs.watch`."""
        async with (
            self._bells.hear(subjects.out(tenant, task_id)) as said,
            self._bells.hear(subjects.evt(tenant, "task", task_id, subjects.ANY)) as happened,
        ):
            yield said, happened

    async def read(self, tenant: str, task_id: str, after: int, limit: int) -> Sequence[Heard]:
        """See `Outputs.read`."""
        subject = subjects.out(tenant, task_id)
        found = await self._page(subject, after, limit)
        if not found and after and await self._last(subject) < after:
            found = await self._page(subject, 0, limit)
        heard = _heard(found)
        while found and not heard:  # a page of what cannot be read is no end
            found = await self._page(subject, _place(found[-1].headers or {}), limit)
            heard = _heard(found)
        return heard

    async def _page(self, subject: str, after: int, limit: int) -> list[Incoming]:
        return await self._get({"seq": after + 1, "next_by_subj": subject, "batch": limit})

    async def _last(self, subject: str) -> int:
        """The place of the last that was said; beyond all places, if nothing is left."""
        found = await self._get({"last_by_subj": subject})
        return _place(found[-1].headers or {}) if found else 2**63

    async def _get(self, question: Mapping[str, Any]) -> list[Incoming]:
        found: list[Incoming] = []
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def on_message(_more: str, message: Incoming) -> None:
            status = status_of(message)
            if status is None:
                found.append(message)
            if (status is not None or "batch" not in question) and not done.done():
                done.set_result(status)

        reply = self._link.inbox.expect(on_message)
        try:
            await self._link.client.publish(_GET, json.dumps(question).encode(), reply)
            async with asyncio.timeout(_TIMEOUT_S):
                status = await done
        except (NatsError, OSError) as error:  # TimeoutError among them
            raise Unavailable(f"what tasks say cannot be read now: {type(error).__name__}") from error
        finally:
            self._link.inbox.forget(reply)
        if status not in {None, "204", "404"}:  # whole, at its end, and nothing there
            raise Unavailable(f"what tasks say cannot be read now: NATS answers {status}")
        return found


def _place(headers: Mapping[str, str]) -> int:
    return int(headers.get(_SEQUENCE, "0"))


def _heard(messages: Sequence[Incoming]) -> list[Heard]:
    return [heard for message in messages if (heard := _read(message)) is not None]


def _read(message: Incoming) -> Heard | None:
    """What a message says; nothing, if a newer writer says something unknown, or it is malformed."""
    headers = message.headers or {}
    kind: type[Said]
    match headers.get(CE_TYPE):
        case Delta.type_name:
            kind = Delta
        case ToolProgress.type_name:
            kind = ToolProgress
        case SummaryProgress.type_name:
            kind = SummaryProgress
        case BudgetProgress.type_name:
            kind = BudgetProgress
        case Retrying.type_name:
            kind = Retrying
        case Retried.type_name:
            kind = Retried
        case _:
            return None
    try:
        return Heard(_place(headers), kind.model_validate_json(message.data))
    except ValidationError as error:
        log.warning("what a task said cannot be read: %s", error, extra={"seq": _place(headers)})
        return None
