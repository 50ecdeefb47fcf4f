"""What `run`, `invoke`, `events` and `demo` share: following a run to its end and saying how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console

from paracle_client.cli.app import EXIT_FAILED, EXIT_INTERRUPTED, say_error
from paracle_client.client import Client
from paracle_client.display import watch
from paracle_client.live import begin, says
from paracle_client.plain import safe
from paracle_domain.audit import UsageReport
from paracle_domain.errors import ParacleError
from paracle_domain.run.commands import Outputs, RunStatus, RunView, StepStatus

SANDBOX: Final = "sandbox"
SANDBOX_NOTE: Final = (
    "answered by the sandbox, a rule-based stand-in for a model: set OPENAI_API_KEY, ANTHROPIC_API_KEY or "
    "PARACLE_OPENAI_BASE_URL before `paracle up` to use a real one"
)
_USAGE_PATIENCE_S: Final = 5.0
_POLL_S: Final = 0.1


def follow(client: Client, run_id: str, screen: Console) -> RunView:
    """Show the run until it has ended; Ctrl-C ends only the showing."""
    try:
        for _ in watch(begin(client.get_run(run_id, outputs=Outputs.NONE)), client.events(run_id, follow=True), screen):
            pass
        return client.read_run(run_id)
    except KeyboardInterrupt:
        raise leave(run_id) from None


def wait(client: Client, run_id: str) -> RunView:
    """Wait until the run has ended, showing nothing."""
    try:
        return client.wait(run_id)
    except KeyboardInterrupt:
        raise leave(run_id) from None


@contextmanager
def started(run_id: str) -> Iterator[None]:
    """Say which run was started, if it cannot be followed any more: whoever believes that none was starts another."""
    try:
        yield
    except ParacleError:
        say_error(f"run {run_id} was started all the same. Follow it: paracle events {run_id} --follow")
        raise


def leave(run_id: str) -> typer.Exit:
    """Say how to come back to a run that goes on, or to stop it."""
    say_error(
        f"interrupted; the run goes on. Follow it: paracle events {run_id} --follow. Stop it: paracle cancel {run_id}"
    )
    return typer.Exit(EXIT_INTERRUPTED)


def require_completed(run: RunView) -> None:
    """Exit with code 1 and the reason, unless the run completed; also what other steps failed with."""
    status, run_id = run.run.status, run.run.run_id
    if status is RunStatus.COMPLETED:
        return
    reason = f": {run.error.code}: {safe(run.error.message)}" if run.error is not None else ""
    say_error(f"run {run_id} is {status}{reason}")
    for step in run.steps:
        if step.error is None or step.status is StepStatus.COMPLETED:
            continue
        if run.error is None or not says(step.id, step.error, run.error):
            say_error(f"  step {step.id} is {step.status}: {step.error.code}: {safe(step.error.message)}")
    say_error(f"  all of its events: paracle events {run_id}")
    raise typer.Exit(EXIT_FAILED)


def settled_usage(client: Client, run: RunView) -> UsageReport:
    """The run's usage by model, once it has caught up with the run's own count (it is projected from events)."""
    deadline = time.monotonic() + _USAGE_PATIENCE_S
    while True:
        report = client.usage(run.run.run_id)
        if report.total.model_calls >= run.usage.model_calls or time.monotonic() > deadline:
            return report
        time.sleep(_POLL_S)


def sandbox_answered(report: UsageReport) -> bool:
    """Whether any reply came from the sandbox."""
    return any(one.provider == SANDBOX for one in report.by_model)
