"""How an approval of a tool call stands, and what decisions and time make of it."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from paracle_domain.errors import ParacleError
from paracle_domain.run.commands import ApprovalStatus, AskForCall
from paracle_domain.run.deciding import asked, at_time, decided, version_of, withdrawn
from paracle_domain.run.inbox import Decide
from paracle_domain.workflow.spec import Approvers

from .test_task_machine import AT, RUN, TASK

REQUEST = AskForCall(
    approval_id="apr_01JTQ000000000000000000001",
    run_id=RUN,
    task_id=TASK,
    step="s",
    tool="pay",
    ask="Pay?",
    action={"n": 1},
    digest="sha256:1",
    asked_at=AT,
    roles=("desk",),
    quorum=2,
    expires_s=60,
    escalate_to=Approvers(principals=("ann", "bob", "carl"), expires_s=60),
)
decisions: st.SearchStrategy[Decide] = st.builds(
    Decide,
    principal=st.sampled_from(["ann", "bob", "carl", "zoe"]),
    roles=st.sampled_from([(), ("desk",)]),
    approval_id=st.just(REQUEST.approval_id),
    digest=st.sampled_from(["sha256:1", "sha256:1", "sha256:2"]),
    decision=st.sampled_from(["approve", "reject"]),
    reason=st.just(""),
)
steps: st.SearchStrategy[Decide | int | None] = st.one_of(decisions, st.integers(1, 70), st.none())


@given(st.lists(steps, max_size=12))
@example([60, 60])  # others are asked, and nobody decides: chance does not come by it each time
def test_every_change_has_the_next_version_and_the_end_is_the_end(story: list[Decide | int | None]) -> None:
    view, now = asked(REQUEST, "w", "zoe"), AT
    assert (view.status, version_of(view)) == (ApprovalStatus.OPEN, 1)
    for step in story:
        before = view
        if isinstance(step, int):
            now += timedelta(seconds=step)
            view = at_time(view, now)
        elif step is None:
            view = withdrawn(view, now)
        else:
            after = decided(view, step, now)
            view = before if isinstance(after, ParacleError) else after
        assert version_of(view) == version_of(before) + (view != before)
        if before.status is not ApprovalStatus.OPEN:
            assert view == before
    if view.status is ApprovalStatus.APPROVED:
        assert len({d.principal for d in view.decisions if d.decision == "approve"} - {"zoe"}) >= 2
