"""Manifests as YAML, as people write them: texts of several lines as such, and nothing that reads as something else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import yaml

_STRING: Final = "tag:yaml.org,2002:str"
_NUMBER: Final = re.compile(r"[-+]?(?:0o[0-7]+|0x[0-9a-fA-F]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)")
"""What Paracle reads as a number (YAML's core schema); PyYAML writes some of it, `1e3`, without quotes."""


class _Dumper(yaml.SafeDumper):
    """Writes plain data."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(_STRING, text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^(?:{_NUMBER.pattern})$"), list("-+.0123456789"))


def dump(documents: Iterable[Any], *, start: bool = True) -> str:
    """`documents` as YAML, each after a `---`, if it is to be at the start, too."""
    text: str = yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_start=start, width=120
    )
    return text
