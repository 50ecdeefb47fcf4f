"""Dead letters by the command line and both clients, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paracle_client import AsyncClient
from paracle_client.cli import main
from paracle_domain.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterPage,
    DeadLettersSettled,
    DeadLetterView,
    Refusal,
    dead_letter_id,
)

LETTERS = [dead_letter_id(f"letter {number}") for number in range(3)]
type Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def paracle(api: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARACLE_URL", api.url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["paracle", "dlq", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_times_may_be_so_long_ago(paracle: Run, api: Any) -> None:
    api.on("GET /v1/dead-letters", DeadLetterPage(letters=()))
    assert paracle("ls", "--since", "2h")[0] == 0
    assert "since" in api.asked[-1].query
    assert "give 90s, 30m, 2h" in paracle("ls", "--since", "yesterday")[2]


def about(make: Any, number: int = 0, **more: Any) -> DeadLetter:
    values = {
        "id": LETTERS[number],
        "service": "orchestrator",
        "code": "internal",
        "reason": "it broke",
        "type": "task.result",
        "message_id": "m",
        "principal": "ann",
        "run_id": make.RUN,
        "at": make.START,
    }
    return DeadLetter.model_validate(values | more)


def test_ls(paracle: Run, api: Any, make: Any) -> None:
    api.on("GET /v1/dead-letters", DeadLetterPage(letters=(about(make),), next_cursor="abc"))
    code, out, _ = paracle("ls", "--service", "orchestrator", "--code", "internal", "--run", make.RUN)
    assert code == 0
    assert LETTERS[0] in out
    assert "it broke" in out
    assert "more: --cursor abc" in out
    assert api.asked[0].query == {"service": "orchestrator", "code": "internal", "run_id": make.RUN, "limit": "20"}
    assert json.loads(paracle("ls", "-o", "json")[1])["next_cursor"] == "abc"
    paracle("ls", "--since", "2026-01-02T03:04:05")
    assert api.asked[-1].query["since"].startswith("2026-01-")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"text": '{"a":"\u001b[31m"}'}, '{"a":"'),
        ({"text": '{"a":[1]}'}, '"a": ['),
        ({"text": "no json"}, "no json"),
        ({"base64": "/w=="}, "base64: /w=="),
        ({"text": "x", "truncated": True}, "(7 bytes in all)"),
    ],
)
def test_show(paracle: Run, api: Any, make: Any, body: dict[str, Any], shown: str) -> None:
    view = DeadLetterView(letter=about(make, size=7), headers={"own": "\x1b[2J"}, **body)
    api.on(f"GET /v1/dead-letters/{LETTERS[0]}", view)
    code, out, _ = paracle("show", LETTERS[0])
    assert code == 0
    assert shown in out
    assert "\x1b" not in out
    assert DeadLetterView.decode(paracle("show", LETTERS[0], "-o", "json")[1].encode()) == view


def test_one_is_redriven_or_dropped(paracle: Run, api: Any) -> None:
    done = DeadLettersSettled(settled=(LETTERS[0],))
    api.on(f"POST /v1/dead-letters/{LETTERS[0]}/redrive", done)
    api.on(f"POST /v1/dead-letters/{LETTERS[0]}/drop", done)
    assert paracle("redrive", LETTERS[0]) == (0, "1 dead letter redriven\n", "")
    assert paracle("drop", LETTERS[0], "--reason", "old") == (0, "1 dead letter dropped\n", "")
    assert api.asked[-1].json == {"reason": "old"}


def test_many_are_redriven_page_by_page(paracle: Run, api: Any, make: Any) -> None:
    first = DeadLettersSettled(settled=tuple(LETTERS[:2]), more=True, until=make.START, after="place")
    last = DeadLettersSettled(refused=(Refusal(id=LETTERS[2], message="has no home"),), settled=())
    api.on("POST /v1/dead-letters/redrive", first, last)
    code, out, err = paracle("redrive", "--code", "internal")
    assert (code, out) == (1, "2 dead letters redriven\n")
    assert f"{LETTERS[2]}: has no home" in err
    assert [asked.json for asked in api.asked] == [
        {"code": "internal", "all": False},
        {"code": "internal", "all": False, "until": make.START.isoformat(), "after": "place"},
    ]


def test_all_are_dropped_only_if_that_was_said(paracle: Run, api: Any) -> None:
    api.on("POST /v1/dead-letters/drop", DeadLettersSettled(settled=()))
    assert paracle("drop", "--reason", "old", "--all", "-o", "json")[0] == 0
    assert api.asked[-1].json == {"all": True, "reason": "old"}
    for wrong in ((), (LETTERS[0], "--all"), ("--code", "x", "--all"), (LETTERS[0], "--code", "x")):
        code, _, err = paracle("drop", "--reason", "old", *wrong)
        assert (code, "give one LETTER" in err) == (1, True)
    assert paracle("drop", LETTERS[0])[0] == 2
    assert len(api.asked) == 1


def test_the_asynchronous_client_does_the_same(api: Any, make: Any) -> None:
    view = DeadLetterView(letter=about(make), text="{}")
    done = DeadLettersSettled(settled=(LETTERS[0],))
    api.on("GET /v1/dead-letters", DeadLetterPage(letters=(about(make),)))
    api.on(f"GET /v1/dead-letters/{LETTERS[0]}", view)
    for path in (f"{LETTERS[0]}/redrive", f"{LETTERS[0]}/drop", "drop"):
        api.on(f"POST /v1/dead-letters/{path}", done)
    api.on("POST /v1/dead-letters/redrive", done.model_copy(update={"more": True, "until": make.START}), done)

    async def use() -> None:
        async with AsyncClient(api.url) as client:
            assert (await client.dead_letters()).letters == (about(make),)
            assert await client.dead_letter(LETTERS[0]) == view
            assert await client.redrive(LETTERS[0]) == done
            assert await client.drop(LETTERS[0], "old") == done
            assert (await client.redrive_all(DeadLetterFilter())).settled == (LETTERS[0],) * 2
            assert await client.drop_all(DeadLetterFilter(run_id=make.RUN), "old") == done

    asyncio.run(use())
