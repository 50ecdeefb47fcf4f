"""What a tool of an MCP server was when it was made known: a digest of its schemas, which its manifest pins."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from pydantic import JsonValue

IDEMPOTENCY_META: Final = "paracle/idempotency-key"
"""Under which name the key of a call travels in its `_meta`."""


def schema_digest(arguments: JsonValue, result: JsonValue) -> str:
    """The digest of a tool that takes `arguments` and gives `result` (`None`: it does not say what)."""
    text = json.dumps([arguments, result], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
