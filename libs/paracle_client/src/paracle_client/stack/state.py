"""What `state.json` keeps: which processes make up the stack, so that any later command finds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from paracle_embedded.processes import ProcessRef

FILE: Final = "state.json"


@dataclass(frozen=True, slots=True)
class Member:
    """A service's process and the ports that it was given: `health_port`, and `port` where it serves users."""

    process: ProcessRef
    health_port: int
    port: int | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(ProcessRef.from_json(data["process"]), int(data["health_port"]), data.get("port"))


@dataclass(slots=True)
class State:
    """The stack as it was last written down."""

    members: dict[str, Member] = field(default_factory=dict)
    url: str | None = None
    replicas: dict[str, int] = field(default_factory=dict)
    """Of services that are to have more than one process: how many."""

    @classmethod
    def load(cls, root: Path) -> Self:
        """The state under `root`; an empty one if nothing was ever started there.

        Raises
        ------
        ValueError
            If the file is damaged; the message names it.
        """
        path = root / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            members = {name: Member.from_json(item) for name, item in data["members"].items()}
            replicas = {name: int(number) for name, number in data.get("replicas", {}).items()}
            return cls(members, data.get("url"), replicas)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{path} is damaged ({error}); stop the processes that it names and remove it"
            raise ValueError(message) from error

    def save(self, root: Path) -> None:
        """Write it in one step: a reader sees the old state or the new one."""
        draft = root / f"{FILE}.tmp"
        draft.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        draft.replace(root / FILE)


def find_root(start: Path) -> Path | None:
    """The nearest `.paracle` with a state, from `start` upwards."""
    for folder in (start, *start.parents):
        if (folder / ".paracle" / FILE).is_file():
            return folder / ".paracle"
    return None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one process of the stack stands now: `ready`, `not ready` (it runs, but does not answer) or `down`."""

    name: str
    state: str
    pid: int | None
    port: int | None
    uptime_s: float | None
    rss_bytes: int | None
    log: str

    @property
    def ready(self) -> bool:
        return self.state == "ready"
