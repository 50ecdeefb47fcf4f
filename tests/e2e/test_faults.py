"""A service is killed between commit and publish, publish and ack, ack and next fetch: it makes no difference.

The orchestrator for each kind of directive, and for what else moves a run; the agent runtime for what it says of tasks.
`make test` takes one gap of each case, `make chaos` all.
"""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest
from tests.e2e import faults
from tests.e2e.faults import CASES, Case, Outcome, outcome
from tests.e2e.world import System

from paracle_chassis.testing.faults import Gap
from paracle_domain.run.directives import RunDirective

_undisturbed: dict[str, Outcome] = {}


def test_each_kind_of_directive_has_a_case() -> None:
    kinds: Any = get_args(RunDirective.__value__)
    assert set(kinds) == set(faults.BY_DIRECTIVE)


def every_gap() -> list[Any]:
    """Every case in every gap; all but one of them are only for the long suite."""
    found = []
    for number, case in enumerate(CASES):
        chosen = case.gaps[number % len(case.gaps)]
        found += [
            pytest.param(case, gap, marks=() if gap is chosen else pytest.mark.chaos, id=f"{case.name}-{gap}")
            for gap in case.gaps
        ]
    return found


@pytest.fixture
def cases(system: System) -> System:
    """The stack, with the workflows of all cases."""
    system.apply(faults.manifests(system.effects.port))
    return system


@pytest.mark.parametrize(("case", "gap"), every_gap())
async def test_a_kill_in_any_gap_changes_nothing(cases: System, case: Case, gap: Gap) -> None:
    async with asyncio.timeout(110):
        if case.name not in _undisturbed:
            _undisturbed[case.name] = await outcome(cases, case, None)
        assert await outcome(cases, case, gap) == _undisturbed[case.name]
