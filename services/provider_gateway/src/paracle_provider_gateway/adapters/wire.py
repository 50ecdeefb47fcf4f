"""What the adapters for HTTP providers share: reading bodies and event streams, strictly.

A reply that an SDK would take apart leniently must become an error instead of a half-filled object.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final, Protocol

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from paracle_domain.errors import InvalidInput, ParacleError
from paracle_domain.inference.chat import ChatMessage, FilePart, ImagePart, TextPart, Thinking, ToolCallPart
from paracle_domain.inference.deltas import TextDelta
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters.transport import Body
from paracle_provider_gateway.faults import Origin
from paracle_provider_gateway.ports import Piece, StreamItem

MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
_OURS: Final = frozenset(
    {"model", "messages", "input", "n", "stream", "stream_options", "background"}
    | {"dimensions", "output_dimension", "encoding_format", "output_dtype"}
    | {"max_tokens", "max_completion_tokens", "max_output_tokens"}
)
"""Parameters that no request may pass on; budgets reserve what `sampling.max_output_tokens` says."""

_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_PDF: Final = "application/pdf"

Place = Annotated[int, Field(ge=0)]
"""Where something stands in a list."""


def check_image(image: ImagePart) -> None:
    """Raise `InvalidInput` if no provider takes such an image."""
    if image.media_type is not None and image.media_type not in _IMAGES:
        known = ", ".join(_IMAGES)
        raise InvalidInput(f"models take no {image.media_type}; they take {known}", path="input.parts")


def check_pdf(file: FilePart) -> None:
    """Raise `InvalidInput` if no provider takes such a file."""
    if file.media_type != _PDF:
        message = f"models take no {file.media_type} (file {file.name!r}); they take {_PDF}, text and JSON"
        raise InvalidInput(message, path="input.parts")


def data_url(part: ImagePart | FilePart) -> str:
    """What is attached as data, as a URL."""
    return f"data:{part.media_type};base64,{part.data}"


def user_content(
    message: ChatMessage,
    *,
    text: str,
    image: Callable[[ImagePart], dict[str, Any]],
    file: Callable[[FilePart], dict[str, Any]],
) -> str | list[dict[str, Any]]:
    """What a user says, as OpenAI's APIs take it: words alone as they are, others part by part; `text` names words."""
    if not message.attached:
        return message.text
    content: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case TextPart(text=words) if words:
                content.append({"type": text, "text": words})
            case ImagePart():
                check_image(part)
                content.append(image(part))
            case FilePart():
                content.append(file(part))
            case _:
                pass
    return content


def named_text(file: FilePart) -> str:
    """A file of text as words of the message, under its name."""
    return f"File {file.name}:\n{file.text}"


async def read_json[M: BaseModel](response: Body, kind: type[M], origin: Origin) -> M:
    """The body as a `kind`.

    Raises
    ------
    ProviderFailed
        If it is something else than JSON, JSON of another shape, or larger than `MAX_REPLY_BYTES`.
    ProviderUnavailable
        If it is cut off.
    """
    require_type(response, "application/json", origin)
    body = b"".join([chunk async for chunk in _bounded(response, origin)])
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _told(body, origin) or origin.malformed(error) from error


def _told(body: bytes, origin: Origin) -> ParacleError | None:
    """The error that a body tells of: some servers send one with status 200."""
    try:
        found = from_json(body)
    except ValueError:
        return None
    return origin.from_event(found) if isinstance(found, dict) and found.get("error") else None


def require_type(response: Body, media_type: str, origin: Origin) -> None:
    """Refuse a response that is not of `media_type`: most likely the URL is not that of the API."""
    got = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if got != media_type:
        raise origin.failed(f"answered with content type {got or 'unknown'} instead of {media_type}; is the URL right?")


class EventReader(Protocol):
    """Folds the data of server-sent events into stream items."""

    @property
    def finished(self) -> bool:
        """Whether the provider said that it has finished: what may follow is not waited for."""

    def read(self, data: bytes) -> Iterable[StreamItem]:
        """What an event with this `data` adds."""

    def close(self) -> list[StreamItem]:
        """The end of the stream; empty if the provider never said that it had finished."""


