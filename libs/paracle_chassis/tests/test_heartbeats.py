"""When signs of life that nobody heard say that nobody is there any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paracle_chassis.heartbeats import Unheard


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 10_000))
def test_a_caller_is_gone_once_three_in_a_row_are_unheard(heard: list[bool], first: int):
    unheard = Unheard()
    gone = [unheard.add(first + at) for at, was_heard in enumerate(heard) if not was_heard]
    three = [at for at in range(2, len(heard)) if not any(heard[at - 2 : at + 1])]
    lost = [at for at, was_heard in enumerate(heard) if not was_heard]
    assert [at for at, is_gone in zip(lost, gone, strict=True) if is_gone] == three


def test_one_lost_now_and_then_is_no_reason_however_long_it_goes_on():
    unheard = Unheard()
    assert not any(unheard.add(300 * number) for number in range(1_000))
