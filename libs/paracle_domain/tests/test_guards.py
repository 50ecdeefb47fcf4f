"""Guards: how they are written, inherited and passed on, and what those of a tenant's own are asked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from paracle_domain.agent.manifest import AgentManifest
from paracle_domain.guard.messages import GuardAnswer, subject_of
from paracle_domain.guard.spec import MOST_GUARDS, Direction, Guard, PersonalData, PiiGuard

GUARDS = TypeAdapter[Guard](Guard)
PII = {"name": "pii", "type": "pii"}
SHAPE = {"name": "shape", "type": "json_schema", "json_schema": {"type": "object"}}
SIGNED = {"name": "signed", "type": "regex", "pattern": "x", "required": True, "on": "output"}
OURS = {"name": "ours", "type": "nats", "guard": "check"}


def test_what_is_not_said_is_strict() -> None:
    guard = GUARDS.validate_python(PII)
    assert isinstance(guard, PiiGuard)
    assert (guard.on, guard.on_hit, guard.on_error) == ("both", "redact", "refuse")
    assert guard.entities == tuple(PersonalData)
    assert PersonalData.US_SSN.placeholder == "[US_SSN]"


@pytest.mark.parametrize(
    ("guard", "watches", "of_answers"),
    [
        (PII, {"input", "output"}, False),
        (PII | {"on": "input"}, {"input"}, False),
        (OURS | {"on": "output"}, {"output"}, False),
        (SHAPE, {"output"}, True),
        (SIGNED, {"output"}, True),
        ({"name": "m", "type": "moderation", "model": "openai/m", "threshold": 0.5}, {"input", "output"}, False),
        ({"name": "r", "type": "regex", "pattern": "x"}, {"input", "output"}, False),
    ],
)
def test_what_a_guard_looks_at(guard: dict[str, Any], watches: set[str], of_answers: bool) -> None:
    found = GUARDS.validate_python(guard)
    sides: tuple[Direction, ...] = ("input", "output")
    assert {side for side in sides if found.watches(side)} == watches
    assert found.of_answers is of_answers


@pytest.mark.parametrize(
    ("guard", "what"),
    [
        (SIGNED | {"on": "both"}, "required is about answers; say on: output"),
        (SIGNED | {"on_hit": "redact"}, "cannot be redacted; say on_hit: refuse, or warn"),
        (SHAPE | {"on": "input"}, "output"),
        (PII | {"entities": []}, "at least 1"),
        (PII | {"entities": ["name"]}, "email"),
        (OURS | {"guard": "a.b"}, "A-Z, a-z, 0-9"),
        ({"name": "m", "type": "moderation", "model": "nonsense"}, "names no provider"),
        ({"name": "x", "type": "magic"}, "pii"),
    ],
)
def test_what_a_guard_cannot_be(guard: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        GUARDS.validate_python(guard)


def test_guards_of_an_agent_have_names_of_their_own_and_are_not_too_many() -> None:
    with pytest.raises(ValidationError, match="two guards are called 'pii'; give each a name of its own"):
        AgentManifest.model_validate({"guards": [PII, PII]})
    with pytest.raises(ValidationError, match=f"more than the {MOST_GUARDS} that an agent can have"):
        AgentManifest.model_validate({"guards": {"add": [PII | {"name": f"g{n}"} for n in range(MOST_GUARDS + 1)]}})


def test_a_subject_is_of_its_tenant() -> None:
    assert subject_of("check", "acme") == "paracle.v1.acme.rpc.guards.check"


def test_answers() -> None:
    assert GuardAnswer.passed() == GuardAnswer(verdict="pass")
    assert GuardAnswer.refused("no") == GuardAnswer(verdict="refuse", reason="no")
    assert GuardAnswer.replaced("a", "b").texts == ("a", "b")
    with pytest.raises(ValidationError, match="give texts with verdict: replace"):
        GuardAnswer(verdict="replace")
    with pytest.raises(ValidationError, match="give texts with verdict: replace"):
        GuardAnswer(verdict="pass", texts=("a",))
