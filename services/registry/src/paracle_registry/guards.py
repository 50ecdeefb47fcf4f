"""Guards of agents: whether what they look for can be looked for."""

from __future__ import annotations

from collections.abc import Iterator

from paracle_chassis.patterns import pattern
from paracle_domain.errors import Finding, InvalidInput, quote
from paracle_domain.guard.spec import REDACTED, Guard, JsonSchemaGuard, ModerationGuard, RegexGuard
from paracle_registry.catalog import Catalog
from paracle_registry.models import misnamed
from paracle_registry.schemas import check_schema


def check_guard(catalog: Catalog, guard: Guard, path: str) -> Iterator[Finding]:
    """What is wrong with `guard`, which stands at `path`."""
    match guard:
        case RegexGuard():
            if (message := _misguided(guard)) is not None:
                yield Finding(path=f"{path}.pattern", message=message)
        case JsonSchemaGuard(json_schema=schema):
            yield from check_schema(schema, f"{path}.json_schema")
        case ModerationGuard(model=model):
            if (message := misnamed(catalog, model)) is not None:
                yield Finding(path=f"{path}.model", message=message)
        case _:
            pass


def _misguided(guard: RegexGuard) -> str | None:
    """Why its pattern finds nothing that it should."""
    try:
        looked_for = pattern(guard.pattern, ignore_case=guard.ignore_case)
    except InvalidInput as error:
        return error.message
    if looked_for.matches(""):
        return f"{quote(guard.pattern)} matches nothing at all, and so every text; say what must be there"
    if guard.on_hit == "redact" and looked_for.matches(REDACTED):
        return f"{quote(guard.pattern)} matches {REDACTED}, which is put in the place of what it matches"
    return None
