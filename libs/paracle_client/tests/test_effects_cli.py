"""Effects: listed, shown and resolved, by the client and by the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paracle_client import AsyncClient, Client
from paracle_domain.task.effects import EffectFilter, EffectPage, EffectState


def test_the_client_lists_shows_and_resolves(api: Any, make: Any) -> None:
    one = make.effect()
    api.on("GET /v1/effects", EffectPage(effects=(one,)))
    api.on(f"GET /v1/effects/{one.key}", one)
    api.on(f"POST /v1/effects/{one.key}/resolution", one)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    which = EffectFilter(state=EffectState.IN_DOUBT, tool="pay", run_id=make.RUN, since=since)
    with Client(api.url) as client:
        assert client.effects(which, limit=3, cursor="c").effects == (one,)
        assert client.get_effect(one.key) == one
        client.resolve_effect(one.key, "done", output={"id": 7}, reason="the bank says so")
    wanted = {"state": "in_doubt", "tool": "pay", "run_id": make.RUN, "since": "2026-01-01T00:00:00Z"}
    assert api.asked[0].query == {**wanted, "limit": "3", "cursor": "c"}
    assert api.asked[-1].json == {"outcome": "done", "output": {"id": 7}, "reason": "the bank says so"}


def test_the_async_client_does_the_same(api: Any, make: Any) -> None:
    one = make.effect()
    api.on("GET /v1/effects", EffectPage(effects=(one,)))
    api.on(f"GET /v1/effects/{one.key}", one)
    api.on(f"POST /v1/effects/{one.key}/resolution", one)

    async def use() -> None:
        async with AsyncClient(api.url) as client:
            assert (await client.effects()).effects == (one,)
            assert await client.get_effect(one.key) == one
            assert await client.resolve_effect(one.key, "not_done", reason="no such payment") == one

    asyncio.run(use())
    assert api.asked[0].query == {"limit": "50"}
    assert api.asked[-1].json == {"outcome": "not_done", "output": None, "reason": "no such payment"}


def test_effects_are_listed(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    one = make.effect()
    api.on("GET /v1/effects", EffectPage(effects=(one,), next_cursor="next"))
    options = ("--in-doubt", "--tool", "pay", "--run", make.RUN, "--since", "2h", "--until", "2100-01-01T00:00:00Z")
    shown = paracle("effects", "ls", *options).out
    for part in (one.key, "in_doubt", "pay", make.RUN, "more: --cursor next"):
        assert part in shown
    assert api.asked[0].query["state"] == "in_doubt"
    assert api.asked[0].query["until"] == "2100-01-01T00:00:00Z"
    api.on("GET /v1/effects", EffectPage(effects=()))
    assert paracle("effects", "ls").out == "no effects\n"
    assert json.loads(paracle("effects", "ls", "--state", "sent", "-o", "json").out)["effects"] == []
    assert api.asked[-1].query["state"] == "sent"


def test_an_effect_is_shown_with_what_was_found_out(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    found = {"outcome": "done", "reason": "it is\x1b[2J paid", "principal": "ann", "at": make.START}
    one = make.effect(state="resolved", resolution=found)
    api.on(f"GET /v1/effects/{one.key}", one, make.effect(reason=None), one)
    shown = paracle("effects", "show", one.key).out
    for part in (one.key, "resolved", "pay (revision 3, at_most_once)", "the connection broke", "done, says ann"):
        assert part in shown
    assert "\x1b" not in shown
    assert "because" not in paracle("effects", "show", one.key).out
    assert json.loads(paracle("effects", "show", one.key, "-o", "json").out)["resolution"]["outcome"] == "done"


def test_what_is_being_probed_says_so(paracle: Callable[..., Any], api: Any, make: Any) -> None:
    asked = {"tool": "find", "tried": 2, "outcome": "unknown", "reason": "it is\x1b[2J away", "open": True}
    one = make.effect(probe=asked, called=make.effect().key)
    fresh = make.effect(probe={"tool": "find", "tried": 0, "open": True})
    over = make.effect(state="confirmed", probe={"tool": "find", "tried": 1, "outcome": "done", "open": False})
    api.on("GET /v1/effects", EffectPage(effects=(one, over)))
    shown = paracle("effects", "ls").out
    assert shown.count("in_doubt, probed") == 1
    api.on(f"GET /v1/effects/{one.key}", one, fresh, over)
    shown = paracle("effects", "show", one.key).out
    assert f"called as {one.called}" in shown
    assert "find: unknown, asked 2 times (it is" in shown
    assert "; it is asked again" in shown
    assert "\x1b" not in shown
    assert "find: not asked yet\n" in paracle("effects", "show", one.key).out
    assert "find: done, asked 1 times\n" in paracle("effects", "show", one.key).out


def test_an_effect_is_resolved(paracle: Callable[..., Any], api: Any, make: Any, tmp_path: Path) -> None:
    one = make.effect()
    api.on(f"POST /v1/effects/{one.key}/resolution", one)
    (tmp_path / "answer.json").write_text('{"id": 8}')
    for value, sent in (('{"id": 7}', {"id": 7}), ("@answer.json", {"id": 8})):
        assert paracle("effects", "resolve", one.key, "--done", "--value", value, "--reason", "paid").code == 0
        assert api.asked[-1].json == {"outcome": "done", "output": sent, "reason": "paid"}
    paracle("effects", "resolve", one.key, "--not-done", "--reason", "no such payment")
    assert api.asked[-1].json == {"outcome": "not_done", "output": None, "reason": "no such payment"}
    refused = paracle("effects", "resolve", one.key, "--reason", "perhaps")
    assert (refused.code, refused.err.startswith("error: --done:")) == (1, True)
