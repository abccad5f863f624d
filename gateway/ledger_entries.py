"""Ledger entries: what one call cost whom, and the hash that ties each entry to the one before.

The chain of a session starts at its `genesis`, which names the session registered before it: a session that vanishes as a
whole leaves a hole. Anyone can recompute the hashes from the rows: SHA-256 over the previous hash and the MessagePack array
of the entry's fields, in the order of the class.
"""

from hashlib import sha256
from typing import Final

import msgspec

from gateway.journal_records import Settled
from gateway.usage import COUNTS, NOTHING, Source, Usage

DAY_S: Final = 86_400
MAX_TEXT: Final = 256  # longer labels come from clients alone, and an index of PostgreSQL ends at 2,700 bytes
MAX_TAGS: Final = 16
MAX_AMOUNT: Final = 2**53  # what an upstream claims beyond is nonsense, and must not overflow a sum

_COLUMNS: Final = frozenset({"input", "output", "cached_read", "cache_write", "reasoning", "requests"})
RARE: Final = tuple(name for name in COUNTS if name not in _COLUMNS)


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the ledger. `seq` counts a session's entries from 1, without a gap.

    `at` is Unix seconds, `day` days since 1970. `tags` and `usage_more`, the kinds of usage that few calls have, are JSON as text,
    so that the hash is over the very bytes that are stored.
    """

    session: str
    seq: int
    id: str
    at: float
    day: int
    org_id: str | None
    team_id: str | None
    user_id: str | None
    key_id: str | None
    customer: str | None
    model: str | None
    provider: str | None
    deployment: str | None
    endpoint: str
    tags: str | None
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    requests: int
    usage_more: str | None
    cost_nanousd: int
    source: Source
    status: int
    reason: str

    def tag_list(self) -> list[str]:
        return [] if self.tags is None else msgspec.json.decode(self.tags, type=list[str])


COLUMNS: Final = Entry.__struct_fields__


def entry(settled: Settled, session: str, seq: int) -> Entry:
    """The entry of a settlement that has a source. What a client chose becomes a text that every database can store and index.

    Counts come from `gateway.usage`, which bounds them.
    """
    assert settled.source is not None
    usage = settled.usage or NOTHING
    return Entry(
        session,
        seq,
        settled.id,
        settled.at,
        int(settled.at // DAY_S),
        settled.org_id,
        settled.team_id,
        settled.user_id,
        settled.key_id,
        label(settled.customer),
        label(settled.model),
        settled.provider,
        settled.deployment,
        settled.endpoint,
        _tags(settled.tags) if settled.tags else None,
        usage.input,
        usage.cached_read,
        usage.cache_write,
        usage.output,
        usage.reasoning,
        usage.requests,
        _more(usage),
        min(max(settled.cost_nanousd or 0, 0), MAX_AMOUNT),
        settled.source,
        settled.status,
        settled.reason,
    )


def canonical(one: Entry) -> bytes:
    """The bytes that are hashed: a MessagePack array of the fields."""
    return msgspec.msgpack.encode(one)


def chained(previous: bytes, payload: bytes) -> bytes:
    """The hash of the entry whose canonical bytes are `payload`."""
    return sha256(previous + payload).digest()


def genesis(session: str, after: str | None) -> bytes:
    """What the first entry of a session is chained to. `after` is the session registered before, if any."""
    return sha256(msgspec.msgpack.encode(("penstock ledger 1", session, after))).digest()


def label(value: str | None) -> str | None:
    """PostgreSQL knows no NUL."""
    if value is None or (len(value) <= MAX_TEXT and "\x00" not in value):
        return value
    return value[:MAX_TEXT].replace("\x00", "\ufffd")


def _tags(tags: tuple[str, ...]) -> str:
    return msgspec.json.encode(tuple(dict.fromkeys(label(tag) for tag in tags[:MAX_TAGS]))).decode()


def _more(usage: Usage) -> str | None:
    rare = {name: value for name in RARE if (value := getattr(usage, name))}
    return msgspec.json.encode(rare).decode() if rare else None
