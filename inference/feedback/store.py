"""SQL of feedback. Every function takes the transaction that it works in."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, select

from inference.database import inserting
from inference.feedback.word import Word
from inference.rollouts.tables import feedback

Subject: TypeAlias = Literal["request", "prediction", "search"]

MOST_SOURCES: Final = 100  # that speak of one id
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


class Taken(NamedTuple):
    """Words as they are from now on, those of them that say something new, and those for which there is no room."""

    kept: list[Kept]
    fresh: list[Kept]
    refused: list[Kept]


def keep(tx: Connection, words: Sequence[Kept]) -> Taken:
    """A source has one word on an id. What it says later counts, and what it does not say again stays: a comment leaves the score."""
    known = {(one.word.id, one.word.source): one for one in _known(tx, list({one.word.id for one in words}))}
    sources = Counter(id_ for id_, _ in known)
    after, fresh, refused = dict[tuple[str, str], Kept](), dict[tuple[str, str], Kept](), list[Kept]()
    for one in words:
        who = one.word.id, one.word.source
        before = after.get(who) or known.get(who)
        if before is None:
            if sources[one.word.id] >= MOST_SOURCES:
                refused.append(one)
                continue
            sources[one.word.id] += 1
            after[who] = fresh[who] = one
            continue
        word = _merged(before.word, one.word)
        after[who] = before
        if word != before.word:
            said = msgspec.structs.replace(one, word=word, number=before.number, created_at=before.created_at)
            after[who] = fresh[who] = said
    _write(tx, list(fresh.values()))
    return Taken(list(after.values()), list(fresh.values()), refused)


def _merged(before: Word, word: Word) -> Word:
    return Word(
        word.id,
        word.source,
        before.label if word.label is None else word.label,
        before.score if word.score is None else word.score,
        before.comment if word.comment is None else word.comment,
    )


def _write(tx: Connection, fresh: Sequence[Kept]) -> None:
    fill = inserting(tx.dialect.name)
    for start in range(0, len(fresh), _AT_ONCE):
        adding = fill(feedback)
        over = {name: adding.excluded[name] for name in ("label", "score", "comment", "key_id", "updated_at")}
        tx.execute(
            adding.on_conflict_do_update(index_elements=["id", "source"], set_=over),
            [_values(one) for one in fresh[start : start + _AT_ONCE]],
        )


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
