"""Where a call is admitted and paid: a port, so that a fraud score and a chat token draw from one account."""

from collections.abc import Mapping
from typing import Protocol

from inference.errors import InferenceError


class Caller(Protocol):
    """Whose key a question came with."""

    admin: bool

    def may_use(self, model: str) -> bool: ...


class Visit(Protocol):
    """One request, from its key to its record. `id` names it for good: in the answer, the capture, the ledger and the feedback.

    `at` is Unix seconds, `started_at` is on the event loop's clock. `cost_nanos` is known once it is `done`.
    """

    id: str
    at: float
    started_at: float
    cost_nanos: int

    @property
    def owner(self) -> tuple[str, str | None, str | None]:
        """Key, team and organisation."""

    @property
    def unit(self) -> str:
        """What a rollout keeps with one arm: the user or session that the request names, else the request."""

    def enter(self) -> None:
        """Finds out whose it is, and whether that key may call the path. Raises Refused."""

    def about(self, model: str, user: str | None = None) -> None:
        """What the request asks for. Raises Refused if the key may not use it."""

    def require_named(self, path: str) -> None:
        """For what is only for the admin key and for keys whose own list of routes has the path in it. Raises Refused."""

    def found(self, model: str, version: int) -> None:
        """There is such a model, and this version of it is to answer."""

    async def hold(self, nanos: int) -> None:
        """Sets aside what an answer costs. Raises Refused."""

    def done(self, model_s: float) -> None:
        """It was answered: the price is owed. `model_s`: time that was the model's, not the server's."""

    def failed(self, error: InferenceError) -> None:
        """It was not: nothing is owed."""

    def head(self, content_type: bytes) -> bytes:
        """Header lines of an answer."""

    def fail_head(self) -> bytes:
        """Header lines of an error's answer, beside its own."""

    def close(self) -> None:
        """Settles and records. Called once, whatever happened; a visit that is neither done nor failed was left by its client."""


class Desk(Protocol):
    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """For a question that costs nothing. Raises Refused."""

    def open(self, headers: Mapping[bytes, bytes], endpoint: str, path: str, started_at: float) -> Visit:
        """A request, before its key was looked at. Never raises; `close` is owed."""
