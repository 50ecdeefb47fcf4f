"""The built-in model for embeddings: WordLlama's, from its wheel, on this machine's processor.

Each token has a vector; that of a text is their mean, of length one. That is quick and small, and knows the meaning of
words better than that of sentences; English best. The first 64 or 128 numbers of a vector are one by themselves.

The package is read, not imported: it would look for its files on a hub. Until somebody asks, nothing is loaded; then it
takes about 40 MB.
"""

from __future__ import annotations

import asyncio
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from paracle_domain.errors import InvalidInput, NotFound, quote
from paracle_domain.inference.embedding import MOST_TEXTS, Embed, pack
from paracle_domain.inference.usage import Usage
from paracle_domain.provider.spec import BUILTIN
from paracle_provider_gateway.ports import Vectors

MODEL: Final = "wordllama-256"
LENGTHS: Final = (64, 128, 256)
_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
_TENSOR: Final = "embedding.weight"
_AT_ONCE: Final = 4_096


def wordllama_folder() -> Path | None:
    """Where the model's files are; `None` if the gateway was installed without them."""
    found = find_spec("wordllama")
    places = [] if found is None else [Path(place) for place in found.submodule_search_locations or ()]
    return next((place for place in places if (place / _WEIGHTS).is_file() and (place / _TOKENIZER).is_file()), None)


class BuiltinProvider:
    """One model, in a thread of its own, so that texts of others do not keep calls from going on."""

    name = source = BUILTIN
    sandbox = False
    listed_models = (MODEL,)
    embedding_model = MODEL
    texts_at_once = MOST_TEXTS

    def __init__(self, folder: Path) -> None:
        self._model = _Model(folder)
        self._thread = ThreadPoolExecutor(1, "embedding")

    async def embed(self, model: str, request: Embed) -> Vectors:
        if model != MODEL:
            raise NotFound(f"there is no built-in model {quote(model)}; there is {BUILTIN}/{MODEL}", path="model")
        if request.params:
            raise InvalidInput(f"{BUILTIN}/{MODEL} has no parameters", path="params")
        length = request.dimensions or LENGTHS[-1]
        if length not in LENGTHS:
            known = ", ".join(map(str, LENGTHS))
            raise InvalidInput(f"{BUILTIN}/{MODEL} makes vectors of {known}, not of {length}", path="dimensions")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._model.embed, request.texts, length)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Model:
    """The vectors of tokens, and what cuts texts into them; both are read when they are wanted first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def embed(self, texts: tuple[str, ...], length: int) -> Vectors:
        """A vector of each text."""
        tokens = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        vectors = tuple(pack(self._mean(ids, length)) for ids in tokens)
        return Vectors(vectors, length, Usage(input_tokens=sum(map(len, tokens)), model_calls=1), MODEL)

    def _mean(self, ids: list[int], length: int) -> list[float]:
        """Of the tokens' vectors, of length one. A long text is taken in parts, since it would need much memory."""
        found = sum(
            self._weights[ids[start : start + _AT_ONCE], :length].sum(axis=0, dtype="f8")
            for start in range(0, len(ids), _AT_ONCE)
        )
        norm = float((found @ found) ** 0.5)
        numbers: list[float] = (found / norm if norm else found).tolist()
        return numbers

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # noqa: PLC0415  # only those pay for it who embed

        return Tokenizer.from_file(str(self._folder / _TOKENIZER))

    @cached_property
    def _weights(self) -> Any:
        """As they lie in the file, of which the system keeps in memory what is looked at."""
        import numpy as np  # noqa: PLC0415  # only those pay for it who embed

        path = self._folder / _WEIGHTS
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            tensor = json.loads(file.read(size))[_TENSOR]
        begin = 8 + size + tensor["data_offsets"][0]
        return np.memmap(path, dtype="<f2", mode="r", offset=begin, shape=tuple(tensor["shape"]))
