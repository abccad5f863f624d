"""The client's side of a response: what the path of every call answers in a chat's or an upstream's words becomes the response's own.

An `Exchange` around another one. The end of an answer is held back until the response is kept, so that whoever has seen it finds it.
"""

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec

from gateway import errors
from gateway.bodies import NULL
from gateway.endpoint import RESPONSES
from gateway.exchange import Exchange
from gateway.responses.agent import Serve
from gateway.responses.frame import Frame, Problem, Status, problem_of, visible
from gateway.responses.native import Reader
from gateway.responses.writer import Writer
from gateway.wire import present, read_fault


class _Kind(msgspec.Struct, gc=False):
    type: str | None = None
    object: str | None = None
    error: msgspec.Raw = NULL


_kind: Final = msgspec.json.Decoder(_Kind)


@final
class Outlet:
    """`body` is what is asked of the deployments; `unix` the clock. After the call, `release` lets its end go."""

    def __init__(
        self,
        inner: Exchange,
        body: bytes,
        frame: Frame,
        unix: Callable[[], float],
        *,
        summarised: bool,
        told: int = 0,
    ) -> None:
        self._inner = inner
        self.body = body
        self.headers: Mapping[bytes, bytes] = inner.headers
        self.started_at = inner.started_at
        self._frame = frame
        self._unix = unix
        self._summarised = summarised
        self._told = told
        self._teller: Writer | Reader | None = None
        self._held: tuple[int, bytes, bytes] | None = None
        self._last: bytes | None = None
        self.failed: errors.GatewayError | None = None
        self.whole = False  # the answer came to an end of its own
        self.streaming = False

    @property
    def begun(self) -> bool:
        return self._inner.begun or self._held is not None

    @property
    def response(self) -> bytes:
        """All that there is by now, as it is kept."""
        return (self._teller or self._writer()).response

    async def serve(self, serve: Serve) -> None:
        await serve(RESPONSES, self)

    def end_as(self, status: Status, problem: Problem | None = None) -> None:
        """For an answer that nobody waits for any longer."""
        if not self.whole and self.failed is None:
            self._said().end(status, problem)
            self.whole = True

    def end_as_failed_unless_ended(self, problem: Problem) -> None:
        """For an answer that should have ended, and did not."""
        self.end_as("failed", problem)

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        if status != 200:
            fault = read_fault(body)
            self.failed = errors.GatewayError(
                fault.message or "", code=fault.code if isinstance(fault.code, str) else fault.type
            )
            self._said().end("failed", problem_of(self.failed.code, self.failed.message))
            self._inner.respond(status, head, body)
            return
        teller = self._begin(body)
        if isinstance(teller, Reader):
            teller.whole(body)
        else:
            teller.take(body)
            teller.finish()
        self.whole = True
        self._held = status, head, bytes(visible(teller.response, self._frame.include))

    def begin(self, status: int, head: bytes) -> None:
        self._inner.begin(status, head)

    def begin_events(self, status: int, head: bytes) -> None:
        self.streaming = True
        self._inner.begin_events(status, head)

    def send(self, data: bytes) -> None:
        """Whole events: a chat's chunks, an upstream's own events, an error, or comments, which go on as they are."""
        out: list[bytes] = []
        for one in data.split(b"\n\n"):
            if one.startswith(b":"):
                out.append(one + b"\n\n")
                continue
            payload = b"\n".join(line[5:].strip() for line in one.split(b"\n") if line.startswith(b"data:"))
            if payload == b"[DONE]":
                out += self._finish()
            elif payload:
                out += self._hear(payload)
        if out:
            self._inner.send(b"".join(out))

    def send_chunk(self, data: bytes, chunk: bytes) -> None:  # noqa: ARG002 — the port's names
        self.send(data)

    def way(self) -> None: ...

    def end(self) -> None:
        """The rest of it is up to `release`."""

    def break_off(self) -> None:
        self._inner.break_off()

    @property
    def write_paused(self) -> bool:
        return self._inner.write_paused

    async def drained(self) -> None:
        await self._inner.drained()

    def release(self, *, kept: bool) -> None:
        """The end of the answer. `kept`: it can be found again, where it was to be."""
        if self._held is not None:
            status, head, body = self._held
            self._inner.respond(status, head + (b"" if kept else b"x-penstock-stored: false\r\n"), body)
        elif self._last is not None:
            self._inner.send(self._last)
            self._inner.end()

    def last_event(self) -> bytes:
        """What closes the stream of a response that has ended, in whatever way."""
        return self._last or self._said().close()

    def _hear(self, payload: bytes) -> list[bytes]:
        if payload.startswith(b'{"error"') and present(_kind.decode(payload).error):
            fault = read_fault(payload)
            code = fault.code if isinstance(fault.code, str) else fault.type
            self.failed = errors.GatewayError(fault.message or "", param=fault.param, code=code)
            out = [*self._opening(), *self._said().fail(self.failed)]
            self._last = out.pop()
            return out
        teller = self._teller
        if teller is None:
            return [*self._begin(payload).start(), *self._said().take(payload)]
        return teller.take(payload)

    def _opening(self) -> list[bytes]:
        """Of an answer that has none yet: a heartbeat may have begun the stream."""
        return [] if self._teller is not None else self._said().start()

    def _finish(self) -> list[bytes]:
        out = self._said().finish()
        self.whole = True
        self._last = out.pop()
        return out

    def _begin(self, payload: bytes) -> Writer | Reader:
        """A teller in the words of whoever answers."""
        kind = _kind.decode(payload)
        if kind.object == "response" or (kind.type or "").startswith("response."):
            self._teller = Reader(self._frame, told=self._told)
        return self._said()

    def _said(self) -> Writer | Reader:
        if self._teller is None:
            self._teller = self._writer()
        return self._teller

    def _writer(self) -> Writer:
        return Writer(self._frame, self._unix, summarised=self._summarised, told=self._told)
