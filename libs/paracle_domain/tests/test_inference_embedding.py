"""Embeddings: vectors travel unchanged, and what cannot be one does not travel."""

import base64
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paracle_domain.inference.embedding import (
    MOST_CHARACTERS,
    MOST_TEXTS,
    Embed,
    EmbeddingList,
    Embeddings,
    pack,
    unpack,
)
from paracle_domain.inference.estimate import estimate_input, estimate_output
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.usage import Usage

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(singles, max_size=50))
def test_vectors_in_single_precision_travel_unchanged(vector: list[float]):
    assert unpack(pack(vector)) == tuple(vector)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_other_numbers_are_rounded_once(vector: list[float]):
    packed = pack(vector)
    assert pack(unpack(packed)) == packed
    assert all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-37) for a, b in zip(vector, unpack(packed), strict=True))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e39, 1e308])
def test_what_is_no_number_in_single_precision_does_not_travel(number: float):
    with pytest.raises(ValueError, match="a number of the vector is"):
        pack([1.0, number])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("AAA", "padding"),
        ("not base64!", "base64"),
        (base64.b64encode(b"12345").decode(), "5 bytes are no vector"),
        (base64.b64encode(struct.pack("<f", math.nan)).decode(), "not finite"),
    ],
)
def test_what_holds_no_vector_is_refused(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        unpack(text)


def test_an_answer_knows_its_numbers():
    answer = Embeddings(
        vectors=(pack([1, 0]), pack([0.5, -0.5])),
        dimensions=2,
        usage=Usage(input_tokens=7, cost_usd=None),
        provider="p",
        model="m",
        deployment="p/m",
        latency_s=0,
    )
    assert answer.numbers == [(1, 0), (0.5, -0.5)]
    assert Embeddings.decode(answer.encode()) == answer
    for as_text in (False, True):
        listed = EmbeddingList.of(answer, as_text=as_text)
        assert [type(one.embedding) for one in listed.data] == [str if as_text else tuple] * 2
        assert listed.numbers == EmbeddingList.model_validate_json(listed.encode()).numbers == answer.numbers
        assert as_text or b"".join(EmbeddingList.encoded(answer)) == listed.encode()
        assert (listed.usage.prompt_tokens, listed.usage.total_tokens, listed.cost_usd) == (7, 7, None)


@pytest.mark.parametrize(
    ("texts", "path"),
    [
        ((), "texts"),
        (("",), "texts.0"),
        (("a",) * (MOST_TEXTS + 1), "texts"),
        (("a" * 200_001,), "texts.0"),
        (("a" * (MOST_CHARACTERS // 5),) * 5 + ("b",), "texts"),
    ],
)
def test_there_are_bounds_to_what_is_asked(texts: tuple[str, ...], path: str):
    with pytest.raises(ValidationError) as refused:
        Embed(call_id="c", texts=texts)
    assert ".".join(map(str, refused.value.errors()[0]["loc"])) == path


def test_texts_use_tokens_as_they_are_read_and_say_none():
    texts = Embed(call_id="c", texts=("x" * 300, "語" * 100))
    assert 200 <= estimate_input(texts) <= 400
    assert estimate_output(texts, 8_192) == 0
    judged = Moderate(call_id="c", model="p/m", texts=texts.texts, timeout_s=1)
    assert (estimate_input(judged), estimate_output(judged, 8_192)) == (estimate_input(texts), 0)
