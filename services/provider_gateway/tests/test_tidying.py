"""What is given back to the system after a burst of calls, and when."""

from __future__ import annotations

from dataclasses import dataclass

from paracle_provider_gateway.tidying import BURST, Tidying


@dataclass
class Kept:
    """Counts how often it was to forget; `most` calls were in the air."""

    most: int = 0
    forgot: int = 0

    def forget(self) -> None:
        self.forgot += 1

    def most_in_air(self) -> int:
        return self.most


async def rounds(*most: int) -> list[int]:
    """After which rounds, in which so many calls were in the air at once, memory was given back."""
    calls, settled, given = Kept(), Kept(), list[int]()
    tidying = Tidying(calls, settled, lambda: given.append(calls.forgot))
    for calls.most in most:
        await tidying.round()
    assert calls.forgot == settled.forgot == len(most)
    return given


async def test_memory_is_given_back_once_it_is_quiet_for_a_minute_after_a_burst():
    assert await rounds(BURST, *[0] * 20) == [7]
    assert await rounds(BURST, *[50] * 6, 7_000, *[0] * 8) == [7, 14]


async def test_while_calls_go_on_nobody_has_to_wait_for_that():
    assert await rounds(BURST, *[0, 0, 51] * 9) == []


async def test_without_a_burst_there_is_nothing_to_give_back():
    assert await rounds(*[BURST - 1] * 3, *[0] * 20) == []
