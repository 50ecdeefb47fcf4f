"""Every message of every package has its JSON Schema committed."""

from __future__ import annotations

import importlib
import json
import pkgutil

from tests.shape.repository import ROOT

import paracle_domain
from paracle_domain.messages import CATALOG

SCHEMAS = ROOT / "libs" / "paracle_domain" / "schemas" / "v1"


def test_every_message_has_a_committed_schema() -> None:
    for module in pkgutil.walk_packages(paracle_domain.__path__, "paracle_domain."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = {name for name, kind in CATALOG.items() if kind.__module__.startswith("paracle_domain.")}
    assert len(ours) > 20
    committed = {path.name.removesuffix(".json") for path in SCHEMAS.glob("*.json")}
    assert ours <= committed


def test_schemas_are_json_objects() -> None:
    for path in SCHEMAS.glob("*.json"):
        assert isinstance(json.loads(path.read_text(encoding="utf-8")), dict), path.name
