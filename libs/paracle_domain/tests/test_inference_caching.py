"""The cache of answers: who opts in, what a task asks of it, and what its history says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from paracle_domain.agent.spec import Cache
from paracle_domain.inference.caching import CachePolicy, ClearCache, cleared_subject
from paracle_domain.inference.request import Complete
from paracle_domain.inference.usage import NOTHING, Usage
from paracle_domain.task import events as ev
from paracle_domain.task import inputs as told
from paracle_domain.task import prompt

from .test_inheritance import refusal, resolved
from .test_task_compaction import session, talk
from .test_task_machine import AT, Play, completion

OPTED_IN = {"model": {"cache": {"ttl_s": 60}}}


@pytest.mark.parametrize("ttl_s", [0, -1, float("inf"), 400 * 86_400])
def test_answers_are_kept_for_a_time_that_ends(ttl_s: float):
    with pytest.raises(ValidationError):
        CachePolicy(ttl_s=ttl_s)
    with pytest.raises(ValidationError):
        Cache(ttl_s=ttl_s)


def test_a_child_inherits_changes_or_leaves_its_parents_cache():
    base: dict[str, Any] = {**OPTED_IN, "final": ["model.cache"]}
    children = {"same": {}, "longer": {"cache": {"ttl_s": 90}}, "none": {"cache": None}}
    found = {
        name: resolved("child", base=OPTED_IN, child={"extends": "base", "model": model}).spec.model.cache
        for name, model in children.items()
    }
    assert found == {"same": Cache(ttl_s=60), "longer": Cache(ttl_s=90), "none": None}
    assert "final" in refusal("child", base=base, child={"extends": "base", "model": {"cache": None}}).message


def test_an_agent_that_does_not_opt_in_asks_nothing_of_the_cache():
    request = prompt.model_request(Play().accept().state)
    assert request.cache is None
    assert b"cache" not in request.encode().replace(b"prompt_cache", b"")


def test_a_first_attempt_takes_what_is_kept_and_a_second_one_asks_anew():
    first, second = (prompt.model_request(Play(OPTED_IN, attempt=n).accept().state) for n in (1, 2))
    assert first.cache == CachePolicy(ttl_s=60)
    assert second.cache == CachePolicy(ttl_s=60, fresh=True)
    assert Complete.decode(second.encode()) == second


def test_summaries_are_kept_like_answers():
    play = session(talk(5), above_tokens=2_500, keep_last=1)
    assert prompt.model_request(play.state).cache is None
    assert play.state.job.agent is not None
    spec = play.state.job.agent.spec
    cached = spec.model_copy(update={"model": spec.model.model_copy(update={"cache": Cache(ttl_s=60)})})
    object.__setattr__(play.state.job.agent, "spec", cached)
    assert prompt.model_request(play.state).cache == CachePolicy(ttl_s=60)


def test_history_says_what_a_kept_answer_spared():
    play, saved = Play(OPTED_IN).accept(), Usage(input_tokens=10, output_tokens=5, model_calls=1)
    reply = completion(text="done").model_copy(update={"usage": NOTHING, "saved": saved, "attempts": 0})
    play.tell(told.ReplyCame(AT, play.state.model_call_id, reply))
    [replied] = [event for event in play.events if isinstance(event, ev.ModelReplied)]
    assert (replied.usage, replied.saved) == (NOTHING, saved)
    assert play.state.usage == NOTHING


def test_a_tenants_answers_are_dropped_at_all_replicas():
    assert ClearCache.service == "provider_gateway"
    assert cleared_subject("acme") == "paracle.v1.acme.rpc.provider_gateway.cache_cleared"
