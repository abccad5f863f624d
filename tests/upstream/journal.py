"""What the upstream saw and what it would bill: one entry per request, bounded, readable over `GET /__log__`; one bill per script."""

from collections import defaultdict, deque
from typing import Literal

import msgspec

Outcome = Literal["open", "finished", "client_left", "broken"]


class Entry(msgspec.Struct):
    """One request. Moments are seconds on the machine's monotonic clock, the same one that `time.monotonic` reads elsewhere."""

    number: int
    script: str
    connection: int  # counts the accepted connections
    method: str
    path: str
    headers: list[tuple[str, str]]
    body_bytes: int
    body_sha256: str
    body: str  # latin-1; empty above KEPT_BODY_BYTES
    arrived_at: float
    first_byte_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome = "open"
    bytes_sent: int = 0
    pieces_sent: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    units: dict[str, float] = {}  # what else the provider bills for this call

    def header(self, name: str) -> str | None:
        """The last value of a header; `name` in lower case."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


class Bill(msgspec.Struct):
    """What this provider would charge for: tokens of calls that it answered, delivered tokens of those cut short."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


KEPT_BODY_BYTES = 262_144


class Journal:
    """The last `limit` entries, and each script's bill over all that there were."""

    def __init__(self, limit: int) -> None:
        self.entries: deque[Entry] = deque(maxlen=limit)
        self.bills: defaultdict[str, Bill] = defaultdict(Bill)
        self.connections = 0
        self.numbers = 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def of(self, script: str | None) -> list[Entry]:
        return [entry for entry in self.entries if script is None or entry.script == script]

    def charge(self, entry: Entry) -> None:
        bill = self.bills[entry.script]
        bill.calls += 1
        bill.prompt_tokens += entry.prompt_tokens
        bill.completion_tokens += entry.completion_tokens
