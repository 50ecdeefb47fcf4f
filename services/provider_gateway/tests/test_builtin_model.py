"""What is said where the built-in model for embeddings is not there."""

from __future__ import annotations

from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from paracle_provider_gateway.builtin_model import way_out


@pytest.mark.parametrize(
    ("system", "machine", "python", "there"),
    [
        ("linux", "x86_64", (3, 13), True),
        ("linux", "aarch64", (3, 13), False),
        ("linux", "x86_64", (3, 14), False),
        ("darwin", "arm64", (3, 12), True),
        ("win32", "AMD64", (3, 13), True),
    ],
)
def test_the_way_out_is_one_on_this_system(system: str, machine: str, python: tuple[int, int], there: bool):
    where = {"sys_platform": system, "platform_machine": machine, "python_version": ".".join(map(str, python))}
    [needed] = [
        found for text in requires("paracle-provider-gateway") or () if (found := Requirement(text)).name == "wordllama"
    ]
    assert needed.marker is not None
    assert needed.marker.evaluate(where | {"extra": "local"}) is there
    said = way_out(system, machine, python)
    assert ("install paracle-provider-gateway[local]" in said) is there
    assert (f"no wheel of the built-in model for {system} on {machine}" in said) is not there
    assert "openai/text-embedding-3-small" in said
