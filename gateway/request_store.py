"""The record of requests: what happened to each call, newest first.

Calls that have an entry are read from the ledger's blocks, so that nothing is written twice, and stay as long as it does. Calls that owe
nothing have blocks of their own, which are forgotten. Which keys occur in a block stands beside it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec
from sqlalchemy import Connection, Row, Select, Table, delete, literal, select, tuple_, union_all

from gateway import answer_store
from gateway.database import adding
from gateway.journal_batch import settlements
from gateway.journal_records import Routed, Settled, Try
from gateway.ledger_blocks import Part
from gateway.ledger_entries import label
from gateway.paging import Page, page
from gateway.tables import ledger_blocks, request_blocks, request_keys
from gateway.usage import units_of

BLOCKS_AT_ONCE = 4
FORGOTTEN_AT_ONCE = 100
RESPONSE = "resp_"  # what the ids of responses begin with; what upstreams call their answers may come again
MOST_S = 3600.0  # an answer takes


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`id` sorts by time (UUIDv7). Tokens and cost are None where nobody knows them; `usage_source` says who did."""

    id: str
    at: float  # Unix seconds
    key_id: str | None = None
    org_id: str | None = None
    team_id: str | None = None
    model: str | None = None
    deployment: str | None = None
    provider: str | None = None
    endpoint: str
    status: int
    stream: bool = False
    attempts: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_nanousd: int | None = None
    latency_ms: float
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    error_code: str | None = None
    tags: tuple[str, ...] | None = None
    user: str | None = None
    usage_source: str | None = None
    trail: tuple[Try, ...] | None = None  # every attempt, where one has failed
    route: str | None = None  # why that deployment
    route_version: str | None = None  # `name@3`
    prompt_version: str | None = None
    shadow_of: str | None = None  # the request that this one is a copy of
    agreement: float | None = None  # of a copy: whether it was answered alike
    guards: tuple[str, ...] | None = None  # what each guard did: `pii=redact:email+phone`
    answer_id: str | None = None  # what its client saw as the answer's id
    part_of: str | None = None  # the request, or the answer, that it was made for
    router: str | None = None  # which router chose the model, and why: `auto: easy 0.930`
    units: dict[str, float] | None = None  # what else than tokens it used: images, seconds, characters, search_units


class BlockName(msgspec.Struct, frozen=True):
    """`kind` is its table's name."""

    kind: str
    last_id: str
    session: str


class RequestFilter(msgspec.Struct, frozen=True):
    """`since` is Unix seconds, inclusive. `org_id` and `team_id` are what who asks may see."""

    key_id: str | None = None
    model: str | None = None
    status: int | None = None
    since: float | None = None
    org_id: str | None = None
    team_id: str | None = None
    tag: str | None = None

    def admits(self, record: RequestRecord) -> bool:
        return (
            (self.key_id is None or record.key_id == self.key_id)
            and (self.model is None or record.model == self.model)
            and (self.status is None or record.status == self.status)
            and (self.since is None or record.at >= self.since)
            and (self.org_id is None or record.org_id == self.org_id)
            and (self.team_id is None or record.team_id == self.team_id)
            and (self.tag is None or self.tag in (record.tags or ()))
        )


EVERY = RequestFilter()


def add(tx: Connection, session: str, calls: Part) -> None:
    """One block of calls that owe nothing, inside `gateway.database.appending`."""
    block = {"last_id": calls.last_id, "session": session, "first_id": calls.first_id, "records": calls.records()}
    tx.execute(adding(tx.dialect.name, request_blocks), block)
    add_signs(tx, session, calls)


def add_signs(tx: Connection, session: str, calls: Part) -> None:
    """Which keys occur in a block of these, and which answers."""
    answer_store.add(tx, session, calls)
    rows = [{"key_id": key, "last_id": calls.last_id, "session": session} for key in calls.keys if key is not None]
    if rows:
        tx.execute(adding(tx.dialect.name, request_keys), rows)


def forget_signs(tx: Connection, session: str, last_id: str, records: bytes) -> None:
    """For a block that is deleted."""
    answer_store.forget(tx, session, last_id)
    keys = {one.key_id for one in settlements(records)}
    where = (request_keys.c.last_id == last_id) & (request_keys.c.session == session)
    tx.execute(delete(request_keys).where(request_keys.c.key_id.in_(keys - {None}), where))


