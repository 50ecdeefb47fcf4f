"""Settings: what is said of bad ones."""

import subprocess
import sys

import pytest
from pydantic import Field, SecretStr, ValidationError

from paracle_chassis.settings import ServiceSettings, env_name, explain, load_settings


class GatewaySettings(ServiceSettings):
    api_key: SecretStr = Field(description="What the gateway shows the provider.")
    rate: int = Field(10, gt=0, description="Requests a second.")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARACLE_API_KEY", "sk-verysecret")


def test_every_field_is_described():
    for name, field in ServiceSettings.model_fields.items():
        assert field.description, name
        assert field.title, name


def test_values_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PARACLE_NATS_URL", "nats://a:1,nats://b:2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("PARACLE_RATE", "")
    settings = load_settings(GatewaySettings)
    assert (settings.nats_url, settings.otlp_endpoint, settings.rate) == (
        "nats://a:1,nats://b:2", "http://collector:4318", 10,
    )  # fmt: skip


def refused(monkeypatch, **values: str) -> list[str]:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        GatewaySettings()
    return explain(caught.value, GatewaySettings)


def test_a_bad_value_is_named_with_its_variable_and_what_it_is_for(monkeypatch):
    (line,) = refused(monkeypatch, PARACLE_RATE="-1")
    assert line.startswith("PARACLE_RATE: Input should be greater than 0 (got '-1'); it means: Requests a second.")


def test_all_bad_values_are_named_at_once(monkeypatch):
    lines = refused(
        monkeypatch, PARACLE_RATE="x", PARACLE_LOG_LEVEL="LOUD", PARACLE_TENANT="a b", PARACLE_NATS_URL="http://x"
    )
    assert [line.partition(":")[0] for line in lines] == [
        "PARACLE_NATS_URL", "PARACLE_LOG_LEVEL", "PARACLE_TENANT", "PARACLE_RATE",
    ]  # fmt: skip


@pytest.mark.parametrize("inbox", ["_INBOX.", "_INBOX.>", "a b", "$JS.API", "paracle", "paracle.v1"])
def test_an_inbox_is_where_answers_may_go(monkeypatch, inbox):
    (line,) = refused(monkeypatch, PARACLE_NATS_INBOX=inbox)
    assert line.startswith("PARACLE_NATS_INBOX: expected tokens with dots between them, such as _INBOX.registry")
    monkeypatch.setenv("PARACLE_NATS_INBOX", "_INBOX.agent_runtime")
    monkeypatch.setenv("PARACLE_RATE", "1")
    assert load_settings(GatewaySettings).nats_inbox == "_INBOX.agent_runtime"


def test_a_missing_one_is_named(monkeypatch):
    monkeypatch.delenv("PARACLE_API_KEY")
    assert refused(monkeypatch) == ["PARACLE_API_KEY: Field required; it means: What the gateway shows the provider."]


def test_secrets_are_not_shown(monkeypatch):
    (line,) = refused(monkeypatch, PARACLE_POSTGRES_DSN="mysql://a:hunter2@b/c")
    assert "hunter2" not in line
    assert line.startswith("PARACLE_POSTGRES_DSN: expected postgresql://")
    assert "sk-verysecret" not in repr(GatewaySettings(postgres_dsn="postgresql://a:hunter2@b/c"))
    assert "hunter2" not in repr(GatewaySettings(postgres_dsn="postgresql://a:hunter2@b/c"))


def test_a_process_with_bad_settings_exits_with_2_and_no_traceback():
    code = "from paracle_chassis.settings import *; load_settings(ServiceSettings)"
    env = {"PARACLE_HEALTH_PORT": "99999"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("PARACLE_HEALTH_PORT: Input should be less than or equal to 65535 (got '99999')")
    assert "Traceback" not in done.stderr


def test_variables_are_named_as_they_are_read():
    assert env_name("nats_url") == "PARACLE_NATS_URL"
    assert env_name("otlp_endpoint") == "OTEL_EXPORTER_OTLP_ENDPOINT"
