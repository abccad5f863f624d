"""The tables of responses and conversations. Every function takes the transaction it works in, and whose the object must be.

What belongs to somebody else is not there: the owner is part of every question, so that nobody learns even that it exists.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from sqlalchemy import ColumnElement, Connection, Row, case, delete, func, insert, select, update

from gateway import errors
from gateway.keys import Key
from gateway.responses.frame import Problem, Status, altered, output_of
from gateway.responses.items import MAX_ITEMS, encode, id_of
from gateway.tables import conversation_items, conversations, response_events, responses

LONGEST_CHAIN: Final = 1_000
PRUNED_AT_ONCE: Final = 200
MAX_BYTES: Final = 64 * 1024 * 1024  # of one conversation
RUNNING: Final = ("queued", "in_progress")
# Only what runs has been seen, and there is an index of that.
ANY_RUNNING: Final = f"EXISTS (SELECT 1 FROM responses WHERE seen_at > 0 AND status IN {RUNNING})"  # noqa: S608 — constants
SAID: Final = frozenset(("completed", "incomplete"))  # what others have said is no part of a conversation
LOST: Final = Problem("server_error", "The process that made this response ended before the response did")

_list: Final = msgspec.json.Decoder(list[Raw])


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One response. `request` are the items that came with it, `before` where its conversation ended then."""

    id: str
    owner: str
    created_at: float
    status: Status
    background: bool = False
    previous_id: str | None = None
    conversation_id: str | None = None
    before: int | None = None
    seen_at: float | None = None
    cancelled: bool = False
    request: bytes
    response: bytes

    @property
    def running(self) -> bool:
        return self.status in RUNNING


class Conversation(msgspec.Struct, frozen=True):
    id: str
    owner: str
    created_at: float
    metadata: bytes

    def shown(self) -> dict[str, object]:
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": int(self.created_at),
            "metadata": Raw(self.metadata),
        }


def owner_of(key: Key) -> str:
    """Whose what a key makes is: its team's, or its own."""
    return f"key {key.id}" if key.team_id is None else f"team {key.team_id}"


# Responses


def save(tx: Connection, one: Stored) -> None:
    """A new one."""
    tx.execute(insert(responses).values(msgspec.structs.asdict(one)))


def end(tx: Connection, one: Stored) -> Status | None:
    """How one that was running until now has ended: what others were told, that it is cancelled, it is. None if it is gone or given up."""
    columns = responses.c
    told = altered(one.response, "cancelled", None)
    changed = (
        update(responses)
        .where(columns.id == one.id, columns.status.in_(RUNNING))
        .values(
            status=case((columns.cancelled, "cancelled"), else_=one.status),
            response=case((columns.cancelled, told), else_=one.response),
            seen_at=one.seen_at,
        )
        .returning(columns.status)
    )
    status: Status | None = tx.execute(changed).scalar_one_or_none()
    return status


def find(tx: Connection, owner: str, id_: str) -> Stored | None:
    row = tx.execute(select(responses).where(responses.c.id == id_, responses.c.owner == owner)).one_or_none()
    return None if row is None else _stored(row)


def get(tx: Connection, owner: str, id_: str) -> Stored:
    """Raises NotFound."""
    found = find(tx, owner, id_)
    if found is None:
        raise errors.NotFound(f"Response with id '{id_}' not found.", param="id", code="response_not_found")
    return found


def remove(tx: Connection, owner: str, id_: str) -> Stored:
    """Raises NotFound."""
    found = get(tx, owner, id_)
    _forget(tx, [id_])
    return found


