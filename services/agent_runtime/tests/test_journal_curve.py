"""What a long task leaves in the journal."""

from __future__ import annotations

from runtime_peers import says
from runtime_plan import task
from runtime_stage import Stage, script


@script(*[says("", ("page", {"n": number})) for number in range(99)], says("read it all"))
async def test_a_hundred_turns_of_five_kilobytes_take_bytes_in_proportion(stage: Stage):
    """A conversation is never stored again: the second half of the task takes as much as the first."""
    job = task("reader")
    [result] = await stage.do(job)
    assert (result.output, result.usage.model_calls) == ("read it all", 100)
    sizes = [sum(map(len, page.events)) for page in stage.store.actors[job.task_id].pages]
    half = len(sizes) // 2
    assert 0.9 < sum(sizes[half:]) / sum(sizes[:half]) < 1.1
    assert sum(sizes) < 100 * 6_500
    assert max(sizes) < 6_500
