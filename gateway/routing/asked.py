"""What routing may look at of one request. Nothing is worked out before a strategy wants it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import msgspec

from gateway.bodies import ChatRequest, CompletionRequest, Request, ResponsesRequest
from gateway.catalog import Affinity
from gateway.keys import Key
from gateway.kinds import Kind
from gateway.routing.rendezvous import fingerprint
from gateway.wire import asked_tokens

LEAD_BYTES: Final = 2048  # of a prompt: what comes later differs from call to call
OUTPUT_TOKENS: Final = 256  # of an answer that nobody limits, to compare prices with
BYTES_PER_TOKEN: Final = 4
MAX_SESSION_BYTES: Final = 512

_OPENING_ROLES = frozenset(("system", "developer"))


class _Texts(msgspec.Struct, gc=False):
    messages: list[msgspec.Raw] = []
    prompt: msgspec.Raw = msgspec.Raw(b"")
    system: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


class _Turn(msgspec.Struct, gc=False):
    role: str | None = None


class _CacheKey(msgspec.Struct, gc=False):
    prompt_cache_key: str | None = None


_texts = msgspec.json.Decoder(_Texts)
_items = msgspec.json.Decoder(list[msgspec.Raw])
_turns = msgspec.json.Decoder(list[_Turn])
_cache_key = msgspec.json.Decoder(_CacheKey)


@final
class Asked:
    """`regions`: where the answer has to come from, all of them, so that what a client asks for cannot undo what its key says.

    `wild` is what the model's wildcard stands for, `kind` the endpoint's, `key` whose call it is; `providers`: it goes to nobody else.
    """

    __slots__ = ("_body", "_headers", "_request", "key", "kind", "metadata", "providers", "regions", "tags", "wild")

    def __init__(
        self,
        request: Request,
        body: bytes,
        headers: Mapping[bytes, bytes],
        *,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        regions: tuple[str, ...] = (),
        wild: str = "",
        kind: Kind = "chat",
        key: Key | None = None,
        providers: frozenset[str] | None = None,
    ) -> None:
        self._request = request
        self._body = body
        self._headers = headers
        self.tags = tags
        self.metadata = metadata or {}
        self.wild = wild
        self.kind: Kind = kind
        self.key = key
        self.providers = providers
        wanted = headers.get(b"x-penstock-region")
        self.regions = regions if wanted is None else (*regions, wanted.decode("latin-1").strip())

    @property
    def body(self) -> bytes:
        """As the client sent it; empty where it is no text."""
        return self._body

    @property
    def request(self) -> Request:
        return self._request

    @property
    def stream(self) -> bool:
        return self._request.stream is True

    @property
    def prompt_tokens(self) -> int:
        """About how many."""
        return len(self._body) // BYTES_PER_TOKEN

    @property
    def output_tokens(self) -> int:
        """As many as may come, or as usually do."""
        if not isinstance(self._request, (ChatRequest, CompletionRequest)):
            return 0
        return asked_tokens(self._request) or OUTPUT_TOKENS

    def session(self, affinity: Affinity) -> int | None:
        """What keeps calls together: the client's header, its `prompt_cache_key`, and if wanted its `user`."""
        if affinity == "none":
            return None
        named = self._headers.get(b"x-penstock-session")
        if named is not None:
            return fingerprint(named[:MAX_SESSION_BYTES])
        if b'"prompt_cache_key"' in self._body:
            key = _read_cache_key(self._body)
            if key:
                return fingerprint(key.encode())
        user = self._request.user if affinity == "user" else None
        return fingerprint(user.encode()) if user else None

    def lead(self) -> int | None:
        """The beginning of the prompt, which stays the same while a conversation grows; None where there is none.

        That is everything up to the first message that is not the system's. Engines keep what they made of it (vLLM's prefix cache).
        """
        request = self._request
        if not isinstance(request, (ChatRequest, CompletionRequest)):
            return None
        try:
            texts = _texts.decode(self._body)
            if isinstance(request, CompletionRequest):
                return fingerprint(bytes(texts.prompt)[:LEAD_BYTES])
            if isinstance(request, ResponsesRequest):
                return fingerprint((bytes(texts.instructions) + _opening_items(bytes(texts.input)))[:LEAD_BYTES])
        except (msgspec.DecodeError, RecursionError):
            return None
        opening = _opening(texts.messages, [message.role for message in request.messages])
        return fingerprint((bytes(texts.system) + opening)[:LEAD_BYTES])


def _opening(messages: Sequence[msgspec.Raw], roles: Sequence[str | None]) -> bytes:
    """Up to the first one that is not the system's."""
    count = 1
    while count < len(roles) and roles[count - 1] in _OPENING_ROLES:
        count += 1
    return b"".join(bytes(message) for message in messages[:count])


def _opening_items(given: bytes) -> bytes:
    """The same of a response's `input`, which may be one text. Raises what msgspec does for another shape."""
    if not given.startswith(b"["):
        return given
    return _opening(_items.decode(given), [turn.role for turn in _turns.decode(given)])


def _read_cache_key(body: bytes) -> str | None:
    try:
        return _cache_key.decode(body).prompt_cache_key
    except (msgspec.DecodeError, RecursionError):
        return None
