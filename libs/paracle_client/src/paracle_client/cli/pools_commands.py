"""`paracle pools …`: where tasks wait, who works on them, and stopping a pool without losing any."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from paracle_client.cli.groups import ListGroup
from paracle_client.cli.target import Output, OutputOption, UrlOption, connect, console, print_json, print_table
from paracle_client.client import Client
from paracle_client.plain import safe
from paracle_domain.errors import DeadlineExceeded
from paracle_domain.task.pools import PoolReplica, PoolState, PoolView

app = typer.Typer()
pools = typer.Typer(
    cls=ListGroup,
    help="List worker pools (as `ls`), where tasks wait for the processes that work on them, and stop and resume them.",
    epilog="Example: paracle pools ls",
)
app.add_typer(pools, name="pools")

_LOOK_S: Final = 0.5
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="name of a worker pool")]
ReasonOption = Annotated[str, typer.Option(help="why; shown with the pool, and kept in the audit log")]
WaitOption = Annotated[bool, typer.Option("--wait", help="return only once nothing is in hand any more")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0, help="seconds that --wait waits at most")]


@pools.command(epilog="Example: paracle pools ls -o json")
def ls(output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """List pools: how many tasks wait, and how many are in hand."""
    with connect(url) as client:
        found = client.pools()
    if output is Output.JSON:
        print_json(found)
        return
    rows = [(one.pool, _words(one.state), *_counts(one), len(one.replicas), _memory(one)) for one in found.pools]
    columns = ["POOL", "STATE", "WAITING", "IN HAND", "AT MOST", "REPLICAS", "MEMORY"]
    print_table(columns, rows, empty="no pools")


@pools.command(epilog="Example: paracle pools show gpu")
def show(pool: PoolArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Show a pool and each process that serves it."""
    with connect(url) as client:
        found = client.get_pool(pool)
    _print(found, output)


@pools.command(epilog='Example: paracle pools drain gpu --reason "new drivers" --wait')
def drain(
    pool: PoolArgument,
    reason: ReasonOption = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = 600.0,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Take no new tasks of a pool. What is in hand is finished; the rest waits until `paracle pools resume`."""
    with connect(url) as client:
        found = client.drain_pool(pool, reason=reason)
        if wait:
            found = _until_drained(client, found, timeout)
    _print(found, output)


@pools.command(epilog="Example: paracle pools resume gpu")
def resume(pool: PoolArgument, output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Take tasks of a pool again."""
    with connect(url) as client:
        found = client.resume_pool(pool)
    _print(found, output)


def _until_drained(client: Client, found: PoolView, timeout_s: float) -> PoolView:
    deadline = time.monotonic() + timeout_s
    while found.state is not PoolState.DRAINED:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"after {timeout_s:g} s, pool {found.pool} still waits for {_in_hand(found)}")
        time.sleep(_LOOK_S)
        found = client.get_pool(found.pool)
    return found


def _print(one: PoolView, output: Output) -> None:
    if output is Output.JSON:
        print_json(one)
        return
    for name, text in _facts(one):
        console().print(f"{name:<9} {safe(text)}", markup=False, soft_wrap=True)
    if one.replicas:
        console().print()
        rows = [_row(each) for each in one.replicas]
        print_table(["REPLICA", "STATE", "IN HAND", "AT MOST", "MEMORY", "HOST", "PID"], rows, empty="")


def _facts(one: PoolView) -> Iterator[tuple[str, str]]:
    yield "pool", one.pool
    yield "state", _words(one.state)
    yield "waiting", f"{one.waiting:,}"
    if one.aside:
        yield "aside", f"{one.aside:,} turns of sessions that wait for earlier ones"
    yield "in hand", f"{one.in_hand:,} of at most {one.concurrency:,}"
    if one.state is PoolState.DRAINING:
        yield "waits for", _in_hand(one)
    if one.drain is not None:
        why = f": {one.drain.reason}" if one.drain.reason else ""
        who = f"by {one.drain.principal} " if one.drain.principal else ""
        yield "drained", f"{who}on {one.drain.since.astimezone():%Y-%m-%d %H:%M:%S}{why}"
    if not one.replicas and one.state is not PoolState.ELSEWHERE:
        yield "hint", f"no agent runtime serves it; start one with PARACLE_POOLS={one.pool}, its tasks wait until then"


def _in_hand(one: PoolView) -> str:
    """What a pool waits for that is drained."""
    if not one.in_hand:
        return "its processes to say that they have nothing in hand"
    found = f"{one.in_hand:,} {'task' if one.in_hand == 1 else 'tasks'} in hand"
    if one.for_people:
        found += f", {one.for_people:,} of which wait for people (paracle approvals ls)"
    return found


def _row(each: PoolReplica) -> tuple[object, ...]:
    memory = _mib(each.memory_mb, each.memory_ceiling_mb)
    busy = (f"{each.in_hand:,}", f"{each.concurrency:,}")
    return each.worker, _words(each.state), *busy, memory, each.host, each.pid or ""


def _counts(one: PoolView) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in (one.waiting, one.in_hand, one.concurrency))


def _words(state: PoolState) -> str:
    return "nobody serves it" if state is PoolState.UNSERVED else state.replace("_", " ")


def _memory(one: PoolView) -> str:
    """Of all its processes."""
    ceilings = [each.memory_ceiling_mb for each in one.replicas]
    most = None if None in ceilings else sum(ceiling or 0 for ceiling in ceilings)
    used = [each.memory_mb for each in one.replicas if each.memory_mb is not None]
    return _mib(sum(used) if used else None, most)


def _mib(used: int | None, ceiling: int | None) -> str:
    """Nothing, where it is not told."""
    if used is None:
        return ""
    return f"{used:,} MiB" if ceiling is None else f"{used:,} of {ceiling:,} MiB"
