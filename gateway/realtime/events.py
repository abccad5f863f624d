"""What is read of the events of a conversation, and what those say that the gateway adds: https://platform.openai.com/docs/api-reference/realtime

Names of both the API as it is and its beta are known. Pure.
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway import errors
from gateway.bodies import NULL
from gateway.native.servers import refuse_servers
from gateway.usage import usage
from gateway.used import Usage

AUDIO_BYTES_PER_TOKEN: Final = 3200  # of base64 in an answer: PCM of 24 kHz, 20 tokens a second
HEARD_BYTES_PER_TOKEN: Final = 100  # of base64 that is heard, at least: G.711 at ten tokens a second has a thousand
BYTES_PER_TOKEN: Final = 4


class Said(msgspec.Struct, gc=False):
    """A client's event."""

    type: str
    event_id: str | None = None
    session: Raw = NULL
    response: Raw = NULL
    audio: Raw = NULL


class _CachedDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens_details: _CachedDetails | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None


class Report(msgspec.Struct, gc=False):
    """The usage of a response, or of a transcript, which may have seconds instead."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    input_token_details: _InputDetails | None = None
    output_token_details: _OutputDetails | None = None

    @property
    def used(self) -> Usage:
        """Sound that came from the cache costs what the cache costs, so it does not count as sound."""
        before, after = self.input_token_details, self.output_token_details
        audio = image = cached = 0
        if before is not None:
            kept = before.cached_tokens_details
            cached = before.cached_tokens or 0
            audio = (before.audio_tokens or 0) - ((kept.audio_tokens or 0) if kept is not None else 0)
            image = (before.image_tokens or 0) - ((kept.image_tokens or 0) if kept is not None else 0)
        return usage(
            self.input_tokens or 0,
            self.output_tokens or 0,
            cached_read=cached,
            audio_input=max(audio, 0),
            image_input=max(image, 0),
            audio_output=(after.audio_tokens or 0) if after is not None else 0,
            seconds=self.seconds or 0.0,
        )


class Answer(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None
    usage: Report | None = None


class Fault(msgspec.Struct, gc=False):
    message: str | None = None
    code: str | int | None = None
    event_id: str | None = None


class Told(msgspec.Struct, gc=False):
    """A server's event."""

    type: str
    response: Answer | None = None
    response_id: str | None = None
    item_id: str | None = None
    session: Raw = NULL
    usage: Report | None = None
    error: Fault | None = None
    delta: Any = None


class _Limit(msgspec.Struct, gc=False):
    max_output_tokens: int | str | None = None
    max_response_output_tokens: int | str | None = None


class _Transcription(msgspec.Struct, gc=False):
    model: str | None = None


class _Turns(msgspec.Struct, gc=False):
    create_response: bool | None = None


class _Input(msgspec.Struct, gc=False):
    transcription: _Transcription | UnsetType | None = UNSET
    turn_detection: _Turns | UnsetType | None = UNSET


class _Audio(msgspec.Struct, gc=False):
    input: _Input | None = None


class _Session(msgspec.Struct, gc=False):
    type: str | None = None
    model: str | None = None
    audio: _Audio | None = None
    output_modalities: list[str] | None = None
    modalities: list[str] | None = None
    max_output_tokens: int | str | None = None
    max_response_output_tokens: int | str | None = None
    input_audio_transcription: _Transcription | UnsetType | None = UNSET
    turn_detection: _Turns | UnsetType | None = UNSET


class Terms(msgspec.Struct, frozen=True):
    """What a session is like by now. `speaks_up`: it answers by itself whoever stops speaking; `most_output`: None: the model's own.

    `transcriber`: the model that writes down what it hears, if any.
    """

    speaks_up: bool = True
    most_output: int | None = None
    transcriber: str | None = None
    text_only: bool = False


