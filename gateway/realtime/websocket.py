"""One end of a conversation on an asyncio transport: the protocol is the library's (`websockets`, without its I/O), the limits are ours.

Messages wait here until somebody takes them, and the socket is not read while too many do; who sends waits until the other side reads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, final

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, Protocol, Side

from gateway.outlet import unacknowledged

HIGH_WATER: Final = 1024 * 1024
MOST_WAITING: Final = 256
CLOSE_S: Final = 2.0
MOST_REASON_BYTES: Final = 120  # a close frame takes 125, with its code


class Message(NamedTuple):
    data: bytes
    text: bool


class Closed(Exception):
    """The other side has closed, or is gone (1006), or broke the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def quiet() -> logging.Logger:
    """The library's own log would show frames where the level is `debug`."""
    log = logging.getLogger("gateway.realtime.protocol")
    log.setLevel(logging.WARNING)
    return log


def opened(most_bytes: int) -> Protocol:
    """The server's side of a handshake that is over."""
    return Protocol(Side.SERVER, state=OPEN, max_size=most_bytes, logger=quiet())


@final
class WebSocket(asyncio.Protocol):
    """The names at its end are what a listener wants of what it keeps (`gateway.listener`)."""

    reading_head = reading_body = served = False

    def __init__(self, protocol: Protocol, now: float = 0.0) -> None:
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._parts: list[bytes] = []
        self._first = Opcode.TEXT
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._closed: Closed | None = None
        self._closer: asyncio.TimerHandle | None = None
        self._drain = asyncio.Event()
        self.response: Response | None = None
        self.answered = asyncio.Event()
        self.pinged = False  # and nothing heard since
        self.paused = False
        self.paused_at = self.since = self.head_since = now
        self._loop = asyncio.get_running_loop()
        self.gone: Callable[[], None] = _nobody_cares

    # For the conversation

    async def receive(self) -> Message:
        """The next whole message. Raises Closed once there is none left."""
        while not self._messages:
            if self._closed is not None:
                raise self._closed
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.data)
        if not self._reading and self._bytes <= HIGH_WATER and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return message

    async def send(self, text: bytes) -> None:
        """One message; returns when there is room for another. Raises Closed."""
        if self._closed is not None or self._protocol.state is not OPEN:
            raise self._closed or Closed(CloseCode.ABNORMAL_CLOSURE, "")
        self._protocol.send_text(text)
        self._flush()
        await self._writable.wait()

    def ping(self) -> None:
        """Any data is an answer."""
        if self._protocol.state is OPEN:
            self.pinged = True
            self._protocol.send_ping(b"")
            self._flush()

    def shut(self, code: int, reason: str = "") -> None:
        """Says goodbye. What is not gone in two seconds is broken off."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason.encode()[:MOST_REASON_BYTES].decode(errors="ignore"))
        self._flush()

    async def draining(self) -> None:
        """Returns when the process is about to end."""
        await self._drain.wait()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # nobody makes another
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.pinged = False
        self._protocol.receive_data(data)
        self._pump()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        self._pump()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.paused = False
        self._end(CloseCode.ABNORMAL_CLOSURE, "")
        self._writable.set()
        self.answered.set()
        if self._closer is not None:
            self._closer.cancel()
        self.gone()

    def pause_writing(self) -> None:
        self.paused = True
        self.paused_at = self._loop.time()
        self._writable.clear()

    def resume_writing(self) -> None:
        self.paused = False
        self._writable.set()

    # Called by a listener

    @property
    def closing(self) -> bool:
        """The process is about to end, and the conversation is told so."""
        return self._drain.is_set()

    @closing.setter
    def closing(self, closing: bool) -> None:
        if closing:
            self._drain.set()

    @property
    def idle(self) -> bool:
        """Everything is said. A conversation without words has a clock of its own."""
        return self._transport is None or self._transport.is_closing()

    @property
    def delivered(self) -> bool:
        transport = self._transport
        return transport is None or (transport.get_write_buffer_size() == 0 and unacknowledged(transport) == 0)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def time_out(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Private

    def _pump(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            elif isinstance(event, Response):
                self.response = event
                self.answered.set()
        self._flush()
        received, failed = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            self._end(received.code, received.reason)
        elif self._protocol.parser_exc is not None and failed is not None:
            self._end(failed.code, failed.reason)

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        if frame.opcode is not Opcode.CONT:
            self._first = frame.opcode
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        message = Message(
            self._parts[0] if len(self._parts) == 1 else b"".join(self._parts), self._first is Opcode.TEXT
        )
        self._parts = []
        self._messages.append(message)
        self._bytes += len(message.data)
        self._arrived.set()
        full = self._bytes > HIGH_WATER or len(self._messages) > MOST_WAITING
        if full and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            else:
                transport.close()
        if self._closer is None and self._protocol.close_expected():
            self._closer = self._loop.call_later(CLOSE_S, self.abort)

    def _end(self, code: int, reason: str) -> None:
        if self._closed is None:
            self._closed = Closed(code, reason)
            self._arrived.set()


def _nobody_cares() -> None:
    """Until a listener does."""
