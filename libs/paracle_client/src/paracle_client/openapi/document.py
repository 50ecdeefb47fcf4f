"""An OpenAPI document: its references followed, its mistakes told with their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urljoin

from paracle_domain.errors import Finding, SpecInvalid, quote

_REFERENCES: Final = 20


class Inexpressible(Exception):
    """Something that a manifest cannot say; what it belongs to is left out."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(path=path, message=message)


@dataclass(slots=True)
class Document:
    """The document, and what is found about it on the way."""

    root: dict[str, Any]
    source: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_30(self) -> bool:
        """Whether schemas are in the dialect of OpenAPI 3.0 rather than JSON Schema's."""
        return str(self.root.get("openapi")).startswith("3.0")

    def note(self, path: str, message: str) -> None:
        """Tell whoever imports, and go on."""
        finding = Finding(path=path, message=message)
        if finding not in self.findings:
            self.findings.append(finding)

    def follow(self, value: Any, path: str) -> dict[str, Any]:
        """The object `value`, or the one that it refers to.

        Raises
        ------
        Inexpressible
            If there is none.
        """
        for _ in range(_REFERENCES):
            if not isinstance(value, dict):
                raise Inexpressible(path, f"should be an object (got {quote(value)})")
            if not isinstance(value.get("$ref"), str):
                return value
            value = self.target(value["$ref"], path)
        raise Inexpressible(path, "its $ref leads in a circle")

    def target(self, reference: str, path: str) -> Any:
        """What `reference` (`#/components/…`) leads to."""
        if not reference.startswith("#"):
            raise Inexpressible(path, f"$ref {quote(reference)} leads to another document; bundle them into one")
        found: Any = self.root
        for part in reference.lstrip("#").strip("/").split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise Inexpressible(path, f"$ref {quote(reference)} leads nowhere")
        return found

    def server(self, places: list[dict[str, Any]], path: str) -> str:
        """The address of the first server that an operation, its path or the document names."""
        for place in places:
            for one in objects(place.get("servers")):
                url = str(one.get("url", ""))
                for name, variable in mapping(one.get("variables")).items():
                    url = url.replace(f"{{{name}}}", str(mapping(variable).get("default", "")))
                url = urljoin(self.source, url) if self.source.startswith(("http://", "https://")) else url
                if url.startswith(("http://", "https://")) and "{" not in url:
                    return url.rstrip("/")
        raise Inexpressible(path, "names no server with an absolute address; give one with --server")


def read_root(value: Any, source: str) -> Document:
    """The document `value`.

    Raises
    ------
    SpecInvalid
        If it is none that can be imported.
    """
    if not isinstance(value, dict):
        raise SpecInvalid("no OpenAPI document: it should be an object", path=source)
    version = value.get("openapi")
    if version is None and "swagger" in value:
        raise SpecInvalid("Swagger 2.0 cannot be imported; convert it to OpenAPI 3 first", path=f"{source} swagger")
    if not isinstance(version, str) or not version.startswith("3."):
        raise SpecInvalid(f"openapi should be 3.x (got {quote(version)})", path=f"{source} openapi")
    return Document(value, source)


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def names(value: Any) -> list[str]:
    """The texts in the list `value`."""
    return [item for item in (value if isinstance(value, list) else []) if isinstance(item, str)]


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in the list `value`."""
    return (item for item in (value if isinstance(value, list) else []) if isinstance(item, dict))
