"""What models can do, and whether that is enough for a request. Pure.

Of well-known models much is known; a manifest that says otherwise is right. Where nobody knows, nothing is refused: the
provider says then what it cannot do. Nothing of a request is ever left out so that a model can take it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Final, NoReturn, assert_never

import genai_prices.data

from paracle_domain.errors import InvalidInput
from paracle_domain.inference.chat import (
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from paracle_domain.inference.embedding import Embed, ModelCall
from paracle_domain.inference.moderation import Moderate
from paracle_domain.inference.request import Complete
from paracle_domain.provider.spec import Capabilities
from paracle_provider_gateway.plans import Deployment, Plan
from paracle_provider_gateway.ports import Embedder, Judge, Speaker

CHARACTERS_A_TOKEN: Final = 4
_THINKING: Final = ("reasoning_effort", "reasoning", "thinking")

_ALL: Final = Capabilities(tools=True, vision=True, json_schema=True, thinking=True)
_PLAIN: Final = Capabilities(tools=True, vision=True, json_schema=True, thinking=False)
_BLIND: Final = Capabilities(tools=True, vision=False)
_EMBEDS: Final = Capabilities(embeddings=True, tools=False, vision=False, json_schema=False, thinking=False)

_WELL_KNOWN: Final[tuple[tuple[str, Capabilities], ...]] = (
    (r"text-embedding-|embed-|mistral-embed|codestral-embed|gemini-embedding|nomic-embed|voyage-|bge-", _EMBEDS),
    (r"all-minilm|mxbai-embed|snowflake-arctic-embed|embeddinggemma|qwen3-embedding|wordllama-", _EMBEDS),
    (r"gpt-5(?!.*chat)", _ALL.model_copy(update={"max_output_tokens": 128_000})),
    (r"gpt-5.*chat", _PLAIN),
    (r"gpt-4\.1", _PLAIN.model_copy(update={"max_output_tokens": 32_768})),
    (r"gpt-4o(?!-audio|-realtime|-transcribe|-mini-(?:audio|realtime|transcribe|tts)|-search)", _PLAIN),
    (r"gpt-3\.5", Capabilities(tools=True, vision=False, json_schema=False, thinking=False)),
    (r"o1-(?:mini|preview)", Capabilities(tools=False, vision=False, json_schema=False, thinking=True)),
    (r"o3-mini", Capabilities(tools=True, vision=False, json_schema=True, thinking=True)),
    (r"(?:o1|o3|o4-mini)(?:$|-\d|-pro)", _ALL.model_copy(update={"max_output_tokens": 100_000})),
    (r"claude-(?:opus|sonnet|haiku|fable)-\d", Capabilities(tools=True, vision=True, thinking=True)),
    (r"claude-3-7-sonnet", Capabilities(tools=True, vision=True, thinking=True)),
    (r"claude-3", Capabilities(tools=True, vision=True, thinking=False)),
    (r"claude-(?:2|instant)", Capabilities(tools=False, vision=False, thinking=False)),
    (r"gemini-(?:2\.5|[3-9])", _ALL),
    (r"gemini-2\.0", _PLAIN),
    (r"deepseek-(?:chat|reasoner|v3|r1)", _BLIND),
    (r"llama-?(?:3\.1|3\.3)|meta-llama-3", _BLIND),
    (r"mixtral|open-mistral|codestral|ministral", _BLIND),
    (r"gpt-oss", Capabilities(tools=True, vision=False, json_schema=True, thinking=True)),
    (r"sonar", Capabilities(tools=False)),
    (r"command-(?:r|a)(?!-vision)", _BLIND),
)
_PATTERNS: Final = tuple((re.compile(pattern), known) for pattern, known in _WELL_KNOWN)
_MAKERS: Final = ("openai", "anthropic", "google", "mistral", "deepseek", "x-ai", "cohere", "groq", "together")


@lru_cache(maxsize=4_096)
def known_of(model: str) -> Capabilities:
    """What is known of a model by its name alone: `gpt-5-mini`, `meta-llama/Llama-3.3-70B-Instruct`."""
    name = model.rpartition("/")[2].lower()
    for pattern, known in _PATTERNS:
        if pattern.match(name):
            return known.model_copy(
                update={"context_tokens": _context_of(name), "embeddings": known.embeddings or False}
            )
    return Capabilities(context_tokens=_context_of(name))


def _context_of(name: str) -> int | None:
    for provider in genai_prices.data.providers:
        if provider.id in _MAKERS:
            for model in provider.models:
                if model.context_window is not None and model.is_match(name):
                    return model.context_window
    return None


def fitting(plan: Plan, request: ModelCall) -> Plan:
    """`plan` with those deployments alone that can do what `request` asks for; itself if all can.

    One that may be too long for some is asked of the others; if it is for all, they are asked nevertheless, since only
    they can count it.

    Raises
    ------
    InvalidInput
        If none can; the message names the field and what each of them cannot do. If those that can embed are of
        different models, whose vectors cannot be compared.
    """
    asked = _asked(request)
    lacking = {found.key: lack for found in plan.deployments if (lack := asked.lack(found)) is not None}
    if lacking:
        plan = _without(plan, lacking.keys()) or _refuse(lacking)
    if plan.only is not None:
        return plan
    if isinstance(request, Embed):
        _check_one_model(plan)
    long = {found.key for found in plan.deployments if asked.is_too_long(found.capabilities)}
    return (_without(plan, long) or plan) if long else plan


def _asked(request: ModelCall) -> _Asked | _Texts | _Judged:
    match request:
        case Complete():
            return _Asked(request)
        case Embed():
            return _Texts(request)
        case Moderate():
            return _Judged()
        case _:
            assert_never(request)


class _Asked:
    """What a request asks for; what takes long to find out is found out if somebody wants to know."""

    def __init__(self, request: Complete) -> None:
        self._request = request

    @cached_property
    def _images(self) -> bool:
        return any(isinstance(part, ImagePart) for message in self._request.messages for part in message.parts)

    @cached_property
    def _tokens(self) -> int:
        """About so many does it read and write."""
        parts = (part for message in self._request.messages for part in message.parts)
        read = sum(map(_length, parts)) // CHARACTERS_A_TOKEN
        return read + (self._request.sampling.max_output_tokens or 0)

    def lack(self, deployment: Deployment) -> tuple[str, str] | None:
        """The field that asks for more than a model can do, and what that is."""
        request, can = self._request, deployment.capabilities
        if can.embeddings or not isinstance(deployment.provider, Speaker):
            return "messages", "can make embeddings and nothing else"
        if request.tools and can.tools is False:
            return "tools", "cannot call tools"
        if request.output is not None and can.json_schema is False:
            return "output", "cannot keep to the schema of an output"
        if can.vision is False and self._images:
            return "messages", "cannot look at images"
        most, wanted = can.max_output_tokens, request.sampling.max_output_tokens
        if most is not None and wanted is not None and wanted > most:
            return "sampling.max_output_tokens", f"can write {most} tokens at most, not {wanted}"
        if can.thinking is False and request.sampling.thinking not in {None, "off"}:
            return "sampling.thinking", "cannot think"
        if can.thinking is False and (params := [name for name in _THINKING if name in request.sampling.params]):
            return f"sampling.params.{params[0]}", "cannot think"
        return None

    def is_too_long(self, can: Capabilities) -> bool:
        return can.context_tokens is not None and self._tokens > can.context_tokens


class _Judged:
    """The same of texts that are to be judged."""

    def lack(self, deployment: Deployment) -> tuple[str, str] | None:
        return None if isinstance(deployment.provider, Judge) else ("model", "is no model for moderation")

    def is_too_long(self, _can: Capabilities) -> bool:
        return False


class _Texts:
    """The same of texts that are to be embedded."""

    def __init__(self, request: Embed) -> None:
        self._longest = max(map(len, request.texts)) // CHARACTERS_A_TOKEN

    def lack(self, deployment: Deployment) -> tuple[str, str] | None:
        makes_none = deployment.capabilities.embeddings is False or not isinstance(deployment.provider, Embedder)
        return ("model", "makes no embeddings") if makes_none else None

    def is_too_long(self, can: Capabilities) -> bool:
        return can.context_tokens is not None and self._longest > can.context_tokens


def _check_one_model(plan: Plan) -> None:
    """Whoever answers, vectors must be of one model: that of the same name, whoever runs it."""
    models = {deployment.name: _model_itself(deployment.model) for deployment in plan.deployments}
    if len(set(models.values())) > 1:
        what = ", ".join(models)
        message = (
            f"model {plan.name!r} leads to different models ({what}), whose vectors cannot be compared; "
            "give each a name of its own"
        )
        raise InvalidInput(message, path="model")


def _model_itself(model: str) -> str:
    """What a model is called everywhere: `nomic-embed-text` of `nomic-ai/nomic-embed-text:latest`."""
    return model.rpartition("/")[2].removesuffix(":latest").lower()


def _length(part: Part) -> int:
    match part:
        case TextPart(text=text) | ReasoningPart(text=text):
            return len(text)
        case ToolResultPart(content=text):
            return len(text)
        case ToolCallPart():
            return len(part.arguments_text)
        case FilePart(data=data) | ImagePart(data=data):
            return len(data or "") // 8  # a guess: it is read as something else than its bytes


def _without(plan: Plan, gone: Collection[tuple[str, str]]) -> Plan | None:
    """`plan` without the deployments `gone`; nothing if no others are in it."""
    tiers = [replace(tier, routes=tuple(r for r in tier.routes if r.deployment.key not in gone)) for tier in plan.tiers]
    left = tuple(tier for tier in tiers if tier.routes)
    return replace(plan, tiers=left) if left else None


def _refuse(lacking: Mapping[tuple[str, str], tuple[str, str]]) -> NoReturn:
    why = "; ".join(f"{name} {what}" for (_, name), (_, what) in lacking.items())
    path = next(iter(lacking.values()))[0]
    raise InvalidInput(f"{why}; use another model, or say in its manifest that it can (capabilities)", path=path)
