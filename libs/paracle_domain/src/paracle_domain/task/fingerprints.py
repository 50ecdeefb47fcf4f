"""What is the same asked twice: of a tool with the same arguments, or of an agent with the same input."""

from __future__ import annotations

import hashlib
import json

from pydantic import JsonValue


def fingerprint(name: str, value: JsonValue) -> str:
    """What two calls of the tool, or two tasks of the agent, that is called `name` have in common if `value` is equal.

    Keys of effects are derived from it, so it never changes.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(f"{name}\x1f{text}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
