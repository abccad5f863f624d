"""The paths that requests may have come by."""

from collections.abc import Callable

import msgspec

from gateway import bodies, wire
from gateway.front import Face, Front
from gateway.kinds import Kind
from gateway.units.door import Door


class Endpoint(msgspec.Struct, frozen=True):
    """One of the paths that clients call. `path` is its part behind a base URL; `front` is its API, where that is not OpenAI's chat.

    `kind` is what a deployment must serve. `door`: the call is billed by other units than a text's tokens, and read by the door.
    `mount` stands before `path` where clients call it. `providers`: it is theirs alone, and its clients speak their API (`face` where
    that has errors of its own): routes and prompts leave it as it is, and an upstream's error goes through.
    """

    name: str
    path: str
    parse: Callable[[bytes], bodies.Request] = lambda body: wire.parse(bodies.chat_decoder, body)
    kind: Kind = "chat"
    front: Front | None = None
    door: Door | None = None
    done: bytes = b"data: [DONE]\n\n"  # what follows a stream that is whole
    mount: str = "/v1"
    providers: frozenset[str] | None = None
    face: Face | None = None

    @property
    def place(self) -> str:
        """The whole path."""
        return f"{self.mount}{self.path}"


CHAT = Endpoint("chat", "/chat/completions", lambda body: wire.parse(bodies.chat_decoder, body))
RESPONSES = Endpoint("responses", "/responses", lambda body: wire.parse(bodies.responses_decoder, body))
COMPLETIONS = Endpoint(
    "completions", "/completions", lambda body: wire.parse(bodies.completion_decoder, body), "completion"
)
EMBEDDINGS = Endpoint("embeddings", "/embeddings", lambda body: wire.parse(bodies.embedding_decoder, body), "embedding")
