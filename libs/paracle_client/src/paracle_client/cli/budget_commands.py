"""`paracle budget …`: what model calls may use, how far that is used, and changing it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from paracle_client.cli.groups import ListGroup
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    connect,
    console,
    moment,
    print_facts,
    print_json,
    print_table,
)
from paracle_client.cli.usage_commands import money
from paracle_domain.budget.messages import BudgetUse, BudgetView
from paracle_domain.budget.spec import EACH, Budget, BudgetScope, BudgetWindow, OnHit, Unpriced
from paracle_domain.errors import InvalidInput, from_validation, quote

app = typer.Typer()
budget = typer.Typer(
    cls=ListGroup,
    help="List budgets (as `ls`), limits on what model calls use in money and tokens, and change them.",
    epilog="Example: paracle budget set team --scope project --of atlas --usd 20 --window day",
)
app.add_typer(budget, name="budget")

NameArgument = Annotated[str, typer.Argument(metavar="BUDGET", help="name of a budget")]
ScopeOption = Annotated[BudgetScope, typer.Option(help="whose calls it counts")]
OnlyScopeOption = Annotated[BudgetScope | None, typer.Option("--scope", help="only budgets of this scope")]
OfOption = Annotated[str, typer.Option(help="the one that is meant; * is each, with a count of its own")]
SubjectOption = Annotated[str | None, typer.Option(help="only what this project, user, agent, run or task used")]
UsdOption = Annotated[str | None, typer.Option(help="most money, in US dollars")]
TokensOption = Annotated[int | None, typer.Option(min=1, help="most tokens, input and output")]
WindowOption = Annotated[BudgetWindow, typer.Option(help="when it counts anew, in UTC; total: never")]
OnHitOption = Annotated[
    OnHit,
    typer.Option(help="when it is used up: stop fails calls, model asks --model instead, ask has people asked"),
]
ModelOption = Annotated[str | None, typer.Option(help="with --on-hit model: who is asked instead")]
UnpricedOption = Annotated[Unpriced, typer.Option(help="calls at an unknown price, where money is limited")]
PrincipalOption = Annotated[
    list[str] | None, typer.Option("--approver", help="with --on-hit ask: who may raise it; may be repeated")
]
RoleOption = Annotated[
    list[str] | None, typer.Option("--role", help="with --on-hit ask: a role that may raise it; may be repeated")
]
OwnOption = Annotated[bool, typer.Option("--own", help="with --on-hit ask: also who started the run")]
ReasonOption = Annotated[str | None, typer.Option(help="why; kept in the audit log")]


@budget.command("set", epilog="Example: paracle budget set runs --scope run --usd 0.50 --on-hit ask --role finance")
def set_(
    name: NameArgument,
    scope: ScopeOption = BudgetScope.TENANT,
    of: OfOption = EACH,
    usd: UsdOption = None,
    tokens: TokensOption = None,
    window: WindowOption = BudgetWindow.TOTAL,
    on_hit: OnHitOption = OnHit.STOP,
    model: ModelOption = None,
    unpriced: UnpricedOption = Unpriced.REFUSE,
    approver: PrincipalOption = None,
    role: RoleOption = None,
    own: OwnOption = False,
    reason: ReasonOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Set a budget, or change the one of that name as a whole. It counts from now on."""
    wanted = _budget(
        name=name,
        scope=scope,
        of=of,
        window=window,
        limit_usd=_amount(usd),
        limit_tokens=tokens,
        on_hit=on_hit,
        model=model,
        unpriced=unpriced,
        approval={"principals": approver or (), "roles": role or (), "own": own},
    )
    with connect(url) as client:
        _print(client.set_budget(wanted, reason=reason), output)


