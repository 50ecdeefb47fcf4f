"""Calls in doubt whose tool says how to find out what became of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from paracle_domain.errors import ErrorInfo, NotFound
from paracle_domain.ids import derive_id
from paracle_domain.plan import Plan
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt
from paracle_domain.task.directives import InvokeTool, ProbeEffect, ReportResult
from paracle_domain.task.effects import EffectState
from paracle_domain.task.inputs import Outcome
from paracle_domain.task.ledger import entries, inherited
from paracle_domain.task.messages import TaskStatus
from paracle_domain.task.probes import Answer, misfits, probe_arguments, read_answer
from paracle_domain.task.state import Job, TaskState
from paracle_domain.tool.spec import Probe, ToolSpec

from .test_task_machine import AT, PROBED, Play, plan, task, tool, wish

AGENT = {"tools": ["look", "pay", "wire"]}
SETTLED = AT + timedelta(seconds=10)
FORK = "run_01JTQ000000000000000000009"


class Probing(Play):
    """A play with a call of `wire`, perhaps already in doubt."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(AGENT, **changes)
        self.accept()

    def answers(self, outcome: Outcome, at: Any = AT, took_s: float = 0.0, **more: Any) -> list[str]:
        [probe] = [d for d in self.directives if isinstance(d, ProbeEffect)]
        return self.tell(told.Probed(at, probe.call_id, probe.tried, outcome, took_s, **more))

    @property
    def probes(self) -> list[ProbeEffect]:
        return [d for d in self.directives if isinstance(d, ProbeEffect)]


def doubted() -> Probing:
    play = Probing()
    play.reply(wish("wire", n=1))
    assert play.tell(told.Resume(AT)) == ["effect.in_doubt"]
    return play


def test_a_call_in_doubt_is_probed_under_its_own_key():
    play = doubted()
    [call] = play.state.calls
    [probe] = play.directives
    assert (probe.tool, probe.key, probe.tried, probe.not_before) == ("wire", call.key, 0, None)
    assert probe.arguments == {"n": 1}
    assert play.tell(told.Resume(AT)) == [], "a probe that was under way is made again"
    assert play.probes == [probe]
    assert play.tell(told.ToolSucceeded(AT, call.id, "x", 0.1)) == []


def test_what_was_done_is_confirmed_with_what_the_tool_would_have_answered():
    play = doubted()
    types = play.answers(Outcome.DONE, output={"receipt": 7})
    assert types == ["effect.probed", "effect.confirmed", "task.tool_returned"]
    assert [call.confirmed for call in play.state.calls] == [True]
    play.reply(text="paid")
    assert play.state.status is TaskStatus.COMPLETED


def test_what_was_done_may_have_given_what_the_schema_does_not_allow():
    play = Probing(target_kind="tool", target="wire", input={})
    play.tell(told.Resume(AT))
    wrong = ErrorInfo(code="output_invalid", message="no receipt")
    assert play.answers(Outcome.DONE, error=wrong)[-2:] == ["task.tool_returned", "task.failed"]
    assert play.error == "output_invalid: no receipt"


def test_what_was_not_done_is_sent_once_it_can_no_longer_be_on_its_way():
    play = doubted()
    key = play.state.calls[0].key
    assert play.answers(Outcome.NOT_DONE) == ["effect.probed"]
    [again] = play.directives
    assert isinstance(again, ProbeEffect)
    assert (again.tried, again.not_before) == (1, SETTLED)
    assert play.answers(Outcome.NOT_DONE, SETTLED) == ["effect.probed", "effect.sent"]
    [invoke] = play.directives
    assert isinstance(invoke, InvokeTool)
    assert (invoke.tool, invoke.key) == ("wire", key)
    assert play.returns() == ["effect.confirmed", "task.tool_returned"]


def test_a_slow_probe_that_looked_before_the_call_could_have_arrived_is_not_believed():
    play = doubted()
    late = SETTLED + timedelta(seconds=2)
    assert play.answers(Outcome.NOT_DONE, late, took_s=11.9) == ["effect.probed"]
    [again] = play.probes
    assert (again.tried, again.not_before) == (1, late)
    assert play.answers(Outcome.NOT_DONE, late + timedelta(seconds=2), took_s=2.0) == ["effect.probed", "effect.sent"]


def test_what_failed_and_was_not_done_is_not_sent_again_by_itself():
    play = Probing()
    play.reply(wish("wire"))
    assert play.breaks(Outcome.UNKNOWN) == ["effect.in_doubt"]
    assert play.answers(Outcome.NOT_DONE, SETTLED) == ["effect.probed", "effect.failed", "task.tool_returned"]
    [result] = prompt.model_request(play.state).messages[-1].tool_results
    assert "busy" in result.content


def test_what_was_sent_again_can_be_in_doubt_again():
    play = doubted()
    play.answers(Outcome.NOT_DONE, SETTLED)
    assert play.breaks(Outcome.UNKNOWN) == ["effect.in_doubt"]
    assert [(probe.tried, probe.not_before) for probe in play.probes] == [(0, None)]


