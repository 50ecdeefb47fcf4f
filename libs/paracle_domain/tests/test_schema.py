"""The committed JSON Schemas, and the checker that guards them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from paracle_domain import schema
from paracle_domain.catalog import complete_catalog
from paracle_domain.messages import Message


def test_the_committed_schemas_are_those_of_the_code() -> None:
    assert schema.problems() == [], "run: python -m paracle_domain.schema --write"


def test_every_message_and_kind_has_a_schema() -> None:
    names = set(schema.generate())
    assert names >= set(complete_catalog())
    assert names >= {"manifest.agent", "manifest.tool", "manifest.workflow", "orchestrator.start_run", "task.result"}


def test_messages_of_others_are_not_in_the_contract() -> None:
    class Stranger(Message, type_name="test.stranger"):
        pass

    assert Stranger.type_name not in complete_catalog()


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return schema.breaks({"m": old}, {"m": new})


def fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


NODE = {"$ref": "#/$defs/Node"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (fields(a={"type": "string"}), fields(), "m.a: the field is gone"),
        (fields(a={}), fields(("a",), a={}), "m.a: the field is required now"),
        (fields(), fields(("a",), a={}), "m.a: the field is required now"),
        (fields(a={"type": "number"}), fields(a={"type": "integer"}), "m.a: the type was number and is integer"),
        (fields(a={}), fields(a={"type": "string"}), "m.a: the type was anything and is string"),
        (fields(a={"enum": ["x", "y"]}), fields(a={"enum": ["x"]}), 'm.a: no longer allowed: "y"'),
        (fields(a={"enum": ["x", "y"]}), fields(a={"const": "x"}), 'm.a: no longer allowed: "y"'),
        (fields(a={}), fields(a={"enum": ["x"]}), 'm.a: only "x" is allowed now'),
        (fields(a={}), fields(a={"minLength": 1}), "m.a: minLength is 1 now"),
        (fields(a={"maximum": 9}), fields(a={"maximum": 5}), "m.a: maximum is 5 now"),
        (fields(a={"pattern": "a"}), fields(a={"pattern": "b"}), "m.a: the pattern is b now"),
        (fields(), {**fields(), "additionalProperties": False}, "m: unknown fields are refused now"),
        (
            fields(a={"type": "array", "items": {"type": "string"}}),
            fields(a={"type": "array", "items": {"type": "object"}}),
            "m.a[]: the type was string and is object",
        ),
        (
            fields(a={"additionalProperties": {"type": "string"}}),
            fields(a={"additionalProperties": {"type": "null"}}),
            "m.a[]: the type was string and is null",
        ),
        (
            fields(a={"anyOf": [{"type": "string"}, {"type": "null"}]}),
            fields(a={"type": "string"}),
            "m.a: alternative 2 of 2 (null) is no longer allowed",
        ),
        (
            {"$defs": {"Node": fields(next=NODE, x={})}, **fields(a=NODE)},
            {"$defs": {"Node": fields(next=NODE)}, **fields(a=NODE)},
            "m.a.x: the field is gone",
        ),
    ],
)
def test_a_break_is_found(old: dict[str, Any], new: dict[str, Any], expected: str) -> None:
    assert expected in breaks(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (fields(), fields(a={"type": "string"})),
        (fields(("a",), a={}), fields(a={})),
        (fields(a={"type": "integer"}), fields(a={"type": "number"})),
        (fields(a={"type": "string"}), fields(a={})),
        (fields(a={"enum": ["x"]}), fields(a={"enum": ["x", "y"]})),
        (fields(a={"const": "x"}), fields(a={})),
        (fields(a={"minLength": 1, "maximum": 5}), fields(a={"maximum": 9})),
        (fields(a={"minimum": 1}), fields(a={"minimum": 0})),
        (fields(a={"pattern": "a"}), fields(a={})),
        (fields(a={"type": "string"}), fields(a={"anyOf": [{"type": "null"}, {"type": "string"}]})),
        (fields(a={"items": {}}), fields(a={"items": {}})),
        (
            {"$defs": {"Node": fields(next=NODE)}, **fields(a=NODE)},
            {"$defs": {"Node": fields(next=NODE, more={})}, **fields(a=NODE)},
        ),
    ],
)
def test_growth_breaks_nothing(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert breaks(old, new) == []
    assert breaks(new, new) == []


def test_a_message_may_come_but_not_go() -> None:
    assert schema.breaks({}, {"m": {}}) == []
    assert schema.breaks({"m": {}}, {}) == ["m: the message is gone"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "v1"
    assert schema.main(["--check"], folder) == 1
    assert "done: differs from what is committed" in capsys.readouterr().err
    assert schema.main(["--write"], folder) == 0
    assert schema.main(["--check"], folder) == 0
    (folder / "gone.json").write_text("{}", "utf-8")
    assert schema.main(["--write"], folder) == 1
    assert "gone: the message is gone" in capsys.readouterr().err
    assert schema.main(["--check"], folder) == 1
    (folder / "gone.json").unlink()
    narrower = schema.committed(folder)["orchestrator.get_run"]
    narrower["properties"] |= {"old_field": {"type": "string"}}
    (folder / "orchestrator.get_run.json").write_text(json.dumps(narrower), "utf-8")
    assert schema.main(["--write"], folder) == 1
    assert "orchestrator.get_run.old_field: the field is gone" in capsys.readouterr().err


def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["schema", "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(schema.__file__), run_name="__main__")
    assert left.value.code == 0
    assert "--check" in capsys.readouterr().out
