"""The sandbox model: sensible on real-looking work, valid on any schema, the same every time."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from provider_gateway_samples import CONTEXT, TASK, ask, gateway

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import (
    ChatMessage,
    ImagePart,
    NamedTool,
    OutputFormat,
    Sampling,
    ToolDefinition,
    ToolResultPart,
)
from paracle_domain.inference.deltas import assemble
from paracle_domain.inference.request import Complete
from paracle_domain.inference.response import FinishReason
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.sandbox import language
from paracle_provider_gateway.sandbox.reading import documents_in
from paracle_provider_gateway.sandbox.rules import LABEL, answer
from paracle_provider_gateway.sandbox.strings import sample
from paracle_provider_gateway.sandbox.summary import NOTHING, summarise

MAILS = [
    {
        "id": "m-1",
        "subject": "App crashes on export",
        "text": "Hello,\n\nsince the update the app crashes whenever I export a report.\n\nBest, Ann",
    },
    {
        "id": "m-2",
        "subject": "Doppelte Abbuchung",
        "text": "Guten Tag,\n\nmeine Kreditkarte wurde zweimal belastet. Bitte um sofortige Erstattung.\n\n"
        "Mit freundlichen Grüßen\nKarl",
    },
    {"id": "m-3", "subject": "", "text": ""},
    {
        "id": "m-4",
        "subject": "URGENT: production down",
        "text": "Your service is down for everyone here. We need help immediately! " + "The log is attached. " * 2000,
    },
    {"id": "m-5", "subject": "Idée", "text": "Bonjour, ce serait bien d'avoir un mode sombre dans votre application."},
    {"id": "m-6", "subject": "WINNER", "text": "Congratulations! You have won the lottery. Click here for your prize."},
    {"id": "m-7", "subject": "", "text": "Hola, mi cuenta está bloqueada y no puedo iniciar sesión desde ayer."},
    {
        "id": "m-8",
        "subject": "Fattura",
        "text": "Buongiorno, la fattura di ottobre non è corretta, grazie per la verifica.",
    },
]
TICKET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "category", "urgency", "language", "summary"],
    "properties": {
        "id": {"type": "string"},
        "category": {"enum": ["bug", "billing", "feature", "account", "spam", "other"]},
        "urgency": {"$ref": "#/$defs/urgency"},
        "language": {"type": "string"},
        "summary": {"type": "string", "maxLength": 120, "minLength": 1},
    },
}
TRIAGE = {
    "type": "object",
    "required": ["tickets"],
    "properties": {"tickets": {"type": "array", "items": TICKET}},
    "$defs": {"urgency": {"enum": ["low", "normal", "high", "critical"]}},
}
REPORT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "total", "by_category", "highlights", "recommended_actions", "needs_attention", "languages"],
    "properties": {
        "title": {"type": "string"},
        "total": {"type": "integer"},
        "by_category": {"type": "object", "additionalProperties": {"type": "integer"}},
        "counts": {"type": "object", "properties": {"bug": {"type": "integer"}, "spam": {"type": "integer"}}},
        "critical_count": {"type": "integer"},
        "highlights": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "recommended_actions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "action": {"type": "string"},
                    "priority": {"enum": ["low", "normal", "high", "critical"]},
                    "ticket_ids": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "needs_attention": {"type": "boolean"},
        "languages": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "summary": {"type": "string"},
    },
}


def structured(schema: dict[str, Any], *messages: ChatMessage, **more: Any) -> Any:
    request = ask(messages=messages, output=OutputFormat(json_schema=schema), **more)
    return json.loads(answer("rules", request).message.text)


def said(value: Any) -> ChatMessage:
    return ChatMessage.user(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


class TestTriage:
    def test_every_mail_becomes_a_ticket(self):
        tickets = structured(TRIAGE, ChatMessage.system("You triage support mails."), said({"mails": MAILS}))["tickets"]
        jsonschema_rs.validate(TRIAGE, {"tickets": tickets})
        assert [(ticket["id"], ticket["category"], ticket["language"]) for ticket in tickets] == [
            ("m-1", "bug", "en"),
            ("m-2", "billing", "de"),
            ("m-3", "other", language.UNKNOWN),
            ("m-4", "bug", "en"),
            ("m-5", "feature", "fr"),
            ("m-6", "spam", "en"),
            ("m-7", "account", "es"),
            ("m-8", "billing", "it"),
        ]
        assert [ticket["urgency"] for ticket in tickets][:4] == ["normal", "high", "low", "critical"]
        assert tickets[0]["summary"] == "Since the update the app crashes whenever I export a report."
        assert tickets[2]["summary"] == NOTHING

    def test_one_mail_alone_as_json_and_as_prose(self):
        one = structured(TICKET | {"$defs": TRIAGE["$defs"]}, said(MAILS[1]))
        assert (one["id"], one["category"], one["language"]) == ("m-2", "billing", "de")
        prose = structured(TICKET | {"$defs": TRIAGE["$defs"]}, said("I forgot my password and cannot log in."))
        assert prose["category"] == "account"

    def test_the_report_counts_and_recommends(self):
        tickets = structured(TRIAGE, said({"mails": MAILS}))
        report = structured(REPORT, said(tickets))
        jsonschema_rs.validate(REPORT, report)
        assert report["total"] == len(MAILS)
        assert report["by_category"] == {"bug": 2, "billing": 2, "other": 1, "feature": 1, "spam": 1, "account": 1}
        assert (report["counts"], report["critical_count"]) == ({"bug": 2, "spam": 1}, 1)
        assert report["highlights"][0].startswith("m-4: Your service is down")
        assert report["needs_attention"] is True
        assert set(report["languages"]) == {"en", "de", "fr", "es", "it"}
        first = report["recommended_actions"][0]
        assert (first["priority"], first["ticket_ids"]) == ("critical", ["m-1", "m-4"])
        assert "critical: m-4" in report["summary"]

    def test_lists_about_the_same_things_are_joined(self):
        marks = [{"id": mail["id"], "team": "north"} for mail in MAILS]
        columns = ("id", "team", "subject")
        item = {
            "type": "object",
            "required": list(columns),
            "properties": {name: {"type": "string"} for name in columns},
        }
        schema = {"type": "array", "items": item}
        found = structured(schema, said({"mails": MAILS, "marks": marks}))
        assert [(item["id"], item["team"]) for item in found] == [(mail["id"], "north") for mail in MAILS]
        assert found[0]["subject"] == "App crashes on export"


class TestTools:
    LIST = ToolDefinition(
        name="list_files",
        input_schema={"type": "object", "required": ["folder"], "properties": {"folder": {"type": "string"}}},
    )
    READ = ToolDefinition(
        name="read_file",
        input_schema={"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}},
    )

    def test_one_result_leads_to_the_next_call_and_none_is_repeated(self):
        conversation = [said("Please triage the mails in examples/mails")]
        made: list[list[tuple[str, Any]]] = []
        while True:
            request = ask(
                call_id=f"turn-{len(made)}",
                messages=tuple(conversation),
                tools=(self.LIST, self.READ),
                output=OutputFormat(json_schema=TRIAGE),
            )
            reply = answer("rules", request)
            if not reply.message.tool_calls:
                break
            made.append([(call.name, call.arguments) for call in reply.message.tool_calls])
            assert len(made) < 4, made
            results = [
                ToolResultPart(call_id=call.id, content=self.result(call.name)) for call in reply.message.tool_calls
            ]
            conversation += [reply.message, ChatMessage.tool(*results)]
        assert made == [
            [("list_files", {"folder": "examples/mails"})],
            [("read_file", {"path": "mails/a.txt"}), ("read_file", {"path": "mails/b.txt"})],
        ]
        tickets = json.loads(reply.message.text)["tickets"]
        assert [(ticket["id"], ticket["category"]) for ticket in tickets] == [
            ("mails/a.txt", "billing"),
            ("mails/b.txt", "billing"),
        ]

    @staticmethod
    def result(name: str) -> str:
        return json.dumps({"files": ["mails/a.txt", "mails/b.txt"]}) if name == "list_files" else "My invoice is wrong."

    def test_one_call_for_each_item_with_what_belongs_to_it(self):
        tool = ToolDefinition(
            name="lookup_order",
            input_schema={
                "type": "object",
                "required": ["order_id"],
                "properties": {
                    "order_id": {"type": "string"},
                    "region": {"type": "string"},
                    "depth": {"type": "integer", "minimum": 1},
                },
            },
        )
        orders = [{"order_id": "A-1", "region": "eu"}, {"order_id": "B-2", "region": "us"}]
        calls = answer("rules", ask(messages=(said({"orders": orders}),), tools=(tool,))).message.tool_calls
        assert [call.arguments for call in calls] == orders
        assert len({call.id for call in calls}) == 2

    def test_a_failed_call_is_not_repeated(self):
        first = answer("rules", ask("Read notes/today.txt", tools=(self.READ,))).message
        assert [call.arguments for call in first.tool_calls] == [{"path": "notes/today.txt"}]
        failed = ChatMessage.tool(ToolResultPart(call_id=first.tool_calls[0].id, content="no such file", is_error=True))
        again = ask(messages=(said("Read notes/today.txt"), first, failed), tools=(self.READ,))
        assert answer("rules", again).message.text.startswith(LABEL)

    def test_what_changes_the_world_is_called_only_when_it_is_spoken_of(self):
        tool = ToolDefinition(
            name="send_reply",
            input_schema={"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
        )
        assert answer("rules", ask("What is in this mail?", tools=(tool,))).message.tool_calls == ()
        assert len(answer("rules", ask("Please send a friendly answer", tools=(tool,))).message.tool_calls) == 1

    @pytest.mark.parametrize("choice", ["required", NamedTool(name="read_file")])
    def test_a_tool_that_must_be_called_is_called(self, choice: Any):
        reply = answer("rules", ask("Hm.", tools=(self.READ,), tool_choice=choice))
        assert reply.finish_reason is FinishReason.TOOL_CALLS
        assert answer("rules", ask("Read a/b.txt", tools=(self.READ,), tool_choice="none")).message.tool_calls == ()

    def test_choices_and_numbers_are_filled(self):
        tool = ToolDefinition(
            name="search_tickets",
            input_schema={
                "type": "object",
                "required": ["query", "kind", "limit"],
                "properties": {
                    "query": {"type": "string", "maxLength": 60},
                    "kind": {"enum": ["bug", "billing"]},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 10},
                },
            },
        )
        (call,) = answer("rules", ask("Find 5 tickets about a wrong invoice", tools=(tool,))).message.tool_calls
        assert call.arguments == {"query": "Find 5 tickets about a wrong invoice", "kind": "billing", "limit": 5}


names = st.sampled_from(["id", "name", "summary", "count", "language", "is_urgent", "tags", "path", "x", "total"])


def bounds(low: str, high: str, most: int) -> st.SearchStrategy[dict[str, int]]:
    pairs = st.tuples(st.integers(0, most), st.integers(0, most)).map(sorted)
    return st.just({}) | pairs.map(lambda pair: {low: pair[0], high: pair[1]}) | pairs.map(lambda pair: {low: pair[0]})


def merged(*parts: Any) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


scalars = st.one_of(
    st.builds(merged, st.just({"type": "string"}), bounds("minLength", "maxLength", 40)),
    st.sampled_from(["date", "date-time", "email", "uri", "uuid"]).map(lambda form: {"type": "string", "format": form}),
    st.sampled_from([r"^[A-Z]{2}-\d+$", r"^(yes|no)$", r"^[^\s]{3,5}$", r"v\d\.\d+"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.builds(merged, st.just({"type": "integer"}), bounds("minimum", "maximum", 50)),
    st.integers(1, 9).map(lambda step: {"type": "integer", "multipleOf": step}),
    st.integers(-9, 9).map(lambda low: {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + 1}),
    st.builds(merged, st.just({"type": "number"}), bounds("minimum", "maximum", 9)),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["string", "null"]}),
    st.lists(st.sampled_from(["bug", "billing", "low", "high", "en", "de", 1, None]), min_size=1, unique=True).map(
        lambda options: {"enum": options}
    ),
    st.sampled_from([1, "a", None, [1]]).map(lambda value: {"const": value}),
    st.sampled_from([True, {}, {"$ref": "#/$defs/leaf"}]),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(names, inner, max_size=4)
    objects = st.builds(
        lambda props, extra, data: {
            "type": "object",
            "properties": props,
            "required": sorted(props)[: data % (len(props) + 1)],
            "additionalProperties": extra,
        },
        properties,
        st.booleans() | inner,
        st.integers(0, 9),
    )
    arrays = st.builds(
        merged, inner.map(lambda items: {"type": "array", "items": items}), bounds("minItems", "maxItems", 3)
    )
    choices = st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})
    return objects | arrays | choices


schemas = st.recursive(scalars, nested, max_leaves=8)
inputs = st.sampled_from(["", "Hello there.", json.dumps({"mails": MAILS[:3]}), json.dumps(MAILS[1]), "[1, 2", "{}"])


class TestAnySchema:
    @settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
    @given(schemas, inputs)
    def test_the_answer_is_valid_and_always_the_same(self, schema: Any, text: str):
        root = {"type": "object", "required": ["value"], "properties": {"value": schema}}
        root["$defs"] = {"leaf": {"type": "integer", "minimum": 3}}
        first = structured(root, said(text))
        assert jsonschema_rs.validator_for(root, validate_formats=True).is_valid(first), first
        assert structured(root, said(text)) == first

    def test_a_schema_that_refers_to_itself_comes_to_an_end(self):
        children = {"type": "array", "items": {"$ref": "#/$defs/node"}}
        properties = {"name": {"type": "string"}, "children": children}
        node = {"type": "object", "required": ["name"], "properties": properties}
        root = {"$ref": "#/$defs/node", "$defs": {"node": node}}
        jsonschema_rs.validate(root, structured(root, said({"mails": MAILS})))

    def test_unique_members_are_made_different(self):
        schema = {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True}
        assert sorted(structured(schema, said("?"))) == ["a", "b", "c"]


class TestAsAProvider:
    async def test_it_says_what_it_is_and_what_it_would_cost(self):
        over = gateway(SandboxProvider())
        found = await over.completions.complete(ask("Summarise: the printer on floor two is broken."), CONTEXT)
        assert (found.sandbox, found.provider, found.model) == (True, "sandbox", "rules")
        assert found.message.text.startswith(LABEL)
        assert found.usage.cost_usd
        assert found.usage.input_tokens == 4 + 12

    async def test_its_stream_is_several_pieces_of_the_same_answer(self):
        over = gateway(SandboxProvider())
        request = ask(messages=(said({"mails": MAILS}),), output=OutputFormat(json_schema=TRIAGE), stream_to=TASK)
        found = await over.completions.complete(request, CONTEXT)
        whole = await over.completions.complete(
            request.model_copy(update={"call_id": "other", "stream_to": None}), CONTEXT
        )
        assert len(over.outbox.deltas) > 10
        assert assemble(over.outbox.deltas) == found.message == whole.message

    async def test_the_slow_one_takes_its_time(self):
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        over = gateway(SandboxProvider(sleep))
        await over.completions.complete(ask(model="sandbox/slow"), CONTEXT)
        await over.completions.complete(ask(model="sandbox/rules"), CONTEXT)
        [rest] = slept
        assert 0 <= rest <= 2, "what the rules take is a part of it"

    def test_an_output_limit_cuts_the_answer_and_says_so(self):
        request: Complete = ask("A long story. " * 50, sampling=Sampling(max_output_tokens=5))
        reply = answer("rules", request)
        assert (reply.finish_reason, len(reply.message.text)) == (FinishReason.LENGTH, 20)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The app is not working and I would like to have my money back.", "en"),
        ("Ich kann mich nicht mehr anmelden, bitte helfen Sie mir.", "de"),
        ("Je ne peux pas me connecter à mon compte depuis hier.", "fr"),
        ("No puedo entrar en mi cuenta desde ayer, gracias.", "es"),
        ("Non riesco ad accedere al mio profilo, grazie per l'aiuto.", "it"),
        ("", language.UNKNOWN),
        ("12345 !!!", language.UNKNOWN),
    ],
)
def test_languages_are_told_apart(text: str, code: str):
    assert language.detect(text) == code


def test_documents_are_found_within_prose():
    found, prose = documents_in('Look at this: {"a": 1} and [2, 3] but not {this}.')
    assert found == [{"a": 1}, [2, 3]]
    assert prose == "Look at this:  and  but not {this}."


def test_greetings_are_no_summary():
    assert summarise("Dear team,\nThe roof leaks.\nBest regards,\nJo") == "The roof leaks."


def test_patterns_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match="cannot make up"):
        sample(r"(?=a)b")


async def test_the_sandbox_says_that_it_sees_nothing() -> None:
    photo = ImagePart(data="QUJD", media_type="image/png")
    request = Complete(call_id="c", messages=(ChatMessage.user("What is it?", photo),))
    with pytest.raises(InvalidInput, match="reads text only"):
        await SandboxProvider().ask("rules", request)