def test_a_probe_that_cannot_tell_is_asked_again_a_few_times_and_then_people_are():
    play, at = doubted(), AT
    for tried in range(1, 6):
        assert play.answers(Outcome.UNKNOWN, at, reason="it is away") == ["effect.probed"]
        [probe] = play.probes
        assert probe.tried == tried
        assert probe.not_before is not None
        assert probe.not_before > at
        at = probe.not_before
    types = play.answers(Outcome.UNKNOWN, at, reason="it is away")
    assert types == ["effect.probed", "effect.in_doubt", "task.failed"]
    assert play.error.startswith("effect_in_doubt")
    assert "ended before it answered; it is away" in play.error
    assert [type(d) for d in play.directives] == [ReportResult]


def test_an_answer_to_an_earlier_probe_or_to_none_says_nothing():
    play = doubted()
    call = play.state.calls[0]
    assert play.tell(told.Probed(AT, call.id, 1, Outcome.DONE, 0.1)) == []
    assert play.tell(told.Probed(AT, call.id, 0, Outcome.DONE, 0.1))[0] == "effect.probed"
    assert play.tell(told.Probed(AT, call.id, 0, Outcome.NOT_DONE, 0.1)) == []


@pytest.mark.parametrize("outcome", [Outcome.NOT_DONE, Outcome.UNKNOWN])
def test_what_there_is_no_time_to_find_out_stays_in_doubt(outcome: Outcome):
    play = Probing(deadline_at=AT + timedelta(milliseconds=100))
    play.reply(wish("wire"))
    play.tell(told.Resume(AT))
    assert play.answers(outcome, reason="?") == ["effect.probed", "effect.in_doubt", "task.failed"]


def test_what_is_probed_stays_in_doubt_if_the_task_ends_meanwhile():
    for end in (told.CancelRequested(AT, "enough"), told.DeadlinePassed(AT + timedelta(hours=1))):
        play = doubted()
        assert play.tell(end)[0] == "effect.in_doubt"
        assert play.state.status.terminal
        assert play.state.calls[0].doubt is None


def test_what_a_failing_task_had_sent_is_in_doubt_as_well():
    play = Probing()
    play.reply(wish("pay", "a"), wish("wire", "b"))
    types = play.breaks(Outcome.UNKNOWN)
    assert types == ["effect.in_doubt", "task.tool_returned", "effect.in_doubt", "task.failed"]
    reasons = [event.reason for event in play.events if isinstance(event, ev.EffectInDoubt)]
    assert reasons == ["busy", "the task failed while it was being called"]


def test_one_call_that_cannot_be_probed_ends_the_task_for_all():
    play = Probing()
    play.reply(wish("wire", "a"), wish("pay", "b"))
    assert play.tell(told.Resume(AT)) == ["effect.in_doubt", "effect.in_doubt", "task.failed"]
    assert "tool 'pay'" in play.error


def earlier(key: str, called: str | None = None) -> told.AcceptTask:
    return told.AcceptTask(AT, earlier=(ev.EarlierEffect(key=key, called=called, done=False),))


def test_what_an_earlier_attempt_left_in_doubt_is_probed_while_the_rest_goes_on():
    first = Probing()
    first.reply(wish("wire", "a", n=1))
    second = Play(AGENT, attempt=2)
    second.tell(earlier(first.state.calls[0].key or ""))
    types = second.reply(wish("wire", "a", n=1), wish("pay", "b"))
    assert types[3:] == ["effect.in_doubt", "effect.sent"]
    assert [type(d) for d in second.directives] == [ProbeEffect, InvokeTool]
    second.returns(index=1)
    [probe] = [call for call in second.state.calls if call.doubt]
    assert second.tell(told.Probed(SETTLED, probe.id, 0, Outcome.NOT_DONE, 0.0)) == ["effect.probed", "effect.sent"]


def test_a_fork_probes_under_the_key_that_the_tool_was_given():
    job = {"target_kind": "tool", "target": "wire", "input": {"n": 1}}
    first = Probing(**job)
    first.tell(told.Resume(AT))
    [*_, entry] = entries(first.state, first.events, 1, AT)
    forked = task(run_id=FORK, forked_from=first.state.job.task.run_id, **job)
    [doubt] = inherited(forked, [entry.view])
    assert doubt.called == entry.view.key
    fork = Play(AGENT, run_id=FORK, **job)
    fork.tell(earlier(doubt.key, doubt.called))
    [probe] = fork.directives
    assert (probe.key, fork.state.calls[0].key) == (doubt.called, doubt.key)
    [of_fork] = entries(fork.state, fork.events, 1, AT)
    assert (of_fork.view.called, of_fork.view.state, of_fork.sent) == (doubt.called, EffectState.IN_DOUBT, False)
    fork.tell(told.Probed(SETTLED, probe.call_id, 0, Outcome.NOT_DONE, 0.0))
    assert [(d.key, d.tool) for d in fork.directives] == [(doubt.key, "wire")]
    [again] = inherited(task(run_id=derive_id("run", FORK), **job), [of_fork.view])
    assert again.called == doubt.called


