"""When two questions are one, and which answers somebody else may have."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_gateway_samples import SEARCH, TASK, ask, openai_like

from paracle_domain.guard.spec import NatsGuard
from paracle_domain.ids import id_from_key
from paracle_domain.inference.caching import CachePolicy
from paracle_domain.inference.chat import (
    ChatMessage,
    ImagePart,
    OutputFormat,
    ReasoningPart,
    Role,
    Sampling,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.request import CallLabels, Complete
from paracle_domain.inference.response import Completion, FinishReason
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import Price, Strategy
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.plans import Deployment, Plan, Route, Tier
from paracle_provider_gateway.questions import is_first_choice, is_whole, question_key

SANDBOX = Deployment(SandboxProvider(), "rules")
PLAN = Plan("default", (Tier((Route(SANDBOX),)),))
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def plan(*deployments: Deployment, fallback: Deployment | None = None, **more: Any) -> Plan:
    first = Tier(tuple(map(Route, deployments)), **more)
    return Plan("x", (first,) if fallback is None else (first, Tier((Route(fallback),))))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """What a request asks, as JSON."""
    said = ChatMessage.assistant("", ToolCallPart(id="1", name="search", arguments=draw(objects)))
    request = ask(
        draw(st.text(max_size=20)),
        tools=(ToolDefinition(name="search", description=draw(st.text(max_size=5)), input_schema=draw(objects)),),
        output=draw(st.none() | st.builds(OutputFormat, json_schema=objects, strict=st.booleans())),
        sampling=Sampling(temperature=draw(st.none() | st.floats(0, 2)), params=draw(objects)),
    )
    messages = (*request.messages, *([said] if draw(st.booleans()) else []))
    return request.model_copy(update={"messages": messages}).model_dump(mode="json")


def shuffled(value: Any, by: random.Random) -> Any:
    """The same JSON, its objects in another order."""
    match value:
        case dict():
            names = list(value)
            by.shuffle(names)
            return {name: shuffled(value[name], by) for name in names}
        case list():
            return [shuffled(each, by) for each in value]
        case _:
            return value


@given(asked=questions(), by=st.randoms(use_true_random=False))
def test_the_order_of_names_says_nothing(asked: dict[str, Any], by: random.Random):
    one, other = Complete.model_validate(asked), Complete.model_validate(shuffled(copy.deepcopy(asked), by))
    assert question_key(PLAN, one) == question_key(PLAN, other)


@given(one=questions(), other=questions())
def test_two_questions_share_a_key_only_if_they_are_one(one: dict[str, Any], other: dict[str, Any]):
    del one["call_id"], other["call_id"]
    first, second = Complete.model_validate(one | {"call_id": "1"}), Complete.model_validate(other | {"call_id": "2"})
    assert (question_key(PLAN, first) == question_key(PLAN, second)) is (repr_of(one) == repr_of(other))


def repr_of(value: Any) -> Any:
    """Tells 1 from 1.0 and from true, which are equal to Python, and not the order of names."""
    match value:
        case dict():
            return sorted((name, repr_of(each)) for name, each in value.items())
        case list():
            return list(map(repr_of, value))
        case _:
            return repr(value)


BASE = ask(
    "Which?",
    tools=(SEARCH,),
    output=OutputFormat(json_schema=SCHEMA),
    sampling=Sampling(temperature=0.5, params={"a": 1}),
)


@pytest.mark.parametrize(
    "changed",
    [
        {"call_id": "another"},
        {"stream_to": TASK},
        {"attempts_before": 1_000},
        {"priority": "high"},
        {"timeout_s": 7.0},
        {"labels": CallLabels(run_id=id_from_key("run", "x"), agent="a", principal="ann")},
        {"cache": CachePolicy(ttl_s=5, fresh=True)},
        {"model": "another name for the same"},
        {"sampling": BASE.sampling.model_copy(update={"prompt_cache": "off"})},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_does_not_change_the_answer_does_not_count(changed: dict[str, Any]):
    assert question_key(PLAN, BASE.model_copy(update=changed)) == question_key(PLAN, BASE)


HOUSE_RULES = NatsGuard(name="rules", guard="house-rules", on="output")


@pytest.mark.parametrize(
    "changed",
    [{"model": "another name"}, {"labels": CallLabels(agent="a")}, {"labels": CallLabels(step="one")}],
    ids=lambda changed: next(iter(changed)),
)
def test_what_a_guard_of_ones_own_may_judge_by_counts_where_it_lets_answers_out(changed: dict[str, Any]):
    for guard, counts in ((HOUSE_RULES, True), (HOUSE_RULES.model_copy(update={"on": "input"}), False)):
        guarded = BASE.model_copy(update={"guards": (guard,)})
        other = guarded.model_copy(update=changed)
        assert (question_key(PLAN, other, "ann") != question_key(PLAN, guarded, "ann")) is counts
        assert (question_key(PLAN, guarded, "bob") != question_key(PLAN, guarded, "ann")) is counts


def test_calls_of_the_same_agent_are_let_out_alike():
    guarded = BASE.model_copy(update={"guards": (HOUSE_RULES,)})
    runs = [CallLabels(agent="a", run_id=id_from_key("run", run)) for run in ("x", "y")]
    keys = {question_key(PLAN, guarded.model_copy(update={"labels": labels}), "ann") for labels in runs}
    assert len(keys) == 1


def sampling(**changed: Any) -> dict[str, Any]:
    return {"sampling": BASE.sampling.model_copy(update=changed)}


def said(*parts: Any, role: Role = Role.ASSISTANT) -> dict[str, Any]:
    return {"messages": (*BASE.messages, ChatMessage(role=role, parts=parts))}


CHANGES: list[dict[str, Any]] = [
    {"messages": (ChatMessage.user("Which? "),)},
    {"messages": (ChatMessage.system("Which?"),)},
    {"messages": (ChatMessage.user("Which?", ImagePart(url="https://i.example/x")),)},
    {"messages": (ChatMessage.user("Which?", ImagePart(data="QUJD", media_type="image/png")),)},
    said(ReasoningPart(text="Hm", provider="openai", data={"signature": "s"})),
    said(ToolCallPart(id="1", name="search", arguments={"q": "x"})),
    said(ToolResultPart(call_id="1", content="x"), role=Role.TOOL),
    said(ToolResultPart(call_id="1", content="x", is_error=True), role=Role.TOOL),
    {"tools": ()},
    {"tools": (SEARCH.model_copy(update={"description": "Look"}),)},
    {"tools": (SEARCH.model_copy(update={"input_schema": {"type": "object"}}),)},
    {"tool_choice": "required"},
    {"output": None},
    {"output": OutputFormat(json_schema=SCHEMA, strict=True)},
    {"output": OutputFormat(json_schema=SCHEMA | {"required": []})},
    sampling(temperature=0.6),
    sampling(top_p=0.5),
    sampling(max_output_tokens=9),
    sampling(stop=("x",)),
    sampling(seed=1),
    sampling(thinking="high"),
    sampling(params={"a": 2}),
]


def test_all_that_a_model_is_told_counts():
    keys = {question_key(PLAN, BASE), *(question_key(PLAN, BASE.model_copy(update=each)) for each in CHANGES)}
    assert len(keys) == len(CHANGES) + 1


class TestWhoAnswers:
    def test_names_that_lead_to_the_same_ask_the_same(self):
        slow, dear = (
            Deployment(SandboxProvider(), "slow"),
            Deployment(SandboxProvider(), "rules", price=Price(input=1, output=2)),
        )
        key = question_key(plan(SANDBOX, slow), BASE)
        assert question_key(plan(slow, dear, strategy=Strategy.WEIGHTED), BASE) == key
        assert question_key(plan(SANDBOX, slow, fallback=Deployment(SandboxProvider(), "x")), BASE) == key

    async def test_a_name_that_leads_elsewhere_asks_something_else(self):
        here, there = openai_like("http://a.example/v1"), openai_like("http://b.example/v1")
        beta = openai_like("http://a.example/v1", headers={"x-beta": "1"})
        version = openai_like("http://a.example/v1", query={"api-version": "2"})
        same, keyed = openai_like("http://a.example/v1"), openai_like("http://a.example/v1", key="new")
        key = question_key(plan(Deployment(here, "m")), BASE)
        assert {question_key(plan(Deployment(one, "m")), BASE) for one in (same, keyed)} == {key}
        others = [
            plan(Deployment(there, "m")),
            plan(Deployment(beta, "m")),
            plan(Deployment(version, "m")),
            plan(Deployment(here, "n")),
            plan(Deployment(here, "m", tenant="acme")),
            plan(Deployment(here, "m"), Deployment(there, "m")),
        ]
        assert len({key, *(question_key(one, BASE) for one in others)}) == len(others) + 1
        for provider in (here, there, beta, version, same, keyed):
            await provider.close()


def completion(message: ChatMessage, finish: FinishReason = FinishReason.STOP, deployment: str = "") -> Completion:
    return Completion(
        message=message,
        finish_reason=finish,
        usage=Usage(),
        provider="p",
        model="m",
        deployment=deployment,
        latency_s=1,
    )


def call(name: str = "search", invalid: str | None = None) -> ChatMessage:
    return ChatMessage.assistant("", ToolCallPart(id="1", name=name, invalid=invalid))


PLAIN, STRICT = ask(tools=(SEARCH,)), ask(output=OutputFormat(json_schema=SCHEMA))
CALLS = FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("request_", "answer", "whole"),
    [
        (PLAIN, completion(ChatMessage.assistant("Yes.")), True),
        (PLAIN, completion(call(), CALLS), True),
        (PLAIN, completion(ChatMessage.assistant("Ye"), FinishReason.LENGTH), False),
        (PLAIN, completion(ChatMessage.assistant("Ye"), FinishReason.OTHER), False),
        (PLAIN, completion(ChatMessage.assistant("No."), FinishReason.CONTENT_FILTER), False),
        (PLAIN, completion(ChatMessage.assistant(" \n")), False),
        (PLAIN, completion(ChatMessage(role=Role.ASSISTANT, parts=(ReasoningPart(text="Hm"),))), False),
        (PLAIN, completion(call(invalid="{"), CALLS), False),
        (PLAIN, completion(call("sarch"), CALLS), False),
        (STRICT, completion(ChatMessage.assistant('{"n": 1}')), True),
        (STRICT, completion(ChatMessage.assistant('```json\n{"n": 1}\n```')), True),
        (STRICT, completion(ChatMessage.assistant('{"n": "one"}')), False),
        (STRICT, completion(ChatMessage.assistant("one")), False),
        (ask(output=OutputFormat(json_schema={"type": 7})), completion(ChatMessage.assistant("1")), False),
    ],
)
def test_only_what_nothing_is_wrong_with_is_for_others(request_: Complete, answer: Completion, whole: bool):
    assert is_whole(request_, answer) is whole


def test_a_fallback_stands_in_for_a_while():
    both = plan(SANDBOX, fallback=Deployment(SandboxProvider(), "slow"))
    assert is_first_choice(both, completion(ChatMessage.assistant("x"), deployment="sandbox/rules"))
    assert not is_first_choice(both, completion(ChatMessage.assistant("x"), deployment="sandbox/slow"))
