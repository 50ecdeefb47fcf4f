"""Whether the names of models stand for something: aliases, and the providers in `provider/model`."""

from __future__ import annotations

from collections.abc import Iterator

from paracle_domain.errors import Finding, quote
from paracle_domain.manifest import ModelDocument, ProviderDocument
from paracle_domain.names import suggest
from paracle_domain.provider.presets import PRESETS
from paracle_domain.provider.spec import DEFAULT, FROM_ENVIRONMENT, ModelSpec, is_deployment
from paracle_domain.provider.validation import validate_model
from paracle_registry.catalog import Catalog


def misnamed(catalog: Catalog, name: str) -> str | None:
    """Why `name` is no model that the tenant could ask; `None` if it may be one.

    What the operator set up besides is not known here: the names of such providers are, and `default` always is.
    """
    if is_deployment(name):
        return _misnamed_deployment(catalog, name)
    if name == DEFAULT or catalog.get("Model", name) is not None:
        return None
    near = suggest(name, {*catalog.names("Model"), DEFAULT})
    return f"there is no model {quote(name)}{near}; apply a manifest of kind Model, or write provider/model"


def _misnamed_deployment(catalog: Catalog, name: str) -> str | None:
    provider, _, model = name.partition("/")
    if not provider or not model:
        return f"{quote(name)} is no provider/model; write it like openai/gpt-5-mini"
    entry = catalog.get("Provider", provider)
    if entry is None:
        return None if provider in FROM_ENVIRONMENT else _no_provider(catalog, provider)
    assert isinstance(entry.manifest, ProviderDocument)
    spec = entry.manifest.spec
    if spec.only_listed and model not in spec.models:
        return f"provider {provider!r} has no model {quote(model)}{suggest(model, spec.models)}"
    return None


def _no_provider(catalog: Catalog, provider: str) -> str:
    if provider in PRESETS:
        return f"provider {provider!r} is not set up; apply a manifest of kind Provider with preset: {provider}"
    near = suggest(provider, {*catalog.names("Provider"), *FROM_ENVIRONMENT})
    return f"there is no provider {quote(provider)}{near}; apply a manifest of kind Provider"


def check_model(catalog: Catalog, name: str, spec: ModelSpec, label: str) -> Iterator[Finding]:
    """All that is wrong with the model `name`, and with what it leads to."""
    own = validate_model(name, spec)
    yield from (Finding(path=f"{label} {item.path}", message=item.message) for item in own)
    for index, route in enumerate(spec.routes):
        if (message := misnamed(catalog, route.model)) is not None:
            yield Finding(path=f"{label} spec.routes[{index}].model", message=message)
    for index, fallback in enumerate(spec.fallbacks):
        if (message := misnamed(catalog, fallback)) is not None:
            yield Finding(path=f"{label} spec.fallbacks[{index}]", message=message)
        elif (circle := _circle(catalog, name, fallback)) and fallback != name:
            message = f"it leads back here: {' → '.join((name, *circle))}"
            yield Finding(path=f"{label} spec.fallbacks[{index}]", message=message)


def _circle(catalog: Catalog, name: str, fallback: str) -> tuple[str, ...]:
    """The way from `fallback` back to `name`; empty if there is none."""
    ahead: list[tuple[str, ...]] = [(fallback,)]
    seen: set[str] = set()
    while ahead:
        way = ahead.pop()
        if way[-1] == name:
            return way
        entry = catalog.get("Model", way[-1])
        if entry is not None and isinstance(entry.manifest, ModelDocument) and way[-1] not in seen:
            seen.add(way[-1])
            ahead += [(*way, onward) for onward in entry.manifest.spec.fallbacks]
    return ()
