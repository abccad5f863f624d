"""What an answer says whose provider tells no usage: its texts, and about how many tokens they are without the JSON around them."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from gateway.bodies import NULL
from gateway.wire import present

BYTES_PER_TOKEN: Final = 4
_QUOTES: Final = 2


class _Said(msgspec.Struct, gc=False):
    """A message, or a part of one that a stream brings."""

    content: msgspec.Raw = NULL
    reasoning_content: msgspec.Raw = NULL
    reasoning: msgspec.Raw = NULL
    refusal: msgspec.Raw = NULL
    tool_calls: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    """`text` is a completion's, `delta` a stream's."""

    index: int = 0
    message: _Said | None = None
    delta: _Said | None = None
    text: msgspec.Raw = NULL


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice]


class _Vectors(msgspec.Struct, gc=False):
    """Of an answer to `/v1/embeddings`, where nothing is written."""

    embedding: msgspec.Raw


class _Embedded(msgspec.Struct, gc=False):
    data: list[_Vectors]


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    function: _Function | None = None


class _Part(msgspec.Struct, gc=False):
    text: str


_answer: Final = msgspec.json.Decoder(_Answer)
_embedded: Final = msgspec.json.Decoder(_Embedded)
_text: Final = msgspec.json.Decoder(str | list[_Part])
_calls: Final = msgspec.json.Decoder(list[_Call])
_function: Final = msgspec.json.Decoder(_Function)


def written_tokens(answer: bytes) -> int:
    """An estimate. All of the answer counts where its shape is not known, so that it is rather too much than too little."""
    try:
        choices = _answer.decode(answer).choices
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return 0 if _has_vectors(answer) else max(1, len(answer) // BYTES_PER_TOKEN)
    return max(1, -(-sum(_bytes(choice) for choice in choices) // BYTES_PER_TOKEN))


def written(answers: Sequence[bytes]) -> list[str] | None:
    """All texts of a whole answer, or of the events of a stream, each put together; None where something else may be in it."""
    said: dict[tuple[int, str, int], list[str]] = {}
    try:
        for answer in answers:
            for choice in _answer.decode(answer).choices:
                for kind, raw in _raws(choice):
                    for number, text in _spelt(kind, bytes(raw)):
                        said.setdefault((choice.index, kind, number), []).append(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [] if len(answers) == 1 and _has_vectors(answers[0]) else None
    return ["".join(texts) for texts in said.values()]


def _raws(choice: _Choice) -> Iterable[tuple[str, msgspec.Raw]]:
    """What there is, by the name of its field. Some servers give their thoughts under either name."""
    if present(choice.text):
        yield "text", choice.text
    for said in (choice.message, choice.delta):
        if said is not None:
            for name in _Said.__struct_fields__:
                raw: msgspec.Raw = getattr(said, name)
                if present(raw) and not (name == "reasoning" and present(said.reasoning_content)):
                    yield name, raw


def _spelt(kind: str, raw: bytes) -> Iterable[tuple[int, str]]:
    """Its texts, each with its number among those of its kind."""
    if kind == "tool_calls":
        for place, call in enumerate(_calls.decode(raw)):
            if call.function is not None:
                yield from _called(2 * (place if call.index is None else call.index), call.function)
    elif kind == "function_call":
        yield from _called(0, _function.decode(raw))
    else:
        text = _text.decode(raw)
        yield 0, text if isinstance(text, str) else "".join(part.text for part in text)


def _called(number: int, function: _Function) -> Iterable[tuple[int, str]]:
    yield number, function.name or ""
    yield number + 1, function.arguments or ""


def _bytes(choice: _Choice) -> int:
    return sum(max(0, len(bytes(raw)) - _QUOTES) for _, raw in _raws(choice))


def _has_vectors(answer: bytes) -> bool:
    try:
        return bool(_embedded.decode(answer).data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
