"""What the adapters for HTTP providers share: reading bodies and event streams, strictly.

A reply that an SDK would take apart leniently must become an error instead of a half-filled object.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import FilePart, ImagePart, ToolCallPart
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.adapters.transport import Body
from paracle_provider_gateway.faults import Origin

MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
_OURS: Final = frozenset({"model", "messages", "input", "n", "stream", "stream_options", "background"})
"""Parameters that no request may pass on."""

_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_PDF: Final = "application/pdf"


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
    return parse(b"".join([chunk async for chunk in _bounded(response, origin)]), kind, origin)


def parse[M: BaseModel](body: bytes | str, kind: type[M], origin: Origin) -> M:
    """`body`, which is JSON text, as a `kind`; raises as `read_json` does."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise origin.malformed(error) from error


def require_type(response: Body, media_type: str, origin: Origin) -> None:
    """Refuse a response that is not of `media_type`: most likely the URL is not that of the API."""
    got = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if got != media_type:
        raise origin.failed(f"answered with content type {got or 'unknown'} instead of {media_type}; is the URL right?")


async def server_sent(response: Body, origin: Origin) -> AsyncGenerator[str]:
    """The data of each server-sent event.

    Source: the WHATWG HTML standard, "Server-sent events".
    """
    require_type(response, "text/event-stream", origin)
    data: list[str] = []
    async with aclosing(_lines(response, origin)) as lines:
        async for line in lines:
            if not line:
                if data:
                    yield "\n".join(data)
                data = []
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))


async def _lines(response: Body, origin: Origin) -> AsyncGenerator[str]:
    """Lines end with a line feed alone: U+2028 and its like may stand within data, as JSON allows."""
    begun: list[bytes] = []
    async with aclosing(_bounded(response, origin)) as chunks:
        async for chunk in chunks:
            head, *others = chunk.split(b"\n")
            begun.append(head)
            for other in others:
                yield b"".join(begun).removesuffix(b"\r").decode("utf-8", "replace")
                begun = [other]


async def _bounded(response: Body, origin: Origin) -> AsyncGenerator[bytes]:
    """The body, as long as it is bearable: a server that never stops talking must not take the memory of all."""
    size = 0
    async for chunk in response.iter_bytes():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise origin.failed(f"the reply is larger than {MAX_REPLY_BYTES:,} bytes")
        yield chunk


def without_none(body: dict[str, Any]) -> dict[str, Any]:
    """`body` without the fields that are not set."""
    return {name: value for name, value in body.items() if value is not None}


def replayed(call: ToolCallPart) -> JsonObject:
    """Arguments as they go back to a provider: always an object, since many parse them again."""
    return call.arguments if call.invalid is None else {"invalid_arguments": call.invalid}


def with_params(body: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """`body` with the parameters that a request passes on under the provider's own names.

    Raises
    ------
    InvalidInput
        If one would change what the gateway accounts for: which model is asked, what, and how the answer is read.
    """
    if taken := _OURS & params.keys():
        name = min(taken)
        raise InvalidInput(f"{name} cannot be a parameter of the provider; the gateway sets it", path="sampling.params")
    return body | dict(params)
