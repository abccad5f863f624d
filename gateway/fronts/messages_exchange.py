"""What Anthropic's clients read in an answer's head: `request-id`, and their limits under Anthropic's names."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, final

from gateway.exchange import Exchange

_ID: Final = re.compile(rb"^x-request-id: (.+)\r\n", re.MULTILINE)
_LIMIT: Final = re.compile(rb"^x-ratelimit-(limit|remaining|reset)-(requests|tokens): (.+)\r\n", re.MULTILINE)
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:(\d+)ms)?")


def told(lines: bytes, unix: float) -> bytes:
    """Header lines with Anthropic's behind them."""
    found = _ID.search(lines)
    more = b"" if found is None else b"request-id: %b\r\n" % found[1]
    for word, unit, value in _LIMIT.findall(lines):
        said = _moment(value.decode(), unix).encode() if word == b"reset" else value
        more += b"anthropic-ratelimit-%b-%b: %b\r\n" % (unit, word, said)
    return lines + more


def _moment(duration: str, unix: float) -> str:
    """OpenAI counts the time until a limit is full again, Anthropic names the moment (RFC 3339)."""
    found = _DURATION.fullmatch(duration)
    hours, minutes, seconds, millis = (float(part or 0) for part in found.groups()) if found else (0.0,) * 4
    at = datetime.fromtimestamp(unix + hours * 3600 + minutes * 60 + seconds + millis / 1000, UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


@final
class MessagesExchange:
    """See `gateway.exchange.Exchange`: everything is the inner one's but the heads."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._inner.headers

    @property
    def body(self) -> bytes:
        return self._inner.body

    @property
    def started_at(self) -> float:
        return self._inner.started_at

    @property
    def begun(self) -> bool:
        return self._inner.begun

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        self._inner.respond(status, told(head, time.time()), body)

    def begin(self, status: int, head: bytes) -> None:
        self._inner.begin(status, told(head, time.time()))

    def begin_events(self, status: int, head: bytes) -> None:
        self._inner.begin_events(status, told(head, time.time()))

    def send(self, data: bytes) -> None:
        self._inner.send(data)

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        self._inner.send_chunk(data, chunk)

    def way(self) -> None: ...

    def end(self) -> None:
        self._inner.end()

    def break_off(self) -> None:
        self._inner.break_off()

    @property
    def write_paused(self) -> bool:
        return self._inner.write_paused

    async def drained(self) -> None:
        await self._inner.drained()
