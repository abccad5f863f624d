"""What a deployment's provider takes beyond plain chat, as far as Messages have use for it. By names, as no API tells."""

import re
from typing import Final

import msgspec

from gateway.front import Toward

# They read the thoughts that led to the calls of a turn that still runs.
_READ_THOUGHTS: Final = frozenset({"deepseek", "moonshot", "sglang", "vllm", "zai"})
_GO_ON: Final = frozenset({"sglang", "vllm"})  # with an answer that the client began, if told to
_OPENAI: Final = re.compile(r"(?:.*/)?(?:gpt-[345]|chatgpt-|o[134](?:-|$))")
_THINKS: Final = re.compile(r"(?:.*[/.])?(?:gpt-5|gpt-oss|o[134](?:-|$)|gemini-(?:2\.5|[3-9])|claude-)")
_GEMINI: Final = re.compile(r"(?:models/)?gemini-")  # at Google's compatible endpoint
_CLAUDE: Final = re.compile(r"claude", re.IGNORECASE)


class Reach(msgspec.Struct, frozen=True):
    """`marked`: cache_control and signed thoughts go along. `thoughts`: they go back as `reasoning_content`.

    `continues`: an answer may be begun by the client, as `told` where the provider wants to be told. `effort`: thinking is asked for by
    `reasoning_effort`. `limit`: the name of the limit of an answer.
    """

    marked: bool = False
    thoughts: bool = False
    continues: bool = False
    told: bool = False
    effort: bool = False
    addresses: bool = False  # documents may be given by their address
    seals: bool = False  # of the thoughts behind a call, which go back with it
    limit: str = "max_tokens"


def reach(toward: Toward) -> Reach:
    """Of one deployment's provider and model."""
    provider, model = toward.provider, toward.model
    gemini = provider == "gemini"
    return Reach(
        marked=toward.bridged or (provider == "openrouter" and _CLAUDE.search(model) is not None),
        thoughts=provider in _READ_THOUGHTS,
        continues=provider in _GO_ON or gemini or toward.bridged,
        told=provider in _GO_ON,
        effort=_THINKS.match(model) is not None,
        addresses=gemini,
        seals=gemini or (provider == "openai" and _GEMINI.match(model) is not None),
        limit="max_completion_tokens" if _OPENAI.match(model) is not None else "max_tokens",
    )
