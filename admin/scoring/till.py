"""What a process that scores and the server that keeps the accounts say to each other: a line of JSON each, over the process's pipes."""

import os
import queue
import threading
from typing import Final, TypeAlias, final

import msgspec

from gateway.ids import new_id
from inference.scoring.errors import Paused, Stopped

LOOK_S: Final = 0.5


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """As `inference.scoring.till.Till.hold`; what a chunk costs, and each of its rows, in nano-dollars. Answered."""

    id: str
    chunk: int
    rows: int
    refused: int
    request_nanousd: int
    row_nanousd: int

    def cost(self, rows: int) -> int:
        return self.request_nanousd + self.row_nanousd * rows if rows else 0


class Settle(msgspec.Struct, frozen=True, tag="settle"):
    """Not answered."""

    id: str
    rows: int


class Paid(msgspec.Struct, frozen=True, tag="paid"):
    """Answered."""

    id: str


class Reply(msgspec.Struct, frozen=True):
    """`code` and `message` where the account says no."""

    yes: bool
    code: str = ""
    message: str = ""


Message: TypeAlias = Hold | Settle | Paid


@final
class PipeTill:
    """`inference.scoring.till.Till`. `out` is a descriptor; what comes in is given to `hear` by another thread."""

    def __init__(self, out: int, stopping: threading.Event, request_nanousd: int, row_nanousd: int) -> None:
        self._out = out
        self._stopping = stopping
        self._prices = request_nanousd, row_nanousd
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def hear(self, line: bytes) -> None:
        self._heard.put(line)

    def new_id(self) -> str:
        return new_id("req")

    def paid(self, id_: str) -> bool:
        return self._asked(Paid(id_)).yes

    def hold(self, id_: str, chunk: int, rows: int, refused: int) -> None:
        reply = self._asked(Hold(id_, chunk, rows, refused, *self._prices))
        if not reply.yes:
            raise Paused(reply.code, reply.message)

    def settle(self, id_: str, rows: int) -> None:
        self._say(Settle(id_, rows))

    def _asked(self, message: Message) -> Reply:
        self._say(message)
        while True:
            try:
                return msgspec.json.decode(self._heard.get(timeout=LOOK_S), type=Reply)
            except queue.Empty:
                if self._stopping.is_set():
                    raise Stopped from None

    def _say(self, message: Message) -> None:
        try:
            os.write(self._out, msgspec.json.encode(message) + b"\n")
        except OSError:  # the server is gone: whoever comes next goes on
            raise Stopped from None
