"""What a stack that runs already does not take over from the environment: told, but for keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_client.stack.drift import Drift, drift_lines, drifts

NAMES = st.sampled_from(
    ["PATH", "PARACLE_POOLS", "PARACLE_URL", "OTEL_TRACES_SAMPLER", "OPENAI_API_KEY", "HTTPS_PROXY"]
)
ENVIRONMENTS = st.dictionaries(NAMES, st.sampled_from(["", "a=1", "two words", "hidden-key"]))
EVERYBODY = ["registry", "agent_runtime"]


def lines(here: dict[str, str], there: dict[str, str], *who: str) -> list[str]:
    return drift_lines(dict.fromkeys(drifts(here, there), who or EVERYBODY), EVERYBODY)


@pytest.mark.parametrize(
    ("here", "there", "says"),
    [
        ("agents,heavy=1", None, "PARACLE_POOLS is agents,heavy=1 here; agent_runtime runs without it"),
        (None, "heavy=1", "PARACLE_POOLS is not set here; agent_runtime runs with heavy=1"),
        ("", "heavy=1", "PARACLE_POOLS is empty here; agent_runtime runs with heavy=1"),
        (None, '{"a": 1}', "PARACLE_POOLS is not set here; agent_runtime runs with it"),
        ('{"a": 1}', '{"a": 2}', "PARACLE_POOLS is set here; agent_runtime runs with another one"),
    ],
)
def test_what_differs_is_told_with_the_way_out(here: str | None, there: str | None, says: str) -> None:
    one, other = ({} if value is None else {"PARACLE_POOLS": value} for value in (here, there))
    line, way_out = lines(one, other, "agent_runtime")
    assert line.strip() == says
    assert "`paracle down` and `paracle up`" in way_out


def test_what_all_services_have_otherwise_is_told_once() -> None:
    line, _ = lines({"PARACLE_LOG_LEVEL": "DEBUG"}, {})
    assert line == "  PARACLE_LOG_LEVEL is DEBUG here; every service runs without it"
    line, _ = drift_lines({Drift("PARACLE_POOLS", None, "x"): ["a", "b"]}, ["a", "b", "c"])
    assert line == "  PARACLE_POOLS is not set here; a, b run with x"


def test_what_is_no_setting_of_a_service_is_not_told() -> None:
    there = {"PATH": "/bin", "PARACLE_PRINCIPAL": "ann", "PARACLE_URL": "http://x", "PARACLE_HEALTH_PORT": "1"}
    assert lines({"LANG": "C", "PYTHONPATH": "x", "PARACLE_ROLES": "lead"}, there) == []


@given(ENVIRONMENTS, ENVIRONMENTS)
def test_keys_are_never_told_and_what_is_the_same_is_nothing(here: dict[str, str], there: dict[str, str]) -> None:
    assert [*drifts(here, here)] == []
    found = [*drifts(here, there)]
    assert [(one.name, one.there, one.here) for one in found] == [
        (one.name, one.here, one.there) for one in drifts(there, here)
    ]
    keys: list[Drift] = [one for one in found if one.name in {"OPENAI_API_KEY", "HTTPS_PROXY"}]
    assert "hidden" not in "\n".join(drift_lines(dict.fromkeys(keys, EVERYBODY), EVERYBODY))
