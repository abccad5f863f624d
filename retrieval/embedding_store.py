"""Vectors of passages by version: the first one's stand with the bodies, later ones in a table of their own.

Every function takes its transaction. What is written to a collection is written under its lock.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, FromClause, delete, func, insert, select, update
from sqlalchemy.sql.elements import KeyedColumnElement

from retrieval.spaces import FIRST
from retrieval.tables import passage_bodies, passage_embeddings, passages

TOGETHER: Final = 500  # passages of one statement
NOTHING: Final = b""

_Passage, _Body, _Vector = passages.c, passage_bodies.c, passage_embeddings.c


class Missing(msgspec.Struct, frozen=True):
    """A passage that has no vector of a version; `text` is what is embedded of it."""

    id: int
    text: str


def embedded(heading: Sequence[str], context: str, text: str) -> str:
    """What of a passage has a vector, and an index of words: what it stands under, what a model said before it, itself."""
    return "\n".join((*heading, context, text) if context else (*heading, text))


def column(version: int) -> KeyedColumnElement[bytes]:
    """Where the vectors of a version stand, in what `joined` gives."""
    return _Body.vector if version == FIRST else _Vector.vector


def joined(collection_id: str, version: int) -> FromClause:
    """Passages with their bodies and their vectors of a version; those without one are not in it."""
    bodies = passages.join(passage_bodies, _Body.passage_id == _Passage.id)
    return bodies if version == FIRST else bodies.join(passage_embeddings, _same(collection_id, version))


def has(collection_id: str, version: int) -> ColumnElement[bool]:
    """Of a passage: whether it has a vector of the version."""
    if version == FIRST:
        body = select(_Body.passage_id).where(_Body.passage_id == _Passage.id, _Body.vector != NOTHING)
        return body.correlate(passages).exists()
    return select(_Vector.passage_id).where(_same(collection_id, version)).correlate(passages).exists()


def add(tx: Connection, collection_id: str, version: int, vectors: Mapping[int, bytes]) -> None:
    """Of passages that are there and have none of the version yet."""
    if not vectors:
        return
    if version == FIRST:
        for id_, vector in vectors.items():
            tx.execute(update(passage_bodies).where(_Body.passage_id == id_).values(vector=vector))
        return
    of_it = {"collection_id": collection_id, "version": version}
    tx.execute(insert(passage_embeddings), [{**of_it, "passage_id": id_, "vector": v} for id_, v in vectors.items()])


def missing(
    tx: Connection, collection_id: str, version: int, after: int, limit: int, edition: int = FIRST
) -> Sequence[Missing]:
    """Published passages of the version's edition behind `after` that have none, by id."""
    query = (
        select(_Passage.id, _Body.heading, _Body.context, _Body.text)
        .join(passage_bodies, _Body.passage_id == _Passage.id)
        .where(
            _Passage.collection_id.concat("") == collection_id
        )  # no index for it: by id, each page goes on behind the last
        .where(_Passage.generation.is_not(None), _Passage.edition == edition)
        .where(~has(collection_id, version), _Passage.id > after)
        .order_by(_Passage.id)
        .limit(limit)
    )
    return [Missing(id_, embedded(*of_it)) for id_, *of_it in tx.execute(query)]


def still_missing(
    tx: Connection, collection_id: str, version: int, ids: Sequence[int], edition: int = FIRST
) -> Sequence[int]:
    """Those of them that are published and have none."""
    query = select(_Passage.id).where(*_lacking(collection_id, version, edition), _Passage.id.in_(ids))
    return tx.execute(query).scalars().all()


def any_missing(
    tx: Connection, collection_id: str, version: int, document_id: int | None = None, edition: int = FIRST
) -> bool:
    """Whether a published passage, of a document or of any, has none."""
    query = select(_Passage.id).where(*_lacking(collection_id, version, edition))
    if document_id is not None:
        query = query.where(_Passage.document_id == document_id)
    return tx.execute(query.limit(1)).first() is not None


def number(tx: Connection, collection_id: str, version: int, edition: int = FIRST) -> int:
    """How many published passages of the edition have one."""
    published = (_Passage.collection_id == collection_id) & _Passage.generation.is_not(None)
    published &= _Passage.edition == edition
    query = select(func.count()).select_from(passages).where(published, has(collection_id, version))
    return int(tx.execute(query).scalar_one())


def drop(tx: Connection, collection_id: str, version: int) -> bool:
    """Some of a version's vectors, for good; whether there are more."""
    if version == FIRST:
        kept = select(_Passage.id).join(passage_bodies, _Body.passage_id == _Passage.id)
        some = kept.where(_Passage.collection_id == collection_id, _Body.vector != NOTHING).limit(TOGETHER)
        ids = tx.execute(some).scalars().all()
        tx.execute(update(passage_bodies).where(_Body.passage_id.in_(ids)).values(vector=NOTHING))
        return len(ids) == TOGETHER
    mine = (_Vector.collection_id == collection_id) & (_Vector.version == version)
    ids = tx.execute(select(_Vector.passage_id).where(mine).limit(TOGETHER)).scalars().all()
    tx.execute(delete(passage_embeddings).where(mine, _Vector.passage_id.in_(ids)))
    return len(ids) == TOGETHER


def _lacking(collection_id: str, version: int, edition: int) -> tuple[ColumnElement[bool], ...]:
    published: tuple[ColumnElement[bool], ...] = (
        _Passage.collection_id == collection_id,
        _Passage.generation.is_not(None),
        _Passage.edition == edition,
    )
    return (*published, ~has(collection_id, version))


def _same(collection_id: str, version: int) -> Any:
    return (_Vector.collection_id == collection_id) & (_Vector.version == version) & (_Vector.passage_id == _Passage.id)
