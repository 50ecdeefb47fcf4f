"""What the adapters for HTTP providers share: reading bodies and event streams, and translating failures.

The SDKs carry the requests (authentication, pooling, versions); bodies are read here from their bytes, since a reply
that the SDK would take apart leniently must become an error instead of a half-filled object.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from types import ModuleType
from typing import Any, Final, Protocol

from pydantic import BaseModel, ValidationError

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import FilePart, ImagePart, ToolCallPart
from paracle_domain.messages import JsonObject
from paracle_provider_gateway.faults import Origin

CONNECT_TIMEOUT_S: Final = 10.0
MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
_NAMED: Final = frozenset({"model", "messages", "max_tokens", "stream"})


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


class Body(Protocol):
    """A response whose body has not been read yet, as both SDKs give it."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def iter_bytes(self) -> AsyncIterator[bytes]: ...


class LazySdk[C]:
    """An SDK's client, made on first use: importing one takes over a second, so it happens in a thread."""

    def __init__(self, module: str, make: Callable[[ModuleType], C]) -> None:
        self._module_name = module
        self._make = make
        self._lock = asyncio.Lock()
        self._made: tuple[ModuleType, C] | None = None

    async def get(self) -> tuple[ModuleType, C]:
        """The SDK's module and the client."""
        async with self._lock:
            if self._made is None:
                module = await asyncio.to_thread(importlib.import_module, self._module_name)
                self._made = (module, self._make(module))
            return self._made

    async def close(self, close: Callable[[C], Awaitable[None]]) -> None:
        """Close the client, if there is one."""
        if self._made is not None:
            await close(self._made[1])
            self._made = None


@contextmanager
def translated(sdk: ModuleType, origin: Origin) -> Iterator[None]:
    """Turn what the SDK and its HTTP client raise into errors of the contract."""
    import httpx2  # noqa: PLC0415  # arrives with the SDK, whose import is put off

    try:
        yield
    except (sdk.APITimeoutError, httpx2.TimeoutException) as error:
        raise origin.unavailable(f"no answer in time ({type(error.__cause__ or error).__name__})") from error
    except sdk.APIStatusError as error:
        raise origin.from_status(error.status_code, error.body, error.response.headers) from error
    except (sdk.APIConnectionError, httpx2.TransportError) as error:
        cause = error.__cause__ or error
        raise origin.unavailable(f"connection failed: {type(cause).__name__}: {cause}") from error
    except sdk.APIError as error:
        raise origin.failed(str(error)) from error


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


def split_body(body: dict[str, Any], params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`body` as arguments of an SDK's method: those that it must know, and the rest, with `params`, as they are.

    SDKs drop parameters from their signatures that servers and older models still take.
    """
    named = {name: value for name, value in body.items() if name in _NAMED}
    return named, {name: value for name, value in body.items() if name not in _NAMED} | dict(params)