@budget.command(epilog="Example: paracle budget ls --scope project")
def ls(
    name: Annotated[str | None, typer.Argument(metavar="BUDGET", help="only this one")] = None,
    scope: OnlyScopeOption = None,
    subject: SubjectOption = None,
    subjects: Annotated[int, typer.Option(min=1, max=500, help="most subjects of each budget")] = 20,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """List budgets, with what is spent and left of each."""
    with connect(url) as client:
        found = client.budgets(name=name, scope=scope, subject=subject, subjects=subjects)
    if output is Output.JSON:
        print_json(found)
        return
    rows = [row for one in found.budgets for row in _rows(one)]
    columns = ["BUDGET", "FOR", "WINDOW", "LIMIT", "SPENT", "RESERVED", "LEFT", "WHEN USED UP"]
    few = name is not None or scope is not None or subject is not None
    empty = "no such budgets" if few else "no budgets: model calls may use whatever they like"
    print_table(columns, rows, empty=empty)


@budget.command(epilog="Example: paracle budget rm team")
def rm(
    name: NameArgument, reason: ReasonOption = None, output: OutputOption = Output.TABLE, url: UrlOption = None
) -> None:
    """Take a budget away: it holds nothing back any more."""
    with connect(url) as client:
        gone = client.delete_budget(name, reason=reason)
    if output is Output.JSON:
        print_json(gone)
    else:
        console().print(f"budget {name} is gone", markup=False, soft_wrap=True)


@budget.command("raise", epilog="Example: paracle budget raise team atlas --usd 5 --reason 'release week'")
def raise_(
    name: NameArgument,
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="whose limit: a project, user, agent, run, task, or the tenant")
    ],
    usd: UsdOption = None,
    tokens: TokensOption = None,
    reason: ReasonOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Add to the limit of one subject until the window ends; the budget itself stays as it is."""
    with connect(url) as client:
        _print(client.raise_budget(name, subject, usd=_amount(usd), tokens=tokens, reason=reason), output)


def _budget(**fields: Any) -> Budget:
    try:
        return Budget.model_validate(fields)
    except ValidationError as error:
        wrong = from_validation(error, "budget")
        raise InvalidInput(wrong.message, path=wrong.path) from error


def _amount(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text.removeprefix("$"))
    except InvalidOperation:
        raise InvalidInput(f"{quote(text)} is no amount; give one like 5 or 0.25", path="--usd") from None


def _print(one: BudgetView, output: Output) -> None:
    if output is Output.JSON:
        print_json(one)
    else:
        print_facts(_facts(one))


def _facts(one: BudgetView) -> Iterator[tuple[str, str]]:
    wanted = one.budget
    yield "budget", f"{wanted.name} (revision {one.revision})"
    yield "for", _whose(one)
    yield "limit", f"{_limit(wanted.limit_usd, wanted.limit_tokens)}, {_window(wanted.window)}"
    yield "on hit", _then(wanted)
    yield "set", f"{moment(one.set_at)}, by {one.set_by}"
    for use in one.uses:
        yield "spent", f"{use.subject}: {_spent(use)} of {_limit(use.limit_usd, use.limit_tokens)}{_raised(use)}"


def _rows(one: BudgetView) -> Iterator[tuple[object, ...]]:
    wanted = one.budget
    bare = (wanted.name, _whose(one), wanted.window, _limit(wanted.limit_usd, wanted.limit_tokens))
    if not one.uses:
        yield (*bare, "", "", "", _then(wanted))
    for use in one.uses:
        whose = "tenant" if wanted.scope is BudgetScope.TENANT else f"{wanted.scope} {use.subject}"
        limit = f"{_limit(use.limit_usd, use.limit_tokens)}{_raised(use, until=False)}"
        yield (
            wanted.name, whose, use.period, limit, _spent(use), _reserved(use),
            "used up" if use.is_over else _left(use), _then(wanted),
        )  # fmt: skip
    if one.more:
        yield (wanted.name, "and more: --subjects", "", "", "", "", "", "")


def _whose(one: BudgetView) -> str:
    wanted = one.budget
    if wanted.scope is BudgetScope.TENANT:
        return "tenant"
    return f"each {wanted.scope}" if wanted.of == EACH else f"{wanted.scope} {wanted.of}"


def _window(window: BudgetWindow) -> str:
    return "in all" if window is BudgetWindow.TOTAL else f"each {window}"


def _then(wanted: Budget) -> str:
    match wanted.on_hit:
        case OnHit.STOP:
            return "stop"
        case OnHit.MODEL:
            return f"ask {wanted.model} instead"
        case OnHit.ASK:
            rules = wanted.approval
            asked = ", ".join((*rules.principals, *(f"role {role}" for role in rules.roles)))
            return f"ask {asked or 'people'}"


def _limit(usd: Decimal | None, tokens: int | None) -> str:
    """Both where there are two, money first."""
    parts = [money(usd)] if usd is not None else []
    return " and ".join([*parts, *([f"{tokens:,} tokens"] if tokens is not None else [])])


def _raised(use: BudgetUse, *, until: bool = True) -> str:
    """What of the limit was added to the budget's own; nothing if nothing was."""
    usd, tokens = use.raised_usd or None, use.raised_tokens or None
    if usd is None and tokens is None:
        return ""
    end = f" until {moment(use.ends_at)}" if until and use.ends_at is not None else ""
    return f" ({_limit(usd, tokens)} added{end})"


def _spent(use: BudgetUse) -> str:
    return _both(use, use.spent_usd, use.spent_tokens)


def _reserved(use: BudgetUse) -> str:
    return _both(use, use.reserved_usd, use.reserved_tokens) if use.reserved_usd or use.reserved_tokens else ""


def _left(use: BudgetUse) -> str:
    return _both(use, use.remaining_usd or Decimal(0), use.remaining_tokens or 0)


def _both(use: BudgetUse, usd: Decimal, tokens: int) -> str:
    return _limit(usd if use.limit_usd is not None else None, tokens if use.limit_tokens is not None else None)
