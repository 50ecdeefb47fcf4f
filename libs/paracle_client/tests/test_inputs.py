"""What users type."""

from __future__ import annotations

import io
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paracle_client.cli.inputs import bundle, count_documents, join, parse_input, parse_labels
from paracle_client.cli.run_commands import invoke_input
from paracle_client.cli.target import resolve
from paracle_domain.errors import Finding, InvalidInput, MalformedMessage, NotFound, SpecInvalid


def test_inputs_by_field(tmp_path: Path) -> None:
    (tmp_path / "mail.txt").write_text("héllo=1", encoding="utf-8")
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    items = [
        "a=1",
        "b:=1",
        "c=x=y:=z",
        f"d=@{tmp_path / 'mail.txt'}",
        f"e:=@{tmp_path / 'list.json'}",
        "f=",
        "g-h.i=\n",
    ]
    assert parse_input(items) == {
        "a": "1", "b": 1, "c": "x=y:=z", "d": "héllo=1", "e": [1, 2], "f": "", "g-h.i": "\n",
    }  # fmt: skip
    assert parse_input([]) == {}


def test_a_whole_input_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(b'\xef\xbb\xbf{"a": null}')
    assert parse_input([f"@{tmp_path / 'in.json'}"]) == {"a": None}
    assert parse_input(['{"a": {"b": "c=d"}}']) == {"a": {"b": "c=d"}}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["nonsense"], "'nonsense' is none of key=text"),
        (["[1]"], "nor @file.json or a JSON object for all"),
        (["{'a': 1}"], "--input: not JSON"),
        (['{"a": 1}', "b=2"], "is none of key=text"),
        (["=x"], "none of key=text"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["a:={"], "--input a: not JSON"),
        (["a:=NaN"], "--input a: not JSON: NaN is not JSON"),
        (["a:=[1e999]"], "--input a: not JSON: 1e999 is too large"),
        (["@/nowhere/at/all.json"], "/nowhere/at/all.json: cannot be read: No such file or directory"),
    ],
)
def test_bad_inputs(items: list[str], message: str) -> None:
    with pytest.raises((InvalidInput, NotFound), match=message):
        parse_input(items)


def test_bytes_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(MalformedMessage, match=r"bad\.yaml: not UTF-8: byte 0xff in line 2"):
        bundle([str(tmp_path / "bad.yaml")])


def test_labels() -> None:
    assert parse_labels(["a=b=c", "d=e"]) == {"a": "b=c", "d": "e"}
    for bad in ("a", "a=", "=b"):
        with pytest.raises(InvalidInput, match="is not key=value"):
            parse_labels([bad])


def test_a_label_with_two_values_does_not_mean_the_last() -> None:
    """It would choose other runs than both, and for orders, too."""
    assert parse_labels(["a=b", "a=b"]) == {"a": "b"}
    with pytest.raises(InvalidInput, match="no run has two values of label 'a'; give one"):
        parse_labels(["a=b", "a=c"])


def test_an_agent_is_given_text_or_fields() -> None:
    assert invoke_input("My invoice", []) == "My invoice"
    assert invoke_input(' {"a": 1}', []) == {"a": 1}
    assert invoke_input("{not json", []) == "{not json"
    assert invoke_input(None, ["a=1"]) == {"a": "1"}
    with pytest.raises(InvalidInput, match="not both"):
        invoke_input("x", ["a=1"])


def test_a_folder_gives_its_manifests_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.yml", "a.yaml", "deep/c.json", "notes.txt"):
        (tmp_path / name).write_text("kind: X\n", encoding="utf-8")
    assert [Path(part.name).name for part in bundle([str(tmp_path)]).parts] == ["a.yaml", "b.yml", "c.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match=r"has no \.yaml"):
        bundle([str(tmp_path / "empty")])


def test_manifests_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"kind: X")))
    given = bundle(["-"])
    assert (given.source, given.text) == ("stdin", "kind: X")


def test_one_file_is_sent_as_it_is() -> None:
    alone = join({"a.yaml": "x"})
    assert (alone.text, alone.source) == ("x", "a.yaml")
    error = SpecInvalid("bad", path="a.yaml#1 spec")
    assert alone.localize(error) is error


def test_places_in_the_whole_are_told_as_places_in_the_files() -> None:
    whole = join({"one.yaml": "a: 1\n---\n# nothing\n---\nb: 2", "two.yaml": "---\nc: 3\n", "three.json": '{"d": 4}'})
    assert [doc for doc in yaml.safe_load_all(whole.text) if doc] == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]
    line_of_c = whole.text.splitlines().index("c: 3") + 1
    error = whole.localize(
        SpecInvalid(
            "nothing was applied: X is in manifests#2 already",
            path="manifests#3 spec.x",
            problems=[Finding(path=f"manifests:{line_of_c}:4", message="m"), Finding(path="manifests#4", message="n")],
        )
    )
    assert isinstance(error, SpecInvalid)
    assert (error.path, error.message) == ("two.yaml#1 spec.x", "nothing was applied: X is in one.yaml#2 already")
    assert [one.path for one in error.problems] == ["two.yaml:2:4", "three.json#1"]


DOCUMENT = st.sampled_from(["a: 1", "{}", "# only a comment", "", "- x\n- y", "text: |\n  --- not a start\n", '"---"'])
START = st.sampled_from(["---\n", "--- \n", "%YAML 1.1\n---\n", ""])


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(START, st.lists(DOCUMENT, min_size=1)), min_size=1))
def test_joining_keeps_every_document(files: dict[str, tuple[str, list[str]]]) -> None:
    texts = {name: start + "\n---\n".join(documents) for name, (start, documents) in files.items()}
    apart = {name: [doc for doc in yaml.safe_load_all(text) if doc is not None] for name, text in texts.items()}
    whole = join(texts)
    assert [doc for doc in yaml.safe_load_all(whole.text) if doc is not None] == list(chain(*apart.values()))
    for part in whole.parts:
        assert count_documents(part.text) == len(apart[part.name])


def test_where_paracle_is(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert resolve(None, {}, below) == "http://127.0.0.1:8080"
    (tmp_path / ".paracle").mkdir()
    (tmp_path / ".paracle" / "state.json").write_text('{"members": {}, "url": "http://127.0.0.1:9"}', encoding="utf-8")
    assert resolve(None, {}, below) == "http://127.0.0.1:9"
    assert resolve(None, {"PARACLE_URL": "http://env"}, below) == "http://env"
    assert resolve("http://told", {"PARACLE_URL": "http://env"}, below) == "http://told"
