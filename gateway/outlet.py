"""What a busy event loop writes in one turn leaves together, at its end: all to upstreams in a row, and all to clients in a row.

The kernel hands on at once what is written to a process on the same machine, and wakes it. Between two writes to the same process lie
some 30 µs of work for others, enough for it to fall asleep again, and waking it costs more than the write. Writes in a row find it awake:
that took 10 of 65 µs from a plain request. The socket is written to directly, as the event loop's own queue keeps no order; what the
socket does not take goes the usual way, through the transport.

A loop that has one thing to do at a time writes at once: nothing would come to share a row with.
"""

import asyncio
from array import array
from collections.abc import Iterable
from fcntl import ioctl
from os import write
from socket import IPPROTO_TCP, TCP_INFO, socket
from termios import TIOCOUTQ
from time import monotonic
from typing import Final, final

AT_ONCE: Final = 64 * 1024  # larger pieces are not worth waiting for, and joining them costs more than a write
CLOSE_S: Final = 60e-6  # writes as close as this are of one turn, or of turns that had better be one
ROW: Final = 4  # so many in a row make a loop a busy one, and so many turns with a single one an idle one
TCP_CLOSE: Final = 7  # linux/tcp_states.h: the peer reset the connection
PIECES: Final = 16  # wait at most: who never lets the loop turn would not be told that its reader is slow


@final
class Outlets:
    """Connections of one kind on one event loop."""

    __slots__ = ("_loop", "busy", "last", "row", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waiting: list[Outlet] = []
        self.last = 0.0  # when somebody wrote without waiting
        self.row = 0
        self.busy = False

    def soon(self) -> None:
        """At the end of this turn, what waits is written."""
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        for outlet in waiting:
            outlet.flush()
        self.row = self.row - 1 if len(waiting) == 1 else ROW
        self.busy = self.row > 0


@final
class Outlet:
    """The way out of one connection. Whoever uses its transport beside it calls `flush` first."""

    __slots__ = ("_clear", "_file", "_outlets", "_pieces", "_transport")

    def __init__(self, outlets: Outlets, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        plain = sock is not None and transport.get_extra_info("sslcontext") is None
        self._outlets = outlets
        self._transport = transport
        self._file: int = sock.fileno() if plain else -1  # TLS has a transport of its own in between
        self._pieces: list[bytes] = []
        self._clear = plain  # nothing is left in the transport of what it was given

    def write(self, data: bytes) -> bool:
        """Whether the socket has taken at once all that was ever written to it, as far as is known by now. Of TLS that is not known."""
        pieces, outlets = self._pieces, self._outlets
        if self._file < 0 or len(data) > AT_ONCE:
            self.write_through((data,))
        elif pieces or outlets.busy:
            pieces.append(data)
            count = len(pieces)
            if count == 1:
                waiting = outlets.waiting
                if not waiting:
                    outlets.soon()
                waiting.append(self)
            elif count >= PIECES:
                self.flush()
        else:
            now = monotonic()
            outlets.row = outlets.row + 1 if now - outlets.last < CLOSE_S else 0
            outlets.last = now
            outlets.busy = outlets.row >= ROW
            pieces.append(data)
            self.flush()
        return self._clear

    def write_through(self, pieces: Iterable[bytes | memoryview]) -> None:
        """What is too large to wait, or to be joined to something else."""
        self.flush()
        self._clear = False
        for piece in pieces:
            if piece and not self._transport.is_closing():
                self._transport.write(piece)

    def flush(self) -> None:
        """Writes what waits."""
        pieces = self._pieces
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        transport = self._transport
        if transport.is_closing():
            return
        if not self._clear:
            if transport.get_write_buffer_size():
                transport.write(data)
                return
            self._clear = True
        try:
            sent = write(self._file, data)
        except OSError:  # full, or broken: the event loop finds out which
            sent = 0
        if sent < len(data):
            self._clear = False
            transport.write(data[sent:])

    def drop(self) -> None:
        """Forgets what waits: the connection breaks, and its file may soon be another one's."""
        self._pieces = []
        self._file = -1


def unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Bytes that the kernel keeps for a peer which may not have them yet. More may wait in the transport."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    count = array("i", [0])
    ioctl(sock.fileno(), TIOCOUTQ, count)  # of a socket it is SIOCOUTQ, tcp(7)
    return count[0]


def reset_by_peer(transport: asyncio.BaseTransport) -> bool:
    """Whether nothing can be delivered any more, which the kernel knows before anybody writes."""
    sock: socket | None = transport.get_extra_info("socket")
    if sock is None:
        return True
    try:
        return sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0] == TCP_CLOSE
    except OSError:
        return True
