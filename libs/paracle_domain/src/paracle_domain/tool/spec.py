"""Tool manifests: what a tool takes and gives, what carries it, and what it may touch."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from paracle_domain.errors import quote
from paracle_domain.messages import JsonObject
from paracle_domain.subjects import is_token
from paracle_domain.workflow.spec import ApprovalRules, PoolName, Seconds, Spec

type Money = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,127}$")]
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_BREAK: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{quote(name)} is no name of a header")
    return name


def _header_value(value: str) -> str:
    if _BREAK.search(value):
        raise ValueError(f"{quote(value)} holds a line break or another control character, which no header can")
    return value


def _token(name: str) -> str:
    if not is_token(name):
        raise ValueError(f"{quote(name)} is no name of a worker's tool: 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return name


WorkerTool = Annotated[str, AfterValidator(_token)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


_WITHIN: Final = frozenset({"noop", "sleep", "now", "calculate", "json_query", "csv_query"})


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

    @property
    def within(self) -> bool:
        """Whether the function works on its arguments alone, within the process of the agent runtime."""
        return self.function in _WITHIN


class HttpBackend(Spec):
    """An HTTP endpoint. `{name}` in `url` is filled from the arguments (URL-quoted); those that `query`,
    `header_arguments` and `body` name go there; the rest is the body, or the query of a GET. A header value `${NAME}`
    is that secret. The idempotency key travels in `idempotency_header`.
    """

    type: Literal["http"] = "http"
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    url: str = Field(pattern=r"^https?://")
    headers: dict[HeaderName, HeaderValue] = {}
    query: dict[str, str] = Field(default={}, description="name in the query: the argument that fills it")
    header_arguments: dict[HeaderName, str] = Field(default={}, description="header: the argument that fills it")
    body: str | None = Field(default=None, description="the argument that is the whole body")
    body_type: Literal["json", "form"] = "json"
    idempotency_header: HeaderName = "Idempotency-Key"


class NatsBackend(Spec):
    """A tool that workers answer over NATS, on `paracle.v1.{tenant}.rpc.tools.{tool}`; the tenant is the run's.

    The idempotency key travels in the header `paracle-idempotency-key`.
    """

    type: Literal["nats"] = "nats"
    tool: WorkerTool = Field(description="how its workers call it: the last token of the subject")


class McpBackend(Spec):
    """A tool of an MCP server that the operator of the agent runtime named, with the schemas that it was imported with.

    The idempotency key travels in `_meta` as `paracle/idempotency-key`.
    """

    type: Literal["mcp"] = "mcp"
    server: str = Field(min_length=1, max_length=100, description="its name in PARACLE_MCP_SERVERS")
    tool: str = Field(min_length=1, max_length=200, description="what the server calls the tool")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="of its schemas, as `paracle import mcp` writes it")


class Execution(Spec):
    """Within what a tool may run commands: in the sandbox, without network, besides the tool's `timeout_s`."""

    memory_mb: int = Field(default=256, ge=64, le=65_536, description="of all its processes together")
    processes: int = Field(default=32, ge=1, le=4_096, description="at the same time")
    output_bytes: int = Field(default=65_536, ge=1, le=1 << 20, description="standard output and error together")
    scratch_mb: int = Field(default=64, ge=1, le=65_536, description="of files that it may write for itself")


class Permissions(Spec):
    """What a tool may touch; nothing unless it says so."""

    hosts: tuple[str, ...] = Field(default=(), description="host names (or host:port) that it may connect to")
    private_networks: bool = Field(default=False, description="whether those hosts may have private addresses")
    workers: tuple[WorkerTool, ...] = Field(default=(), description="tools of workers that it may ask over NATS")
    mcp_servers: tuple[str, ...] = Field(default=(), description="MCP servers that it may ask")
    paths: tuple[str, ...] = Field(default=(), description="folders that it may read")
    write_paths: tuple[str, ...] = Field(default=(), description="folders that it may read and write")
    secrets: tuple[SecretName, ...] = Field(default=(), description="names of environment secrets that it may use")
    execute: Execution | None = Field(default=None, description="whether, and within what, it may run commands")


class ToolApproval(ApprovalRules):
    """When people are asked before a tool is called, and who. Without `when` and `above_usd`: always.

    Decisions are bound to the exact arguments, and to the revisions of the tool and the agent.
    """

    when: str | None = Field(default=None, description="an expression over `arguments`: asked if it holds")
    above_usd: Money | None = Field(default=None, description="asked if the call costs more, or nobody knows what")
    ask: str = Field(default="", max_length=2_000, description="the question; may hold expressions over `arguments`")
    on_rejection: Literal["tell", "fail"] = Field(
        default="tell", description="`tell`: the model hears of it and goes on; `fail`: the task fails"
    )


class Probe(Spec):
    """How it is found out what became of a call in doubt: by a tool without effect that looks.

    It is called with those arguments of the call that its `input` names (all, if it names none) and with the call's
    idempotency key, as its backend carries it, and as `idempotency_key` if its `input` names that. It answers
    `{"outcome": "done", "output": …}` (or `not_done`, or `unknown`), unless expressions say how to read it.
    """

    tool: str = Field(min_length=1, description="the tool that looks")
    outcome: str | None = Field(
        default=None,
        description="an expression over `arguments` and the `output` of the probe: done, not_done or unknown",
    )
    output: JsonValue = Field(
        default=None, description="with `outcome`: what the call would have answered; the whole `output`, if not given"
    )
    settle_s: float = Field(
        default=10.0, ge=0, le=86_400, allow_inf_nan=False, description="how long a call may still be on its way"
    )
    attempts: int = Field(default=6, ge=1, le=20, description="how often it may be unable to tell")

    @model_validator(mode="after")
    def _read_by_both(self) -> Self:
        if self.outcome is None and self.output is not None:
            raise ValueError("output is read where outcome is; give an expression for outcome, too")
        return self


class ToolSpec(Spec):
    """`spec` of a `kind: Tool` manifest."""

    description: str = Field(min_length=1, description="what it does, for people and models")
    input: JsonObject = Field(default={"type": "object"}, description="JSON Schema of the arguments")
    output: JsonObject = Field(default_factory=dict, description="JSON Schema of the result")
    backend: BuiltinBackend | HttpBackend | NatsBackend | McpBackend = Field(discriminator="type")
    permissions: Permissions = Permissions()
    effect: Effect = Effect.NONE
    probe: Probe | None = Field(default=None, description="how it is found out what became of a call in doubt")
    approval: ToolApproval | None = Field(default=None, description="when people are asked before a call, and who")
    cost_usd: str | None = Field(
        default=None, description="what a call costs: an expression over `arguments`, or a sum"
    )
    timeout_s: Seconds = 30.0
    pool: PoolName | None = Field(default=None, description="worker pool of steps that are this tool")

    @property
    def plain(self) -> bool:
        """Whether it changes nothing and asks nobody: it may be called again at will, and needs no history."""
        return self.effect is Effect.NONE and self.approval is None

    @property
    def light(self) -> bool:
        """Whether a call costs so little that many can be handed out, and done again, together."""
        return isinstance(self.backend, BuiltinBackend) and self.backend.within and self.plain

    @model_validator(mode="after")
    def _object_input(self) -> Self:
        if self.input.get("type", "object") != "object":
            message = "input must be a JSON Schema of type object, since tools are called with named arguments"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _probe_of_doubts(self) -> Self:
        if self.probe is not None and self.effect is not Effect.AT_MOST_ONCE:
            raise ValueError("only a tool with effect: at_most_once has calls in doubt to probe")
        return self
