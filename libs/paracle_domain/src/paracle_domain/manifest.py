"""Manifests: the documents that people apply. One kind, one name, one spec each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAliasType, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from paracle_domain.agent.manifest import AgentManifest
from paracle_domain.errors import Finding, SpecInvalid, field_path, quote
from paracle_domain.messages import JsonObject
from paracle_domain.names import suggest
from paracle_domain.plan import digest_of
from paracle_domain.provider.spec import ModelSpec, ProviderSpec
from paracle_domain.registry import Kind
from paracle_domain.tool.spec import ToolSpec
from paracle_domain.trigger.spec import TriggerSpec
from paracle_domain.wording import wording
from paracle_domain.workflow.spec import Name, Spec, WorkflowSpec

API_VERSION: Final = "paracle/v1"
MAX_DOCUMENT_DEPTH: Final = 100
_WANTED: Final = "Input should be "
Label = Annotated[str, StringConstraints(max_length=1_000)]


class Metadata(Spec):
    """What a manifest is called, and what else its author notes about it."""

    name: Name
    labels: dict[str, Label] = {}
    annotations: dict[str, str] = {}


class _Document(Spec):
    model_config = ConfigDict(populate_by_name=True)

    api_version: Literal["paracle/v1"] = Field(default=API_VERSION, alias="apiVersion")
    kind: Kind
    metadata: Metadata

    def to_json(self) -> JsonObject:
        """The manifest as it was written: what its author left out stays out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def digest(self) -> str:
        return digest_of(self.to_json())


class AgentDocument(_Document):
    """A `kind: Agent` manifest."""

    kind: Literal["Agent"]
    spec: AgentManifest


class ToolDocument(_Document):
    """A `kind: Tool` manifest."""

    kind: Literal["Tool"]
    spec: ToolSpec


class WorkflowDocument(_Document):
    """A `kind: Workflow` manifest."""

    kind: Literal["Workflow"]
    spec: WorkflowSpec


class TriggerDocument(_Document):
    """A `kind: Trigger` manifest."""

    kind: Literal["Trigger"]
    spec: TriggerSpec


class ProviderDocument(_Document):
    """A `kind: Provider` manifest."""

    kind: Literal["Provider"]
    spec: ProviderSpec


class ModelDocument(_Document):
    """A `kind: Model` manifest."""

    kind: Literal["Model"]
    spec: ModelSpec


type Manifest = AgentDocument | ToolDocument | WorkflowDocument | TriggerDocument | ProviderDocument | ModelDocument

DOCUMENTS: Final[
    Mapping[
        Kind,
        type[AgentDocument | ToolDocument | WorkflowDocument | TriggerDocument | ProviderDocument | ModelDocument],
    ]
] = {
    "Agent": AgentDocument,
    "Tool": ToolDocument,
    "Workflow": WorkflowDocument,
    "Trigger": TriggerDocument,
    "Provider": ProviderDocument,
    "Model": ModelDocument,
}


def label_of(source: str, index: int) -> str:
    """How errors call document `index` (from 1) of `source`."""
    return f"{source}#{index}"


