"""Budgets that ask: what people are asked when a model call finds one used up, and about how much exactly.

The task waits, as for a tool call that is held. All tasks that find the same budget used up ask one and the same
question: whoever asks it first has it asked, and what comes of it is for all. Once people have agreed the budget is
raised, once, by what they were asked about, and the calls are made again; a call that finds it used up again has a
question anew. Where there is room without that (somebody raised the budget by hand), nobody waits any longer. What
people agreed to raises only the budget that they were asked about: one that was changed meanwhile is asked about anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue, ValidationError

from paracle_domain.budget.messages import BudgetList, BudgetUse, RaiseBudget
from paracle_domain.budget.spec import Budget, BudgetApproval, OnHit
from paracle_domain.errors import BudgetExceeded, Conflict, ErrorInfo, NotFound
from paracle_domain.ids import derive_id, id_from_key
from paracle_domain.messages import JsonObject
from paracle_domain.plan import digest_of
from paracle_domain.run.commands import ApprovalStatus, ApprovalView, AskForCall
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task.approvals import rejection
from paracle_domain.task.directives import AskForRaise

if TYPE_CHECKING:
    from paracle_domain.task.state import Job, TaskState
    from paracle_domain.task.story import Story

_SHARE: Final = 10
"""A raise is at least this part of the limit, so that who agrees is not asked again for each call."""
_DIGITS: Final = 2
_FINEST: Final = -9
_VOID: Final = frozenset({Conflict.code, NotFound.code})
"""Why a raise that was approved was not made: the budget is another now, or gone."""


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
            **{name: details[name] for name in ("budget", "subject", "period", "question")},
            **{name: details[name] for name in ("limit_usd", "limit_tokens") if name in details},
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


def _much(short: ev.Shortage) -> Iterator[str]:
    if short.usd is not None:
        yield f"{short.usd} USD"
    if short.tokens is not None:
        yield f"{short.tokens:,} tokens"


def held(state: TaskState, call_id: str, error: ErrorInfo, short: ev.Shortage, at: datetime) -> ev.BudgetHeld:
    """The model call `call_id` waits for people to raise a budget.

    What they were asked before is not asked again: that is over, and changed nothing.
    """
    past = state.lifted
    if past is not None and past.short.question == short.question:
        return _held(call_id, derive_id("apr", past.approval_id), error, short, at)
    return _held(call_id, id_from_key("apr", short.question), error, short, at)


def _held(call_id: str, approval_id: str, error: ErrorInfo, short: ev.Shortage, at: datetime) -> ev.BudgetHeld:
    digest = _digest(_ask(short), _action(short), short)
    return ev.BudgetHeld(call_id=call_id, approval_id=approval_id, short=short, error=error, digest=digest, at=at)


def _ask(short: ev.Shortage) -> str:
    return f"Raise the budget {short.budget} of {short.subject} by {' and '.join([*_much(short)])}?"


def _action(short: ev.Shortage) -> JsonObject:
    return {
        "budget": short.budget,
        "subject": short.subject,
        "period": short.period,
        "raise_usd": None if short.usd is None else str(short.usd),
        "raise_tokens": short.tokens,
    }


def _digest(ask: str, action: JsonValue, short: ev.Shortage) -> str:
    """Of all that people decide upon."""
    return digest_of({"ask": ask, "action": action, "rules": short.approval.model_dump(mode="json")})


def ask_for_raise(job: Job, waiting: ev.BudgetHeld) -> AskForRaise:
    """Ask about `waiting`, in the name of this task if no other one has asked yet."""
    task, short, rules = job.task, waiting.short, waiting.short.approval
    request = AskForCall(
        approval_id=waiting.approval_id,
        run_id=task.run_id,
        task_id=task.task_id,
        step=task.step,
        ask=_ask(short),
        action=_action(short),
        digest=waiting.digest,
        asked_at=waiting.at,
        principals=rules.principals,
        roles=rules.roles,
        quorum=rules.quorum,
        own=rules.own,
        expires_s=rules.expires_s,
        escalate_to=rules.escalate_to,
    )
    return AskForRaise(request, short)


def order_of(view: ApprovalView, short: ev.Shortage) -> RaiseBudget | None:
    """What people agreed to in `view`: the raise of whoever asked first; nothing if that is not about `short`.

    Its key is the approval: however many tasks have it carried out, it raises once.
    """
    action = view.action
    about = {"budget": short.budget, "subject": short.subject, "period": short.period}
    if not isinstance(action, dict) or not about.items() <= action.items():
        return None
    if _digest(view.ask, action, short) != view.digest:
        return None
    return RaiseBudget.model_validate(
        {
            "name": short.budget,
            "subject": short.subject,
            "period": short.period,
            "question": short.question,
            "key": view.approval_id,
            "usd": action["raise_usd"],
            "tokens": action["raise_tokens"],
            "reason": f"approved as {view.approval_id} for task {view.task_id}",
        }
    )


def has_room(found: BudgetList, short: ev.Shortage) -> bool:
    """Whether calls may go on the budget again, as `found` has it: it was raised or deleted, or it is another day.

    So may they if it was changed, though there is none: then something else is to be asked, or nothing.
    """
    return not any(
        use.is_over and use.subject == short.subject and _is_as_asked(view.budget, use, short)
        for view in found.budgets
        if view.budget.name == short.budget
        for use in view.uses
    )


def _is_as_asked(budget: Budget, use: BudgetUse, short: ev.Shortage) -> bool:
    same = (use.limit_usd, use.limit_tokens) == (short.limit_usd, short.limit_tokens)
    return same and budget.on_hit is OnHit.ASK and budget.approval == short.approval


def raise_decided(story: Story, message: told.RaiseDecided) -> None:
    """Ask the model again once the budget is raised, or another; otherwise the task has no money, and fails."""
    waiting, view = story.state.held, message.view
    if waiting is None or view.approval_id != waiting.approval_id or view.status is ApprovalStatus.OPEN:
        return
    if _is_past(view, waiting):
        _ask_anew(story, waiting, message.at)
        return
    if message.error is not None and message.error.code in _VOID:
        story.tell(_released(waiting, message.at, ApprovalStatus.VOID, decisions=view.decisions, lifted=True))
        return
    verdict = view.status if order_of(view, waiting.short) is not None else ApprovalStatus.VOID
    story.tell(_released(waiting, message.at, verdict, decisions=view.decisions))
    if verdict is not ApprovalStatus.APPROVED:
        said = f"{waiting.error.message} ({_why_not(verdict, view)})"
        story.fail(waiting.error.model_copy(update={"message": said}))
    elif message.error is not None:
        story.fail(message.error)


def budget_lifted(story: Story, message: told.BudgetLifted) -> None:
    """Ask the model again: there is room without anybody's decision."""
    waiting = story.state.held
    if waiting is not None and waiting.approval_id == message.approval_id:
        story.tell(_released(waiting, message.at, ApprovalStatus.VOID, lifted=True))


