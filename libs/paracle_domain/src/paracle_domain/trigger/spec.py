"""Trigger manifests: which workflow is run when, as people write it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from paracle_domain.messages import HIGHEST, Given
from paracle_domain.run.labels import MOST, LabelText
from paracle_domain.subjects import MAX_TOPIC_TOKENS
from paracle_domain.workflow.spec import Name, Seconds, Spec

LONGEST_S: Final = 366 * 86_400
_PART: Final = r"(?:[A-Za-z0-9_-]{1,64}|\*)"

Topic = Annotated[str, StringConstraints(pattern=rf"^(?:>|{_PART}(?:\.{_PART}){{0,{MAX_TOPIC_TOKENS - 1}}}(?:\.>)?)$")]


class Overlap(StrEnum):
    """What becomes of a time that comes while a run of the trigger is still under way.

    `skip`: nothing. `allow`: it starts beside it. `queue`: it starts after it, unless that is later than `catch_up_s`
    allows. `cancel_previous`: what is under way is cancelled.
    """

    SKIP = "skip"
    ALLOW = "allow"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel_previous"


class ScheduleSpec(Spec):
    """Times, by a cron expression in a time zone."""

    cron: str = Field(
        min_length=1, max_length=200, description="five fields, six with seconds in front, or @hourly, @daily, …"
    )
    timezone: str = Field(default="UTC", max_length=64, description="a name of the IANA database")
    overlap: Overlap = Overlap.SKIP
    catch_up_s: float = Field(
        default=3600,
        ge=0,
        le=LONGEST_S,
        allow_inf_nan=False,
        description="how late a run may start; what is missed for longer is dropped",
    )
    jitter_s: float = Field(default=0, ge=0, le=86_400, allow_inf_nan=False, description="starts vary by up to this")
    start_at: AwareDatetime | None = Field(default=None, description="no time before this")
    end_at: AwareDatetime | None = Field(default=None, description="no time after this")


class SubjectSpec(Spec):
    """Messages on `in.{topic}`."""

    topic: Topic = Field(description="tokens with dots between them; * is any token, > at the end any that follow")
    filter: str | None = Field(default=None, description="an expression; false lets the message pass by")
    dedupe: str | None = Field(default=None, description="an expression; messages with the same value start one run")
    dedupe_window_s: Seconds = 3600


class TriggerSpec(Spec):
    """`spec` of a `kind: Trigger` manifest: a workflow, and either times or messages that start it."""

    description: str = ""
    workflow: Name
    revision: int | None = Field(default=None, ge=1, le=HIGHEST, description="of the workflow; the newest if absent")
    input: Given = Field(default_factory=dict, description="of each run; strings may be expressions over `trigger`")
    labels: dict[LabelText, LabelText] = Field(default={}, max_length=MOST - 1)
    schedule: ScheduleSpec | None = None
    subject: SubjectSpec | None = None
    paused: bool = False

    @model_validator(mode="after")
    def _one_cause(self) -> Self:
        if (self.schedule is None) == (self.subject is None):
            message = "give exactly one of schedule and subject"
            raise ValueError(message)
        return self
