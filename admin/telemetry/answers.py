"""What an answer says of itself: its id, the model's own name, why it ended. Never what it says. Pure."""

import re
from typing import Final

import msgspec

_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')


class Choice(msgspec.Struct):
    """Of chat and of completions."""

    finish_reason: str | None = None


class Answer(msgspec.Struct):
    """The parts of OpenAI's and Anthropic's answers that are not content."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] = []
    stop_reason: str | None = None
    status: str | None = None


class About(msgspec.Struct, frozen=True):
    """Of one answer; None and nothing where it does not say."""

    id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()


_decode: Final = msgspec.json.Decoder(Answer).decode


def about(seen: bytes) -> About:
    """`seen` is a whole answer, or the beginning of one, or of a stream."""
    try:
        answer = _decode(seen)
    except (msgspec.DecodeError, RecursionError):
        return About(_first(_ID, seen), _first(_MODEL, seen))
    ended = [choice.finish_reason for choice in answer.choices] or [answer.stop_reason or answer.status]
    return About(_short(answer.id), _short(answer.model), tuple(reason[:64] for reason in ended if reason))


def _first(pattern: re.Pattern[bytes], seen: bytes) -> str | None:
    found = pattern.search(seen)
    return None if found is None else found[1].decode("utf-8", "replace")


def _short(text: str | None) -> str | None:
    return None if text is None else text[:200]
