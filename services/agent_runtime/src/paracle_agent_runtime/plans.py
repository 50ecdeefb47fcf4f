"""Plans by digest. What has the same digest is the same for ever, so a plan is fetched once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from paracle_agent_runtime.ports import PlanSource
from paracle_domain.envelope import Context
from paracle_domain.plan import Plan


class PlanCache:
    """The most recently used plans of each tenant; those who ask for the same at once share one question."""

    def __init__(self, source: PlanSource, capacity: int = 1_000) -> None:
        self._source = source
        self._capacity = capacity
        self._known: OrderedDict[tuple[str, str], Plan] = OrderedDict()
        self._asked: dict[tuple[str, str], asyncio.Task[Plan]] = {}

    def known(self, tenant: str, digest: str) -> Plan | None:
        """The plan, if it is here."""
        plan = self._known.get((tenant, digest))
        if plan is not None:
            self._known.move_to_end((tenant, digest))
        return plan

    async def get(self, digest: str, context: Context) -> Plan:
        """The plan with `digest`; see `PlanSource.get`."""
        key = (context.tenant, digest)
        plan = self.known(*key)
        if plan is not None:
            return plan
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(self._source.get(digest, context))
            asked.add_done_callback(lambda task: self._answered(key, task))
        return await asyncio.shield(asked)

    def _answered(self, key: tuple[str, str], task: asyncio.Task[Plan]) -> None:
        del self._asked[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._known[key] = task.result()
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
