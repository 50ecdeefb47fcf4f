"""How things are told to people: what pydantic found wrong, numbers, addresses.

Nobody should have to read a regular expression to mend a manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

PATTERNS: Final[Mapping[str, str]] = {
    r"^[a-z][a-z0-9_-]{0,62}$": "a name: a to z first, then also 0 to 9, _ and -, 63 at most",
    r"^[a-z][a-z0-9_-]{0,30}$": "a name of a pool: a to z first, then also 0 to 9, _ and -, 31 at most",
    r"^[a-z][a-z0-9_]{0,62}$": "a name: a to z first, then also 0 to 9 and _, 63 at most",
    r"^[a-z_]{1,64}$": "an error code: a to z and _",
    r"^[A-Z][A-Z0-9_]{0,127}$": "a name of a secret: A to Z first, then also 0 to 9 and _",
    r"^[A-Za-z0-9][A-Za-z0-9_.:@/+|=~-]{0,199}$": "a principal: letters, digits and _.:@/+|=~- without blanks",
    r"^[A-Za-z0-9][A-Za-z0-9_.:@/+|=~-]{0,99}$": "a role: letters, digits and _.:@/+|=~- without blanks",
    r"^[0-9a-f]{64}$": "a digest of 64 hexadecimal digits, as `paracle import mcp` writes it",
    r"^https?://": "a URL that begins with http:// or https://",
    r"^https?://[^\s?#@]+$": "a URL that begins with http:// or https://, without credentials, ? and #",
    r"^[^\s\x00-\x1f\x7f]+$": "text without blanks",
    r"^[^\x00-\x1f\x7f]+$": "text on one line",
    r"^(?:>|(?:[A-Za-z0-9_-]{1,64}|\*)(?:\.(?:[A-Za-z0-9_-]{1,64}|\*)){0,15}(?:\.>)?)$": (
        "a topic: up to 16 tokens of letters, digits, _ and - with dots between them; * is any token, and > at the end "
        "all that follow"
    ),
}
"""How what may stand in a manifest is told, by its pattern."""
_ID: Final = re.compile(r"\^([a-z]+)_\[0-7\]")


def wording(item: Mapping[str, Any]) -> str:
    """What one of pydantic's findings says, without what was given."""
    match item["type"]:
        case "string_pattern_mismatch":
            pattern = item["ctx"]["pattern"]
            if found := _ID.match(pattern):
                return f"is no id, such as {found[1]}_01M8B866EV56C6P109NA34YCTA"
            return f"Input should be {PATTERNS[pattern]}" if pattern in PATTERNS else str(item["msg"])
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, ")
        case "extra_forbidden":
            return "there is no such field"
        case "timezone_aware":
            return "has no time zone: end it with Z for UTC, or with one like +02:00"
        case "too_short":
            return f"Input should have at least {count(item['ctx']['min_length'], 'item')}"
        case "too_long":
            return f"Input should have at most {count(item['ctx']['max_length'], 'item')}"
        case _:
            return str(item["msg"])


def count(number: int, what: str) -> str:
    """`1 item`, `1,234 items`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def host_of(url: str) -> str:
    """Host and port of `url`, without its user and password."""
    return urlsplit(url if "://" in url else f"//{url}").netloc.rpartition("@")[2]


def hosts_of(urls: str) -> str:
    """The same of several, separated by commas."""
    return ", ".join(host_of(url.strip()) for url in urls.split(","))
