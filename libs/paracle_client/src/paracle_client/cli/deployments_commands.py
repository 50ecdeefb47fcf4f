"""`paracle deployments`: what providers may be asked, what of that is in use, and which are left in peace."""

from __future__ import annotations

from typing import Annotated

import typer

from paracle_client.cli.target import Output, OutputOption, UrlOption, connect, console, print_json, print_table
from paracle_domain.inference.deployments import DeploymentUse, DeploymentView
from paracle_domain.inference.response import BreakerState

app = typer.Typer()

NameArgument = Annotated[str | None, typer.Argument(metavar="PROVIDER/MODEL", help="only this one, listed or not")]


@app.command(epilog="Example: paracle deployments openai/gpt-5-mini")
def deployments(name: NameArgument = None, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """List deployments: limits, what is in use of them, and breakers."""
    with connect(url) as client:
        found = client.deployments(name)
    if output is Output.JSON:
        print_json(found)
        return
    columns = ["DEPLOYMENT", "OF", "CALLS", "UNDER WAY", "REQUESTS/MIN", "TOKENS/MIN", "LATEST TROUBLE"]
    print_table(columns, (_row(one) for one in found.deployments), empty="no deployments")
    told = f"use is of all replicas; whether calls go, and the latest trouble, is as replica {found.replica} sees it"
    console().print(told, style="dim", markup=False, soft_wrap=True)


def _row(one: DeploymentView) -> tuple[object, ...]:
    limits, use = one.limits, one.use or DeploymentUse(in_air=0, requests=0, tokens=0)
    shares = (
        (limits.concurrency, use.in_air),
        (limits.requests_per_minute, use.requests),
        (limits.tokens_per_minute, use.tokens),
    )
    whose = "" if one.refused else "sandbox" if one.sandbox else "tenant" if one.own else "operator"
    return (
        one.name,
        whose,
        _calls(one),
        *(_share(most, used) for most, used in shares),
        one.refused or one.trouble or "",
    )


def _calls(one: DeploymentView) -> str:
    """What becomes of calls to it."""
    if one.refused is not None:
        return "refused"
    if one.breaker is BreakerState.HALF_OPEN:
        return "one, to see"
    if one.breaker is BreakerState.OPEN or one.rests_s:
        return f"rest for {one.rests_s:.0f} s"
    return "go"


def _share(most: int | None, used: int) -> str:
    return "" if most is None else f"{used:,} of {most:,}"