said: Final = msgspec.json.Decoder(Said)
told: Final = msgspec.json.Decoder(Told)
_limit: Final = msgspec.json.Decoder(_Limit)
_session: Final = msgspec.json.Decoder(_Session)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def terms(session: Raw, before: Terms) -> Terms:
    """After `session.created` or `session.updated`. What cannot be read stays as it was."""
    try:
        read = _session.decode(session)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return before
    heard = read.audio.input if read.audio is not None and read.audio.input is not None else _Input()
    turns = heard.turn_detection if heard.turn_detection is not UNSET else read.turn_detection
    writer = heard.transcription if heard.transcription is not UNSET else read.input_audio_transcription
    limit = read.max_output_tokens if read.max_output_tokens is not None else read.max_response_output_tokens
    spoken = read.output_modalities or read.modalities
    silent = read.type == "transcription"
    return Terms(
        before.speaks_up and not silent
        if turns is UNSET
        else turns is not None and turns.create_response is not False and not silent,
        limit if isinstance(limit, int) else None,
        before.transcriber if writer is UNSET else (writer.model if writer is not None else None),
        spoken == ["text"],
    )


def most_output(response: Raw) -> int | None:
    """The limit that a `response.create` names; 0 where it names none on purpose."""
    try:
        read = _limit.decode(response) if bytes(response) != b"null" else _Limit()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    limit = read.max_output_tokens if read.max_output_tokens is not None else read.max_response_output_tokens
    if isinstance(limit, str):
        return 0
    return limit if limit is not None and limit > 0 else None


def no_servers(given: Raw, at: str) -> None:
    """Raises BadRequest for a session or a wish for an answer with tools of MCP servers."""
    if bytes(given).startswith(b"{"):
        refuse_servers(
            _fields.decode(given).get("tools", NULL),
            f"{at}.tools" if at else "tools",
            "in a conversation there are functions alone",
        )


def session_named(text: bytes, public: str, theirs: str) -> bytes:
    """A `session.update` with the upstream's name for the model, where it names one. Raises BadRequest if that is another."""
    fields = _fields.decode(text)
    session = fields.get("session", NULL)
    if not bytes(session).startswith(b"{"):
        return text
    inner = _fields.decode(session)
    if "model" not in inner or bytes(inner["model"]) == b"null":
        return text
    if not _is_one_of(inner["model"], (public, theirs)):
        raise errors.BadRequest(
            "The model of a session cannot be changed; open another one", param="session.model", code="invalid_value"
        )
    inner["model"] = Raw(msgspec.json.encode(theirs))
    fields["session"] = Raw(msgspec.json.encode(inner))
    return msgspec.json.encode(fields)


def _is_one_of(value: Raw, names: tuple[str, str]) -> bool:
    try:
        return msgspec.json.decode(value) in names
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def with_id(text: bytes, event_id: str) -> bytes:
    """The event with an id, by which an error about it can be told."""
    fields = _fields.decode(text)
    fields["event_id"] = Raw(msgspec.json.encode(event_id))
    return msgspec.json.encode(fields)


def without_id(text: bytes) -> bytes:
    """An error about an event that had no id of the client's."""
    fields = _fields.decode(text)
    inner = _fields.decode(fields["error"])
    inner["event_id"] = NULL
    fields["error"] = Raw(msgspec.json.encode(inner))
    return msgspec.json.encode(fields)


def error_event(error: errors.GatewayError, event_id: str | None, own_id: str) -> bytes:
    inner: dict[str, Any] = {
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "event_id": event_id,
    }
    return msgspec.json.encode({"type": "error", "event_id": own_id, "error": inner})


def event(kind: str, **fields: object) -> bytes:
    return msgspec.json.encode({"type": kind, **fields})


def tokens_of(event: Told) -> tuple[int, int]:
    """About how many tokens of text and of sound a piece of an answer is."""
    if not event.type.endswith(".delta") or not isinstance(event.delta, str):
        return 0, 0
    size = len(event.delta)
    if event.type in {"response.output_audio.delta", "response.audio.delta"}:
        return 0, max(1, size // AUDIO_BYTES_PER_TOKEN)
    return (max(1, size // BYTES_PER_TOKEN), 0) if event.type.startswith("response.") else (0, 0)
