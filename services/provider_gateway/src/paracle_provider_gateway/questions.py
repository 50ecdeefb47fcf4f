"""What is asked and who answers it, as the key of the cache: the same for the same question, and for no other. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import jsonschema_rs

from paracle_domain.guard.spec import NatsGuard
from paracle_domain.inference.chat import OutputFormat
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.strict_json import parse_json, without_fence
from paracle_provider_gateway.plans import Plan

_FORM: Final = 1
"""Of keys and kept answers: another one is never found by what reads this one."""
_NOT_ASKED: Final[dict[str, Any]] = {
    "call_id": True,
    "model": True,
    "stream_to": True,
    "waits_to": True,
    "attempts_before": True,
    "priority": True,
    "timeout_s": True,
    "labels": True,
    "cache": True,
    "sampling": {"prompt_cache"},
}
_WHOLE: Final = {FinishReason.STOP, FinishReason.TOOL_CALLS}


def question_key(plan: Plan, request: Complete, principal: str | None = None) -> bytes:
    """What tells a question from all others that a tenant asks.

    Everything counts that a model is told or asked for, as JSON, in which the order of an object's names says nothing;
    what does not count is left out by name, so a new field of requests counts. Who answers are the deployments of the
    plan's first tier, wherever they are now: a name that leads elsewhere is another question, two names that lead to
    the same are one. Where a guard of the tenant's own lets answers out, for whom it does counts, too: it may say
    something else about another agent, or `principal`.
    """
    asked = request.model_dump(mode="json", exclude=_NOT_ASKED)
    answering = sorted([*route.deployment.key, route.deployment.provider.source] for route in plan.tiers[0].routes)
    whom = _let_out_for(request, principal)
    text = json.dumps([_FORM, answering, asked, *whom], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


def _let_out_for(request: Complete, principal: str | None) -> list[str | None]:
    """What guards that are asked are told of a call, besides its texts and which call it is."""
    if not any(isinstance(guard, NatsGuard) and guard.watches("output") for guard in request.guards):
        return []
    return [request.model, request.labels.agent, request.labels.step, principal]


def is_whole(request: Complete, answer: Completion) -> bool:
    """Whether `answer` is one that somebody else may have, too: nothing is missing from it, or wrong with it."""
    calls, text = answer.message.tool_calls, answer.message.text
    if answer.finish_reason not in _WHOLE or not (calls or text.strip()):
        return False
    if calls:
        known = {tool.name for tool in request.tools}
        return all(call.invalid is None and call.name in known for call in calls)
    return request.output is None or _fits(request.output, text)


def is_first_choice(plan: Plan, answer: Completion) -> bool:
    """Whether it was given by who is meant to answer, and not by a fallback, which stands in for a while."""
    return any(route.deployment.name == answer.deployment for route in plan.tiers[0].routes)


def _fits(output: OutputFormat, text: str) -> bool:
    try:
        value = parse_json(without_fence(text))
        return jsonschema_rs.validator_for(output.json_schema, validate_formats=True, offline=True).is_valid(value)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return False
