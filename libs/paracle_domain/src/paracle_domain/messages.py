"""What every message of the contract is: an immutable pydantic model with a name, found again by that name.

`Message` is anything that travels as a body. `Request[R]` is a message that is asked over RPC and answered with an
`R`; it knows the service and the method, so that a caller writes `await bus.call(GetRun(run_id=…), …)` and gets a
typed answer. `Command` is a durable order to a service, published on its `cmd` subject.

Readers ignore fields that they do not know, but for orders to many (`exactness`). A message of an unknown *type* is
parked, never dropped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Protocol, Self, override

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    JsonValue,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from paracle_domain.errors import MalformedMessage, from_validation
from paracle_domain.records import record
from paracle_domain.strict_json import is_finite

JsonObject = dict[str, JsonValue]

HIGHEST: Final = 2**31 - 2
"""The highest revision, or number of an event, that can be asked for: what PostgreSQL counts to, and the next fits."""

CATALOG: Final[dict[str, type[Message]]] = {}


class _AsItIs:
    """Says that a JSON value is not gone through again: it was parsed, or made here of what was."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()


Json = Annotated[JsonValue, _AsItIs()]
"""A JSON value in a message that only services make. Looking at every part of it would cost more than all the rest."""


def _sayable(value: Any) -> Any:
    if value.__class__ is str or is_finite(value):
        return value
    message = "it holds NaN, or a number too large for a double, which JSON cannot say again; send it as a string"
    raise ValueError(message)


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        message = f"UTC has no year for {time.isoformat()}"
        raise ValueError(message) from None


def _storable(text: str) -> str:
    if "\x00" in text:
        message = "it holds the character U+0000, which cannot be looked for or kept"
        raise ValueError(message)
    return text


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time that somebody names, in UTC, so that it can be stored and compared."""

Plain = Annotated[str, AfterValidator(_storable)]
"""Text of somebody's that goes into a database as it is."""

Received = Annotated[JsonValue, _AsItIs(), AfterValidator(_sayable)]
"""A JSON value from whoever works for us, whose numbers can be said again: replayed it must be what it was."""

Sent = Annotated[JsonValue, AfterValidator(_sayable)]
"""A JSON value from anybody."""

Given = Annotated[JsonValue, BeforeValidator(lambda value: {} if value is None else value), AfterValidator(_sayable)]
"""An input: any JSON. None is given by leaving it out, by `null`, or by `{}`: the same, since `null` is not sent."""


class Encodable(Protocol):
    """What can be published: something that gives its body."""

    def encode(self) -> bytes:
        """The body as it goes on the wire."""
        ...


@record
class Encoded:
    """A message that is bytes already: what is kept as JSON is published without being parsed."""

    body: bytes

    def encode(self) -> bytes:
        return self.body


class Value(BaseModel):
    """A part of messages: immutable, tolerant of fields from newer writers."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64", cache_strings="keys"
    )


class Message(Value):
    """A body with a type name. Subclasses give it: `class RunStarted(Message, type_name="run.started")`."""

    type_name: ClassVar[str] = ""

    @override
    def __init_subclass__(cls, type_name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not type_name:
            return
        if type_name in CATALOG and CATALOG[type_name].__qualname__ != cls.__qualname__:
            message = f"two messages are called {type_name!r}: {CATALOG[type_name].__qualname__} and {cls.__qualname__}"
            raise TypeError(message)
        cls.type_name = type_name
        CATALOG[type_name] = cls

    def encode(self) -> bytes:
        """The body as it goes on the wire: JSON without the fields that are `None`, which must be their default.

        A field whose default is something else either takes `None` for that default (`Given`), or has a serializer
        that keeps it.
        """
        return self.__pydantic_serializer__.to_json(self, exclude_none=True, by_alias=True)

    def slim(self) -> Self:
        """This message, to be held for long: without its own note of which fields were given, which is 728 bytes."""
        object.__setattr__(self, "__pydantic_fields_set__", _all_fields(type(self)))
        return self

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """The message that `body` holds.

        Raises
        ------
        MalformedMessage
            If `body` is not UTF-8 JSON of this shape; the findings name the fields.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            wrong = from_validation(error, cls.type_name or cls.__name__)
            raise MalformedMessage(wrong.message, path=wrong.path, problems=wrong.problems) from error


@cache
def _all_fields(kind: type[Message]) -> set[str]:
    """One for all messages of a kind: they are immutable, and a copy gets a set of its own."""
    return set(kind.model_fields)


class Request[R: Message](Message):
    """A question to a service, answered with an `R`.

    Subclasses say whom they ask and what answers:
    `class GetRun(Request[RunView], service="orchestrator", method="get_run", answer=RunView, query=True)`.

    A `query` changes nothing, so it may be asked again where no answer comes: whoever got it may hang.
    """

    service: ClassVar[str]
    method: ClassVar[str]
    answer: ClassVar[type[Message]]
    query: ClassVar[bool] = False

    @override
    def __init_subclass__(
        cls,
        service: str = "",
        method: str = "",
        answer: type[Message] | None = None,
        query: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(type_name=f"{service}.{method}" if method else "", **kwargs)
        if answer is not None:
            cls.service, cls.method, cls.answer, cls.query = service, method, answer, query


class Command(Message):
    """A durable order: `class CancelRun(Command, service="orchestrator", verb="cancel_run")`."""

    service: ClassVar[str]
    verb: ClassVar[str]

    @override
    def __init_subclass__(cls, service: str = "", verb: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(type_name=f"{service}.{verb}" if verb else "", **kwargs)
        if verb:
            cls.service, cls.verb = service, verb


class Done(Message, type_name="done"):
    """The answer of a request that has nothing else to say."""
