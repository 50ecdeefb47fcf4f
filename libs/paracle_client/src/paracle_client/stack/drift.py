"""What processes of the stack were started with and would not be now: environments are read once, at the start."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from paracle_client.stack.services import is_of_shells

_NOT_COMPARED: Final = re.compile(r"PARACLE_(URL|PRINCIPAL|ROLES|PYTHON|HEALTH_PORT)")
"""Of the command line, of setting up, and of the stack."""
_SECRET: Final = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|HEADERS|DSN|PROXY")
_PLAIN: Final = re.compile(r"[\w.,:=/+-]{0,200}")


@dataclass(frozen=True, slots=True)
class Drift:
    """A variable that is `here` in the environment, and `there` in that of a process; `None`: it is not set."""

    name: str
    here: str | None
    there: str | None


def drifts(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[Drift]:
    """What differs between two environments of a service, by name."""
    for name in sorted({*here, *there}):
        if here.get(name) != there.get(name) and not is_of_shells(name) and not _NOT_COMPARED.fullmatch(name):
            yield Drift(name, here.get(name), there.get(name))


def drift_lines(found: Mapping[Drift, Collection[str]], everybody: Collection[str]) -> list[str]:
    """What is to be said of it: a line for each variable with those who have it otherwise; keys are not told."""
    lines = []
    for one in sorted(found, key=lambda one: one.name):
        every = set(found[one]) == set(everybody)
        who = "every service" if every else ", ".join(found[one])
        runs = "runs" if every or len(found[one]) == 1 else "run"
        here = "not set" if one.here is None else _shown(one.name, one.here) or "set"
        lines.append(f"  {one.name} is {here} here; {who} {runs} {_with(one)}")
    if lines:
        lines.append("What runs keeps the environment that it was started with, until `paracle down` and `paracle up`")
    return lines


def _with(one: Drift) -> str:
    if one.there is None:
        return "without it"
    otherwise = "it" if one.here is None else "another one"
    return f"with {_shown(one.name, one.there) or otherwise}"


def _shown(name: str, value: str) -> str | None:
    """The value, if it is no key and short."""
    if _SECRET.search(name) or not _PLAIN.fullmatch(value):
        return None
    return value or "empty"
