"""Guards, as people write them: what of a model call is looked at, for what, and what is done about it.

An agent's guards are asked in their order, each about what those before it left. On input they see all that the model
is to read of a conversation; on output all that it said.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal, Self, override

from pydantic import Field, StringConstraints, model_validator

from paracle_domain.messages import JsonObject
from paracle_domain.provider.spec import DeploymentName
from paracle_domain.tool.spec import WorkerTool
from paracle_domain.workflow.spec import Name, Spec

type Direction = Literal["input", "output"]
type OnHit = Literal["refuse", "redact", "warn"]
type OnError = Literal["refuse", "pass"]
type Patience = Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)]
type Category = Annotated[str, StringConstraints(min_length=1, max_length=100)]

REDACTED: Final = "[REDACTED]"
"""What a regular expression's matches are replaced with."""
MOST_GUARDS: Final = 20


class PersonalData(StrEnum):
    """What is found of people, by its form alone; names and addresses have none."""

    EMAIL = "email"
    PHONE = "phone"
    CREDIT_CARD = "credit_card"
    IBAN = "iban"
    IP = "ip"
    US_SSN = "us_ssn"

    @property
    def placeholder(self) -> str:
        """What it is replaced with: `[EMAIL]`."""
        return f"[{self.value.upper()}]"


class AnyGuard(Spec):
    """What all guards say.

    `on`: which side of a model call it looks at. `on_error`: what becomes of a call about which it cannot say anything,
    since it broke, or did not answer in time.
    """

    name: Name
    on: Literal["input", "output", "both"] = "both"
    on_error: OnError = "refuse"

    def watches(self, direction: Direction) -> bool:
        """Whether it looks at what goes in, or comes out."""
        return self.on in {direction, "both"}

    @property
    def of_answers(self) -> bool:
        """Whether it says what an answer must be; then it has no say about summaries."""
        return False


class PiiGuard(AnyGuard):
    """Finds personal data by its form: addresses by their syntax, numbers by their length and check digits."""

    type: Literal["pii"] = "pii"
    entities: tuple[PersonalData, ...] = Field(default=tuple(PersonalData), min_length=1)
    on_hit: OnHit = "redact"


class RegexGuard(AnyGuard):
    """Finds what a regular expression (in RE2's syntax, which takes linear time) matches.

    `required`: an answer is a hit if the expression matches nowhere in it. A reply that calls tools is no answer.
    """

    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=2_000)
    ignore_case: bool = False
    required: bool = Field(default=False, description="refuse answers that it does not match, not those it matches")
    on_hit: OnHit = "refuse"

    @property
    @override
    def of_answers(self) -> bool:
        return self.required

    @model_validator(mode="after")
    def _required_of_answers(self) -> Self:
        if self.required and self.on != "output":
            raise ValueError("required is about answers; say on: output")
        if self.required and self.on_hit == "redact":
            raise ValueError("what is required and absent cannot be redacted; say on_hit: refuse, or warn")
        return self


class JsonSchemaGuard(AnyGuard):
    """An answer must be JSON that the schema allows. A reply that calls tools is no answer."""

    type: Literal["json_schema"] = "json_schema"
    on: Literal["output"] = "output"
    json_schema: JsonObject
    on_hit: Literal["refuse", "warn"] = "refuse"

    @property
    @override
    def of_answers(self) -> bool:
        return True


class ModerationGuard(AnyGuard):
    """Asks a model behind OpenAI's `/moderations`, of a provider that has it.

    A text is a hit in a category if the model flags it there; with a `threshold`, if its score there reaches that.
    """

    type: Literal["moderation"] = "moderation"
    model: DeploymentName
    categories: tuple[Category, ...] = Field(default=(), description="those that count; all, if none is named")
    threshold: float | None = Field(default=None, gt=0, le=1)
    timeout_s: Patience = 10.0
    on_hit: Literal["refuse", "warn"] = "refuse"


class NatsGuard(AnyGuard):
    """Asks a process of the tenant's own over NATS, on `paracle.v1.{tenant}.rpc.guards.{guard}`.

    It is asked with a `GuardQuestion`, and says in a `GuardAnswer` what is to be done.
    """

    type: Literal["nats"] = "nats"
    guard: WorkerTool = Field(description="how its workers call it: the last token of the subject")
    timeout_s: Patience = 10.0


Guard = Annotated[
    PiiGuard | RegexGuard | JsonSchemaGuard | ModerationGuard | NatsGuard,
    Field(discriminator="type"),
]


def distinct(guards: tuple[Guard, ...]) -> tuple[Guard, ...]:
    """`guards`, if there are not too many, and each has a name of its own."""
    names = [guard.name for guard in guards]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two guards are called {twice!r}; give each a name of its own")
    if len(guards) > MOST_GUARDS:
        raise ValueError(f"{len(guards)} guards are more than the {MOST_GUARDS} that an agent can have")
    return guards
