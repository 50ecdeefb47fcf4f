"""JSON Schemas of the contract, and whether a new one still serves the readers and writers of the old one.

    python -m paracle_domain.schema --check     # do the committed schemas equal the code's, and is nothing broken?
    python -m paracle_domain.schema --write     # write them, unless that would break somebody

One file for each message of the catalog (`run.view.json`) and each kind of manifest (`manifest.agent.json`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from paracle_domain.catalog import complete_catalog
from paracle_domain.manifest import DOCUMENTS

SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "v1"
_BASE: Final = "urn:paracle:schema:v1:"
_ADVICE: Final = (
    "What only grew: run with --write. What breaks somebody: keep the old field beside the new one, or make a new "
    "major version. A message that was never released: delete its file first.\n"
)
_LOWER_BOUNDS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")

type Schema = dict[str, Any]


def generate() -> dict[str, Schema]:
    """Every schema of the contract by the name of its file, without `.json`."""
    models: dict[str, type[BaseModel]] = dict(complete_catalog())
    models |= {f"manifest.{kind.lower()}": document for kind, document in DOCUMENTS.items()}
    return {name: _schema(name, model) for name, model in sorted(models.items())}


def _schema(name: str, model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema(mode="validation", by_alias=True)
    return {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"{_BASE}{name}", **schema}


def committed(folder: Path = SCHEMAS) -> dict[str, Schema]:
    """The schemas in `folder`, by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def text_of(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def breaks(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[str]:
    """How `new` breaks those who read or write by `old`; each line names the message and the field."""
    found = [f"{name}: the message is gone" for name in old if name not in new]
    for name, schema in new.items():
        if name in old:
            found += [f"{name}{path}: {what}" for path, what in _compare(old[name], schema)]
    return found


def _compare(old: Schema, new: Schema) -> Iterator[tuple[str, str]]:
    yield from _compare_nodes(old, new, old, new, "", frozenset())


def _compare_nodes(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """What was allowed by `old` and is not by `new`, and fields that are gone; `seen` holds references on the way."""
    if "$ref" in old:
        if old["$ref"] in seen:
            return
        seen |= {old["$ref"]}
    old, new = _follow(old, old_root), _follow(new, new_root)
    yield from _compare_alternatives(old, new, old_root, new_root, path, seen)
    yield from ((path, what) for what in _narrowed(old, new))
    yield from _compare_fields(old, new, old_root, new_root, path, seen)
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from _compare_nodes(old[key], new[key], old_root, new_root, f"{path}[]", seen)


def _follow(node: Schema, root: Schema) -> Schema:
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _compare_fields(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> Iterator[tuple[str, str]]:
    before, now = old.get("properties", {}), new.get("properties", {})
    for name, schema in before.items():
        if name in now:
            yield from _compare_nodes(schema, now[name], old_root, new_root, f"{path}.{name}", seen)
        else:
            yield f"{path}.{name}", "the field is gone"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{path}.{name}", "the field is required now"


def _compare_alternatives(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """Each old alternative must fit some new one."""
    before, now = _alternatives(old), _alternatives(new)
    if before == [old] and now == [new]:
        return
    for index, choice in enumerate(before):
        if all(_misfits(choice, other, old_root, new_root, path, seen) for other in now):
            yield path, f"alternative {index + 1} of {len(before)} ({_name(choice)}) is no longer allowed"


def _misfits(
    choice: Schema, other: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> bool:
    return any(True for _ in _compare_nodes(choice, other, old_root, new_root, path, seen))


def _alternatives(node: Schema) -> list[Schema]:
    for key in ("anyOf", "oneOf"):
        if key in node:
            return list(node[key])
    return [node]


def _name(node: Schema) -> str:
    return str(node.get("$ref", node.get("type", "anything"))).rpartition("/")[2]


def _narrowed(old: Schema, new: Schema) -> Iterator[str]:
    """What is stricter about `new`, the fields left aside."""
    if new.get("type") != old.get("type") and not _widened_type(old, new):
        yield f"the type was {old.get('type', 'anything')} and is {new.get('type', 'anything')}"
    values, fewer = _values(old), _values(new)
    if fewer is not None and (values is None or set(values) - set(fewer)):
        lost = sorted(set(values or ()) - set(fewer))
        yield f"only {', '.join(fewer)} is allowed now" if values is None else f"no longer allowed: {', '.join(lost)}"
    for key in _LOWER_BOUNDS:
        if key in new and new[key] > old.get(key, float("-inf")):
            yield f"{key} is {new[key]} now"
    for key in _UPPER_BOUNDS:
        if key in new and new[key] < old.get(key, float("inf")):
            yield f"{key} is {new[key]} now"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"the pattern is {new['pattern']} now"
    if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        yield "unknown fields are refused now"


def _widened_type(old: Schema, new: Schema) -> bool:
    """Whether `new` takes what `old` took although its type reads otherwise."""
    if "type" not in new:
        return True
    return old.get("type") == "integer" and new["type"] == "number"


def _values(node: Schema) -> list[str] | None:
    """The values that `node` is limited to, as JSON."""
    if "const" in node:
        return [json.dumps(node["const"])]
    return [json.dumps(value) for value in node["enum"]] if "enum" in node else None


def problems(folder: Path = SCHEMAS) -> list[str]:
    """Differences between the schemas in `folder` and the code's, and what is broken."""
    old, new = committed(folder), generate()
    stale = [f"{name}: differs from what is committed" for name in new if old.get(name) != new[name]]
    return breaks(old, new) + stale + [f"{name}: is committed and not generated" for name in old if name not in new]


def write(folder: Path = SCHEMAS) -> int:
    """Write the schemas to `folder`; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    schemas = generate()
    for name, schema in schemas.items():
        (folder / f"{name}.json").write_text(text_of(schema), "utf-8")
    return len(schemas)


def main(arguments: Sequence[str] | None = None, folder: Path = SCHEMAS) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser("python -m paracle_domain.schema", description="JSON Schemas of the contract.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare the committed schemas with the code")
    action.add_argument("--write", action="store_true", help="write them, unless that breaks somebody")
    chosen = parser.parse_args(arguments)
    found = problems(folder) if chosen.check else breaks(committed(folder), generate())
    for line in found:
        sys.stderr.write(f"{line}\n")
    if found:
        sys.stderr.write(_ADVICE)
        return 1
    if chosen.write:
        sys.stdout.write(f"{write(folder)} schemas in {folder.name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
