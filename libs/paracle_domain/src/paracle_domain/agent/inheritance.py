"""Resolution of inheritance: from a line of manifests to one agent, and who set each of its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from paracle_domain.agent.manifest import AgentManifest, DelegatesEdit, GuardsEdit, ListEdit
from paracle_domain.agent.spec import AgentSpec, Delegate
from paracle_domain.errors import SpecInvalid
from paracle_domain.guard.spec import AnyGuard
from paracle_domain.names import suggest

MAX_DEPTH: Final = 10
_PARENT: Final = re.compile(r"\{\{-?\s*parent\s*-?\}\}")
_MAPS: Final = frozenset({"metadata", "approvals"})
_NOT_FIELDS: Final = frozenset({"extends", "final"})


@dataclass(frozen=True, slots=True)
class Origin:
    """A manifest in a line of inheritance, at a revision."""

    name: str
    revision: int


@dataclass(frozen=True, slots=True)
class Layer:
    """What one member of the line says."""

    origin: Origin
    manifest: AgentManifest


type Lookup = Callable[[str], Layer | None]
type Locate = Callable[[str], str]
type _Item = str | Delegate | AnyGuard


@dataclass(frozen=True, slots=True)
class Resolved:
    """An agent with its inheritance applied.

    `origins` maps paths of fields (`model.name`, `tools[search]`, `metadata.team`) to who set them; what is not in it
    has its default. `lineage` begins with the agent itself and ends with its root.
    """

    spec: AgentSpec
    origins: Mapping[str, Origin]
    lineage: tuple[Origin, ...]


def manifest_label(name: str) -> str:
    """How errors call the manifest of agent `name`, unless told otherwise."""
    return f"Agent/{name}"


def resolve(name: str, lookup: Lookup, locate: Locate = manifest_label) -> Resolved:
    """Agent `name`, with `lookup` giving the manifests of its line and `locate` the label of each in errors.

    Raises
    ------
    SpecInvalid
        If a parent is missing, the line is circular or deeper than `MAX_DEPTH`, a list edit removes what is not there,
        or a final field is changed. Its path names the manifest and the field.
    """
    line = _line(name, lookup, locate)
    draft = _Draft()
    for layer in reversed(line):
        draft.add(layer, locate(layer.origin.name))
    return Resolved(
        spec=AgentSpec.model_validate(draft.values),
        origins=draft.origins,
        lineage=tuple(layer.origin for layer in line),
    )


def _line(name: str, lookup: Lookup, locate: Locate) -> list[Layer]:
    """The agent and its ancestors, the root last."""
    line: list[Layer] = []
    wanted: str | None = name
    while wanted is not None:
        names = [layer.origin.name for layer in line]
        if wanted in names:
            circle = " → ".join([*names[names.index(wanted) :], wanted])
            raise _refused(locate, names[-1], "spec.extends", f"inheritance goes in a circle: {circle}")
        if len(line) > MAX_DEPTH:
            raise _refused(
                locate, names[0], "spec.extends", f"more than {MAX_DEPTH} ancestors: {' → '.join(names)} → …"
            )
        layer = lookup(wanted)
        if layer is None:
            raise _refused(locate, names[-1] if names else name, "spec.extends", f"there is no agent {wanted!r}")
        line.append(layer)
        wanted = layer.manifest.extends
    return line


def _refused(locate: Locate, name: str, path: str, message: str) -> SpecInvalid:
    return SpecInvalid(message, path=f"{locate(name)} {path}")


@dataclass(slots=True)
class _Draft:
    """An agent in the making: JSON-like values of the fields set so far, by whom, and what may not change any more."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    final: dict[str, Origin] = field(default_factory=dict)

    def add(self, layer: Layer, label: str) -> None:
        """Apply what `layer` says on top of what its ancestors said."""
        manifest, origin = layer.manifest, layer.origin
        before = self._final_values()
        for name in AgentManifest.model_fields:
            if name in manifest.model_fields_set and name not in _NOT_FIELDS:
                self._set(name, getattr(manifest, name), origin, label)
        self._check_final(before, label)
        self.final |= {path: self.final.get(path, origin) for path in manifest.final}

    def _set(self, name: str, value: Any, origin: Origin, label: str) -> None:
        if value is None:
            self._forget(name)
            return
        match value:
            case ListEdit() | DelegatesEdit() | GuardsEdit():
                self._edit_list(name, value, origin, label)
            case tuple():
                self._forget(name)
                self._put_list(name, value, origin)
            case BaseModel():
                self._merge_parts(name, value, origin)
            case dict() if name in _MAPS:
                self._merge_keys(self.values.setdefault(name, {}), name, value, origin)
            case str() if name == "instructions":
                self._put(name, self._with_parent(value, label), origin)
            case _:
                self._put(name, value, origin)

    def _put(self, path: str, value: Any, origin: Origin) -> None:
        self.values[path] = value
        self.origins[path] = origin

    def _forget(self, path: str) -> None:
        """Back to the default."""
        self.values.pop(path, None)
        for known in [known for known in self.origins if _covers(path, known)]:
            del self.origins[known]

    def _put_list(self, name: str, items: Iterable[_Item], origin: Origin) -> None:
        """Of two that mean the same, the place of the first and what the last one says."""
        self.values[name] = list({_identity(item): item for item in items}.values())
        for item in self.values[name]:
            self.origins.setdefault(f"{name}[{_name(item)}]", origin)

    def _edit_list(self, name: str, edit: ListEdit | DelegatesEdit | GuardsEdit, origin: Origin, label: str) -> None:
        items: list[_Item] = self.values.get(name, [])
        names = [_name(item) for item in items]
        for index, item in enumerate(edit.remove):
            if item not in names:
                message = f"there is no {item!r} to remove{suggest(item, names) or '; the list is empty'}"
                raise SpecInvalid(message, path=f"{label} spec.{name}.remove[{index}]")
            self.origins.pop(f"{name}[{item}]", None)
        kept = [item for item in items if _name(item) not in edit.remove]
        self._put_list(name, [*kept, *edit.add], origin)

    def _merge_parts(self, name: str, edit: BaseModel, origin: Origin) -> None:
        """Fields of `model`, `limits` and `compaction`: each for itself."""
        parts: dict[str, Any] = self.values.setdefault(name, {})
        for part in type(edit).model_fields:
            if part not in edit.model_fields_set:
                continue
            path, value = f"{name}.{part}", getattr(edit, part)
            if value is None:
                parts.pop(part, None)
                self._forget(path)
            elif part == "params":
                self._merge_keys(parts.setdefault(part, {}), path, value, origin)
            else:
                parts[part] = value
                self.origins[path] = origin

    def _merge_keys(self, target: dict[str, Any], path: str, edit: Mapping[str, Any], origin: Origin) -> None:
        for key, value in edit.items():
            if value is None:
                target.pop(key, None)
                self.origins.pop(f"{path}.{key}", None)
            else:
                target[key] = value
                self.origins[f"{path}.{key}"] = origin

    def _with_parent(self, text: str, label: str) -> str:
        inherited = self.values.get("instructions")
        if inherited is None:
            if _PARENT.search(text):
                message = "`{{ parent }}` stands for a parent's instructions, and there are none"
                raise SpecInvalid(message, path=f"{label} spec.instructions")
            return text
        return _PARENT.sub(lambda _: inherited, text)

    def _final_values(self) -> dict[str, Any]:
        return {path: _at(self.values, path) for path in self.final}

    def _check_final(self, before: Mapping[str, Any], label: str) -> None:
        for path, value in before.items():
            if _at(self.values, path) != value:
                owner = self.final[path]
                message = f"{path} is final in agent {owner.name!r} (revision {owner.revision}) and cannot be changed"
                raise SpecInvalid(message, path=f"{label} spec.{path}")


def _name(item: _Item) -> str:
    """What an item of a list is called when it is removed, and where its origin is noted."""
    match item:
        case Delegate():
            return item.agent
        case AnyGuard():
            return item.name
        case _:
            return item


def _identity(item: _Item) -> str:
    return item.tool_name if isinstance(item, Delegate) else _name(item)


def _covers(path: str, other: str) -> bool:
    return other == path or other.startswith((f"{path}.", f"{path}["))


def _at(values: Mapping[str, Any], path: str) -> Any:
    """A copy of what stands at `path`, with defaults filled in, so that writing a default out is no change."""
    resolved: Any = AgentSpec.model_validate(values).model_dump(mode="json")
    head, _, rest = path.partition(".")
    value = resolved[head]
    while rest and isinstance(value, dict):
        head, _, rest = rest.partition(".")
        value = value.get(head)
    return value
