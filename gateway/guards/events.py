"""A stream of server-sent events that is read text by text: each text of an answer slides through its own window.

Chat's chunks, completions, Anthropic's messages and responses. An event keeps its place and loses what may not go on yet; what a window
held back to the end comes in one more event of the same shape before the text's end is told.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, final

import msgspec

from gateway.errors import UpstreamError
from gateway.guards.texts import said, without_logprobs
from gateway.guards.window import Piece

DAMAGED: Final = "The upstream sent an event that is not the JSON it should be"
MOST_PIECES: Final = 4096  # texts of one stream that may be open at the same time
Place = tuple[Any, ...]
NewPiece = Callable[[bool], Piece]
"""For one text; whether it is the inside of a JSON document."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_CLOSES: Final = ("response.completed", "response.incomplete", "response.failed", "message_stop", "message_delta")
