"""Guards that look for themselves: for personal data, for a pattern, for JSON of a schema."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Final

import jsonschema_rs
from pydantic_core import from_json, to_json

from paracle_chassis.patterns import pattern
from paracle_domain.envelope import Context
from paracle_domain.errors import SpecInvalid
from paracle_domain.guard.messages import GuardQuestion
from paracle_domain.guard.spec import REDACTED, JsonSchemaGuard, OnHit, PiiGuard, RegexGuard
from paracle_domain.inference.request import Complete
from paracle_domain.strict_json import parse_json
from paracle_provider_gateway.guards.pii import find, redact, replaced
from paracle_provider_gateway.guards.verdicts import PASSED, Outcome, Verdict

_AT_ONCE: Final = 32_768
"""Characters that are looked through in a few milliseconds; more are in a thread of their own."""
_SCHEMAS_KEPT: Final = 512
_MOST_VIOLATIONS: Final = 100
_OUTCOMES: Final[dict[OnHit, Outcome]] = {
    "refuse": Outcome.REFUSED,
    "redact": Outcome.REDACTED,
    "warn": Outcome.WARNED,
}


class LocalGuard:
    """Judges by a pure function."""

    def __init__(self, judge: Callable[[GuardQuestion], Verdict]) -> None:
        self._judge = judge

    async def check(self, question: GuardQuestion, _request: Complete, _context: Context) -> Verdict:
        """See `Guard.check`."""
        if sum(len(passage.text) for passage in question.passages) <= _AT_ONCE:
            return self._judge(question)
        return await asyncio.to_thread(self._judge, question)


def personal_data(spec: PiiGuard, question: GuardQuestion) -> Verdict:
    """Whether there is personal data; what is left without it, if it is to be redacted."""
    found: Counter[str] = Counter()
    texts: list[str] = []
    for passage in question.passages:
        if spec.on_hit == "redact":
            text, counts = redact(passage.text, spec.entities)
            texts.append(text)
        else:
            counts = Counter(one.kind for one in find(passage.text, spec.entities))
        found.update({kind.value: count for kind, count in counts.items()})
    return hit(spec.on_hit, found, texts)


def regular_expression(spec: RegexGuard, question: GuardQuestion) -> Verdict:
    """Whether the pattern matches; or whether it does not, if it is required to."""
    looked_for = pattern(spec.pattern, ignore_case=spec.ignore_case)
    if spec.required:
        answer = answer_of(question)
        missed = answer is not None and not looked_for.matches(answer)
        return hit(spec.on_hit, Counter(no_match=int(missed)))
    found, texts = 0, list[str]()
    for passage in question.passages:
        spans = list(looked_for.spans(passage.text))
        found += len(spans)
        texts.append(replaced(passage.text, ((*span, REDACTED) for span in spans)))
    return hit(spec.on_hit, Counter(match=found), texts)


def json_of_schema(spec: JsonSchemaGuard, question: GuardQuestion) -> Verdict:
    """Whether an answer is JSON that the schema allows."""
    answer = answer_of(question)
    if answer is None:
        return PASSED
    try:
        value = parse_json(answer)
    except ValueError:
        return hit(spec.on_hit, Counter(no_json=1))
    validator = _validator(to_json(spec.json_schema))
    places = ["/".join(map(str, error.schema_path)) for error in islice(validator.iter_errors(value), _MOST_VIOLATIONS)]
    verdict = hit(spec.on_hit, Counter(violation=len(places)))
    return replace(verdict, reason=f"{verdict.reason}: {places[0]} of its schema") if places else verdict


def hit(on_hit: OnHit, found: Counter[str], texts: Sequence[str] | None = None) -> Verdict:
    """The verdict about what was found, if anything was."""
    counts = {kind: count for kind, count in found.items() if count > 0}
    if not counts:
        return PASSED
    reason = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    return Verdict(_OUTCOMES[on_hit], counts, texts if on_hit == "redact" else None, reason)


def answer_of(question: GuardQuestion) -> str | None:
    """What a reply answers; `None` if it calls tools instead."""
    if question.calls_tools:
        return None
    return "".join(passage.text for passage in question.passages if passage.speaker == "assistant")


@lru_cache(maxsize=_SCHEMAS_KEPT)
def _validator(schema: bytes) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(from_json(schema), validate_formats=True, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise SpecInvalid("the guard's schema is no JSON Schema") from error