def _is_past(view: ApprovalView, waiting: ev.BudgetHeld) -> bool:
    """Whether `view` says nothing to who waits: nobody asks any more, or it was refused before this task asked."""
    if view.status is ApprovalStatus.APPROVED:
        return False
    return view.status is ApprovalStatus.VOID or (view.decided_at is not None and view.decided_at < waiting.at)


def _ask_anew(story: Story, waiting: ev.BudgetHeld, at: datetime) -> None:
    """The next question about the same: whoever finds this one over comes to the same."""
    story.tell(_released(waiting, at, ApprovalStatus.VOID))
    following = derive_id("apr", waiting.approval_id)
    story.tell(_held(waiting.call_id, following, waiting.error, waiting.short, at))


def _released(waiting: ev.BudgetHeld, at: datetime, verdict: ApprovalStatus, **more: Any) -> ev.BudgetReleased:
    waited_s = max(0.0, (at - waiting.at).total_seconds())
    return ev.BudgetReleased(
        call_id=waiting.call_id, approval_id=waiting.approval_id, verdict=verdict, waited_s=waited_s, **more
    )


def _why_not(verdict: ApprovalStatus, view: ApprovalView) -> str:
    match verdict:
        case ApprovalStatus.REJECTED:
            who, why = rejection(view)
            return f"{who} rejected raising it{why}"
        case ApprovalStatus.EXPIRED:
            return "nobody, or too few, agreed in time to raise it"
        case _:
            return "the approval of raising it is void: something that it was bound to has changed"
