"""Whether a gateway's answer is the upstream's. Gateways that write answers anew may order, add and drop fields; what it says, why it
ended and what it used have to arrive."""

import json

import msgspec

from benchmarks import dialogue
from benchmarks.timing import WrongAnswer


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message = _Message()
    delta: _Message = _Message()
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    total_tokens: int


class _Completion(msgspec.Struct, frozen=True):
    """An answer in one piece, or one event of a stream."""

    choices: list[_Choice] = []
    usage: _Usage | None = None


def check_answer(status: int, body: bytes) -> None:
    """Raises WrongAnswer."""
    if status != 200 or _gist([body], status) != _gist([dialogue.answer()], 200):
        raise WrongAnswer(f"its answer is not the upstream's: {status} {_quoted(body)}")


def check_stream(status: int, body: bytes) -> int:
    """How many events with JSON in them the stream had; some gateways put the usage into the last chunk. Raises WrongAnswer."""
    if status != 200:
        raise WrongAnswer(f"it does not stream: {status} {_quoted(body)}")
    events = payloads(body)
    if not body.endswith(b"data: [DONE]\n\n"):
        raise WrongAnswer(f"its stream does not close: {_quoted(body[-200:])}")
    if _gist(events, status) != _gist(payloads(b"".join(dialogue.events())), 200):
        raise WrongAnswer(f"its stream is not the upstream's: {_quoted(body[-200:])}")
    return len(events)


def payloads(stream: bytes) -> list[bytes]:
    """The JSON of each event."""
    return [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: {")]


def _gist(parts: list[bytes], status: int) -> tuple[str, list[str], list[int]]:
    """What was said, why it ended, what it used."""
    try:
        read = [msgspec.json.decode(part, type=_Completion) for part in parts]
    except msgspec.DecodeError as error:
        raise WrongAnswer(f"its answer cannot be read: {error}: {status} {_quoted(parts[0])}") from error
    choices = [choice for part in read for choice in part.choices]
    return (
        "".join((choice.message.content or "") + (choice.delta.content or "") for choice in choices),
        [choice.finish_reason for choice in choices if choice.finish_reason],
        [part.usage.total_tokens for part in read if part.usage],
    )


def _quoted(body: bytes) -> str:
    return json.dumps(body[:200].decode(errors="replace"))
