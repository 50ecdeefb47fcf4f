"""`paracle approvals …`: what people are asked, and what they decide."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from paracle_client.cli.filters import WorkflowOption
from paracle_client.cli.groups import ListGroup
from paracle_client.cli.runs_commands import CursorOption, LimitOption
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    console,
    moment,
    print_facts,
    print_json,
    print_page,
)
from paracle_client.client import Client
from paracle_client.plain import safe, safe_json
from paracle_domain.errors import InvalidInput
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, Verdict

app = typer.Typer()
approvals = typer.Typer(
    cls=ListGroup,
    help="List what people are asked, open ones first (as `ls`), and decide it.",
    epilog="Example: paracle approvals --mine",
)
app.add_typer(approvals, name="approvals")

ApprovalArgument = Annotated[str, typer.Argument(metavar="APPROVAL", help="id of an approval")]
StatusOption = Annotated[ApprovalStatus | None, typer.Option(help="only approvals that stand so")]
RunOption = Annotated[str | None, typer.Option("--run", help="only of this run")]
ApproverOption = Annotated[str | None, typer.Option(help="only those that name this principal or role")]
MineOption = Annotated[bool, typer.Option("--mine", help="only those that you may approve now")]
ReasonOption = Annotated[str, typer.Option(help="kept with the decision")]
DigestOption = Annotated[
    str | None,
    typer.Option(help="digest of what is decided on, as `show` prints it; for scripts, which cannot be shown anything"),
]


@approvals.command(epilog="Example: paracle approvals ls --status open --workflow refund")
def ls(
    status: StatusOption = None,
    run: RunOption = None,
    workflow: WorkflowOption = None,
    approver: ApproverOption = None,
    mine: MineOption = False,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List approvals, open ones first, then the newest."""
    with connect(url) as client:
        page = client.approvals(
            status=status,
            run_id=run,
            workflow=workflow,
            approver=approver,
            mine=mine,
            limit=limit,
            cursor=cursor,
        )
    rows = [_row(one) for one in page.approvals]
    print_page(page, ["APPROVAL", "STATUS", "ASKS", "OF", "WORKFLOW", "EXPIRES"], rows, output, empty="no approvals")


@approvals.command(epilog="Example: paracle approvals show apr_01J…")
def show(approval_id: ApprovalArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Show exactly what is asked, of whom, and what was decided."""
    with connect(url) as client:
        found = client.get_approval(approval_id)
    if output is Output.JSON:
        print_json(found)
    else:
        _print(found)


@approvals.command(epilog='Example: paracle approvals approve apr_01J… --reason "checked with the customer"')
def approve(
    approval_id: ApprovalArgument,
    reason: ReasonOption = "",
    digest: DigestOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show what is asked and approve it, if you confirm; with --digest, approve exactly that without a question."""
    _decide(approval_id, "approve", reason, digest, output, url)


@approvals.command(epilog='Example: paracle approvals reject apr_01J… --reason "not our order"')
def reject(
    approval_id: ApprovalArgument,
    reason: ReasonOption = "",
    digest: DigestOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show what is asked and reject it, if you confirm; with --digest, reject exactly that without a question."""
    _decide(approval_id, "reject", reason, digest, output, url)


def _decide(
    approval_id: str, decision: Verdict, reason: str, digest: str | None, output: Output, url: str | None
) -> None:
    with connect(url) as client:
        wanted = digest or _confirmed(client, approval_id, decision, output)
        accepted = client.decide(approval_id, decision, digest=wanted, reason=reason)
        stands = client.get_approval(approval_id)
    if output is Output.JSON:
        print_json(stands)
        return
    console().print(
        f"{approval_id} is {stands.status}{_missing(stands)}; run {accepted.run_id}", markup=False, soft_wrap=True
    )


def _confirmed(client: Client, approval_id: str, decision: Verdict, output: Output) -> str:
    """The digest of the approval, once a person has seen it and said yes; beside standard output, if that is for JSON.

    Raises
    ------
    InvalidInput
        If there is nobody to ask.
    """
    if not sys.stdin.isatty():
        message = "standard input is no terminal, so nobody can confirm; name what you decide on, as `show` prints it"
        raise InvalidInput(message, path="--digest")
    found = client.get_approval(approval_id)
    aside = output is Output.JSON
    _print(found, aside=aside)
    typer.confirm(f"{decision.capitalize()} exactly this?", abort=True, err=aside)
    return found.digest


def _row(one: ApprovalView) -> tuple[object, ...]:
    status = f"{one.status}{_missing(one)}"
    return one.approval_id, status, one.ask, _asked(one), one.workflow, brief(one.expires_at)


def _missing(one: ApprovalView) -> str:
    """How far a decision of several has come."""
    if one.status is not ApprovalStatus.OPEN or one.quorum == 1:
        return ""
    return f" ({len(one.decisions)} of {one.quorum})"


def _asked(one: ApprovalView) -> str:
    return ", ".join((*one.principals, *(f"role {role}" for role in one.roles))) or "anybody"


def _print(one: ApprovalView, *, aside: bool = False) -> None:
    """The approval, and in its action nothing left out: that is what is decided on."""
    screen = console(aside=aside)
    screen.print(safe(one.ask, lines=True), style="bold", markup=False, soft_wrap=True)
    print_facts(_facts(one), screen)
    action = json.dumps(one.action, indent=2, ensure_ascii=False)
    screen.print("action", markup=False)
    screen.print(safe_json(action), markup=False, soft_wrap=True)


def _facts(one: ApprovalView) -> Iterator[tuple[str, str]]:
    yield "approval", one.approval_id
    yield "status", f"{one.status}{_missing(one)}"
    yield "run", f"{one.run_id} ({one.workflow}, step {one.step}), started by {one.requested_by}"
    yield "asked", f"{moment(one.asked_at)}, of {_asked(one)}{', after an escalation' if one.escalated else ''}"
    if one.expires_at is not None:
        yield "expires", moment(one.expires_at)
    for told in one.decisions:
        why = f": {told.reason}" if told.reason else ""
        yield told.decision, f"{moment(told.at)}, by {told.principal}{why}"
    yield "digest", one.digest
