"""The port of an API that clients speak here and that is not OpenAI's chat: `gateway.dialect` seen from the other side.

A request keeps its own bytes on its way through the stages; `FrontRequest` is what they read of it. Only at a deployment it is decided what
goes out: the client's bytes where the provider speaks the same API (`Front.native`), else a chat made of them (`Translated`), whose answer
comes back as one of the client's. So a request that cannot be translated still finds the deployment that needs no translation.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

import msgspec

from gateway import bodies, errors, wire
from gateway.bodies import UpstreamFault
from gateway.dialect import NO_HEADERS, Dialect, Outgoing, Stream
from gateway.dialects.events import EventReader
from gateway.exchange import Exchange
from gateway.sse import DAMAGED, ChatStream
from gateway.usage import from_openai
from gateway.used import Usage


class FrontRequest(bodies.ChatRequest, gc=False):
    """What the stages read of a request in another API, under chat's names.

    `pictures` and `files` were counted by whoever knows where they stand, `inline_bytes` are the pictures' own, which are no text;
    `caps` are the API's names for the limit of an answer.
    """

    pictures: int = 0
    inline_bytes: int = 0
    files: int = 0
    caps: tuple[str, ...] = ("max_tokens",)


class Toward(msgspec.Struct, frozen=True):
    """Whom a translated request goes to: the provider, the model's own name there, and whether LiteLLM stands between."""

    provider: str
    model: str
    bridged: bool = False


class Face(Protocol):
    """How an API says that something went wrong."""

    def error(self, error: errors.GatewayError, request_id: str) -> bytes: ...

    def error_event(self, error: errors.GatewayError, request_id: str) -> bytes:
        """The same inside a stream that has begun."""


class Front(Face, Protocol):
    """Shared by all calls, without state. Raises only GatewayErrors: BadRequest, with `param`, for what chat cannot express."""

    native: Mapping[str, Dialect]
    """By provider: how the client's own request is passed on to it."""

    def chat(self, body: bytes, toward: Toward) -> bytes:
        """The request as one of `/v1/chat/completions`, for `toward.model`; a stream asks for its usage."""

    def answer(self, chat: bytes, model: str, asked: bytes) -> bytes:
        """A chat's whole answer as the client's. `model` is the name that the client used, `asked` its request. Raises UpstreamError."""

    def stream(self, chat: Stream, model: str, asked: bytes) -> Stream:
        """The client's events out of the upstream's bytes, by way of chat's: a `FrontStream`."""

    def anonymous(self, body: bytes) -> bytes:
        """The request without whose it is."""

    def end_user(self, metadata: msgspec.Raw) -> str | None:
        """Whom the client asks for, by that field of a request."""

    def prompted(
        self, fields: dict[str, Any], messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], endpoint: str
    ) -> None:
        """Puts a prompt's messages, which are chat's, before a request's, and its parameters where that has none. Raises BadRequest."""

    def exchange(self, exchange: Exchange) -> Exchange:
        """The same exchange, whose heads also say what clients of this API read there."""


@final
class Translated:
    """A front's requests at a provider that does not speak it, as a dialect. `place` is where chats go, behind the base URL."""

    endpoints: frozenset[str] = frozenset()

    def __init__(
        self,
        front: Front,
        dialect: Dialect | None,
        provider: str,
        *,
        bridged: bool = False,
        place: str = "/chat/completions",
    ) -> None:
        self._front = front
        self._dialect = dialect
        self._toward = Toward(provider, "", bridged)
        self._place = place

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        return () if self._dialect is None else self._dialect.authorization(api_key)

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:  # noqa: ARG002  # it is chat's there
        chat = self._front.chat(body, msgspec.structs.replace(self._toward, model=model))
        if self._dialect is None:
            return Outgoing(self._place, chat)
        return self._dialect.request("chat", chat, model, headers)

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:  # noqa: ARG002  # it is chat's there
        if self._dialect is None:
            reported = wire.read_answer(body).usage
            used = None if reported is None else from_openai(reported)
        else:
            body, used = self._dialect.answer("chat", body, model)
        return self._front.answer(body, model, asked), used

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream:  # noqa: ARG002  # it is chat's there, and asked for in any case
        dialect = self._dialect
        chat = ChatStream(keep_usage=True) if dialect is None else dialect.stream("chat", model, keep_usage=True)
        return self._front.stream(chat, model, asked)

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:
        return wire.read_fault(body) if self._dialect is None else self._dialect.fault(status, body, headers)


class FrontStream(ABC):
    """A chat's stream as another API's: what every front shares. A front says what becomes of one chunk, and how a whole answer ends.

    The front's own methods may raise GatewayErrors, and what msgspec raises for a chunk that has another shape.
    """

    beat = b""  # what keeps a client waiting where the upstream sends a comment

    def __init__(self, chat: Stream) -> None:
        self._chat = chat
        self._reader = EventReader()
        self._broken: errors.GatewayError | None = None
        self._ended = False

    @abstractmethod
    def chunk(self, payload: bytes) -> bytes:
        """What becomes of one chunk of chat."""

    @abstractmethod
    def ending(self, used: Usage | None) -> bytes:
        """How an answer ends that is whole."""

    @property
    def chat(self) -> Stream:
        """The chat's own."""
        return self._chat

    @property
    def content(self) -> bool:
        return self._chat.content

    @property
    def done(self) -> bool:
        return self._chat.done

    @property
    def events(self) -> int:
        return self._chat.events

    @property
    def error(self) -> errors.GatewayError | None:
        return self._broken or self._chat.error

    @property
    def reported(self) -> Usage | None:
        return self._chat.reported

    @property
    def whole(self) -> bool:
        return self._broken is None and self._chat.whole

    def feed(self, data: bytes) -> bytes:
        return self._made(self._chat.feed(data), ended=self._chat.done)

    def close(self) -> bytes:
        return self._made(self._chat.close(), ended=True)

    def _made(self, events: bytes, *, ended: bool) -> bytes:
        made: list[bytes] = []
        try:
            if self._broken is None:
                made.extend([self.chunk(payload) for payload in self._reader.feed(events)])
            if ended and not self._ended and self.whole:
                self._ended = True
                made.append(self.ending(self.reported))
            elif not made and events:
                made.append(self.beat)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self._broken = errors.UpstreamError(DAMAGED)
        except errors.GatewayError as error:
            self._broken = error
        return b"".join(made)
