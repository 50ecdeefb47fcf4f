"""Orders to many runs: asked about first where a person sits, and answered with how many were told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from paracle_client.cli.target import Output, console, print_json
from paracle_domain.errors import InvalidInput
from paracle_domain.run.commands import RunAccepted, RunFilter, RunsAccepted

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="only say how many runs it would be")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="do not ask whether so many runs are meant")]


def order(
    verb: str,
    run_id: str | None,
    wanted: RunFilter,
    one: Callable[[str], RunAccepted],
    many: Callable[..., RunsAccepted],
    *,
    dry_run: bool,
    yes: bool,
    output: Output,
) -> None:
    """Give an order to `one` run, or to the `many` that are `wanted`; that one takes `dry_run`.

    Raises
    ------
    InvalidInput
        If both are given, or neither: nothing must happen to all runs because something was left out. And if one run is
        only to be counted.
    """
    if (run_id is None) == (wanted == RunFilter()):
        message = "give one run's id, or options that say which runs (for all: every --status that they may have)"
        raise InvalidInput(message, path="RUN")
    if run_id is not None and dry_run:
        message = f"it counts the runs that options choose; `paracle runs show {run_id}` says how this one stands"
        raise InvalidInput(message, path="--dry-run")
    if run_id is None:
        _order_many(verb, many, dry_run=dry_run, yes=yes, output=output)
    else:
        print_accepted(one(run_id), output)


def print_accepted(accepted: RunAccepted, output: Output) -> None:
    """What became of an order to a run."""
    if output is Output.JSON:
        print_json(accepted)
    else:
        console().print(f"{accepted.run_id} is {accepted.status}", markup=False, soft_wrap=True)


def _order_many(verb: str, order: Callable[..., RunsAccepted], *, dry_run: bool, yes: bool, output: Output) -> None:
    """A person is asked before whether so many are meant."""
    if dry_run or (sys.stdin.isatty() and not yes):
        expected = order(dry_run=True)
        if dry_run:
            _print(expected, f"would {verb} {_runs(expected.count)}", output)
            return
        if not typer.confirm(f"{verb} {_runs(expected.count)}?", err=True):
            raise typer.Exit(1)
    done = order()
    _print(done, f"told {_runs(done.count)} to {verb}", output)


def _print(answer: RunsAccepted, words: str, output: Output) -> None:
    if output is Output.JSON:
        print_json(answer)
    else:
        console().print(words, markup=False, soft_wrap=True)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"