def forget(tx: Connection, before: float) -> None:
    """Deletes calls that owed nothing: blocks whose last one is older than `before`, in Unix seconds."""
    columns = request_blocks.c
    query = select(request_blocks).where(columns.last_id < _id_at(before)).limit(FORGOTTEN_AT_ONCE)
    while found := tx.execute(query).all():
        for row in found:
            forget_signs(tx, row.session, row.last_id, row.records)
            mine = (columns.last_id == row.last_id) & (columns.session == row.session)
            tx.execute(delete(request_blocks).where(mine))


def listed(tx: Connection, limit: int, after: str | None = None, only: RequestFilter = EVERY) -> Page[RequestRecord]:
    """Newest first."""
    found: list[RequestRecord] = []
    for record in _newest(tx, after, only):
        found.append(record)
        if len(found) > limit:
            break
    return page(found, limit, [record.id for record in found])


def some(tx: Connection, ids: Sequence[str], only: RequestFilter = EVERY) -> Sequence[RequestRecord]:
    """Those of these requests that are known, newest first."""
    wanted = sorted(ids, reverse=True)
    found = []
    for block in _holding(tx, wanted):
        records = (_record(settled) for settled in settlements(block.records))
        found += [record for record in records if record.id in wanted and only.admits(record)]
    return sorted({record.id: record for record in found}.values(), key=lambda record: record.id, reverse=True)


def _holding(tx: Connection, ids: Sequence[str]) -> Iterator[Row[str, str, bytes]]:
    """The blocks that may hold these."""
    seen: set[tuple[str, str]] = set()
    for id_ in ids:
        for table in (ledger_blocks, request_blocks):
            blocks = table.c
            query = select(blocks.last_id, blocks.session, blocks.records)
            for row in tx.execute(query.where(blocks.first_id <= id_, blocks.last_id >= id_)):
                if (row.last_id, row.session) not in seen:
                    seen.add((row.last_id, row.session))
                    yield row


def blocks_since(tx: Connection, since: float) -> list[BlockName]:
    """The names of the blocks that may hold requests of that moment or later, in Unix seconds, oldest first. A block never changes."""
    parts = [
        select(literal(table.name).label("kind"), table.c.last_id, table.c.session).where(
            table.c.last_id >= _id_at(since)
        )
        for table in (ledger_blocks, request_blocks)
    ]
    both = union_all(*parts).subquery()
    return [BlockName(*row) for row in tx.execute(select(both).order_by(both.c.last_id))]


def block(tx: Connection, name: BlockName) -> list[RequestRecord]:
    """Nothing for one that was pruned."""
    table = ledger_blocks if name.kind == ledger_blocks.name else request_blocks
    mine = table.c.last_id == name.last_id, table.c.session == name.session
    found = tx.execute(select(table.c.records).where(*mine)).scalars().all()
    return [_record(settled) for records in found for settled in settlements(records)]


def find(tx: Connection, ids: Collection[str]) -> dict[str, RequestRecord]:
    """By their ids, which say when they were: only blocks that span one are read."""
    wanted, found = set(ids), dict[str, RequestRecord]()
    for id_ in sorted(wanted):
        for table in (ledger_blocks, request_blocks):
            if id_ in found:
                break
            spanning = select(table.c.records).where(table.c.last_id >= id_, table.c.first_id <= id_)
            for records in tx.execute(spanning.order_by(table.c.last_id)).scalars():
                found.update({one.id: _record(one) for one in settlements(records) if one.id in wanted})
    return found


def answered(
    tx: Connection, ids: Collection[str], admits: Callable[[RequestRecord], bool], since: float = 0.0
) -> dict[str, RequestRecord]:
    """By the ids of their answers: of those that are admitted, the newest that had such an id. Blocks that ended before `since`, in
    Unix seconds, are not looked at."""
    wanted, found = set(ids), dict[str, RequestRecord]()
    for last_id, session in answer_store.holding(tx, wanted, _id_at(since)):
        held = [
            record
            for table in (ledger_blocks, request_blocks)
            for record in block(tx, BlockName(table.name, last_id, session))
            if record.answer_id in wanted and admits(record)
        ]
        for record in sorted(held, key=lambda one: one.id):
            found[record.answer_id or ""] = record
        wanted.difference_update(found)
    return found


