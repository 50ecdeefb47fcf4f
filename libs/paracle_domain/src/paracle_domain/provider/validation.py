"""What is wrong with a provider or a model, as far as it can be seen from itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from paracle_domain.errors import Finding, quote
from paracle_domain.names import suggest
from paracle_domain.provider.presets import PRESETS, endpoint_of
from paracle_domain.provider.spec import BUILTIN, SANDBOX, ModelSpec, ProviderSpec, Strategy

_SECRET: Final = re.compile(r"(?:^|[-_])(?:\w*key|\w*token|secret|cookie|\w*auth\w*|password)(?:$|[-_])", re.IGNORECASE)
"""Names that speak of secrets, which do not stand in manifests."""
_TRANSPORT: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "accept", "accept-encoding", "connection", "te"}
    | {"transfer-encoding", "upgrade", "expect", "trailer", "keep-alive"}
)
_NO_KEYS: Final = "keys do not stand in manifests; say where it is: key: {env: NAME, header: HEADER}"
_NOT_YOURS: Final = "this header is set by the request itself"


def validate_provider(name: str, spec: ProviderSpec) -> list[Finding]:
    """All that is wrong with the provider `name`, each with its path."""
    return [*_check_place(name, spec), *_check_headers(spec), *_check_models(spec)]


def _check_place(name: str, spec: ProviderSpec) -> Iterator[Finding]:
    if name in {SANDBOX, BUILTIN}:
        message = f"{name!r} is the built-in provider of that name, which nothing stands in for; use another name"
        yield Finding(path="metadata.name", message=message)
    if spec.preset is not None and spec.preset not in PRESETS:
        message = f"there is no preset {quote(spec.preset)}{suggest(spec.preset, PRESETS)}"
        yield Finding(path="spec.preset", message=message)
        return
    url = endpoint_of(spec).base_url
    if url is None:
        title = f"the preset {spec.preset} has none ({PRESETS[spec.preset].title})" if spec.preset else "no preset"
        yield Finding(path="spec.base_url", message=f"is required: {title}; give the base URL, with its /v1")
    elif not _leads_somewhere(url):
        yield Finding(path="spec.base_url", message=f"{quote(url)} has no host, or no port that can be")


def _leads_somewhere(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_headers(spec: ProviderSpec) -> Iterator[Finding]:
    carrier = (endpoint_of(spec).key_header or "").lower()
    for header in spec.headers:
        if _SECRET.search(header) or header.lower() == carrier:
            yield Finding(path=f"spec.headers.{header}", message=_NO_KEYS)
        elif header.lower() in _TRANSPORT:
            yield Finding(path=f"spec.headers.{header}", message=_NOT_YOURS)
    for name in spec.query:
        if _SECRET.search(name):
            yield Finding(path=f"spec.query.{name}", message=_NO_KEYS)
    if spec.key is not None and (spec.key.header or "").lower() in _TRANSPORT:
        yield Finding(path="spec.key.header", message=_NOT_YOURS)


def _check_models(spec: ProviderSpec) -> Iterator[Finding]:
    if not spec.only_listed:
        return
    if not spec.models:
        yield Finding(path="spec.only_listed", message="there are no models to list; name them in `models`")
    elif spec.default_model is not None and spec.default_model not in spec.models:
        message = f"{quote(spec.default_model)} is not in `models`{suggest(spec.default_model, spec.models)}"
        yield Finding(path="spec.default_model", message=message)


def validate_model(name: str, spec: ModelSpec) -> list[Finding]:
    """All that is wrong with the model `name`, each with its path."""
    return [*_check_routes(spec), *_check_fallbacks(name, spec)]


def _check_routes(spec: ModelSpec) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, route in enumerate(spec.routes):
        if route.model in seen:
            yield Finding(path=f"spec.routes[{index}].model", message=f"{quote(route.model)} is a route already")
        seen.add(route.model)
        if "weight" in route.model_fields_set and spec.strategy is not Strategy.WEIGHTED:
            message = f"counts for nothing where the strategy is {spec.strategy.value}; set strategy: weighted"
            yield Finding(path=f"spec.routes[{index}].weight", message=message)
    if spec.hedge is not None and len(spec.routes) == 1:
        yield Finding(path="spec.hedge", message="there is no second route that could be asked besides")


def _check_fallbacks(name: str, spec: ModelSpec) -> Iterator[Finding]:
    counts = Counter(spec.fallbacks)
    for index, fallback in enumerate(spec.fallbacks):
        if fallback == name:
            yield Finding(path=f"spec.fallbacks[{index}]", message="a model cannot be its own fallback")
        elif counts[fallback] > 1 and index > spec.fallbacks.index(fallback):
            yield Finding(path=f"spec.fallbacks[{index}]", message=f"{quote(fallback)} is a fallback already")
