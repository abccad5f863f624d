"""What others say of a text: how they are asked, and how their answers are read. No I/O."""

import hashlib
import hmac
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

SIGNATURE: Final = "x-penstock-signature"
MOST_CATEGORIES: Final = 16
_CATEGORY: Final = re.compile(r"[^A-Za-z0-9_./-]+")
_S: Final = re.compile(r"\bS\d{1,2}\b|O\d\b")


class Spoken(msgspec.Struct, frozen=True):
    """One text, and whose it is."""

    role: str
    text: str


class Verdict(msgspec.Struct, frozen=True):
    """`categories` are empty for what may pass. `texts`: what those that were shown become; `why` is for the client."""

    categories: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    why: str | None = None


class _Told(msgspec.Struct):
    """An HTTP guard's or classifier's answer."""

    action: str | None = None
    categories: list[str] = []
    message: str | None = None
    texts: list[str] | None = None
    score: float | None = None
    flagged: bool | None = None


class _Moderated(msgspec.Struct):
    flagged: bool = False
    categories: dict[str, bool | None] = {}
    category_scores: dict[str, float | None] = {}


class _Moderation(msgspec.Struct):
    results: list[_Moderated]


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Chat(msgspec.Struct):
    choices: list[_Choice]


PASSES: Final = Verdict()
_told: Final = msgspec.json.Decoder(_Told)
_moderation: Final = msgspec.json.Decoder(_Moderation)
_chat: Final = msgspec.json.Decoder(_Chat)


def clean(categories: Sequence[str]) -> tuple[str, ...]:
    """Names that may stand in a header, a record and a metric."""
    return tuple(dict.fromkeys(_CATEGORY.sub("_", one)[:64] or "unnamed" for one in categories[:MOST_CATEGORIES]))


def question(guard: str, stage: str, about: Mapping[str, Any], texts: Sequence[Spoken]) -> bytes:
    """The body that an HTTP guard gets."""
    return msgspec.json.encode({"guard": guard, "stage": stage, **about, "texts": texts})


def signature(secret: str, body: bytes) -> str:
    """As of webhooks: HMAC-SHA256 over the body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def from_http(body: bytes, shown: int, *, rewrites: bool, threshold: float | None = None) -> Verdict:
    """Raises ValueError for an answer that says nothing."""
    told = _told.decode(body)
    bad = told.flagged is True or (threshold is not None and told.score is not None and told.score >= threshold)
    match told.action:
        case "allow":
            return PASSES
        case "redact":
            if not rewrites or told.texts is None or len(told.texts) != shown:
                raise ValueError("it wants to redact, and does not say what each text becomes")
            return Verdict(clean(told.categories) or ("redacted",), tuple(told.texts))
        case "block":
            return Verdict(
                clean(told.categories) or ("blocked",), why=None if told.message is None else told.message[:500]
            )
        case None if told.flagged is not None or told.score is not None:
            return Verdict(clean(told.categories) or ("flagged",)) if bad else PASSES
        case _:
            raise ValueError("its answer has no action that is known")


def from_moderation(body: bytes, threshold: float | None, only: Sequence[str]) -> Verdict:
    """By the model's own flags, or by its scores where there is a threshold."""
    found: dict[str, None] = {}
    for result in _moderation.decode(body).results:
        if threshold is None:
            named = [name for name, bad in result.categories.items() if bad] or (["flagged"] if result.flagged else [])
        else:
            named = [name for name, value in result.category_scores.items() if value is not None and value >= threshold]
        found.update(dict.fromkeys(name for name in named if not only or name in only))
    return Verdict(clean(list(found)))


def to_llama_guard(model: str, prompt: str | None, texts: Sequence[Spoken]) -> bytes:
    """Without a prompt the model's own template makes one of the conversation."""
    turns = [{"role": "assistant" if one.role == "assistant" else "user", "content": one.text} for one in texts]
    if prompt is not None:
        told = "\n\n".join(f"{'Agent' if turn['role'] == 'assistant' else 'User'}: {turn['content']}" for turn in turns)
        turns = [{"role": "user", "content": prompt.replace("{conversation}", told)}]
    return msgspec.json.encode({"model": model, "messages": turns, "temperature": 0, "max_tokens": 32})


def from_llama_guard(body: bytes, only: Sequence[str]) -> Verdict:
    """`safe`, or `unsafe` and a line of categories. Raises ValueError for anything else."""
    said = said_in(body).strip()
    first, _, rest = said.partition("\n")
    match first.strip().lower():
        case "safe":
            return PASSES
        case "unsafe":
            named = _S.findall(rest)
            if only and named and not set(named) & set(only):
                return PASSES
            return Verdict(clean(named) or ("unsafe",))
        case _:
            raise ValueError("the model says neither safe nor unsafe")


def said_in(body: bytes) -> str:
    """The first choice of a chat's answer. Raises ValueError."""
    choices = _chat.decode(body).choices
    if not choices or choices[0].message.content is None:
        raise ValueError("the model said nothing")
    return choices[0].message.content


def from_labels(scores: Sequence[Mapping[str, float]], labels: Sequence[str], threshold: float) -> Verdict:
    """Of a classifier: the labels that are none to have, each with its probability. Without labels, all but what says that all is well."""
    found: dict[str, None] = {}
    for one in scores:
        for label, value in one.items():
            wanted = (
                label in labels
                if labels
                else label.lower() not in {"safe", "benign", "ok", "negative", "0", "false", "label_0"}
            )
            if wanted and value >= threshold:
                found[label] = None
    return Verdict(clean(list(found)))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    size = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return dot / size if size else 0.0


def middle(vectors: Sequence[Sequence[float]]) -> Sequence[float]:
    """The direction of all of them together."""
    return vectors[0] if len(vectors) == 1 else [sum(values) for values in zip(*vectors, strict=True)]


def on_topic(
    vector: Sequence[float], denied: Sequence[Sequence[float]], allowed: Sequence[Sequence[float]], threshold: float
) -> Verdict:
    if any(cosine(vector, topic) >= threshold for topic in denied):
        return Verdict(("denied_topic",))
    if allowed and all(cosine(vector, topic) < threshold for topic in allowed):
        return Verdict(("off_topic",))
    return PASSES
