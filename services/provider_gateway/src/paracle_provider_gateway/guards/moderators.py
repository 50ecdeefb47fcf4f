"""Models for moderation, asked as others are: by name, in turn, with breakers and retries, and kept in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from paracle_chassis.portions import portions
from paracle_domain.envelope import Context
from paracle_domain.errors import BudgetExceeded, DeadlineExceeded
from paracle_domain.guard.spec import ModerationGuard
from paracle_domain.ids import new_id
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import Complete
from paracle_provider_gateway.accounts import Accounts
from paracle_provider_gateway.persistence import Persistence
from paracle_provider_gateway.plans import Catalog
from paracle_provider_gateway.ports import Judgement, Judgements

AT_ONCE: Final = 32
"""Texts in one request."""


class ModelModerator:
    """`Moderator`: the models of providers."""

    def __init__(self, catalog: Catalog, persistence: Persistence, accounts: Accounts) -> None:
        self._catalog = catalog
        self._persistence = persistence
        self._accounts = accounts

    async def judge(
        self, spec: ModerationGuard, texts: Sequence[str], request: Complete, context: Context
    ) -> Sequence[Judgement]:
        """See `Moderator.judge`."""
        found: list[Judgement] = []
        try:
            async with asyncio.timeout(spec.timeout_s):
                for some in portions(texts, AT_ONCE):
                    found += await self._asked(spec, some, request, context)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{spec.model} did not answer within {spec.timeout_s:g} s") from error
        return found

    async def _asked(
        self, spec: ModerationGuard, texts: Sequence[str], request: Complete, context: Context
    ) -> tuple[Judgement, ...]:
        asked = Moderate(
            call_id=new_id("call"),
            model=spec.model,
            texts=tuple(texts),
            priority=request.priority,
            timeout_s=spec.timeout_s,
            labels=request.labels,
        )
        deadline = asyncio.get_running_loop().time() + spec.timeout_s
        try:
            plan = await self._catalog.plan(context.tenant, asked)
            found = await self._persistence.answer(plan, asked, context, deadline)
        except BudgetExceeded as error:  # what it says of another model is not for the one that is guarded
            details = {name: value for name, value in error.details.items() if name != "model"}
            raise BudgetExceeded(error.message, details=details) from error
        finally:
            self._accounts.done(context.tenant, asked.call_id)
        reply = found.answered.reply
        assert isinstance(reply, Judgements)
        return reply.judgements
