"""What waits for people: approvals, effects in doubt, messages that could not be handled."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from paracle_client.calls.call import Call, chosen, part_of
from paracle_domain.dead_letters import DeadLetterFilter, DeadLetterPage, DeadLettersSettled, DeadLetterView
from paracle_domain.run.commands import (
    ApprovalPage,
    ApprovalStatus,
    ApprovalView,
    RunAccepted,
    Verdict,
)
from paracle_domain.task.effects import EffectFilter, EffectPage, EffectView, Truth

# Approvals


def approvals(
    *,
    status: ApprovalStatus | None = None,
    run_id: str | None = None,
    workflow: str | None = None,
    approver: str | None = None,
    mine: bool = False,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[ApprovalPage]:
    """Approvals, open ones first, then the newest; `mine`: only those that whoever asks may approve now."""
    params = {
        "status": status and status.value,
        "run_id": run_id,
        "workflow": workflow,
        "approver": approver,
        "mine": "true" if mine else None,
        "limit": limit,
        "cursor": cursor,
    }
    return Call("GET", "/v1/approvals", ApprovalPage, params)


def get_approval(approval_id: str) -> Call[ApprovalView]:
    """What exactly is asked, of whom, and what was decided."""
    return Call("GET", f"/v1/approvals/{part_of(approval_id)}", ApprovalView)


def decide(approval_id: str, decision: Verdict, *, digest: str, reason: str = "") -> Call[RunAccepted]:
    """Approve or reject what `digest` stands for: the one of the approval that was looked at."""
    body = {"decision": decision, "digest": digest, "reason": reason}
    return Call("POST", f"/v1/approvals/{part_of(approval_id)}/decision", RunAccepted, json=body)


# Effects


def effects(which: EffectFilter | None = None, *, limit: int = 50, cursor: str | None = None) -> Call[EffectPage]:
    """Effects of tools (those that fit `which`), the newest first."""
    return Call("GET", "/v1/effects", EffectPage, {**chosen(which), "limit": limit, "cursor": cursor})


def get_effect(key: str) -> Call[EffectView]:
    """One effect, by its idempotency key."""
    return Call("GET", f"/v1/effects/{part_of(key)}", EffectView)


def resolve_effect(key: str, outcome: Truth, *, output: JsonValue = None, reason: str) -> Call[EffectView]:
    """Say what became of an effect in doubt. Later attempts of the step, and forks from it, believe that."""
    body = {"outcome": outcome, "output": output, "reason": reason}
    return Call("POST", f"/v1/effects/{part_of(key)}/resolution", EffectView, json=body)


# Dead letters


def dead_letters(
    which: DeadLetterFilter | None = None, *, limit: int = 50, cursor: str | None = None
) -> Call[DeadLetterPage]:
    """Messages that could not be handled (those that fit `which`), newest first."""
    return Call("GET", "/v1/dead-letters", DeadLetterPage, {**chosen(which), "limit": limit, "cursor": cursor})


def dead_letter(letter_id: str) -> Call[DeadLetterView]:
    """One of them, whole."""
    return Call("GET", f"/v1/dead-letters/{part_of(letter_id)}", DeadLetterView)


def redrive(letter_id: str) -> Call[DeadLettersSettled]:
    """Publish it again where it was published first."""
    return Call("POST", f"/v1/dead-letters/{part_of(letter_id)}/redrive", DeadLettersSettled)


def drop(letter_id: str, reason: str) -> Call[DeadLettersSettled]:
    """Give it up for good; the audit log keeps who did, and why."""
    return Call("POST", f"/v1/dead-letters/{part_of(letter_id)}/drop", DeadLettersSettled, json={"reason": reason})


def settle_all(
    which: DeadLetterFilter, reason: str | None, before: DeadLettersSettled | None
) -> Call[DeadLettersSettled]:
    """Redrive, or with a `reason` drop, what fits; `before` is the answer to the last such call, to go on from."""
    body = {**chosen(which), "all": which == DeadLetterFilter()}
    if before is not None and before.until is not None:
        body |= {"until": before.until.isoformat(), "after": before.after}
    if reason is not None:
        body["reason"] = reason
    verb = "redrive" if reason is None else "drop"
    return Call("POST", f"/v1/dead-letters/{verb}", DeadLettersSettled, json=body)


def together(parts: Sequence[DeadLettersSettled]) -> DeadLettersSettled:
    """The answers to several calls as one."""
    return DeadLettersSettled(
        settled=tuple(letter for part in parts for letter in part.settled),
        refused=tuple(refusal for part in parts for refusal in part.refused),
    )
