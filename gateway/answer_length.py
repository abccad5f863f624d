"""How long a whole answer is that tells no usage: what its model wrote, in about as many tokens, without the JSON around it."""

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.bodies import NULL
from gateway.wire import present

BYTES_PER_TOKEN: Final = 4
_QUOTES: Final = 2


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = NULL
    reasoning_content: msgspec.Raw = NULL
    reasoning: msgspec.Raw = NULL
    refusal: msgspec.Raw = NULL
    tool_calls: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    """`text` is a completion's."""

    message: _Message | None = None
    text: msgspec.Raw = NULL


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice]


class _Vectors(msgspec.Struct, gc=False):
    """Of an answer to `/v1/embeddings`, where nothing is written."""

    embedding: msgspec.Raw


class _Embedded(msgspec.Struct, gc=False):
    data: list[_Vectors]


_answer: Final = msgspec.json.Decoder(_Answer)
_embedded: Final = msgspec.json.Decoder(_Embedded)


def written_tokens(answer: bytes) -> int:
    """An estimate. All of the answer counts where its shape is not known, so that it is rather too much than too little."""
    try:
        choices = _answer.decode(answer).choices
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return 0 if _has_vectors(answer) else max(1, len(answer) // BYTES_PER_TOKEN)
    return max(1, -(-sum(_bytes(choice) for choice in choices) // BYTES_PER_TOKEN))


def _bytes(choice: _Choice) -> int:
    message = choice.message
    parts: Iterable[msgspec.Raw] = (choice.text,)
    if message is not None:
        said = (message.content, message.reasoning_content, message.reasoning, message.refusal)
        parts = (choice.text, *said, message.tool_calls, message.function_call)
    return sum(max(0, len(bytes(part)) - _QUOTES) for part in parts if present(part))


def _has_vectors(answer: bytes) -> bool:
    try:
        return bool(_embedded.decode(answer).data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
