"""Every error that crosses a service boundary: one tree, each with a stable code.

    ParacleError                       code                 retryable  HTTP
    ├── InvalidInput                   invalid_input                    422
    │   ├── MalformedMessage           malformed_message                400
    │   ├── SpecInvalid                spec_invalid                     422
    │   ├── InputInvalid               input_schema_mismatch            422
    │   ├── OutputInvalid              output_invalid                   422
    │   ├── ExpressionFailed           expression_failed                422
    │   └── PayloadTooLarge            payload_too_large                413
    ├── Unauthenticated                unauthenticated                  401
    ├── Forbidden                      forbidden                        403
    ├── NotFound                       not_found                        404
    ├── Conflict                       conflict                         409
    │   ├── TransitionError            illegal_transition               409
    │   ├── ApprovalRejected           approval_rejected                409
    │   └── ApprovalExpired            approval_expired                 409
    ├── LimitExceeded                  limit_exceeded                   429
    │   ├── BudgetExceeded             budget_exceeded                  402
    │   ├── LoopDetected               loop                             429
    │   └── RateLimited                rate_limited         yes         429
    ├── ToolFailed                     tool_failed                      502
    │   ├── ToolUnavailable            tool_unavailable     yes         503
    │   └── EffectInDoubt              effect_in_doubt                  502
    ├── ProviderFailed                 provider_failed                  502
    │   ├── ProviderUnavailable        provider_unavailable yes         503
    │   ├── ContentRefused             content_refused                  422
    │   └── ContextExceeded            context_exceeded                 422
    ├── Unavailable                    unavailable          yes         503
    ├── DeadlineExceeded               deadline_exceeded    yes         504
    ├── Cancelled                      cancelled                        409
    └── InternalError                  internal                         500

A message says what was wrong, with which value, and what to do about it. `path` points at the offending field
(`spec.steps[2].needs[0]`); `problems` lists several such findings at once, `details` say more of what it is about, for
programs. Over RPC and REST an error travels as
an RFC 9457 problem (`to_problem`, `from_problem`), and comes out of the other end as the same class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Self, override

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from paracle_domain.wording import wording

PROBLEM_TYPE_PREFIX: Final = "urn:paracle:error:"
_QUOTE_LIMIT: Final = 120
LONGEST_WAIT_S: Final = 86_400.0


class Finding(BaseModel):
    """One thing that is wrong with an input: where, and what to do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    message: str


def _bearable(seconds: float | None) -> float | None:
    """What a server (or a hostile one) asks to wait, as something that can be added to a time, stored and sent."""
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT_S)


class ErrorInfo(BaseModel):
    """An error as data: what an event, a result or a row keeps of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str
    message: str
    retryable: bool = False
    path: str | None = None
    retry_after_s: Annotated[float | None, AfterValidator(_bearable)] = None
    details: dict[str, str] | None = None


class ParacleError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        problems: Sequence[Finding] = (),
        retry_after_s: float | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.problems = tuple(problems)
        self.retry_after_s = _bearable(retry_after_s)
        self.details = dict(details or {})

    @override
    def __str__(self) -> str:
        return located(self.path, self.message)

    def to_info(self) -> ErrorInfo:
        return ErrorInfo(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            path=self.path,
            retry_after_s=self.retry_after_s,
            details=self.details or None,
        )

    def to_problem(self) -> dict[str, Any]:
        """This error as an RFC 9457 problem object."""
        problem: dict[str, Any] = {
            "type": PROBLEM_TYPE_PREFIX + self.code,
            "title": self.code.replace("_", " "),
            "status": self.http_status,
            "detail": self.message,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.path is not None:
            problem["path"] = self.path
        if self.problems:
            problem["problems"] = [finding.model_dump() for finding in self.problems]
        if self.retry_after_s is not None:
            problem["retry_after_s"] = self.retry_after_s
        if self.details:
            problem["details"] = self.details
        return problem

    @classmethod
    def many(cls, what: str, problems: Sequence[Finding]) -> Self:
        """One error for all `problems` of `what`; its path is that of the first."""
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return cls(f"{what}: {first.message}{more}", path=first.path, problems=problems)


class InvalidInput(ParacleError):
    """What was sent cannot be accepted; sending the same again cannot help."""

    code = "invalid_input"
    http_status = 422


class MalformedMessage(InvalidInput):
    """Bytes that are not the message they claim to be (not UTF-8, not JSON, wrong shape)."""

    code = "malformed_message"
    http_status = 400


class SpecInvalid(InvalidInput):
    """A manifest that does not describe something that can run."""

    code = "spec_invalid"


class InputInvalid(InvalidInput):
    """A value that its declared input JSON Schema does not allow."""

    code = "input_schema_mismatch"


class OutputInvalid(InvalidInput):
    """An agent's or tool's output that its declared JSON Schema does not allow."""

    code = "output_invalid"


class ExpressionFailed(InvalidInput):
    """An expression that does not parse, names something absent, or runs out of fuel."""

    code = "expression_failed"


class PayloadTooLarge(InvalidInput):
    """A payload above the limit; pass a reference to it instead."""

    code = "payload_too_large"
    http_status = 413


class Unauthenticated(ParacleError):
    """No valid credentials."""

    code = "unauthenticated"
    http_status = 401


class Forbidden(ParacleError):
    """Valid credentials (or a known tool) without the permission that this needs."""

    code = "forbidden"
    http_status = 403


class NotFound(ParacleError):
    """The named thing does not exist in this tenant."""

    code = "not_found"
    http_status = 404


class Conflict(ParacleError):
    """The thing changed in between, or exists already with other contents."""

    code = "conflict"
    http_status = 409


class TransitionError(Conflict):
    """A command that the machine's present state does not allow."""

    code = "illegal_transition"


