"""Settings of a service: read from the environment once at boot, every field described, bad values named.

`ServiceSettings` holds what every service has; a service subclasses it for its own. The name of a variable is
`PARACLE_` and the field's name in capitals.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from paracle_domain.errors import quote
from paracle_domain.subjects import DEFAULT_TENANT, EVERYONE, is_token, takes_answers

ENV_PREFIX: Final = "PARACLE_"
EXIT_CONFIG: Final = 2
_SECRET_WORDS: Final = ("dsn", "key", "secret", "password", "token", "url")


def _nats_urls(text: str) -> str:
    for url in text.split(","):
        if not url.strip().startswith(("nats://", "tls://")):
            raise ValueError("expected nats://host:port or tls://host:port (several: separated by commas)")
    return text


def _inbox(text: str) -> str:
    if not takes_answers(f"{text}.") or not all(map(is_token, text.split("."))):
        raise ValueError("expected tokens with dots between them, such as _INBOX.registry, not below paracle")
    return text


def _postgres_dsn(text: str | None) -> str | None:
    if text is not None and not text.startswith(("postgres://", "postgresql://")):
        raise ValueError("expected postgresql://user:password@host:port/database")
    return text


def _tenant(text: str) -> str:
    if not is_token(text) or text == EVERYONE:
        raise ValueError(f"a tenant has 1 to 64 characters of A-Z, a-z, 0-9, _ and -, and is not {EVERYONE}")
    return text


Seconds = Annotated[float, Field(le=100 * 366 * 86_400, allow_inf_nan=False)]
"""How long something takes, or is kept: a hundred years at most, which can be taken from any time of now."""


class ServiceSettings(BaseSettings):
    """What every service needs to know to run."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    nats_url: Annotated[str, AfterValidator(_nats_urls)] = Field(
        "nats://127.0.0.1:4222",
        title="NATS",
        description="Where NATS listens; several servers of a cluster are separated by commas.",
        repr=False,
    )
    nats_inbox: Annotated[str, AfterValidator(_inbox)] = Field(
        "_INBOX",
        title="Inbox",
        description="What the subjects begin with on which answers come; its NATS user may listen there.",
    )
    nats_replicas: int = Field(
        1, ge=1, le=5, title="Replicas", description="Copies of each stream; a NATS cluster has 3."
    )
    nats_relaxed: bool = Field(
        default=True,
        title="Relaxed streams",
        description="Write TASKS, RESULTS and EVENTS, which PostgreSQL can rebuild, behind; with one replica only.",
    )
    postgres_dsn: Annotated[str | None, AfterValidator(_postgres_dsn)] = Field(
        None,
        title="PostgreSQL",
        description="The service's own database, as postgresql://user:password@host:port/paracle_<service>.",
        repr=False,
    )
    postgres_pool_size: int = Field(
        8, ge=1, le=200, title="Connections", description="Most connections to PostgreSQL that one replica opens."
    )
    connect_timeout_s: Seconds = Field(
        15.0, gt=0, title="Patience at boot", description="Seconds to wait for NATS and PostgreSQL before giving up."
    )
    drain_timeout_s: Seconds = Field(
        20.0, gt=0, title="Drain", description="Seconds after SIGTERM within which work in hand is finished."
    )
    health_host: str = Field(
        "127.0.0.1", title="Health address", description="Address on which /livez and /readyz are served."
    )
    health_port: int = Field(
        0, ge=0, le=65535, title="Health port", description="Port of /livez and /readyz; 0 takes any free one."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", title="Log level", description="Least severe level that is logged."
    )
    tenant: Annotated[str, AfterValidator(_tenant)] = Field(
        DEFAULT_TENANT, title="Tenant", description="Tenant of whoever does not name one."
    )
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("PARACLE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        title="OTLP endpoint",
        description="Where traces, metrics and logs go, over OTLP/HTTP; none are made unless it is set.",
    )


def load_settings[S: BaseSettings](kind: type[S]) -> S:
    """The settings from the environment; on bad values, say which and how to mend them, and exit with code 2."""
    try:
        return kind()
    except ValidationError as error:
        refuse(error, kind)


def refuse(error: ValidationError, kind: type[BaseSettings]) -> NoReturn:
    """Print one line for each bad value (secrets hidden) and exit."""
    for line in explain(error, kind):
        sys.stderr.write(f"{line}\n")
    raise SystemExit(EXIT_CONFIG)


def explain(error: ValidationError, kind: type[BaseSettings]) -> list[str]:
    """One line for each bad value: the variable, what is wrong, what it is for."""
    return [_explain_one(dict(item), kind) for item in error.errors(include_url=False)]


def _explain_one(item: dict[str, Any], kind: type[BaseSettings]) -> str:
    located = str(item["loc"][0]) if item["loc"] else "settings"
    name = _field_of(located, kind)
    field = kind.model_fields.get(name)
    variable = env_name(name, kind) if field is not None else located
    what = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] == "missing" else f" (got {_shown(name, field, item['input'])})"
    purpose = f"; it means: {field.description}" if field is not None and field.description else ""
    default = "" if field is None or field.is_required() else " Unset it to use the default."
    return f"{variable}: {what}{given}{purpose}{default}"


def _field_of(located: str, kind: type[BaseSettings]) -> str:
    """The field that pydantic reports as `located`, which may be an alias."""
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and located in alias.choices:
            return name
        if alias == located:
            return name
    return located.lower().removeprefix(ENV_PREFIX.lower())


def env_name(field: str, kind: type[BaseSettings] = ServiceSettings) -> str:
    """The environment variable of `field`."""
    alias = kind.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return alias if isinstance(alias, str) else f"{kind.model_config.get('env_prefix', '')}{field}".upper()


def _shown(name: str, field: Any, value: object) -> str:
    secret = isinstance(value, SecretStr) or (field is not None and SecretStr in _types_of(field.annotation))
    return "a value not shown here" if secret or any(word in name for word in _SECRET_WORDS) else quote(value)


def _types_of(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))
