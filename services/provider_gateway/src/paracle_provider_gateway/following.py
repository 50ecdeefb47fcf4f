"""Following the registry: what each tenant set up.

The registry says at once that something changed; what changed is asked for before the tenant's next call. What was not
heard only delays: whoever is in use is asked about again in rounds, and everybody after the connection was lost. While
the registry is away, tenants are served by what is known of them; or by what was kept of it, of those that were not
heard of since the start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from paracle_chassis import outages
from paracle_domain.errors import DeadlineExceeded, Unavailable
from paracle_domain.registry import ProviderChange
from paracle_provider_gateway.ports import Registry, Setups
from paracle_provider_gateway.setups import Setup

CHECK_EVERY_S: Final = 30.0
_AGAIN_AFTER_S: Final = 1.0
_TENANTS_KEPT: Final = 10_000

log = logging.getLogger(__name__)

type SpecKey = tuple[str, str]
type Specs = Mapping[SpecKey, ProviderChange]
"""The newest manifests of a tenant, by kind and name."""
type Build = Callable[[str, Specs], Setup]
"""Makes the setup of a tenant."""


@dataclass(slots=True)
class _Tenant:
    """What is known of a tenant. `news` counts what was heard of changes, `read` how much of that was looked after.

    `stale`: `specs` are newer than `setup`; `unkept`: and than what is kept. `unanswered` counts the questions without
    an answer, of which `trouble` was the last one's.
    """

    setup: Setup | None = None
    specs: dict[SpecKey, ProviderChange] = field(default_factory=dict[SpecKey, ProviderChange])
    stale: bool = True
    unkept: bool = False
    version: int = 0
    news: int = 1
    read: int = 0
    ask_again_at: float = 0.0
    unanswered: int = 0
    trouble: str = ""
    used: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Following:
    """Knows the setups of tenants.

    Parameters
    ----------
    build
        Makes the setup of a tenant from its manifests, whenever they have changed.
    forget
        Is told of tenants that nobody asked for the longest, if there are too many.
    kept
        Where what is known is kept over restarts.
    """

    def __init__(self, registry: Registry, build: Build, forget: Callable[[str], None], kept: Setups) -> None:
        self._registry = registry
        self._build = build
        self._forget = forget
        self._kept = kept
        self._tenants: dict[str, _Tenant] = {}

    async def setup(self, tenant: str) -> Setup:
        """What `tenant` set up, as of the last change that was told.

        Raises
        ------
        Unavailable
            If nothing is known of it nor kept, and the registry does not answer.
        """
        known = self._tenants.get(tenant)
        if known is not None and known.read == known.news and known.setup is not None:
            known.used = True
            return known.setup
        return await self._asked(tenant, known or self._add(tenant))

    def hear(self, tenant: str) -> None:
        """Something of `tenant` changed."""
        if (known := self._tenants.get(tenant)) is not None:
            known.news += 1
            known.ask_again_at = 0.0

    def doubt(self) -> None:
        """Changes may have gone unheard."""
        for tenant in self._tenants:
            self.hear(tenant)

    async def round(self) -> None:
        """Ask about all who were used since the last round; the others will be asked about when they are.

        Raises
        ------
        Unavailable
            If the registry does not answer.
        """
        for tenant, known in list(self._tenants.items()):
            known.news += 1
            async with known.lock:
                if known.unkept:
                    await self._keep(tenant, known)
            if known.used and self._tenants.get(tenant) is known:  # others may have taken its place meanwhile
                known.used = False
                self._tenants[tenant] = self._tenants.pop(tenant)  # whoever stands first is forgotten first
                await self._read(tenant, known)

    async def _asked(self, tenant: str, known: _Tenant) -> Setup:
        known.used = True
        if known.setup is not None and asyncio.get_running_loop().time() < known.ask_again_at:
            return known.setup
        try:
            return await self._read(tenant, known)
        except Unavailable as error:
            if known.setup is None:
                raise
            known.ask_again_at = asyncio.get_running_loop().time() + _AGAIN_AFTER_S
            log.warning("providers may be out of date", extra={"tenant": tenant, "error": error.message})
            return known.setup

    async def _read(self, tenant: str, known: _Tenant) -> Setup:
        """The setup as the registry has it now; callers at the same time ask once, answered or not."""
        wanted, unanswered = known.news, known.unanswered
        async with known.lock:
            if known.setup is not None and known.read >= wanted:
                return known.setup
            if known.unanswered > unanswered:
                raise Unavailable(known.trouble)
            heard = known.news
            try:
                await self._take_in(tenant, known)
            except Unavailable as error:
                known.unanswered += 1
                known.trouble = error.message
                if known.setup is None:
                    known.setup = await self._remembered(tenant)
                raise
            if known.stale or known.setup is None:
                known.setup, known.stale = self._build(tenant, known.specs), False
                await self._keep(tenant, known)
            known.read = heard
            return known.setup

    async def _remembered(self, tenant: str) -> Setup | None:
        """The setup as it was kept; the registry, once it answers, tells everything anew."""
        try:
            manifests = await self._kept.kept(tenant)
        except Exception as error:  # told; nothing is known, as if nothing were kept
            log.warning("what was kept cannot be read", extra={"tenant": tenant}, exc_info=_unexpected(error))
            return None
        if manifests is None:
            return None
        specs: dict[SpecKey, ProviderChange] = {}
        for change in manifests:
            _learn(specs, change)
        return self._build(tenant, specs)

    async def _keep(self, tenant: str, known: _Tenant) -> None:
        try:
            await self._kept.keep(tenant, known.version, list(known.specs.values()))
        except Exception as error:  # told; the next round tries again, and no call waits for it
            log.warning("providers are not kept", extra={"tenant": tenant}, exc_info=_unexpected(error))
            known.unkept = True
        else:
            known.unkept = False

    async def _take_in(self, tenant: str, known: _Tenant) -> None:
        more = True
        while more:
            try:
                answer = await self._registry.changes(tenant, known.version)
            except DeadlineExceeded as error:
                raise Unavailable(f"the registry does not answer: {error.message}") from error
            for change in answer.changes:
                _learn(known.specs, change)
                known.stale = True
            known.version, more = max(known.version, answer.version), answer.more

    def _add(self, tenant: str) -> _Tenant:
        if len(self._tenants) >= _TENANTS_KEPT:
            oldest = next(iter(self._tenants))
            del self._tenants[oldest]
            self._forget(oldest)
        return self._tenants.setdefault(tenant, _Tenant())


def _learn(specs: dict[SpecKey, ProviderChange], change: ProviderChange) -> None:
    key = (change.kind, change.name)
    if change.spec is None:
        specs.pop(key, None)
    else:
        specs[key] = change


def _unexpected(error: Exception) -> Exception | None:
    """`error`, if its story is worth telling."""
    return None if outages.is_outage(error) else error
