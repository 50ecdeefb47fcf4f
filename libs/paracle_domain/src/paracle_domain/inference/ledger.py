"""The usage ledger of the provider gateway: one usage record for every attempt, and what can be asked about them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from paracle_domain.ids import RunId, TaskId
from paracle_domain.messages import Message, Moment, Plain, Request, Value

MOST_ROWS: Final = 5_000

Label = Annotated[Plain, Field(min_length=1, max_length=256)]
Took = Annotated[float | None, AfterValidator(lambda seconds: seconds if seconds is None else round(seconds, 3))]
"""Seconds, to the millisecond: what is behind that is the clock's noise."""


class UsageBy(StrEnum):
    """What usage can be added up by.

    `deployment` is a model at a provider (`openai/gpt-5-mini`), `provider` and `model` are its two parts. `user` is the
    principal who started the run, `parent_task` the task of the agent that turned to this one. A `day` and an `hour`
    are of UTC.
    """

    MODEL = "model"
    PROVIDER = "provider"
    DEPLOYMENT = "deployment"
    AGENT = "agent"
    USER = "user"
    PROJECT = "project"
    RUN = "run"
    TASK = "task"
    PARENT_TASK = "parent_task"
    DAY = "day"
    HOUR = "hour"
    OUTCOME = "outcome"


class Outcome(StrEnum):
    """How an attempt ended. `open`: it is in the air; `unknown`: the process that made it died.

    `cached`: nobody was asked, since an answer to the same question was kept.
    """

    OPEN = "open"
    COMPLETED = "completed"
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class UsageFilter(Value):
    """Which attempts are meant: all that is given has to hold.

    An attempt counts for the time at which it ended, one in the air for when it began; `since` is included, `until` is
    not.
    """

    since: Moment | None = None
    until: Moment | None = None
    model: Label | None = None
    provider: Label | None = None
    agent: Label | None = None
    user: Label | None = None
    project: Label | None = None
    run_id: RunId | None = None
    task_id: TaskId | None = None
    outcome: Outcome | None = None


class Spend(Value):
    """What attempts used together.

    `cost_usd` adds up the costs that are known; `unpriced` counts the attempts that used, or may have used, something
    at a cost that nobody knows. `reserved_usd` is what those that are `open` may use. `latency_s` and `first_token_s`
    are means. `cached` counts the attempts that were spared, since an answer was kept; it had cost `saved_usd` (as far
    as that is known) and `saved_tokens` to get it.
    """

    attempts: int = 0
    failed: int = 0
    open: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    reserved_usd: Decimal = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    saved_tokens: int = 0
    latency_s: Took = None
    first_token_s: Took = None


class UsageRow(Value):
    """What the attempts used that have all of `by` in common. What is not there is not known of these attempts."""

    by: dict[UsageBy, str]
    spend: Spend


class UsageTable(Message, type_name="usage.table"):
    """Usage by whatever was asked for: the newest time first, then what cost most. `total` is of all that was meant.

    `more`: there are more rows than are shown.
    """

    rows: tuple[UsageRow, ...]
    total: Spend
    more: bool = False


class QueryUsage(
    UsageFilter, Request[UsageTable], service="provider_gateway", method="query_usage", answer=UsageTable, query=True
):
    """What model calls used, added up `by` any of its kinds."""

    by: tuple[UsageBy, ...] = Field(default=(), max_length=len(UsageBy))
    limit: int = Field(default=500, ge=1, le=MOST_ROWS)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.by)) < len(self.by):
            message = f"by names something twice: {', '.join(self.by)}"
            raise ValueError(message)
        return self


class UsageRecord(Value):
    """One attempt: a request to one deployment, the `number`th of its call. `at` is when it ended, or began if `open`.

    `cost_usd` is absent where the price is not known, which is not zero; `reserved_usd` is what the attempt could have
    used. `error` is the code of what it failed with. `saved_usd` and `saved_tokens`: what a `cached` answer used when
    it was made.
    """

    call_id: str
    number: int
    at: datetime
    provider: str
    model: str
    outcome: Outcome
    error: str | None = None
    agent: str | None = None
    user: str | None = None
    project: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    parent_task_id: str | None = None
    step: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    saved_usd: Decimal | None = None
    saved_tokens: int = 0
    latency_s: Took = None
    first_token_s: Took = None


class UsageRecords(Message, type_name="usage.records"):
    """Usage records, newest first; `next_cursor` asks for those that follow."""

    records: tuple[UsageRecord, ...]
    next_cursor: str | None = None


class ListAttempts(
    UsageFilter,
    Request[UsageRecords],
    service="provider_gateway",
    method="list_attempts",
    answer=UsageRecords,
    query=True,
):
    """Attempts one by one, newest first."""

    limit: int = Field(default=100, ge=1, le=1_000)
    cursor: Label | None = None
