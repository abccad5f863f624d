"""SQL of feedback. Every function takes the transaction that it works in."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, select

from inference.database import inserting
from inference.feedback.word import Word
from inference.rollouts.tables import feedback

Subject: TypeAlias = Literal["request", "prediction", "search"]

_AT_ONCE = 300  # rows of one statement


class Owner(msgspec.Struct, frozen=True):
    """Whose key has said it, and of what."""

    kind: Subject
    key_id: str | None
    team_id: str | None
    org_id: str | None


class Kept(msgspec.Struct, frozen=True):
    """`number` sorts by when it was first said; times are Unix seconds."""

    number: str
    word: Word
    owner: Owner
    created_at: float
    updated_at: float


class Filter(msgspec.Struct, frozen=True):
    id: str | None = None
    kind: str | None = None
    source: str | None = None
    org_id: str | None = None
    team_id: str | None = None


def keep(tx: Connection, words: Sequence[Kept]) -> tuple[list[Kept], list[Kept]]:
    """As they are from now on, and those of them that say something new. The last of several by one source counts."""
    last = {(one.word.id, one.word.source): one for one in words}
    known = {(one.word.id, one.word.source): one for one in _known(tx, [id_ for id_, _ in last])}
    after, fresh = dict[tuple[str, str], Kept](), list[Kept]()
    for who, one in last.items():
        before = known.get(who)
        if before is not None and before.word == one.word:
            after[who] = before
            continue
        if before is not None:
            one = msgspec.structs.replace(one, number=before.number, created_at=before.created_at)  # noqa: PLW2901 — the same word, told again
        after[who] = one
        fresh.append(one)
    fill = inserting(tx.dialect.name)
    for start in range(0, len(fresh), _AT_ONCE):
        adding = fill(feedback)
        over = {name: adding.excluded[name] for name in ("label", "score", "comment", "key_id", "updated_at")}
        tx.execute(
            adding.on_conflict_do_update(index_elements=["id", "source"], set_=over),
            [_values(one) for one in fresh[start : start + _AT_ONCE]],
        )
    return list(after.values()), fresh


def listed(tx: Connection, limit: int, after: str | None, only: Filter) -> Sequence[Kept]:
    """Newest first; one more than `limit`, if there is one."""
    query = select(feedback).order_by(feedback.c.number.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(feedback.c.number < after)
    for name, value in msgspec.structs.asdict(only).items():
        if value is not None:
            query = query.where(feedback.c[name] == value)
    return [_kept(row) for row in tx.execute(query)]


def _known(tx: Connection, ids: Sequence[str]) -> list[Kept]:
    found: list[Kept] = []
    for start in range(0, len(ids), _AT_ONCE):
        query = select(feedback).where(feedback.c.id.in_(ids[start : start + _AT_ONCE]))
        found += [_kept(row) for row in tx.execute(query)]
    return found


def _values(one: Kept) -> dict[str, Any]:
    word, owner = one.word, one.owner
    return {
        "id": word.id,
        "source": word.source,
        "number": one.number,
        "kind": owner.kind,
        "label": word.label,
        "score": word.score,
        "comment": word.comment,
        "key_id": owner.key_id,
        "team_id": owner.team_id,
        "org_id": owner.org_id,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
    }


def _kept(row: Row[Any]) -> Kept:
    return Kept(
        row.number,
        Word(row.id, row.source, row.label, row.score, row.comment),
        Owner(row.kind, row.key_id, row.team_id, row.org_id),
        row.created_at,
        row.updated_at,
    )
