"""Budgets that ask: what people are asked when a model call finds one used up, and about how much exactly.

The task waits, as for a tool call that is held. Once they have agreed the budget is raised, once, by what they were
asked about, and the call is made again; if that finds it used up again, it is a question anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from paracle_domain.budget.messages import RaiseBudget
from paracle_domain.budget.spec import BudgetApproval, OnHit
from paracle_domain.errors import BudgetExceeded, ErrorInfo
from paracle_domain.ids import derive_id
from paracle_domain.messages import JsonObject
from paracle_domain.plan import digest_of
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.approvals import rejection
from paracle_domain.task.directives import AskForRaise

if TYPE_CHECKING:
    from paracle_domain.task.state import Job
    from paracle_domain.task.story import Story

_SHARE: Final = 10
"""A raise is at least this part of the limit, so that who agrees is not asked again for each call."""
_DIGITS: Final = 2
_FINEST: Final = -9


@dataclass(frozen=True, slots=True)
class Raise:
    """What is asked of people. `digest` is that of all that they decide upon."""

    approval_id: str
    ask: str
    action: JsonObject
    digest: str


def shortage(error: ErrorInfo) -> ev.Shortage | None:
    """What is to be asked because of `error`; nothing if no budget asks, or a raise would mend nothing."""
    details = error.details or {}
    if error.code != BudgetExceeded.code or details.get("on_hit") != OnHit.ASK:
        return None
    try:
        usd, tokens = _missing(details, "usd"), _missing(details, "tokens")
        if usd is None and tokens is None:
            return None
        return ev.Shortage(
            **{name: details[name] for name in ("budget", "subject", "period")},
            usd=usd,
            tokens=None if tokens is None else int(tokens),
            approval=BudgetApproval.model_validate_json(details.get("approval", "{}")),
        )
    except (InvalidOperation, ValidationError, KeyError):
        return None


def _missing(details: dict[str, str], unit: str) -> Decimal | None:
    """By how much the limit would be raised, if it is reached: so that the call has room, and some after it."""
    if f"limit_{unit}" not in details:
        return None
    limit, spent = Decimal(details[f"limit_{unit}"]), Decimal(details[f"spent_{unit}"])
    if spent < limit:
        return None
    needed = spent - limit + Decimal(details.get(f"estimate_{unit}", "0"))
    return rounded(max(needed, limit / _SHARE), 0 if unit == "tokens" else _FINEST)


def rounded(amount: Decimal, finest: int) -> Decimal:
    """`amount`, or a little more, in two digits, of which none is finer than the power `finest` of ten."""
    place = max(amount.adjusted() - _DIGITS + 1, finest)
    return amount.quantize(Decimal((0, (1,), place)), ROUND_UP)


def exact_raise(job: Job, call_id: str, short: ev.Shortage) -> Raise:
    """What is asked about raising a budget for the model call `call_id`."""
    task, agent = job.task, job.agent
    much = " and ".join([*_much(short)])
    ask = f"Raise the budget {short.budget} of {short.subject} by {much}?"
    action: JsonObject = {
        "budget": short.budget,
        "subject": short.subject,
        "period": short.period,
        "raise_usd": None if short.usd is None else str(short.usd),
        "raise_tokens": short.tokens,
        "agent": agent.name if agent else None,
        "agent_revision": agent.revision if agent else None,
    }
    bound: JsonObject = {
        "run": task.run_id,
        "plan": task.plan,
        "step": task.step,
        "task": task.task_id,
        "call": call_id,
        "ask": ask,
        "action": action,
        "rules": short.approval.model_dump(mode="json"),
    }
    return Raise(derive_id("apr", task.task_id, call_id), ask, action, digest_of(bound))


def _much(short: ev.Shortage) -> Iterator[str]:
    if short.usd is not None:
        yield f"{short.usd} USD"
    if short.tokens is not None:
        yield f"{short.tokens:,} tokens"


def held(job: Job, call_id: str, error: ErrorInfo, short: ev.Shortage, at: datetime) -> ev.BudgetHeld:
    """The model call `call_id` waits for people to raise a budget."""
    asked = exact_raise(job, call_id, short)
    return ev.BudgetHeld(
        call_id=call_id, approval_id=asked.approval_id, short=short, error=error, digest=asked.digest, at=at
    )


def ask_for_raise(job: Job, waiting: ev.BudgetHeld) -> AskForRaise:
    """Ask about `waiting`; the key of the raise is the approval, so that one of them raises once."""
    task, short, rules = job.task, waiting.short, waiting.short.approval
    asked = exact_raise(job, waiting.call_id, short)
    request = AskForCall(
        approval_id=asked.approval_id,
        run_id=task.run_id,
        task_id=task.task_id,
        step=task.step,
        ask=asked.ask,
        action=asked.action,
        digest=asked.digest,
        asked_at=waiting.at,
        principals=rules.principals,
        roles=rules.roles,
        quorum=rules.quorum,
        own=rules.own,
        expires_s=rules.expires_s,
        escalate_to=rules.escalate_to,
    )
    order = RaiseBudget(
        name=short.budget,
        subject=short.subject,
        period=short.period,
        key=asked.approval_id,
        usd=short.usd,
        tokens=short.tokens,
        reason=f"approved as {asked.approval_id} for task {task.task_id}",
    )
    return AskForRaise(request, order)


def raise_decided(story: Story, message: told.RaiseDecided) -> None:
    """Ask the model again once the budget is raised; otherwise the task has no money, and fails."""
    waiting, view = story.state.held, message.view
    if waiting is None or view.approval_id != waiting.approval_id or view.status is ApprovalStatus.OPEN:
        return
    asked = exact_raise(story.state.job, waiting.call_id, waiting.short)
    bound = asked.digest == waiting.digest == view.digest
    verdict = view.status if bound else ApprovalStatus.VOID
    story.tell(
        ev.BudgetReleased(
            call_id=waiting.call_id,
            approval_id=waiting.approval_id,
            verdict=verdict,
            decisions=view.decisions,
            waited_s=max(0.0, (message.at - waiting.at).total_seconds()),
        )
    )
    if verdict is not ApprovalStatus.APPROVED:
        said = f"{waiting.error.message} ({_why_not(verdict, view)})"
        story.fail(waiting.error.model_copy(update={"message": said}))
    elif message.error is not None:
        story.fail(message.error)


def _why_not(verdict: ApprovalStatus, view: ApprovalView) -> str:
    match verdict:
        case ApprovalStatus.REJECTED:
            who, why = rejection(view)
            return f"{who} rejected raising it{why}"
        case ApprovalStatus.EXPIRED:
            return "nobody, or too few, agreed in time to raise it"
        case _:
            return "the approval of raising it is void: something that it was bound to has changed"
