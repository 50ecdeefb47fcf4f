"""The built-in model: from its wheel alone, the same each time, and nearer to what means something alike."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from provider_gateway_samples import CONTEXT, ask, embed, gateway

from paracle_domain.errors import InvalidInput, NotFound
from paracle_domain.inference.embedding import unpack
from paracle_domain.provider.spec import BUILTIN
from paracle_provider_gateway.adapters import builtin
from paracle_provider_gateway.adapters.builtin import MODEL, BuiltinProvider, wordllama_folder
from paracle_provider_gateway.adapters.sandbox import SandboxProvider
from paracle_provider_gateway.app import create_providers
from paracle_provider_gateway.builtin_model import way_out
from paracle_provider_gateway.settings import GatewaySettings

FOLDER = wordllama_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="there is no wheel of the model for this platform")


@pytest.fixture
def provider() -> BuiltinProvider:
    assert FOLDER is not None
    return BuiltinProvider(FOLDER)


def nearness(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(unpack(one), unpack(other), strict=True))


async def test_texts_that_mean_something_alike_are_nearer(provider: BuiltinProvider):
    texts = ("How do I reset my password?", "I forgot my login credentials.", "The soup needs more salt.")
    found = await provider.embed(MODEL, embed(*texts))
    question, alike, other = found.vectors
    assert nearness(question, question) == pytest.approx(1, abs=1e-6)
    assert nearness(question, alike) > nearness(question, other) + 0.2
    assert (found.dimensions, len(unpack(question)), found.model) == (256, 256, MODEL)


async def test_the_same_text_has_the_same_vector_wherever_it_stands(provider: BuiltinProvider):
    alone = (await provider.embed(MODEL, embed("Lisbon"))).vectors
    among = (await provider.embed(MODEL, embed("a", "Lisbon", "x " * 50_000))).vectors
    assert alone[0] == among[1]


async def test_vectors_can_be_shorter(provider: BuiltinProvider):
    short = await provider.embed(MODEL, embed("Lisbon", dimensions=64))
    assert short.dimensions == len(unpack(short.vectors[0])) == 64
    assert nearness(short.vectors[0], short.vectors[0]) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InvalidInput, match="makes vectors of 64, 128, 256, not of 100") as refused:
        await provider.embed(MODEL, embed("Lisbon", dimensions=100))
    assert refused.value.path == "dimensions"


async def test_a_long_text_is_the_mean_of_its_tokens(provider: BuiltinProvider):
    short, long = (await provider.embed(MODEL, embed("rain " * 10, "rain " * 20_000))).vectors
    assert nearness(short, long) == pytest.approx(1, abs=0.01)


async def test_it_costs_nothing_which_is_known(provider: BuiltinProvider):
    answer = await gateway(provider).completions.embed(embed("Lisbon", "Porto"), CONTEXT)
    assert answer.deployment == f"{BUILTIN}/{MODEL}"
    assert answer.usage.cost_usd == 0
    assert answer.usage.input_tokens > 0


async def test_it_embeds_and_nothing_else(provider: BuiltinProvider):
    over = gateway(provider)
    with pytest.raises(InvalidInput, match="can make embeddings and nothing else"):
        await over.completions.complete(ask(model=f"{BUILTIN}/{MODEL}"), CONTEXT)
    with pytest.raises(InvalidInput, match=f"{BUILTIN}/big can make embeddings and nothing else"):
        await over.completions.complete(ask(model=f"{BUILTIN}/big"), CONTEXT)
    with pytest.raises(NotFound, match=f"there is no built-in model 'big'; there is {BUILTIN}/{MODEL}"):
        await over.completions.embed(embed(model=f"{BUILTIN}/big"), CONTEXT)
    with pytest.raises(InvalidInput, match="has no parameters"):
        await over.completions.embed(embed(params={"input_type": "query"}), CONTEXT)


async def test_the_loop_goes_on_meanwhile_and_closing_ends_its_thread(provider: BuiltinProvider):
    await provider.embed(MODEL, embed("Lisbon"))
    threads = [thread.name for thread in threading.enumerate()]
    assert any(name.startswith("embedding") for name in threads)
    await provider.close()


def test_nothing_is_loaded_before_somebody_asks_and_nothing_is_looked_for_elsewhere():
    """In a process of its own: without a network if that can be had, and with a home that nobody can write to."""
    code = (
        "import asyncio, sys\n"
        "from paracle_provider_gateway.app import create_providers\n"
        "from paracle_provider_gateway.settings import GatewaySettings\n"
        "from paracle_domain.inference.embedding import Embed\n"
        "found = {p.name: p for p in create_providers(GatewaySettings())}['builtin']\n"
        "before = {'numpy', 'tokenizers', 'wordllama', 'huggingface_hub', 'requests'} & sys.modules.keys()\n"
        "def deaf(event, _):\n"
        "    if event.startswith('socket.connect') or event == 'socket.getaddrinfo': raise OSError(event)\n"
        "sys.addaudithook(deaf)\n"
        f"answer = asyncio.run(found.embed('{MODEL}', Embed(call_id='c', texts=('Lisbon',))))\n"
        "after = {'wordllama', 'huggingface_hub', 'requests'} & sys.modules.keys()\n"
        "print(sorted(before), sorted(after), answer.dimensions)\n"
    )
    environment = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[] [] 256", "")


def test_without_the_wheel_there_is_no_such_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert [one.name for one in create_providers(GatewaySettings())] == ["sandbox", BUILTIN]
    monkeypatch.setattr(builtin, "find_spec", lambda _name: None)
    assert [one.name for one in create_providers(GatewaySettings())] == ["sandbox"]


async def test_and_whoever_names_it_is_told_so():
    with pytest.raises(NotFound, match=re.escape(f"model 'builtin/wordllama-256': {way_out()}")):
        await gateway(SandboxProvider()).completions.embed(embed(model=f"{BUILTIN}/{MODEL}"), CONTEXT)
