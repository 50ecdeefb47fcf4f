"""`docker compose` takes our file, and the tests that need containers use the images that it names."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from tests.shape.repository import ROOT, SERVICES

from paracle_chassis.testing import containers


@pytest.mark.containers
def test_docker_compose_understands_the_file() -> None:
    command = ["docker", "compose", "--profile", "observability", "--profile", "pools", "config", "--format", "json"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    services = json.loads(told.stdout)["services"]
    assert {*SERVICES, "nats", "postgres", "provision", "collector"} <= set(services)


def test_a_second_worker_pool_is_what_the_first_is_but_for_its_name() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    one, two = services["agent_runtime"], services["agent_runtime_heavy"]
    assert two["profiles"] == ["pools"]
    assert two["environment"].pop("PARACLE_POOLS") == "${HEAVY_POOLS:-heavy=4}"
    assert {**two, "build": one["build"]} == {**one, "profiles": ["pools"]}


def test_tests_in_containers_use_the_images_of_compose() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert services["nats"]["image"] == containers.NATS_IMAGE
    assert services["postgres"]["image"] == containers.POSTGRES_IMAGE


def test_each_service_is_a_nats_user_of_its_own_and_listens_to_its_own_inbox() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    users = (ROOT / "deploy" / "nats" / "users.conf").read_text(encoding="utf-8")
    for name in (*SERVICES, "provision"):
        environment = services[name]["environment"]
        assert environment["PARACLE_NATS_URL"] == f"nats://{name}:${{NATS_PASSWORD:-paracle}}@nats:4222"
        assert environment["PARACLE_NATS_INBOX"] == f"_INBOX.{name}"
        assert f"user: {name}, password: $NATS_PASSWORD" in users
    started_with = ROOT / "deploy" / "nats" / services["nats"]["command"][-1].rpartition("/")[2]
    assert {"include nats.conf", "include users.conf"} <= set(started_with.read_text(encoding="utf-8").splitlines())
