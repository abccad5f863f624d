"""The port of an endpoint that is billed by other units: values in, values out, no I/O. `gateway.units.relay` does the sending."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway import bodies, errors, wire
from gateway.catalog import Deployment
from gateway.units.ask import Ask, Headers
from gateway.used import Usage

Piece = bytes | memoryview


Lines = tuple[tuple[str, str], ...]


class Sent(msgspec.Struct, frozen=True):
    """One upstream request. `path` stands behind the base URL, or behind the server's root if `at_root`.

    With an `address`, it stands behind that, may carry a query, and `headers` say everything that the upstream has to know; `signed`
    makes those that depend on all the rest, and may take its time.
    """

    path: str
    body: Sequence[Piece]
    content_type: bytes = b"application/json"
    at_root: bool = False
    address: str | None = None
    method: str = "POST"
    headers: Lines = ()
    signed: Callable[[], Lines] | None = None


class Told(msgspec.Struct, frozen=True):
    """A complete answer as the client gets it, and what the provider says that it used.

    `ask`: the call with what only its answer could tell, where there was any.
    """

    body: bytes
    usage: Usage | None = None
    ask: Ask | None = None


class Door(Protocol):
    """Shared by all calls, without state."""

    plays: bool
    """Whether an answer that is neither JSON nor events goes on piece by piece, as it comes."""

    def read(self, body: bytes, headers: Headers) -> Ask:
        """Raises BadRequest whose `param` names the field."""

    def sent(self, ask: Ask, body: bytes, deployment: Deployment, name: str) -> Sent:
        """The request for a deployment, where the model is called `name`."""

    def told(self, ask: Ask, deployment: Deployment, body: bytes, *, json: bool) -> Told:
        """A complete 2xx answer. UpstreamError if it is damaged."""

    def event_usage(self, report: msgspec.Raw) -> Usage | None:
        """What the `usage` of an event says."""


class Follower(Protocol):
    """One stream that goes on as it comes, and what was seen of it. `gateway.units.events.Events` is the pattern."""

    @property
    def content_type(self) -> bytes:
        """What the client is told that it is."""

    @property
    def content(self) -> bool:
        """Something came that is no error."""

    @property
    def whole(self) -> bool:
        """It ended as such a stream should."""

    @property
    def usage(self) -> Usage | None:
        """What the provider says that was used, as far as it has said so."""

    @property
    def error(self) -> errors.GatewayError | None:
        """Set by the first damaged or failed piece; nothing is passed on after it."""

    @property
    def received(self) -> int:
        """Tokens that came, where nothing else tells how many."""

    def feed(self, data: bytes) -> bytes: ...

    def close(self) -> bytes: ...


class NativeDoor(Door, ABC):
    """A door of one call, in an API of its provider's own: it knows which streams that has.

    `shown`: lines of the head of an answer that go on to the client.
    """

    shown: tuple[bytes, ...] = ()

    def event_usage(self, report: msgspec.Raw) -> Usage | None:  # noqa: ARG002 — the port's name: a follower reads all of an event
        return None

    @abstractmethod
    def read_fault(self, status: int, body: bytes) -> bodies.UpstreamFault:
        """An error answer in OpenAI's terms. Never raises."""

    @abstractmethod
    def follower(self, content_type: bytes) -> Follower | None:
        """For an answer of this type (in lower case) that goes on piece by piece; None: it is read whole."""

    def told_by(self, headers: Headers) -> Usage | None:  # noqa: ARG002 — the port's name: most say it in the body
        """What the head of an answer says of its usage."""
        return None


def json_only(headers: Headers) -> None:
    """Raises BadRequest for a body that says that it is something else. One that says nothing is taken for JSON."""
    kind = headers.get(b"content-type")
    if kind is not None and kind.lstrip().lower().startswith(b"multipart/"):
        raise errors.BadRequest("This endpoint takes a JSON body, not a form", code="unsupported_content_type")


def renamed(path: str, body: bytes, name: str) -> Sent:
    """The client's own body with the model's name at the deployment."""
    return Sent(path, (wire.rewrite(body, name, ask_usage=False),))


def posted(path: str, ask: Ask, name: str) -> Sent:
    """The client's own form with the model's name at the deployment; nothing of it is copied."""
    assert ask.pieces is not None
    before, behind = ask.pieces
    return Sent(path, (before, name.encode(), behind), ask.content_type)
