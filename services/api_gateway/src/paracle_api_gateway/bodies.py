"""Request bodies: their size, their type, and what is in them; each refusal says what was sent and what is taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from paracle_api_gateway.problems import UnsupportedMediaType
from paracle_domain.errors import (
    Finding,
    InvalidInput,
    MalformedMessage,
    PayloadTooLarge,
    findings_of,
    quote,
)
from paracle_domain.names import suggest
from paracle_domain.strict_json import MAX_DEPTH, is_deep, is_finite

JSON_TYPES: Final = frozenset({"application/json"})
YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"})


async def read_body(request: Request, types: Collection[str]) -> bytes:
    """The body, which must be one of `types`, and at most `api_body_limit` bytes.

    A body without a content type is taken as the right one.

    Raises
    ------
    UnsupportedMediaType, PayloadTooLarge
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in types:
        expected = " or ".join(sorted(types))
        raise UnsupportedMediaType(f"the body is said to be {quote(media_type)}; send it with Content-Type: {expected}")
    limit: int = request.app.state.settings.api_body_limit
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(f"{int(announced):,} bytes", limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(f"more than {limit:,} bytes", limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(size: str, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body is {size}; the limit is {limit:,} bytes: put large data where a tool can read it, "
        "and pass where that is"
    )


def text_of(body: bytes) -> str:
    """The body as text.

    Raises
    ------
    MalformedMessage
        If it is not UTF-8; it names the offset of the first wrong byte.
    """
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(
            f"the body is not UTF-8: byte {body[error.start]:#04x} at offset {error.start:,}; encode it as UTF-8"
        ) from error


async def read_json[M: BaseModel](request: Request, kind: type[M]) -> M:
    """The JSON body as a `kind`; an empty body is an empty object.

    Raises
    ------
    MalformedMessage
        If it is not UTF-8 or not JSON; it names the position.
    InvalidInput
        If it is JSON of another shape; it names the fields.
    """
    body = await read_body(request, JSON_TYPES)
    value = _parse(text_of(body)) if body.strip() else {}
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise InvalidInput.many("request body", list(_findings(error, kind))) from error


def _findings(error: ValidationError, kind: type[BaseModel]) -> Iterator[Finding]:
    """What is wrong; of fields that there are not, also which were probably meant."""
    items = error.errors(include_url=False)
    for item, found in zip(items, findings_of(items), strict=True):
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            yield Finding(path=found.path, message=f"{found.message}{suggest(found.path, kind.model_fields)}")
        else:
            yield found


def _parse(text: str) -> Any:
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedMessage(f"the body is not JSON: {error}") from error
    if is_deep(value):
        raise MalformedMessage(f"the body nests more than {MAX_DEPTH} levels deep")
    if not is_finite(value):
        raise MalformedMessage("the body holds a number too large for a double; send it as a string")
    return value
