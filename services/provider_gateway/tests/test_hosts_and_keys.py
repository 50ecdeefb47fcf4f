"""Where providers of tenants may be, and which keys go there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paracle_domain.errors import Forbidden, NotFound
from paracle_domain.provider.spec import KeyRef
from paracle_provider_gateway.app import configured
from paracle_provider_gateway.hosts import HostRules, matches
from paracle_provider_gateway.keys import KeyRing, Supply
from paracle_provider_gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("entry", "host", "port", "expected"),
    [
        ("localhost", "localhost", 80, True),
        ("localhost:8000", "localhost", 8000, True),
        ("localhost:8000", "localhost", 80, False),
        ("LocalHost", "localhost", 80, True),
        ("*.internal", "llm.internal", 80, True),
        ("*.internal", "a.llm.internal", 80, False),
        ("*.internal", "internal", 80, False),
        ("example.com", "evil-example.com", 443, False),
        ("example.com", "example.com.evil.net", 443, False),
        ("::1", "0:0:0:0:0:0:0:1", 80, True),
        ("[::1]:8000", "::1", 8000, True),
        ("127.0.0.1", "localhost", 80, False),
    ],
)
def test_entries_speak_of_hosts(entry: str, host: str, port: int, expected: bool):
    assert matches(entry, host, port) is expected


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1", "http://[::1]/v1", "http://10.1.2.3/v1", "http://[::ffff:127.0.0.1]/v1"]
)
def test_addresses_that_are_not_public_are_refused(url: str):
    with pytest.raises(Forbidden, match="PARACLE_PROVIDER_HOSTS") as refused:
        HostRules(["localhost"]).check_url("mine", url)
    assert refused.value.path == "base_url"


def test_the_operator_can_allow_them():
    rules = HostRules(["127.0.0.1", "10.1.2.3:8000", "llm.internal"])
    rules.check_url("mine", "http://127.0.0.1:1234/v1")
    rules.check_url("mine", "http://10.1.2.3:8000/v1")
    rules.check_url("mine", "https://api.groq.com/openai/v1")
    rules.check_address("mine", "llm.internal", 80, "10.9.9.9")
    rules.check_address("mine", "api.groq.com", 443, "104.18.1.1")
    assert rules.is_named("https://llm.internal/v1")
    assert rules.is_named("https://api.groq.com/v1")
    assert not rules.is_named("https://example.com/v1")
    with pytest.raises(Forbidden, match=r"api\.groq\.com: 10\.0\.0\.1 is not a public address"):
        rules.check_address("mine", "api.groq.com", 443, "10.0.0.1")


def test_no_name_leads_to_a_metadata_service():
    with pytest.raises(Forbidden):
        HostRules(["llm.internal", "*.internal"]).check_address("mine", "llm.internal", 80, "169.254.169.254")
    HostRules(["169.254.169.254"]).check_url("mine", "http://169.254.169.254/v1")


def test_a_key_goes_to_its_own_hosts_alone():
    rules = HostRules(of_keys={"MINE": ["llm.example.com"], "GROQ_API_KEY": ["proxy.example.com:8443"]})
    rules.check_key("p", "GROQ_API_KEY", "https://api.groq.com/openai/v1")
    rules.check_key("p", "GROQ_API_KEY", "https://proxy.example.com:8443/v1")
    rules.check_key("p", "AZURE_OPENAI_API_KEY", "https://acme.openai.azure.com/openai/v1")
    rules.check_key("p", "MINE", "http://llm.example.com:8080/v1")


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("GROQ_API_KEY", "https://evil.example.com/v1"),
        ("GROQ_API_KEY", "https://api.groq.com.evil.example.com/v1"),
        ("GROQ_API_KEY", "http://api.groq.com/v1"),
        ("GROQ_API_KEY", "https://api.groq.com:8443/v1"),
        ("GROQ_API_KEY", "https://api.openai.com/v1"),
        ("AZURE_OPENAI_API_KEY", "https://openai.azure.com/v1"),
        ("PARACLE_POSTGRES_DSN", "https://api.groq.com/openai/v1"),
        ("MINE", "https://llm.example.com/v1"),
    ],
)
def test_a_key_goes_nowhere_else(key: str, url: str):
    with pytest.raises(Forbidden, match="PARACLE_PROVIDER_KEY_HOSTS") as refused:
        HostRules().check_key("p", key, url)
    assert refused.value.path == "key"


def value(supply: Supply) -> str | None:
    found = supply()
    return None if found is None else found.get_secret_value()


def test_a_key_in_a_variable():
    ring = KeyRing({"MINE": " sk-1 ", "EMPTY": ""})
    assert value(ring.supply(KeyRef(env="MINE"), "acme")) == "sk-1"
    for name in ("EMPTY", "GONE"):
        with pytest.raises(NotFound, match=f"no key {name}: set the variable"):
            ring.supply(KeyRef(env=name), "acme")()


def replace(path: Path, text: str) -> None:
    """As operators rotate keys: a new file in the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def test_a_mounted_key_rotates(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("sk-1\n")
    supply = KeyRing({"MINE_FILE": str(file)}).variable("MINE")
    assert value(supply) == "sk-1"
    replace(file, "sk-2\n")
    assert value(supply) == "sk-2"
    file.unlink()
    with pytest.raises(NotFound, match="no key MINE: its file cannot be read"):
        supply()
    file.write_text("sk-3")
    assert value(supply) == "sk-3"


def test_a_key_that_is_written_over_in_place_rotates(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("sk-1")
    supply = KeyRing({}, tmp_path).supply(KeyRef(file="key"), "acme")
    assert value(supply) == "sk-1"
    file.write_text("sk-2")
    os.utime(file, ns=(1, 1))  # within one tick of the clock, only the test knows that it changed
    assert value(supply) == "sk-2"


@pytest.mark.parametrize("text", ["", " \n", "sk-1\nsk-2", "sk-\u00e9"])
def test_what_is_no_key_is_not_sent(tmp_path: Path, text: str):
    (tmp_path / "key").write_text(text)
    with pytest.raises(NotFound, match="holds none") as refused:
        KeyRing({}, tmp_path).supply(KeyRef(file="key"), "acme")()
    assert "sk-" not in str(refused.value)


def test_a_tenants_key_is_no_other_tenants(tmp_path: Path):
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "mine").write_text("sk-acme")
    (tmp_path / "shared").write_text("sk-all")
    ring = KeyRing({}, tmp_path)
    assert value(ring.supply(KeyRef(file="mine"), "acme")) == "sk-acme"
    assert value(ring.supply(KeyRef(file="shared"), "acme")) == "sk-all"
    for name in ("mine", "acme"):
        with pytest.raises(NotFound):
            ring.supply(KeyRef(file=name), "globex")()


def test_without_a_folder_there_are_no_files():
    with pytest.raises(NotFound, match="PARACLE_PROVIDER_KEYS_DIR"):
        KeyRing({}).supply(KeyRef(file="mine"), "acme")()


def test_the_operators_own_keys_may_be_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PARACLE_OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "key"
    file.write_text("sk-1")
    found = {config.name: config for config in configured(GatewaySettings(openai_api_key_file=file))}
    assert list(found) == ["openai"]
    assert value(found["openai"].key) == "sk-1"
    replace(file, "sk-22")
    assert value(found["openai"].key) == "sk-22"
