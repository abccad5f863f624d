"""The port of an endpoint that is billed by other units: values in, values out, no I/O. `gateway.units.relay` does the sending."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway import errors, wire
from gateway.catalog import Deployment
from gateway.units.ask import Ask, Headers
from gateway.usage import Usage

Piece = bytes | memoryview


class Sent(msgspec.Struct, frozen=True):
    """One upstream request. `path` stands behind the base URL, or behind the server's root if `at_root`."""

    path: str
    body: Sequence[Piece]
    content_type: bytes = b"application/json"
    at_root: bool = False


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
