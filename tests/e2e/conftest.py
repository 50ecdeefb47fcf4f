"""One stack for all tests of a process; each of them finds it whole, whatever the one before did to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Nats
from tests.e2e.effects import EffectServer
from tests.e2e.world import SUMMARY, System

from paracle_chassis.testing.fake_anthropic import FakeAnthropic
from paracle_chassis.testing.fake_openai import FakeOpenAI
from paracle_chassis.testing.otlp import OtlpReceiver
from paracle_embedded import ProcessRef


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands on what its tests have to say."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["summary"] = [str(line) for line in session.config.stash[SUMMARY]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker handed on; one that was killed has nothing to say."""
    node.config.stash[SUMMARY] += getattr(node, "workeroutput", {}).get("summary", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash[SUMMARY]:
        terminalreporter.write_line(str(line))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an end-to-end test."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def session_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The stack, started once; afterwards none of its processes may be left."""
    with OtlpReceiver() as receiver, EffectServer() as effects:
        system = System(tmp_path_factory.mktemp("e2e"), receiver, effects)
        try:
            system.stack.up()
            yield system
        finally:
            processes = [ProcessRef.of(pid) for pid in system.pids().values()]
            system.stack.down()
        assert not [one for one in processes if one.alive]


@pytest.fixture
def system(session_system: System) -> System:
    """The stack, with everything running and ready, once."""
    session_system.scale()
    return session_system


@pytest.fixture
async def bare(system: System) -> AsyncIterator[Nats]:
    """A NATS client that knows nothing of Paracle."""
    async with await nats.connect(system.stack.nats_url) as client:
        yield client


@pytest.fixture
async def openai(system: System) -> AsyncIterator[FakeOpenAI]:
    """What answers for the provider `openai-compatible`."""
    fake = FakeOpenAI()
    fake.port = system.ports.compatible
    async with fake:
        yield fake


@pytest.fixture
async def anthropic(system: System) -> AsyncIterator[FakeAnthropic]:
    """What answers for the provider `anthropic`."""
    fake = FakeAnthropic()
    fake.port = system.ports.anthropic
    async with fake:
        yield fake
