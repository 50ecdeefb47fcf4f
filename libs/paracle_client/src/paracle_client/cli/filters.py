"""Which runs a command is for: the options that say so, the same for all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel, ValidationError

from paracle_client.cli.inputs import parse_labels
from paracle_domain.errors import Finding, InvalidInput, findings_of, quote
from paracle_domain.run.commands import RunFilter, RunStatus

_OPTIONS: Final = {
    "labels": "--label",
    "created_after": "--since",
    "created_before": "--until",
    "run_id": "--run",
    "task_id": "--task",
}
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

WorkflowOption = Annotated[str | None, typer.Option(help="only runs of this workflow")]
StatusOption = Annotated[
    list[RunStatus] | None, typer.Option(help="only runs that stand so; repeated: in one of these ways")
]
LabelsOption = Annotated[
    list[str] | None, typer.Option("--label", "-l", help="key=value: only runs with that label; repeated: with all")
]
SinceOption = Annotated[
    str | None, typer.Option(help="only runs started then or later: 90s, 30m, 2h, 7d ago, or an ISO time")
]
UntilOption = Annotated[str | None, typer.Option(help="only runs started earlier than that; as --since")]
ParentOption = Annotated[str | None, typer.Option(metavar="RUN", help="only children of this run")]

StuckOption = Annotated[bool, typer.Option("--stuck", help="only runs with a message that could not be handled")]


def filter_of(
    workflow: str | None,
    statuses: Sequence[RunStatus] | None,
    labels: Sequence[str] | None,
    since: str | None,
    until: str | None,
    parent: str | None,
    *,
    stuck: bool,
) -> RunFilter:
    """The filter that the options give."""
    after, before = moments(since, until)
    return chosen(
        RunFilter,
        workflow=workflow,
        statuses=tuple(statuses or ()),
        labels=parse_labels(labels or []),
        created_after=after,
        created_before=before,
        parent=parent,
        stuck=stuck,
    )


def chosen[M: BaseModel](kind: type[M], **fields: Any) -> M:
    """The filter that options give.

    Raises
    ------
    InvalidInput
        If one of them cannot be meant; it names the option.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = [Finding(path=_option(one.path), message=one.message) for one in findings_of(error.errors())]
        raise InvalidInput(found[0].message, path=found[0].path, problems=found) from error


def _option(path: str) -> str:
    field = path.partition(".")[0]
    return _OPTIONS.get(field, f"--{field}")


def moments(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """The times that `--since` and `--until` say."""
    now = datetime.now(UTC)
    after = None if since is None else parse_time(since, now, "--since")
    return after, None if until is None else parse_time(until, now, "--until")


def parse_time(text: str, now: datetime, option: str) -> datetime:
    """The time that `text` says: so long before `now`, or an ISO time, here if it names no zone.

    Raises
    ------
    InvalidInput
        If it is neither; it says what `option` takes.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        message = f"{quote(text)} is no time; give 90s, 30m, 2h, 7d, or one like 2026-11-26T09:30"
        raise InvalidInput(message, path=option) from error
