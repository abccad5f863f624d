"""The client's side of a call that has guards: an `Exchange` around another one, through which nothing goes that they have not seen.

A stream slides through its windows, waits for who is asked about it a piece at a time, or is withheld until somebody has spoken; a whole
answer is withheld until it was read. The end of either is told by `Guarding`, once the call is through.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, final

from gateway.errors import GatewayError
from gateway.exchange import Exchange, Way
from gateway.guards.events import Events, Place
from gateway.guards.masking import Restoring, Vault
from gateway.guards.report import GuardFailed, Report
from gateway.guards.verdicts import Spoken
from gateway.guards.window import Chained, Piece

MOST_WITHHELD: Final = 16 << 20  # bytes of an answer that waits
PAUSE_AT: Final = 1 << 20  # bytes that wait for who runs beside the call, before the upstream has to
KEPT: Final = 2048  # characters of a text that those who are asked piece by piece see once more

Ask = Callable[[Sequence[Spoken]], Awaitable[None]]
"""Shows texts to those who are asked during the stream. Raises Refused."""


Aside = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Does what takes long somewhere else. Raises TimeoutError."""


@final
class Watch:
    """See `gateway.exchange.Exchange`. `pieces` makes the windows of one text; `withheld`: all of it waits for its end.

    `ask` is shown every `every` characters of a stream, before they go on. `aside` is where the end of a stream is read.
    """

    def __init__(
        self,
        inner: Exchange,
        report: Report,
        vault: Vault,
        *,
        pieces: Callable[[], Sequence[Piece]],
        withheld: bool,
        reads: bool,
        ask: Ask | None,
        every: int,
        aside: Aside | None = None,
    ) -> None:
        self.inner = inner
        self._report = report
        self.vault = vault
        self._pieces = pieces
        self._reads = reads  # there is something to be read in its answers
        self._ask = ask
        self._every = every
        self._aside = aside
        self._withheld = withheld
        self._beside: asyncio.Future[None] | None = None  # who runs beside the call has not spoken yet
        self.headers: Mapping[bytes, bytes] = inner.headers
        self.body = inner.body
        self.started_at = inner.started_at
        self.reset()

    def reset(self) -> None:
        """Forgets an answer of which nothing was sent: another one follows."""
        self.whole: tuple[int, bytes, bytes] | None = None
        self.streamed = False  # a stream came to its end
        self._stopped: GatewayError | None = None
        self._head: tuple[int, bytes] | None = None
        self._opening = b""  # events that say nothing yet
        self._spoke = False
        self._waiting: list[bytes] = []
        self._size = 0
        self.texts: dict[Place, list[str]] = {}  # of a stream that is withheld
        self._unshown: dict[Place, list[str]] = {}
        self._new = 0
        self._shown: dict[Place, str] = {}
        self._events = Events(lambda _: Chained(self._pieces()), self._heard) if self._reads else None
        self._back = (
            Events(lambda in_json: Restoring(self.vault, in_json=in_json), names=False)
            if self.vault and self._reads
            else None
        )

    @property
    def content(self) -> str:
        """Of a stream that is withheld: the text of the first choice."""
        for place, parts in self.texts.items():
            if place[-1] in {"text", "delta"} or place[-1] == ("text",) or place[-1] == ("delta", "content"):
                return "".join(parts)
        return ""

    @property
    def begun(self) -> bool:
        return self._head is not None or self.inner.begun

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        if status == 200 and self._reads:
            self.whole = status, head, body
        else:
            self.inner.respond(status, head + self._report.lines, body)

    def begin(self, status: int, head: bytes) -> None:
        if self._reads:
            raise GuardFailed("The answer is nothing that a guard could read")
        self.inner.begin(status, head + self._report.lines)

    def begin_events(self, status: int, head: bytes) -> None:
        if self._reads:
            self._head = status, head
        else:
            self.inner.begin_events(status, head + self._report.lines)

    def send(self, data: bytes) -> None:
        if self._events is None or not self._reads:
            self.inner.send(data)
        elif data.startswith(b":") and data.count(b"\n\n") == 1:
            self._open()
            self.inner.send(data)
        elif data and self._stopped is None:
            try:
                self._take(self._events.feed(data))
            except (
                GatewayError
            ) as error:  # told where somebody waits: here it may be a callback of the upstream's connection
                self._stopped = error

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        if self._events is None or not self._reads:
            self.inner.send_chunk(data, chunk)
        else:
            self.send(data)

    def way(self) -> Way | None:
        """None, where all has to be seen."""
        return None if self._reads else self.inner.way()

    def end(self) -> None:
        if self._events is None or not self._reads:
            self.inner.end()
        else:
            self.streamed = True

    def break_off(self) -> None:
        self.inner.break_off()

    @property
    def write_paused(self) -> bool:
        return self.inner.write_paused or self._due or self._full or self._stopped is not None

    @property
    def _full(self) -> bool:
        return self._beside is not None and self._size > PAUSE_AT

    async def drained(self) -> None:
        """Raises Refused."""
        if self._stopped is not None:
            raise self._stopped
        if self._full and self._beside is not None:
            await asyncio.shield(self._beside)
        if self._due:
            await self._show()
        await self.inner.drained()

    def wait_for(self, beside: "asyncio.Future[None]") -> None:
        """Nothing goes on until `let_go`."""
        self._beside = beside

    def let_go(self) -> None:
        """Who ran beside the call lets it pass."""
        self._beside = None
        if not self._withheld and self._ask is None:
            self._flush()

    async def finish_stream(self) -> None:
        """What is left of a stream that is through. Raises Refused."""
        assert self._events is not None
        if self._stopped is not None:
            raise self._stopped
        try:
            self._take(self._events.finish() if self._aside is None else await self._aside(self._events.finish))
        except TimeoutError:
            raise GuardFailed("A guard could not read the answer in time, and nothing passes without it") from None
        if self._ask is not None:
            await self._show()

    def close_stream(self) -> None:
        """Lets its end go, once everybody has spoken."""
        self._withheld = False
        self._flush()
        if self._back is not None:
            rest = self._back.finish()
            if rest:
                self._open()
                self.inner.send(rest)
        self._open()
        self.inner.end()

    def _take(self, out: bytes) -> None:
        if not out:
            return
        if not (self._withheld or self._beside is not None or self._ask is not None):
            self._write(out)
            return
        self._waiting.append(out)
        self._size += len(out)
        if self._size > MOST_WITHHELD:
            raise GuardFailed(f"The answer is longer than what a guard can withhold: {MOST_WITHHELD} bytes")

    def _write(self, out: bytes) -> None:
        if self._back is not None:
            out = self._back.feed(out)
        if not self._spoke and self._head is not None:
            self._opening += out
        elif out:
            self._open()
            self.inner.send(out)

    def _open(self) -> None:
        """Sends the head: before the first content a refusal can still be a status of its own."""
        if self._head is not None:
            status, head = self._head
            self._head = None
            if not self.inner.begun:
                self.inner.begin_events(status, head + self._report.lines)
            opening, self._opening = self._opening, b""
            if opening:
                self.inner.send(opening)

    def _flush(self) -> None:
        waiting, self._waiting, self._size = self._waiting, [], 0
        for out in waiting:
            self._write(out)

    @property
    def _due(self) -> bool:
        return self._ask is not None and self._new >= self._every

    async def _show(self) -> None:
        """What came since the last time, with what stood before it, to those who are asked. Then it goes on."""
        assert self._ask is not None
        self._new = 0
        spoken = []
        for place, parts in self._unshown.items():
            text = self._shown.get(place, "") + "".join(parts)
            spoken.append(Spoken("assistant", text))
            self._shown[place] = text[-KEPT:]
        self._unshown = {}
        if spoken:
            await self._ask(spoken)
        if self._beside is None and not self._withheld:
            self._flush()

    def _heard(self, place: Place, text: str) -> None:
        self._spoke = True
        self._new += len(text)
        if self._ask is not None:
            self._unshown.setdefault(place, []).append(text)
        if self._withheld:
            self.texts.setdefault(place, []).append(text)
