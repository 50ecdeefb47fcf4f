"""How an operation is signed: security schemes as headers that hold secrets by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from paracle_client.openapi.document import Document, Inexpressible, mapping, objects


@dataclass(slots=True)
class Signature:
    """Headers with `${NAME}` in them, and the names."""

    headers: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)


def read_security(document: Document, operation: dict[str, Any], path: str) -> Signature:
    """The first way to sign `operation` that a manifest can say.

    Raises
    ------
    Inexpressible
        If there is none.
    """
    ways = list(objects(operation.get("security", document.root.get("security", []))))
    reasons = []
    for way in sorted(ways, key=lambda way: not way):  # signing in is better than being nobody
        signature = Signature()
        try:
            for name in way:
                _sign(document, name, signature, f"{path}.security.{name}")
        except Inexpressible as error:
            reasons.append(error)
        else:
            return signature
    if reasons:
        raise reasons[0]
    return Signature()


def _sign(document: Document, name: str, signature: Signature, path: str) -> None:
    schemes = mapping(mapping(document.root.get("components")).get("securitySchemes"))
    scheme = document.follow(schemes.get(name), path)
    secret = re.sub(r"\W", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name), flags=re.ASCII).upper()
    secret = secret if secret[:1].isalpha() else f"SECRET_{secret}"
    header, value = _header(document, scheme, f"${{{secret}}}", secret, path)
    signature.headers[header] = value
    signature.secrets.append(secret)


def _header(document: Document, scheme: dict[str, Any], place: str, secret: str, path: str) -> tuple[str, str]:
    kind, where = scheme.get("type"), scheme.get("in")
    match kind:
        case "apiKey" if where == "header":
            return str(scheme.get("name")), place
        case "apiKey" if where == "cookie":
            return "Cookie", f"{scheme.get('name')}={place}"
        case "apiKey":
            raise Inexpressible(path, f"wants a key in the {where}; tools send secrets in headers only")
        case "http" if str(scheme.get("scheme")).lower() == "basic":
            document.note(path, f"secret {secret} has to be user:password in Base64")
            return "Authorization", f"Basic {place}"
        case "http":
            return "Authorization", f"{str(scheme.get('scheme')).capitalize()} {place}"
        case "oauth2" | "openIdConnect":
            document.note(path, f"secret {secret} has to be an access token; nobody fetches or renews it")
            return "Authorization", f"Bearer {place}"
        case _:
            raise Inexpressible(path, f"is a scheme of type {kind}, which tools cannot follow")
