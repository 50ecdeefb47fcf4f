"""Tool manifests: what a tool takes and gives, what carries it, and what it may touch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from paracle_domain.messages import JsonObject
from paracle_domain.workflow.spec import Seconds, Spec

SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,127}$")]


class Effect(StrEnum):
    """What calling a tool does to the world.

    `none`: nothing, so it may be repeated at will. `idempotent`: repeating it with the same key has no further effect.
    `at_most_once`: it must never be repeated by itself; if its outcome is unknown it is in doubt and shown.
    """

    NONE = "none"
    IDEMPOTENT = "idempotent"
    AT_MOST_ONCE = "at_most_once"


class BuiltinBackend(Spec):
    """A function that ships with the agent runtime. `options` are fixed by the manifest, never by the model."""

    type: Literal["builtin"] = "builtin"
    function: str = Field(min_length=1, max_length=100)
    options: dict[str, JsonValue] = {}


class HttpBackend(Spec):
    """An HTTP endpoint. `{name}` in `url` is filled from the arguments (URL-quoted); the rest is the JSON body, or the
    query of a GET. A header value `${NAME}` is that secret. The idempotency key travels in `idempotency_header`.
    """

    type: Literal["http"] = "http"
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    url: str = Field(pattern=r"^https?://")
    headers: dict[str, str] = {}
    idempotency_header: str = "Idempotency-Key"


class Permissions(Spec):
    """What a tool may touch; nothing unless it says so."""

    hosts: tuple[str, ...] = Field(default=(), description="host names (or host:port) that it may connect to")
    private_networks: bool = Field(default=False, description="whether those hosts may have private addresses")
    paths: tuple[str, ...] = Field(default=(), description="folders that it may read")
    secrets: tuple[SecretName, ...] = Field(default=(), description="names of environment secrets that it may use")


class ToolSpec(Spec):
    """`spec` of a `kind: Tool` manifest."""

    description: str = Field(min_length=1, description="what it does, for people and models")
    input: JsonObject = Field(default={"type": "object"}, description="JSON Schema of the arguments")
    output: JsonObject = Field(default_factory=dict, description="JSON Schema of the result")
    backend: BuiltinBackend | HttpBackend = Field(discriminator="type")
    permissions: Permissions = Permissions()
    effect: Effect = Effect.NONE
    timeout_s: Seconds = 30.0

    @model_validator(mode="after")
    def _object_input(self) -> Self:
        if self.input.get("type", "object") != "object":
            message = "input must be a JSON Schema of type object, since tools are called with named arguments"
            raise ValueError(message)
        return self
