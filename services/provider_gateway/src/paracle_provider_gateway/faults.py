"""What a provider's failures mean: HTTP statuses and broken replies as errors of the contract, free of secrets.

429                      RateLimited (with Retry-After), unless the account's quota is used up: DeploymentFailed
408, 409, 425, 5xx, 529  ProviderUnavailable
3xx                      DeploymentFailed: whoever is redirected would show the key to somebody else
401, 403                 DeploymentFailed, naming the variable that holds the key
404                      NotFound
other 4xx                ProviderFailed; ContentRefused where a filter stopped the prompt, ContextExceeded where it is
                         longer than the model can read
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from paracle_domain.errors import (
    ContentRefused,
    ContextExceeded,
    NotFound,
    ParacleError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
    field_path,
)

_PASSING: Final = frozenset({408, 409, 425})
_KEY_SHAPE: Final = re.compile(r"\b(?:sk|pk|key)-[A-Za-z0-9_*.-]{6,}")
_STATUS: Final = re.compile(r"[45]\d\d")
_FILTERED: Final = re.compile(r"content_filter|content_policy|policy_violation|^bio_policy$")
_WRONG: Final = re.compile(r"invalid_|image_|empty_image|unsupported_|failed_to_download")
"""Codes of errors within a stream that are about the request: whoever else is asked would say the same."""
_STAYS: Final = re.compile(
    r"authentication_error|permission_error|billing_error|insufficient_quota|not_found|data_residency"
)
"""Codes of errors within a stream that would come again from the same provider."""
_EXCERPT: Final = 500
_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|exceed_context_size|(?:prompt|input) is too long|maximum context"
    r"|context (?:window|size|length)|too many (?:input )?tokens|(?:input|prompt) token(?:s| count)\b.*\bexceed",
    re.IGNORECASE,
)
"""How providers and servers of models say that a prompt does not fit: none of them has a status of its own for it."""


class DeploymentFailed(ProviderFailed):
    """What is wrong is the deployment (its key, its quota, what it speaks), not the request: another may answer it.

    To callers it is a `ProviderFailed` like any other.
    """


class ReplyLost(ProviderUnavailable):
    """The provider has the request, and its reply did not come whole: it may have to be paid for all the same.

    To callers it is a `ProviderUnavailable` like any other.
    """


@dataclass(frozen=True, slots=True)
class Origin:
    """Which provider an error is about: its name, where its key is set, and what must not be shown.

    `secrets` is looked through anew each time, since keys rotate.
    """

    provider: str
    key_variable: str
    secrets: Iterable[SecretStr] = ()

    def scrub(self, text: str) -> str:
        """`text` without keys, on at most a few lines."""
        for secret in self.secrets:
            if value := secret.get_secret_value():
                text = text.replace(value, "[redacted]")
        return _KEY_SHAPE.sub("[redacted]", text)[:_EXCERPT]

    def unavailable(self, what: str, *, retry_after_s: float | None = None) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self.provider}: {self.scrub(what)}", retry_after_s=retry_after_s)

    def lost(self, what: str) -> ReplyLost:
        return ReplyLost(f"{self.provider}: {self.scrub(what)}")

    def failed(self, what: str) -> DeploymentFailed:
        return DeploymentFailed(f"{self.provider}: {self.scrub(what)}")

    def broke_off(self) -> ReplyLost:
        return self.lost("the reply broke off before its end")

    def malformed(self, error: ValidationError) -> ProviderFailed:
        """What a reply that does not validate means: cut off in transit (may be retried), or not the protocol."""
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            return self.lost(f"the reply is no complete JSON: {first['msg']}")
        where = field_path(first["loc"])
        return self.failed(f"the reply does not follow the protocol at {where}: {first['msg']}")

    def from_status(self, status: int, body: object, headers: Mapping[str, str]) -> ParacleError:
        """The error that an HTTP error status stands for."""
        code, detail = _explain(body)
        what = self.scrub(f"HTTP {status}: {detail}" if detail else f"HTTP {status}")
        match status:
            case 429 if code == "insufficient_quota":
                return DeploymentFailed(f"{self.provider}: {what}; the account has no quota left")
            case 429:
                return RateLimited(f"{self.provider}: {what}", retry_after_s=retry_after(headers))
            case 401 | 403:
                return DeploymentFailed(f"{self.provider}: {what}; check {self.key_variable} of the provider gateway")
            case 404:
                return NotFound(f"{self.provider}: {what}; check the model's name", path="model")
            case _ if 300 <= status < 400:
                return DeploymentFailed(f"{self.provider}: {what}: redirects are not followed; is the URL right?")
            case _ if status in _PASSING or status >= 500:
                return ProviderUnavailable(f"{self.provider}: {what}", retry_after_s=retry_after(headers))
            case _ if _FILTERED.search(code):
                return ContentRefused(f"{self.provider}: {what}")
            case _ if _TOO_LONG.search(f"{code} {detail}"):
                return ContextExceeded(f"{self.provider}: {what}")
            case _:
                return ProviderFailed(f"{self.provider}: {what}")

    def from_event(self, body: object) -> ParacleError:
        """The error that an error event within a stream stands for; some have a status as their code."""
        code, detail = _explain(body)
        if _STATUS.fullmatch(code):
            return self.from_status(int(code), body, {})
        what = f"error while streaming: {code} {detail}".strip()
        if code in {"rate_limit_error", "rate_limit_exceeded"}:
            return RateLimited(f"{self.provider}: {self.scrub(what)}")
        if _TOO_LONG.search(f"{code} {detail}"):
            return ContextExceeded(f"{self.provider}: {self.scrub(what)}")
        if _FILTERED.search(code):
            return ContentRefused(f"{self.provider}: {self.scrub(what)}")
        if _WRONG.match(code):
            return ProviderFailed(f"{self.provider}: {self.scrub(what)}")
        if _STAYS.match(code):
            return self.failed(what)
        return self.unavailable(what)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait, from `Retry-After` (seconds or a date) or `retry-after-ms`; `None` if absent or nonsense."""
    try:
        if (millis := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(millis) / 1000)
        if (text := headers.get("retry-after")) is None:
            return None
        if text.strip().replace(".", "", 1).isdigit():
            return float(text)
        return max(0.0, (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None


def _explain(body: object) -> tuple[str, str]:
    """Code and message of an error body: `{"error": {…}}`, the inner object alone, or anything else."""
    found: Any = body
    if isinstance(found, Mapping):
        found = found.get("error", found)
    if not isinstance(found, Mapping):
        return "", str(found or "")
    codes: Sequence[object] = (found.get("code"), found.get("type"))
    return next((str(code) for code in codes if code), ""), str(found.get("message") or "")
