"""Ledger entries: what one call cost whom, as auditors and other programs see it. `gateway.ledger_blocks` says how they are kept."""

from typing import Final

import msgspec

from gateway.journal_records import Settled
from gateway.used import COUNTS, NOTHING, Source, Usage

DAY_S: Final = 86_400
MAX_TEXT: Final = 256  # longer labels come from clients alone, and an index of PostgreSQL ends at 2,700 bytes
MAX_TAGS: Final = 16
MAX_AMOUNT: Final = 2**53  # what an upstream claims beyond is nonsense, and must not overflow a sum

_COLUMNS: Final = frozenset({"input", "output", "cached_read", "cache_write", "reasoning", "requests"})
RARE: Final = tuple(name for name in COUNTS if name not in _COLUMNS)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """`seq` counts a session's entries from 1, without a gap. `at` is Unix seconds, `day` days since 1970. `tags` and `usage_more`,
    the kinds of usage that few calls have, are JSON as text."""

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
        charged(settled.cost_nanousd),
        settled.source,
        settled.status,
        settled.reason,
    )


def charged(cost_nanousd: int | None) -> int:
    """What a call of this cost counts for in the ledger, in nano-dollars."""
    return min(max(cost_nanousd or 0, 0), MAX_AMOUNT)


def label(value: str | None) -> str | None:
    """PostgreSQL knows no NUL."""
    if value is None or (len(value) <= MAX_TEXT and "\x00" not in value):
        return value
    return value[:MAX_TEXT].replace("\x00", "\ufffd")


def labels(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Each once."""
    return tuple(dict.fromkeys(label(tag) or "" for tag in tags[:MAX_TAGS]))


def _tags(tags: tuple[str, ...]) -> str:
    return msgspec.json.encode(labels(tags)).decode()


def _more(usage: Usage) -> str | None:
    rare = {name: value for name in RARE if (value := getattr(usage, name))}
    return msgspec.json.encode(rare).decode() if rare else None