def parse_document(doc: object, index: int, source: str) -> Manifest:
    """The manifest that `doc` (JSON-like data, the document `index` of `source`, counted from 1) describes.

    Raises
    ------
    SpecInvalid
        If it describes none; each finding has a path like `triage.yaml#2 spec.steps[1].retry.max_attempts`.
    """
    label = label_of(source, index)
    if not isinstance(doc, dict):
        raise SpecInvalid(
            f"a manifest is an object with apiVersion, kind, metadata and spec (got {_shown(doc)})", path=label
        )
    kind = _choice(doc, "kind", tuple(DOCUMENTS), label)
    _choice(doc, "apiVersion", (API_VERSION,), label)
    document = DOCUMENTS[kind]  # type: ignore[index]  # _choice gave one of its keys
    _check_depth(doc, label)
    try:
        return document.model_validate_json(json.dumps(doc, allow_nan=False), strict=True)
    except (TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise SpecInvalid.many(f"{kind} manifest", _findings(error, doc, document, label)) from None
        raise SpecInvalid(f"{kind} manifest: {error}", path=label) from None


def load_manifest(kind: Kind, manifest: JsonObject) -> Manifest:
    """A manifest that was accepted before, from `Manifest.to_json()`."""
    return DOCUMENTS[kind].model_validate_json(json.dumps(manifest), strict=True)


def _choice(doc: Mapping[str, object], field: str, known: tuple[str, ...], label: str) -> str:
    value = doc.get(field)
    if isinstance(value, str) and value in known:
        return value
    if value is None:
        message = f"{field} is missing; known: {', '.join(known)}"
    else:
        message = f"{field} {quote(value)} is unknown{suggest(str(value), known)}"
    raise SpecInvalid(message, path=f"{label} {field}")


def _check_depth(value: object, label: str) -> None:
    level = [value]
    for _ in range(MAX_DOCUMENT_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise SpecInvalid(f"nested more than {MAX_DOCUMENT_DEPTH} levels deep", path=label)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _findings(error: ValidationError, doc: object, model: type[BaseModel], label: str) -> list[Finding]:
    """Pydantic's findings as ours, but for those that follow from others within the same field.

    Where something in a list is wrong, pydantic also finds the list too short; where a union's right branch fails
    inside, it also says that the other branches do not fit at all.
    """
    placed: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for item in error.errors():
        placed.setdefault(_place(item["loc"], doc, absent=item["type"] == "missing"), []).append(item)
    above = {where[:depth] for where in placed for depth in range(len(where))}
    return [
        Finding(path=f"{label} {field_path(where)}".rstrip(), message=message)
        for where, items in placed.items()
        if where not in above
        for message in _messages(items, where, model)
    ]


def _messages(items: Sequence[ErrorDetails], where: tuple[str | int, ...], model: type[BaseModel]) -> Iterator[str]:
    """What `items` say of one place; what each branch of a union wants there is one sentence."""
    wanted = [wording(item) for item in items]
    if len(items) > 1 and all(said.startswith(_WANTED) for said in wanted):
        branches = ", or ".join(said.removeprefix(_WANTED) for said in wanted)
        yield f"{_WANTED}{branches} (got {_shown(items[0]['input'])})"
    else:
        yield from (_message(item, where, model) for item in items)


def _message(item: Mapping[str, Any], where: tuple[str | int, ...], model: type[BaseModel]) -> str:
    match item["type"]:
        case "extra_forbidden":
            name = str(where[-1])
            return f"there is no field {name!r}{suggest(name, _fields(model, where[:-1]))}"
        case "missing":
            return "is required"
        case "value_error":
            return wording(item)
        case "union_tag_invalid":
            context = item["ctx"]
            return f"{context['discriminator']} {context['tag']!r} is unknown; known: {context['expected_tags']}"
        case "union_tag_not_found":
            return f"{item['ctx']['discriminator']} is missing"
        case _:
            return f"{wording(item)} (got {_shown(item['input'])})"


def _shown(value: object) -> str:
    """`value` as JSON and YAML write it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return quote(value)


def _place(location: tuple[str | int, ...], document: object, *, absent: bool) -> tuple[str | int, ...]:
    """`location` without the names of union branches that pydantic puts in: what `document` itself has on the way.

    `absent`: its last part is a field that `document` lacks.
    """
    place: list[str | int] = []
    doc: Any = document
    for index, part in enumerate(location):
        known = part in doc if isinstance(doc, dict) else isinstance(doc, list) and isinstance(part, int)
        if known:
            doc = doc[part]
        elif not absent or index < len(location) - 1:
            continue
        place.append(part)
    return tuple(place)


def _fields(model: type[BaseModel], where: tuple[str | int, ...]) -> set[str]:
    """Names of the fields that could stand at `where`."""
    models = {model}
    for part in where:
        if isinstance(part, str):
            models = {inner for outer in models for inner in _models_below(outer, part)}
    return {info.alias or name for found in models for name, info in found.model_fields.items()}


def _models_below(model: type[BaseModel], field: str) -> Iterator[type[BaseModel]]:
    info = model.model_fields.get(field)
    return _models_in(info.annotation if info is not None else None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, TypeAliasType):
        yield from _models_in(annotation.__value__)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