class ApprovalRejected(Conflict):
    """Somebody who was asked said no."""

    code = "approval_rejected"


class ApprovalExpired(Conflict):
    """Nobody, or too few, decided in time."""

    code = "approval_expired"


class LimitExceeded(ParacleError):
    """A limit of the spec (turns, tool calls, tokens, money, time) is used up."""

    code = "limit_exceeded"
    http_status = 429


class LoopDetected(LimitExceeded):
    """An agent does the same again and again, and nothing changes."""

    code = "loop"


class BudgetExceeded(LimitExceeded):
    """A budget has no room for a model call; `details` say which budget, for whom, how far it is used, and what to do.

    They are `budget`, `subject`, `period`, `on_hit`, and those of `spent_usd`, `limit_usd`, `spent_tokens`,
    `limit_tokens` and `estimate_usd`, `estimate_tokens` (what the call may use) that are known, as text.
    """

    code = "budget_exceeded"
    http_status = 402


class RateLimited(LimitExceeded):
    """Too many requests; `retry_after_s` says when to come back."""

    code = "rate_limited"
    retryable = True


class ToolFailed(ParacleError):
    """A tool ran and failed."""

    code = "tool_failed"
    http_status = 502


class ToolUnavailable(ToolFailed):
    """A tool could not be reached, or said that it is busy."""

    code = "tool_unavailable"
    http_status = 503
    retryable = True


class EffectInDoubt(ToolFailed):
    """An `at_most_once` tool was called and its outcome is unknown; it is not called again by itself."""

    code = "effect_in_doubt"


class ProviderFailed(ParacleError):
    """A model provider refused the request or answered nonsense."""

    code = "provider_failed"
    http_status = 502


class ProviderUnavailable(ProviderFailed):
    """A model provider could not be reached, is overloaded or broke off."""

    code = "provider_unavailable"
    http_status = 503
    retryable = True


class ContentRefused(ProviderFailed):
    """A model provider's content filter stopped the reply, or a guard of the agent the input or the output.

    Of a guard, `details` are `guard` (its name), `type`, and `direction`: never what it found.
    """

    code = "content_refused"
    http_status = 422


class ContextExceeded(ProviderFailed):
    """What a model was asked is longer than it can read at once."""

    code = "context_exceeded"
    http_status = 422


class Unavailable(ParacleError):
    """A part of Paracle that this needs is not there at the moment."""

    code = "unavailable"
    http_status = 503
    retryable = True


class DeadlineExceeded(ParacleError):
    """No answer within the time that was given."""

    code = "deadline_exceeded"
    http_status = 504
    retryable = True


class Cancelled(ParacleError):
    """Stopped on request."""

    code = "cancelled"
    http_status = 409


class InternalError(ParacleError):
    """A bug in Paracle; the details are in the log of the service that is named."""

    code = "internal"


def _tree(root: type[ParacleError]) -> dict[str, type[ParacleError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE: Final[Mapping[str, type[ParacleError]]] = _tree(ParacleError)


def from_problem(problem: Mapping[str, Any]) -> ParacleError:
    """The error that `problem` (an RFC 9457 object of ours) describes; an unknown code is an `InternalError`."""
    kind = BY_CODE.get(str(problem.get("code")), InternalError)
    retry_after = problem.get("retry_after_s")
    return kind(
        str(problem.get("detail", "no detail given")),
        path=problem.get("path"),
        problems=[Finding.model_validate(item) for item in problem.get("problems", ())],
        retry_after_s=float(retry_after) if retry_after is not None else None,
        details=problem.get("details"),
    )


def from_info(info: ErrorInfo) -> ParacleError:
    """The error that `info` was made from."""
    return BY_CODE.get(info.code, InternalError)(
        info.message, path=info.path, retry_after_s=info.retry_after_s, details=info.details
    )


def from_validation(error: ValidationError, what: str, *, root: str = "") -> SpecInvalid:
    """Pydantic's findings as ours, each with the path of its field below `root`."""
    return SpecInvalid.many(what, findings_of(error.errors(include_url=False), root))


def findings_of(items: Iterable[Mapping[str, Any]], root: str = "") -> list[Finding]:
    """What pydantic found wrong, each with the path of its field below `root`."""
    return [Finding(path=field_path(item["loc"], root), message=_said(item)) for item in items]


def located(path: str | None, message: str) -> str:
    """`message` with where it is: a field that it begins with is named once."""
    path = path or ""
    field = re.split(r"[ .]", path)[-1]
    if message.startswith(f"{field}: "):
        return message
    if message.startswith(f"{field} "):
        path = path.removesuffix(field).rstrip(" .")
    return f"{path}: {message}" if path else message


def field_path(location: Sequence[str | int], root: str = "") -> str:
    """`("steps", 2, "needs", 0)` as `steps[2].needs[0]`, below `root`."""
    path = root
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _said(item: Mapping[str, Any]) -> str:
    """What one of pydantic's findings says, and about what."""
    match item["type"]:
        case "missing" | "value_error" | "extra_forbidden":
            return wording(item)
        case _:
            return f"{wording(item)} (got {quote(item['input'])})"


def quote(value: object) -> str:
    """`value` as it is shown in a message: short, and on one line."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= _QUOTE_LIMIT else f"{text[:_QUOTE_LIMIT]}… ({len(text):,} characters)"
