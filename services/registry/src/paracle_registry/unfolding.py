"""How much there is to look at when a value is held against a JSON Schema, whose references may lead to the same often.

Schemas that each refer twice to the next are short, and take twice as long with each: whoever checks a value would not
come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin

from pydantic import JsonValue

from paracle_domain.messages import JsonObject

MOST_UNFOLDED: Final = 100_000
_NO_PARTS: Final = frozenset({"$defs", "definitions", "enum", "const", "default", "examples"})
_REFERENCES: Final = ("$ref", "$dynamicRef")
_ANCHORS: Final = ("$anchor", "$dynamicAnchor")


def unfolded(schema: JsonObject) -> int:
    """The objects and lists of `schema`, each as often as references lead to it.

    What leads back to itself counts once: it ends with the value.
    """
    graph = _Graph(schema)
    sizes: dict[int, int] = {}
    ended: set[int] = set()
    todo: list[Any] = [schema]
    while todo:
        key = id(todo[-1])
        if key not in sizes:
            sizes[key] = 0
            todo.extend(part for part in graph.parts(todo[-1]) if id(part) not in sizes)
            continue
        node = todo.pop()
        if key not in ended:
            ended.add(key)
            sizes[key] = 1 + sum(sizes[id(part)] for part in graph.parts(node))
    return sizes[id(schema)]


class _Graph:
    """The parts of a schema, and where its references lead."""

    def __init__(self, schema: JsonObject) -> None:
        self._bases: dict[int, str] = {}
        self._named: dict[str, Any] = {"": schema}
        todo: list[tuple[Any, str]] = [(schema, "")]
        while todo:
            node, base = todo.pop()
            if isinstance(node, dict):
                base = self._note(node, base)
            todo.extend((part, base) for part in _inner(node))

    def parts(self, node: Any) -> list[Any]:
        """What is looked at with `node`."""
        if not isinstance(node, dict):
            return [*_inner(node)]
        found = [value for key, value in node.items() if key not in _NO_PARTS and isinstance(value, dict | list)]
        base = self._bases[id(node)]
        targets = (self._target(base, node[name]) for name in _REFERENCES if isinstance(node.get(name), str))
        return found + [target for target in targets if isinstance(target, dict | list)]

    def _note(self, node: JsonObject, base: str) -> str:
        if isinstance(name := node.get("$id"), str):
            base = urldefrag(urljoin(base, name)).url
            self._named[base] = node
        for anchor in _ANCHORS:
            if isinstance(name := node.get(anchor), str):
                self._named[f"{base}#{name}"] = node
        self._bases[id(node)] = base
        return base

    def _target(self, base: str, reference: str) -> Any:
        url, fragment = urldefrag(urljoin(base, reference) if not reference.startswith("#") else base + reference)
        if fragment and not fragment.startswith("/"):
            return self._named.get(f"{url}#{fragment}")
        found: JsonValue = self._named.get(url)
        for part in unquote(fragment).split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901  # the pointer's own spelling
            if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found


def _inner(node: Any) -> Iterator[Any]:
    values = node.values() if isinstance(node, dict) else node
    return (value for value in values if isinstance(value, dict | list))
