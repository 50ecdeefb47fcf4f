"""What is kept of a run beside its history, in columns: written once, when it begins, for lists and for policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paracle_domain.plan import Plan


def facts_of(
    plan: Plan,
    *,
    principal: str,
    request: str,
    labels: Mapping[str, str],
    priority: int = 0,
    parent: str | None = None,
    forked_from: str | None = None,
    session: str | None = None,
    waits: bool = False,
) -> Mapping[str, Any]:
    """The facts of a run of `plan`; `request` is the digest of what asked for it.

    `session` is what it is a turn of; `waits`: it begins queued.
    """
    workflow = plan.workflow
    retention = workflow.spec.retention
    return {
        "workflow": workflow.name,
        "revision": workflow.revision,
        "plan": plan.digest,
        "principal": principal,
        "request": request,
        "labels": json.dumps(dict(labels)),
        "priority": priority,
        "parent": parent,
        "forked_from": forked_from,
        "keep_s": None if retention is None else retention.keep_s,
        "max_runs": workflow.spec.max_runs,
        "session": session,
        "waits": waits,
    }
