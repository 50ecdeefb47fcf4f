"""Events as services publish them, and an orchestrator by script."""

from datetime import UTC, datetime, timedelta

from paracle_domain import subjects
from paracle_domain.envelope import Context, Envelope
from paracle_domain.errors import NotFound, ParacleError
from paracle_domain.histories import Begun
from paracle_domain.machine import EventRecord

RUN = "run_01JDZ7T6C4W2V9M3N5K8Q0XHRB"
OTHER_RUN = "run_01JDZ7T6C4W2V9M3N5K8Q0XHRC"
TASK = "task_01JDZ7T6C4W2V9M3N5K8Q0XHRD"
OTHER_TASK = "task_01JDZ7T6C4W2V9M3N5K8Q0XHRE"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = AT + timedelta(minutes=5)


def record(seq, kind="step.completed", *, entity="run", id=RUN, run=RUN, **data):
    return EventRecord(entity=entity, id=id, seq=seq, type=kind, at=AT, correlation_id=run, data=data)


def replied(seq, *, task=TASK, run=RUN, model="small", cost="0.01", agent="triager", step="triage", **more):
    usage = {"input_tokens": 100, "output_tokens": 10, "model_calls": 1, "cost_usd": cost}
    said = {"role": "assistant", "parts": [{"type": "text", "text": "hello"}]}
    data = {"call_id": f"call_{seq}", "turn": seq, "message": said, "finish_reason": "stop", "usage": usage}
    data |= {"provider": "openai", "model": model, "latency_s": 0.1, "agent": agent, "step": step}
    return record(seq, "task.model_replied", entity="task", id=task, run=run, **(data | more))


def tool_returned(seq, *, task=TASK, run=RUN):
    return record(seq, "task.tool_returned", entity="task", id=task, run=run, call_id=f"call_{seq}", tool="search")


class Event:
    """A published event: what the mailbox hands over, and what became of it."""

    def __init__(self, record, *, tenant="default", principal="alice", subject=None, body=None):
        token = record.type.replace(".", "_")
        self.subject = subject or subjects.evt(tenant, record.entity, record.id, token)
        context = Context(tenant=tenant, principal=principal, correlation_id=record.correlation_id)
        self.envelope = Envelope(record.message_id(tenant), "event", "paracle/test", context, AT)
        self.headers = self.envelope.headers()
        self.body = record.encode() if body is None else body
        self.refused: ParacleError | None = None

    async def term(self, error: ParacleError) -> None:
        self.refused = error


class ScriptedHistories:
    """The owners' truth, by run or task; an error instead of it is raised."""

    def __init__(self):
        self.histories: dict[str, list[EventRecord] | ParacleError] = {}
        self.asked: list[tuple[str, int]] = []
        self.births: list[Begun] = []
        self.away: ParacleError | None = None

    async def begun(self, since, after, until, limit):
        if self.away:
            raise self.away
        made = sorted((one.at, one.id, one) for one in self.births)
        return [one for at, name, one in made if (since, after) < (at, name) and at < until][:limit]

    async def after(self, tenant, run_id, seq):
        self.asked.append((run_id, seq))
        found = self.histories.get(run_id, NotFound(f"there is no run {run_id}"))
        if isinstance(found, ParacleError):
            raise found
        rest = [event for event in found if event.seq > seq]
        return rest[:2], len(rest) > 2
