"""Makes the providers that tenants set up, and gives up those that they changed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NoReturn

from pydantic import BaseModel, ValidationError

from paracle_domain.errors import Forbidden, NotFound, ParacleError
from paracle_domain.provider.presets import Endpoint, endpoint_of
from paracle_domain.provider.spec import Api, KnownModel, ModelSpec, ProviderSpec
from paracle_domain.provider.spec import Timeouts as TimeoutsSpec
from paracle_domain.registry import ProviderChange
from paracle_provider_gateway.adapters.config import Api as WireApi
from paracle_provider_gateway.adapters.config import KeyHeader, ProviderConfig, no_key
from paracle_provider_gateway.adapters.create import create_provider
from paracle_provider_gateway.adapters.resolver import THREADS, CheckedResolver, Lookups
from paracle_provider_gateway.capabilities import known_of
from paracle_provider_gateway.following import Specs
from paracle_provider_gateway.hosts import HostRules
from paracle_provider_gateway.keys import KeyRing
from paracle_provider_gateway.plans import Deployment, Timeouts
from paracle_provider_gateway.ports import Provider
from paracle_provider_gateway.retries import RetryPolicy
from paracle_provider_gateway.setups import Deploy, Offer, Setup

LONGEST_CALL_S: Final = 3_600.0
"""What `Complete.timeout_s` allows: after so long, no call can be left that began with a provider which was changed."""

SWEEP_EVERY_S: Final = 300.0

log = logging.getLogger(__name__)

_APIS: Final[Mapping[Api, WireApi]] = {
    Api.OPENAI_CHAT: "openai-chat",
    Api.OPENAI_RESPONSES: "openai-responses",
    Api.ANTHROPIC: "anthropic",
}


@dataclass(frozen=True, slots=True)
class _Made:
    """A provider as one revision of a manifest has it; none if it may not be asked."""

    revision: int
    provider: Provider | None
    offer: Offer


class Workshop:
    """Setups of tenants, with adapters that are kept as long as their manifests are.

    Parameters
    ----------
    operators
        Makes deployments of what is the operator's.
    retire
        Is told of providers that no new call will use.
    retry, timeouts
        What holds where manifests say nothing.
    """

    def __init__(
        self,
        operators: Deploy,
        keys: KeyRing,
        hosts: HostRules,
        retire: Callable[[Provider], None],
        *,
        retry: RetryPolicy,
        timeouts: Timeouts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operators = operators
        self._keys = keys
        self._hosts = hosts
        self._tell_retired = retire
        self._retry = retry
        self._timeouts = timeouts
        self._clock = clock
        self._made: dict[str, dict[str, _Made]] = {}
        self._retired: list[tuple[float, Provider]] = []
        self._lookups: dict[str, Lookups] = {}
        self._threads = ThreadPoolExecutor(THREADS, "lookup")

    def build(self, tenant: str, specs: Specs) -> Setup:
        """What the manifests of `tenant` come to. Calls in the air go on with what they began with."""
        old = self._made.get(tenant, {})
        changes = [change for change in specs.values() if change.kind == "Provider"]
        made = {change.name: self._of(tenant, change, old.get(change.name)) for change in changes}
        self._retire(each for name, each in old.items() if made.get(name) is not each)
        self._made[tenant] = made
        models = {change.name: model for change in specs.values() if (model := _model(tenant, change)) is not None}
        return Setup(self._operators, self._retry, {name: each.offer for name, each in made.items()}, models)

    def forget(self, tenant: str) -> None:
        """Nobody asked for `tenant` for long."""
        self._retire(self._made.pop(tenant, {}).values())
        self._lookups.pop(tenant, None)

    async def round(self) -> None:
        """Give up what no call can use any more."""
        over = self._clock() - LONGEST_CALL_S
        while self._retired and self._retired[0][0] < over:
            await self._retired.pop(0)[1].close()

    async def close(self) -> None:
        """Give up everything."""
        for tenant in list(self._made):
            self.forget(tenant)
        for _, provider in self._retired:
            await provider.close()
        self._retired.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _retire(self, made: Iterable[_Made]) -> None:
        now = self._clock()
        for each in made:
            if each.provider is not None:
                self._tell_retired(each.provider)
                self._retired.append((now, each.provider))

    def _of(self, tenant: str, change: ProviderChange, old: _Made | None) -> _Made:
        if old is not None and old.revision == change.revision:
            return old
        try:
            spec = _read(ProviderSpec, change)
            endpoint = endpoint_of(spec)
            config = self._config(tenant, change.name, spec, endpoint)
            lookups = self._lookups.setdefault(tenant, Lookups(self._threads))
            provider = create_provider(config, CheckedResolver(change.name, self._hosts, lookups))
        except ParacleError as problem:
            log.warning("a provider cannot be asked", extra={"tenant": tenant, "error": problem.message})
            return _Made(change.revision, None, Offer(partial(_refuse, problem)))
        deploy = partial(self._deploy, tenant, provider, spec, endpoint)
        shown = dict.fromkeys([*([spec.default_model] if spec.default_model else ()), *spec.models])
        offer = Offer(deploy, tuple(shown), frozenset(spec.models) if spec.only_listed else None)
        return _Made(change.revision, provider, offer)

    def _config(self, tenant: str, name: str, spec: ProviderSpec, endpoint: Endpoint) -> ProviderConfig:
        """What its adapter is told; raises why it may not be asked."""
        url = endpoint.base_url
        if url is None:
            raise _unreadable(name)
        self._hosts.check_url(name, url)
        if endpoint.key is not None:
            self._hosts.check_key(name, endpoint.key.name, url)
        if spec.transport == "sdk" and not self._hosts.is_named(url):
            what = (
                "transport: sdk looks names up unchecked; only hosts of presets and PARACLE_PROVIDER_HOSTS may have it"
            )
            raise Forbidden(f"provider {name!r}: {what}", path="transport")
        return ProviderConfig(
            name,
            _APIS[endpoint.api],
            url,
            key=no_key if endpoint.key is None else self._keys.supply(endpoint.key, tenant),
            key_source=f"the key {endpoint.key.name}" if endpoint.key is not None else "the provider's key",
            key_header=_key_header(endpoint),
            headers=spec.headers,
            query=spec.query,
            model=spec.default_model,
            model_source=f"default_model of the provider {name}",
            quirks=endpoint.quirks,
            connect_s=spec.timeouts.connect_s or self._timeouts.connect_s,
            transport="sdk" if spec.transport == "sdk" else "aiohttp",
        )

    def _deploy(
        self, tenant: str, provider: Provider, spec: ProviderSpec, endpoint: Endpoint, model: str
    ) -> Deployment:
        known = spec.models.get(model, KnownModel())
        return Deployment(
            provider,
            model,
            tenant=tenant,
            timeouts=_timeouts(self._timeouts, spec.timeouts, known.timeouts),
            limits=known.limits or spec.limits,
            capabilities=known.capabilities.over(known_of(model)),
            price=known.price,
            price_url=endpoint.base_url,
        )


def _refuse(problem: ParacleError, _model: str) -> NoReturn:
    raise problem


def _model(tenant: str, change: ProviderChange) -> ModelSpec | None:
    try:
        return _read(ModelSpec, change) if change.kind == "Model" else None
    except ParacleError as problem:
        log.warning("a model cannot be asked", extra={"tenant": tenant, "error": problem.message})
        return None


def _read[S: BaseModel](kind: type[S], change: ProviderChange) -> S:
    """What a manifest says, of which a registry that is newer than this gateway may have taken more."""
    try:
        return kind.model_validate_json(json.dumps(change.spec), strict=True)
    except ValidationError as error:
        raise _unreadable(change.name) from error


def _unreadable(name: str) -> NotFound:
    what = f"{name!r} says what this provider gateway does not know; is the gateway older than the registry?"
    return NotFound(f"the manifest of {what}", path="model")


def _key_header(endpoint: Endpoint) -> KeyHeader:
    header = endpoint.key_header
    return KeyHeader() if header is None or header.lower() == "authorization" else KeyHeader(header, "")


def _timeouts(usual: Timeouts, *said: TimeoutsSpec | None) -> Timeouts:
    """The later say it best."""
    fields = {name: value for each in said if each is not None for name, value in each if value is not None}
    return replace(usual, **fields)
