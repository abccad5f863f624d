"""Copies of calls to another model, in the background: to see what it would have cost and how it does, before anybody depends on it.

A copy begins when its original has been answered, so it delays nobody. Copies are few at a time and small; what is too many or too large
is dropped and counted. They are calls of their own under the key `shadow` and the tag `shadow`: of no organisation, team or end user, so
that no client pays for them.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, final

import msgspec
import structlog

from gateway import errors, wire
from gateway.admission.classes import RANKS, Standing
from gateway.call import Call
from gateway.catalog import Shadow
from gateway.drive import driven
from gateway.endpoint import Endpoint
from gateway.exchange import Exchange
from gateway.journal_records import Routed
from gateway.keys import Key
from gateway.mirroring import Heard
from gateway.planner import regions_of

log = structlog.stdlib.get_logger(__name__)

KEY: Final = Key("shadow", "shadow", standing=Standing(RANKS["batch"], RANKS["batch"]))
MAX_RUNNING: Final = 32
MAX_BODY_BYTES: Final = 256 * 1024


class Original(msgspec.Struct, frozen=True):
    """What a copy is of: the request's id, and where its answers have to come from, which binds the copy as well."""

    id: str
    regions: tuple[str, ...]
    routed: Routed = Routed()  # where it is the version of a route or prompt that is tried
    heard: Heard | None = None  # what the original was answered, to be compared
    behalf: Key | None = None  # whose guards it goes through: the client's, whose words it has as they came

    @property
    def key(self) -> Key:
        return msgspec.structs.replace(KEY, regions=self.regions)


class Serve(Protocol):
    """Answers one request as if a client had sent it."""

    def __call__(
        self, endpoint: Endpoint, exchange: Exchange, original: Original | None = None
    ) -> Coroutine[Any, Any, None]: ...


@final
class Shadows:
    """One per process. `spawn` runs a coroutine in a task that ends with the process; `random` gives floats in [0, 1)."""

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        random: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._spawn = spawn
        self._random = random
        self._now = now
        self._running = 0
        self.counts = {"sent": 0, "dropped": 0, "too_large": 0}

    def wants(self, share: float) -> bool:
        """Whether this one is among so large a part of the requests."""
        return self._random() < share

    def mirror(self, call: Call, body: bytes, original: Original, serve: Serve) -> None:
        """A call that was answered, made anew as another version of what it names has it. `original.heard` is compared."""
        name = wire.named(body)
        if name is not None and self._admit(body):
            front = call.endpoint.front
            body = body if front is None else front.anonymous(body)
            copy = Heard(Copy(wire.copied(body, name), self._now()))
            self._spawn(self._run(serve(call.endpoint, copy, original)))

    def offer(self, shadow: Shadow, call: Call, body: bytes, serve: Serve) -> None:
        """A call that was answered. `body` is as it was before a fallback changed it."""
        endpoint = call.endpoint
        if endpoint.door is not None or endpoint.providers is not None or self._random() >= shadow.share:
            return
        if self._admit(body):
            front = call.endpoint.front
            body = body if front is None else front.anonymous(body)
            copy = Copy(wire.copied(body, shadow.model.replace("*", call.match)), self._now())
            self._spawn(self._run(serve(call.endpoint, copy, Original(call.record.id, regions_of(call)))))

    def _admit(self, body: bytes) -> bool:
        if len(body) > MAX_BODY_BYTES:
            self.counts["too_large"] += 1
            return False
        if self._running >= MAX_RUNNING:
            self.counts["dropped"] += 1
            return False
        self.counts["sent"] += 1
        self._running += 1
        return True

    async def _run(self, serving: Coroutine[Any, Any, None]) -> None:
        try:
            await driven(serving)
        except errors.GatewayError:  # told to the record already
            pass
        except Exception:  # a task's border: nobody else waits for it
            log.exception("shadow.failed")
        finally:
            self._running -= 1


class Copy:
    """A request that nobody waits for; see `gateway.exchange.Exchange`. What it is answered is not kept."""

    def __init__(self, body: bytes, started_at: float) -> None:
        self.headers: Mapping[bytes, bytes] = {b"x-penstock-tags": b"shadow"}
        self.body = body
        self.started_at = started_at
        self.begun = False

    def respond(self, status: int, head: bytes, body: bytes) -> None:  # noqa: ARG002 — the port's names
        self.begun = True

    def begin(self, status: int, head: bytes) -> None:  # noqa: ARG002 — the port's names
        self.begun = True

    def begin_events(self, status: int, head: bytes) -> None:
        self.begin(status, head)

    def send(self, data: bytes) -> None: ...

    def send_chunk(self, data: bytes, chunk: bytes) -> None: ...

    def way(self) -> None: ...

    def end(self) -> None: ...

    def break_off(self) -> None: ...

    @property
    def write_paused(self) -> bool:
        return False

    async def drained(self) -> None: ...
