"""Every service has one shape, and every list of services has them all."""

from __future__ import annotations

import ast
import math
import tomllib
from importlib import import_module
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.shape.repository import LIBS, ROOT, SERVICES

from paracle_chassis.app import settings_of

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMON = ("__init__.py", "__main__.py", "app.py", "ports.py", "py.typed", "settings.py")
EDGE = "api_gateway"


def test_there_are_six_services_and_four_libraries() -> None:
    assert SERVICES == [
        "agent_runtime",
        "api_gateway",
        "observability",
        "orchestrator",
        "provider_gateway",
        "registry",
    ]
    assert LIBS == ["paracle_chassis", "paracle_client", "paracle_domain", "paracle_embedded"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_files_that_all_have(service: str) -> None:
    folder = ROOT / "services" / service
    package = folder / "src" / f"paracle_{service}"
    # The edge speaks HTTP: its routing tables are routes/*.py, and its use cases are those of the others.
    own = ("routes",) if service == EDGE else ("handlers.py", "service.py", "adapters")
    missing = [name for name in (*COMMON, *own) if not (package / name).exists()]
    missing += [name for name in ("README.md", "pyproject.toml", "tests") if not (folder / name).exists()]
    assert not missing


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_and_queries_come_together(service: str) -> None:
    package = ROOT / "services" / service / "src" / f"paracle_{service}"
    assert (package / "migrations").is_dir() == (package / "queries.sql").is_file()
    numbers = [path.name[:4] for path in sorted((package / "migrations").glob("*.sql"))]
    assert numbers == [f"{index:03}_" for index in range(1, len(numbers) + 1)], "numbered 001, 002, … without a gap"


@pytest.mark.parametrize("service", SERVICES)
def test_main_only_runs_the_app(service: str) -> None:
    main = ROOT / "services" / service / "src" / f"paracle_{service}" / "__main__.py"
    tree = ast.parse(main.read_text(encoding="utf-8"))
    assert len(main.read_text(encoding="utf-8").splitlines()) <= 30
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("service", SERVICES)
def test_a_readme_says_what_one_wants_to_know(service: str) -> None:
    readme = (ROOT / "services" / service / "README.md").read_text(encoding="utf-8").lower()
    missing = [word for word in ("setting", "fail") if word not in readme]
    assert not missing, f"a service's README has its settings and its failure modes; there is no {missing}"


def test_the_checks_know_every_package() -> None:
    packages = {*LIBS, *(f"paracle_{name}" for name in SERVICES)}
    tools = PYPROJECT["tool"]
    assert set(tools["importlinter"]["root_packages"]) == packages
    folders = {f"libs/{name}/src" for name in LIBS} | {f"services/{name}/src" for name in SERVICES}
    assert folders <= set(tools["mypy"]["mypy_path"])
    independent = next(
        one for one in tools["importlinter"]["contracts"] if one["name"] == "Services never import services"
    )
    assert set(independent["modules"]) == {f"paracle_{name}" for name in SERVICES}


def test_compose_has_every_service_and_provisions_those_with_tables() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert set(SERVICES) <= set(compose)
    with_tables = {
        name for name in SERVICES if (ROOT / "services" / name / "src" / f"paracle_{name}" / "migrations").is_dir()
    }
    assert set(compose["provision"]["command"][-1].split(",")) == with_tables
    assert set(compose["provision"]["build"]["args"]["SERVICE"].split()) == with_tables
    assert {name for name in SERVICES if "PARACLE_POSTGRES_DSN" in compose[name]["environment"]} == with_tables


@pytest.mark.parametrize("service", SERVICES)
def test_no_time_in_settings_is_longer_than_clocks_go(service: str) -> None:
    """What is added to a time, or taken from one, must give a time."""
    kind = settings_of(import_module(f"paracle_{service}.app").create_app)
    for name in (name for name in kind.model_fields if name.endswith(("_s", "_s_of"))):
        for value in (1e11, math.inf):
            given = {"acme": value} if name.endswith("_of") else value
            with pytest.raises(ValidationError, match=rf"^1 validation error[^\n]*\n{name}\b"):
                kind(**{name: given})