def test_the_ledger_tells_of_probes():
    play = doubted()
    [before] = entries(play.state, play.events, 1, AT)
    play.answers(Outcome.UNKNOWN, reason="it is away")
    [asked] = entries(play.state, play.events[-1:], 9, AT)
    play.answers(Outcome.NOT_DONE)
    [early] = entries(play.state, play.events[-1:], 10, AT)
    play.answers(Outcome.DONE)
    [done] = entries(play.state, play.events[-3:], 11, AT)
    found = [entry.view for entry in (before, asked, early, done)]
    assert [one.state for one in found] == [*["in_doubt"] * 3, "confirmed"]
    assert [(one.probe.tried, one.probe.outcome, one.probe.open) for one in found if one.probe] == [
        (0, None, True),
        (1, "unknown", True),
        (2, "not_done", True),
        (3, "done", False),
    ]
    assert {one.reason for one in found[:3]} == {"the process that called it ended before it answered"}
    assert [one.probe.reason for one in found[1:3] if one.probe] == ["it is away", "it may still be on its way"]


def test_a_plan_that_lacks_a_probe_is_none():
    whole = plan(AGENT)
    lacking = Plan.pin(whole.workflow, whole.agents, {n: t for n, t in whole.tools.items() if n != "trace"})
    with pytest.raises(NotFound, match="no tool 'trace'"):
        TaskState(Job.of(task(), lacking))


def test_a_probe_gets_the_arguments_that_its_input_names():
    assert probe_arguments(PROBED["trace"].spec, {"n": 1, "secret": 2}, "eff_1") == {"n": 1, "idempotency_key": "eff_1"}
    assert probe_arguments(tool("any").spec, {"n": 1}, "eff_1") == {"n": 1}


BY_FIELD = Probe(tool="trace", outcome="{{ 'done' if output.paid else 'not_done' }}", output={"id": "{{ output.id }}"})


@pytest.mark.parametrize(
    ("probe", "output", "answer"),
    [
        (Probe(tool="trace"), {"outcome": "done", "output": [7]}, Answer(Outcome.DONE, [7])),
        (Probe(tool="trace"), {"outcome": "done"}, Answer(Outcome.DONE)),
        (Probe(tool="trace"), {"outcome": "not_done", "output": 1}, Answer(Outcome.NOT_DONE)),
        (BY_FIELD, {"paid": True, "id": 7}, Answer(Outcome.DONE, {"id": 7})),
        (BY_FIELD, {"paid": False}, Answer(Outcome.NOT_DONE)),
        (Probe(tool="trace", outcome="output.state"), {"state": "done"}, Answer(Outcome.DONE, {"state": "done"})),
    ],
)
def test_an_answer_is_read(probe: Probe, output: Any, answer: Answer):
    assert read_answer(probe, {}, output) == answer


@pytest.mark.parametrize(
    ("probe", "output", "reason"),
    [
        (Probe(tool="trace"), "done", "which is no"),
        (Probe(tool="trace"), {"outcome": "unknown"}, "`outcome` is 'unknown'"),
        (Probe(tool="trace"), {"outcome": ["done"]}, "`outcome` is"),
        (BY_FIELD, {}, "could not be read"),
        (BY_FIELD, {"paid": True}, "could not be read"),
        (Probe(tool="trace", outcome="{{ output }}"), "pending", "`outcome` is 'pending'"),
    ],
)
def test_an_answer_that_cannot_be_read_says_nothing(probe: Probe, output: Any, reason: str):
    found = read_answer(probe, {}, output)
    assert found.outcome is Outcome.UNKNOWN
    assert reason in str(found.reason)


def spec(effect: str = "none", **more: Any) -> ToolSpec:
    return tool("t", effect, **more).spec


NEEDY = {"type": "object", "properties": {"n": {}}, "required": ["n", "idempotency_key"]}


@pytest.mark.parametrize(
    ("probed", "probe", "why"),
    [
        (spec("at_most_once"), spec(), None),
        (spec("at_most_once"), spec(input=NEEDY), None),
        (spec("at_most_once", input={"properties": {"n": {}}, "required": ["n"]}), spec(input=NEEDY), None),
        (spec("at_most_once", input={"properties": {"n": {}}}), spec(input=NEEDY), "it needs 'n'"),
        (spec("at_most_once"), spec("idempotent"), "its effect must be none, not idempotent"),
        (spec("at_most_once"), spec(approval={}), "can have no approval"),
    ],
)
def test_what_cannot_be_a_probe_is_told(probed: ToolSpec, probe: ToolSpec, why: str | None):
    found = list(misfits(probed, probe))
    assert found == [] if why is None else why in found[0]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"effect": "idempotent", "probe": {"tool": "t"}}, "only a tool with effect: at_most_once"),
        ({"effect": "at_most_once", "probe": {"tool": "t", "output": 1}}, "give an expression for outcome"),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused(more: dict[str, Any], why: str):
    base = {"description": "x", "backend": {"type": "builtin", "function": "noop"}}
    with pytest.raises(ValidationError, match=why):
        ToolSpec.model_validate({**base, **more})