async def read_stream(response: Body, reader: EventReader, origin: Origin) -> AsyncGenerator[StreamItem]:
    """What `reader` makes of the events of `response`, each as soon as it is there.

    What arrived together is told together: adjacent words become one piece.
    """
    require_type(response, "text/event-stream", origin)
    events = EventSplitter()
    async with aclosing(_bounded(response, origin)) as chunks:
        async for chunk in chunks:
            for item in _merged([item for data in events.feed(chunk) for item in reader.read(data)]):
                yield item
            if reader.finished:
                break
    for item in reader.close():
        yield item


def _merged(items: list[StreamItem]) -> Iterable[StreamItem]:
    if len(items) < 2:
        return items
    found: list[StreamItem] = []
    words: list[str] = []
    place = 0
    for item in items:
        if isinstance(item, Piece) and isinstance(item.change, TextDelta):
            if words and item.index != place:
                found.append(Piece(place, TextDelta(text="".join(words))))
                words = []
            place = item.index
            words.append(item.change.text)
            continue
        if words:
            found.append(Piece(place, TextDelta(text="".join(words))))
            words = []
        found.append(item)
    if words:
        found.append(Piece(place, TextDelta(text="".join(words))))
    return found


class EventSplitter:
    """Cuts a stream of bytes into the data of its server-sent events.

    Source: the WHATWG HTML standard, "Server-sent events". Lines end with a line feed alone: U+2028 and its like may
    stand within data, as JSON allows.
    """

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes."""
        head, end, rest = chunk.rpartition(b"\n")
        if not end:
            self._begun.append(chunk)
            return []
        whole = b"".join((*self._begun, head)) if self._begun else head
        self._begun = [rest] if rest else []
        return [data for line in whole.split(b"\n") if (data := self._take(line.removesuffix(b"\r"))) is not None]

    def _take(self, line: bytes) -> bytes | None:
        """The data of the event that `line` ends, if it ends one that has any."""
        if line:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            return None
        if not self._data:
            return None
        found = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        return found


def parse_event(data: bytes, origin: Origin) -> dict[str, Any]:
    """The JSON object that an event holds."""
    try:
        found = from_json(data)
    except ValueError as error:
        raise origin.lost(f"an event is no complete JSON: {error}") from error
    if not isinstance(found, dict):
        raise origin.failed("an event does not follow the protocol: it is no object")
    return found


def check[M: BaseModel](found: dict[str, Any], kind: type[M], origin: Origin) -> M:
    """`found`, which is JSON that was read, as a `kind`; raises as `read_json` does."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise origin.malformed(error) from error


async def _bounded(response: Body, origin: Origin) -> AsyncGenerator[bytes]:
    """The body, as long as it is bearable: a server that never stops talking must not take the memory of all."""
    size = 0
    async for chunk in response.iter_bytes():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise origin.failed(f"the reply is larger than {MAX_REPLY_BYTES:,} bytes")
        yield chunk


def effort(thinking: Thinking | None) -> str | None:
    """How much a model thinks, in OpenAI's words."""
    return "none" if thinking == "off" else thinking


def without_none(body: dict[str, Any]) -> dict[str, Any]:
    """`body` without the fields that are not set."""
    return {name: value for name, value in body.items() if value is not None}


def replayed(call: ToolCallPart) -> JsonObject:
    """Arguments as they go back to a provider: always an object, since many parse them again."""
    return call.arguments if call.invalid is None else {"invalid_arguments": call.invalid}


def with_params(body: dict[str, Any], params: Mapping[str, Any], path: str = "sampling.params") -> dict[str, Any]:
    """`body` with the parameters that a request passes on under the provider's own names.

    Raises
    ------
    InvalidInput
        If one would change what the gateway accounts for: which model is asked, what, and how the answer is read.
    """
    if taken := _OURS & params.keys():
        name = min(taken)
        raise InvalidInput(f"{name} cannot be a parameter of the provider; the gateway sets it", path=path)
    return body | dict(params)
