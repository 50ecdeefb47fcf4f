"""The six services: what each is called, which it may see of the environment, and how it is started."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_OF_SHELLS: Final = re.compile(r"PATH|HOME|USER|LANG|LC_.+|TZ|TMPDIR|VIRTUAL_ENV|PYTHON.+|LD_LIBRARY_PATH|COVERAGE_.+")
_SETTINGS: Final = re.compile(r"OTEL_.+|PARACLE_.+")
_NETWORK: Final = re.compile(r"(?i:https?_proxy|all_proxy|no_proxy)|SSL_CERT_.+|REQUESTS_CA_BUNDLE")
_OF_PROVIDERS: Final = re.compile(
    r".+_API_KEY(_FILE)?|.+_BASE_URL|(PARACLE_)?(OPENAI|ANTHROPIC|OLLAMA|AZURE_OPENAI|GEMINI)_.+"
)
_SECRET: Final = re.compile(r"PARACLE_SECRET_.+")


@dataclass(frozen=True, slots=True)
class Service:
    """One of the services. Only those that call out of the machine see proxies, keys or secrets."""

    name: str
    sees_network: bool = False
    sees_provider_keys: bool = False
    sees_secrets: bool = False

    @property
    def package(self) -> str:
        return f"paracle_{self.name}"

    @property
    def database(self) -> str | None:
        """Name of its own database; `None` if it keeps nothing there (it has no migrations)."""
        return self.package if (self._folder / "migrations").is_dir() else None

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", self.package]

    @property
    def migrations(self) -> tuple[Path, ...]:
        """Its numbered SQL files, in order."""
        return tuple(sorted((self._folder / "migrations").glob("*.sql")))

    @property
    def _folder(self) -> Path:
        return package_folder(self.package)

    def inherits(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The part of `environment` that this service gets to see: no keys but those that are for it."""
        return {name: value for name, value in environment.items() if self._may_see(name)}

    def _may_see(self, name: str) -> bool:
        if _SECRET.fullmatch(name):
            return self.sees_secrets
        if _OF_PROVIDERS.fullmatch(name):
            return self.sees_provider_keys
        if _NETWORK.fullmatch(name):
            return self.sees_network
        return _SETTINGS.fullmatch(name) is not None or is_of_shells(name)


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of a service. The first is called like its service, the others `{service}-2`, `{service}-3`, …"""

    service: Service
    number: int = 1

    @property
    def name(self) -> str:
        return self.service.name if self.number == 1 else f"{self.service.name}-{self.number}"


SERVICES: Final = (
    Service("registry"),
    Service("orchestrator"),
    Service("agent_runtime", sees_network=True, sees_secrets=True),
    Service("provider_gateway", sees_network=True, sees_provider_keys=True),
    Service("observability"),
    Service("api_gateway"),
)


def is_of_shells(name: str) -> bool:
    """Whether a variable is what every process has, and no setting of a service."""
    return _OF_SHELLS.fullmatch(name) is not None


def package_folder(package: str) -> Path:
    """Where `package` is installed, found without importing it."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        message = f"the package {package} is not installed; `make setup` installs every part of Paracle"
        raise ModuleNotFoundError(message)
    return Path(found.submodule_search_locations[0])