def parts(tx: Connection, record: RequestRecord, only: RequestFilter = EVERY) -> Sequence[RequestRecord]:
    """What else belongs to its answer, oldest first: what was asked for it, and the other turns of a response."""
    response = record.answer_id if record.answer_id is not None and record.answer_id.startswith(RESPONSE) else None
    whole = {record.id} if response is None else {record.id, response}
    found: dict[str, RequestRecord] = {}
    for last_id, session in answer_store.holding(tx, set(whole), _id_at(record.at - MOST_S)):
        for table in (ledger_blocks, request_blocks):
            for one in block(tx, BlockName(table.name, last_id, session)):
                if one.part_of in whole and one.key_id == record.key_id and one.id != record.id and only.admits(one):
                    found[one.id] = one
    return sorted(found.values(), key=lambda one: one.id)


def _newest(tx: Connection, after: str | None, only: RequestFilter) -> Iterator[RequestRecord]:
    """Merged over the blocks of all sessions, which overlap: a record is next when no later block can hold a newer one."""
    waiting: list[RequestRecord] = []  # oldest first
    for block in _blocks(tx, after, only):
        while waiting and waiting[-1].id > block.last_id:
            yield waiting.pop()
        records = (_record(settled) for settled in settlements(block.records) if after is None or settled.id < after)
        waiting += [record for record in records if only.admits(record)]
        waiting.sort(key=lambda record: record.id)
    while waiting:
        yield waiting.pop()


def _blocks(tx: Connection, after: str | None, only: RequestFilter) -> Iterator[Row[str, str, bytes]]:
    """Those that can hold what is asked for, by their last id, newest first."""
    last: tuple[str, str] | None = None
    while True:
        parts = [_some(table, after, only, last).subquery() for table in (ledger_blocks, request_blocks)]
        both = union_all(*(select(part) for part in parts)).subquery()
        query = select(both).order_by(both.c.last_id.desc(), both.c.session.desc()).limit(BLOCKS_AT_ONCE)
        some = tx.execute(query).all()
        yield from some
        if len(some) < BLOCKS_AT_ONCE:
            return
        last = some[-1].last_id, some[-1].session


def _some(
    table: Table, after: str | None, only: RequestFilter, last: tuple[str, str] | None
) -> Select[tuple[str, str, bytes]]:
    """The next blocks of a table, behind `last`."""
    blocks = table.c
    query = select(blocks.last_id, blocks.session, blocks.records).where(blocks.last_id > "")
    if only.key_id is not None:
        same = (request_keys.c.last_id == blocks.last_id) & (request_keys.c.session == blocks.session)
        query = query.join(request_keys, same).where(request_keys.c.key_id == only.key_id)
    if after is not None:
        query = query.where(blocks.first_id < after)
    if only.since is not None:
        query = query.where(blocks.last_id >= _id_at(only.since))
    if last is not None:
        query = query.where(tuple_(blocks.last_id, blocks.session) < last)
    return query.order_by(blocks.last_id.desc(), blocks.session.desc()).limit(BLOCKS_AT_ONCE)


def _record(settled: Settled) -> RequestRecord:
    usage = settled.usage if settled.source is not None else None
    routed = settled.routed or Routed()
    return RequestRecord(
        id=settled.id,
        at=settled.at,
        key_id=settled.key_id,
        org_id=settled.org_id,
        team_id=settled.team_id,
        model=label(settled.model),
        deployment=settled.deployment,
        provider=settled.provider,
        endpoint=settled.endpoint,
        status=settled.status,
        stream=settled.stream,
        attempts=settled.attempts,
        prompt_tokens=usage.input if usage is not None else None,
        completion_tokens=usage.output if usage is not None else None,
        cached_tokens=usage.cached_read if usage is not None else None,
        cost_nanousd=settled.cost_nanousd,
        latency_ms=settled.latency_ms,
        first_token_ms=settled.first_token_ms,
        overhead_ms=settled.overhead_ms,
        error_code=label(settled.error_code),
        tags=None if settled.tags is None else tuple(label(tag) or "" for tag in settled.tags),
        user=label(settled.customer),
        usage_source=settled.source,
        trail=settled.trail,
        route=label(routed.reason),
        route_version=routed.route_version,
        prompt_version=routed.prompt_version,
        shadow_of=routed.shadow_of,
        agreement=routed.agreement,
        guards=routed.guards,
        router=label(routed.router),
        part_of=routed.part_of,
        answer_id=settled.answer_id,
        units=None if usage is None else units_of(usage),
    )


def _id_at(unix: float) -> str:
    """The lowest id of a moment: ids begin with milliseconds (`gateway.ids`), so time needs no index of its own."""
    return f"req_{max(0, int(unix * 1000)):012x}"