def history(tx: Connection, owner: str, id_: str) -> list[Raw]:
    """Everything that was said up to the end of a response, oldest first. Raises BadRequest where a part of it is gone."""
    turns: list[list[Raw]] = []
    size = 0
    wanted: str | None = id_
    while wanted is not None:
        one = find(tx, owner, wanted)
        if one is None:
            raise errors.BadRequest(
                f"Previous response with id '{wanted}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        if one.running:
            raise errors.BadRequest(
                f"The response '{wanted}' is still in progress",
                param="previous_response_id",
                code="response_in_progress",
            )
        said = output_of(one.response) if one.status in SAID else []
        turns.append([*_list.decode(one.request), *said])
        size += len(one.request) + len(one.response)
        if one.conversation_id is not None:
            turns.append(items_of(tx, one.conversation_id, before=one.before))
        wanted = one.previous_id
        if len(turns) > LONGEST_CHAIN or sum(map(len, turns)) > MAX_ITEMS or size > MAX_BYTES:
            raise _too_much("previous_response_id")
    return [item for turn in reversed(turns) for item in turn]


def inputs(tx: Connection, owner: str, id_: str) -> list[Raw]:
    """Every item that a response was made from. Raises NotFound."""
    one = get(tx, owner, id_)
    before = [] if one.previous_id is None else history(tx, owner, one.previous_id)
    if one.conversation_id is not None:
        before = items_of(tx, one.conversation_id, before=one.before)
    return [*before, *_list.decode(one.request)]


def seen(tx: Connection, ids: Sequence[str], now: float) -> set[str]:
    """Renews what this process runs; tells which of it somebody wants to end, or has deleted."""
    mine = responses.c.id.in_(ids)
    tx.execute(update(responses).where(mine, responses.c.status.in_(RUNNING)).values(seen_at=now))
    going = select(responses.c.id).where(mine, responses.c.status.in_(RUNNING), ~responses.c.cancelled)
    return set(ids) - set(tx.execute(going).scalars())


def ask_to_stop(tx: Connection, id_: str) -> bool:
    """Whether it was still running: from now on it ends as cancelled."""
    running = (responses.c.id == id_) & responses.c.status.in_(RUNNING)
    return tx.execute(update(responses).where(running).values(cancelled=True)).rowcount == 1


def any_lost(tx: Connection, unseen_since: float, mine: Collection[str]) -> bool:
    """Whether `give_up` has something to do."""
    return tx.execute(select(responses.c.id).where(*_lost(unseen_since, mine)).limit(1)).one_or_none() is not None


def give_up(tx: Connection, unseen_since: float, mine: Collection[str]) -> int:
    """Ends what nobody runs any longer, honestly: it failed. How many there were. `mine` are those that the asker does run."""
    columns = responses.c
    lost = tx.execute(select(responses).where(*_lost(unseen_since, mine)).limit(PRUNED_AT_ONCE)).all()
    for row in lost:
        status: Status = "cancelled" if row.cancelled else "failed"
        ended = altered(row.response, status, None if row.cancelled else LOST)
        unchanged = (columns.id == row.id) & (columns.seen_at == row.seen_at) & columns.status.in_(RUNNING)
        tx.execute(update(responses).where(unchanged).values(status=status, response=ended, seen_at=None))
    return len(lost)


def _lost(unseen_since: float, mine: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    columns = responses.c
    return columns.seen_at < unseen_since, columns.status.in_(RUNNING), columns.id.not_in(mine)


def add_events(tx: Connection, id_: str, last: int, events: bytes) -> None:
    """Nothing, where the response was deleted meanwhile."""
    if tx.execute(select(responses.c.id).where(responses.c.id == id_)).one_or_none() is not None:
        tx.execute(insert(response_events).values(response_id=id_, last=last, events=events))


def events_after(tx: Connection, id_: str, last: int) -> list[tuple[int, bytes]]:
    """The parts of a response's events that hold some with a higher number than `last`."""
    columns = response_events.c
    query = select(columns.last, columns.events).where(columns.response_id == id_, columns.last > last)
    return [(row.last, row.events) for row in tx.execute(query.order_by(columns.last))]


def forget(tx: Connection, before: float) -> None:
    """Deletes responses that are older than `before`, in Unix seconds."""
    query = select(responses.c.id).where(responses.c.created_at < before).limit(PRUNED_AT_ONCE)
    while ids := tx.execute(query).scalars().all():
        _forget(tx, ids)


def _forget(tx: Connection, ids: Sequence[str]) -> None:
    tx.execute(delete(response_events).where(response_events.c.response_id.in_(ids)))
    tx.execute(delete(responses).where(responses.c.id.in_(ids)))


def _stored(row: Row[Any]) -> Stored:
    return Stored(**row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for a row's mapping


# Conversations


def create(tx: Connection, one: Conversation, items: Sequence[Raw]) -> None:
    tx.execute(insert(conversations).values(msgspec.structs.asdict(one)))
    extend(tx, one.id, items)


def conversation(tx: Connection, owner: str, id_: str, *, locked: bool = False) -> Conversation:
    """`locked`: nobody else adds to it before this transaction ends. Raises NotFound."""
    query = select(conversations).where(conversations.c.id == id_, conversations.c.owner == owner)
    row = tx.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise errors.NotFound(f"Conversation with id '{id_}' not found.", param="id", code="conversation_not_found")
    return Conversation(row.id, row.owner, row.created_at, row.metadata)


def set_metadata(tx: Connection, owner: str, id_: str, metadata: bytes) -> Conversation:
    """Raises NotFound."""
    found = conversation(tx, owner, id_)
    tx.execute(update(conversations).where(conversations.c.id == id_).values(metadata=metadata))
    return msgspec.structs.replace(found, metadata=metadata)


def remove_conversation(tx: Connection, owner: str, id_: str) -> None:
    """With its items; responses that were part of it stay. Raises NotFound."""
    conversation(tx, owner, id_)
    tx.execute(delete(conversation_items).where(conversation_items.c.conversation_id == id_))
    tx.execute(delete(conversations).where(conversations.c.id == id_))


def items_of(tx: Connection, id_: str, *, before: int | None = None) -> list[Raw]:
    """In order; those that were there before place `before`. Raises BadRequest where they are too much to read at once."""
    columns = conversation_items.c
    size = select(func.sum(func.length(columns.item))).where(columns.conversation_id == id_)
    if (tx.execute(size).scalar_one() or 0) > MAX_BYTES:
        raise _too_much("conversation")
    query = select(columns.item).where(columns.conversation_id == id_).order_by(columns.place)
    if before is not None:
        query = query.where(columns.place < before)
    return [Raw(item) for item in tx.execute(query).scalars()]


def end_of(tx: Connection, id_: str) -> int:
    """The place of the next item."""
    place = func.max(conversation_items.c.place)
    last = tx.execute(select(place).where(conversation_items.c.conversation_id == id_)).scalar_one()
    return 0 if last is None else int(last) + 1


def extend(tx: Connection, id_: str, items: Iterable[Raw]) -> None:
    """Adds items at the end. Inside a transaction that has the conversation to itself."""
    start = end_of(tx, id_)
    rows = [
        {"conversation_id": id_, "place": start + number, "id": id_of(item), "item": bytes(item)}
        for number, item in enumerate(items)
    ]
    if rows:
        tx.execute(insert(conversation_items), rows)


def append(tx: Connection, owner: str, id_: str, items: Iterable[Raw]) -> None:
    """The same with the lock. Nothing, where the conversation is gone."""
    try:
        conversation(tx, owner, id_, locked=True)
    except errors.NotFound:
        return
    extend(tx, id_, items)


def item(tx: Connection, id_: str, item_id: str) -> Raw:
    """Raises NotFound."""
    columns = conversation_items.c
    query = select(columns.item).where(columns.conversation_id == id_, columns.id == item_id)
    found = tx.execute(query.order_by(columns.place).limit(1)).scalar_one_or_none()
    if found is None:
        raise errors.NotFound(f"There is no item '{item_id}' here", param="item_id", code="item_not_found")
    return Raw(found)


def remove_item(tx: Connection, id_: str, item_id: str) -> None:
    """Raises NotFound."""
    item(tx, id_, item_id)
    columns = conversation_items.c
    tx.execute(delete(conversation_items).where(columns.conversation_id == id_, columns.id == item_id))


def new_conversation(id_: str, owner: str, metadata: Raw) -> Conversation:
    return Conversation(id_, owner, time.time(), bytes(metadata) if metadata else encode({}))


def _too_much(param: str) -> errors.BadRequest:
    most = f"{MAX_ITEMS} items or {MAX_BYTES} bytes"
    return errors.BadRequest(f"The conversation has more than {most}", param=param, code="too_many_items")
