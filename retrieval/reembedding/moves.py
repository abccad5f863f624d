"""What people do with a re-embedding: begin it, lend it to a canary, swap, roll back, finish, cancel, go on. Each is one transaction.

Everything is decided under the collection's lock, where documents are published as well, so that what is swapped is whole.
"""

from collections.abc import Sequence
from typing import NoReturn

import msgspec
from sqlalchemy import Connection, select

from retrieval import collection_store, cut_store, document_store, embedding_store
from retrieval.chunking_strategy import Chunking
from retrieval.collection_store import Collection
from retrieval.database import locked_for, now
from retrieval.errors import BadRequest, Conflict, NotFound
from retrieval.reembedding import store
from retrieval.reembedding.record import BEFORE_SWAP, Gate, Reembedding, State, Terms
from retrieval.spaces import Space
from retrieval.tables import documents


def begin(
    tx: Connection, collection_id: str, wanted: Space, payer: str, terms: Terms, chunking: Chunking | None = None
) -> Reembedding:
    """`wanted` without its version and edition; with a `chunking` all documents are cut anew. Raises NotFound, Conflict, BadRequest."""
    locked_for(tx, collection_id)
    collection = _collection(tx, collection_id)
    there = store.beside(tx, collection_id)
    if there is not None:
        way = "finish it or roll it back" if there.state == "swapped" else "cancel it"
        raise Conflict(f"{there.id} is {there.state}: {way} first", code="reembedding_under_way")
    if terms.gate is not None:
        _require_answers(tx, collection, terms.gate)
    for each in store.leftovers(tx, collection_id):
        store.put(tx, each.id, state="cancelled")
    version = store.last_version(tx, collection) + 1
    if chunking is None:
        after = msgspec.structs.replace(
            wanted, version=version, edition=collection.edition, chunking=collection.chunking
        )
        return store.add(tx, collection, after, payer, terms)
    after = msgspec.structs.replace(wanted, version=version, edition=version, chunking=chunking)
    cut_store.begin(tx, collection_id, version, chunking)
    return store.add(tx, collection, after, payer, terms)


def lend(tx: Connection, collection_id: str, id_: str, share: float, keys: Sequence[str]) -> Reembedding:
    """To a share of keys and to some by name; to nobody again with 0 and none. Raises NotFound, Conflict."""
    found = _found(tx, collection_id, id_)
    if found.state not in BEFORE_SWAP:
        _refuse(found, "has no canary")
    wanted = store.put(tx, id_, canary_share=share, canary_keys=list(keys))
    if found.state == "backfilling":  # it begins when all of it is there
        return wanted
    _require_gate(found, force=False)
    collection_store.lend(tx, collection_id, wanted.canary if wanted.has_canary else None)
    return store.put(tx, id_, state="canary" if wanted.has_canary else "ready")


def promote(tx: Connection, collection_id: str, id_: str, *, force: bool) -> Reembedding:
    """From this commit on all searches read the new version. `force`: whatever the gate says. Raises NotFound, Conflict."""
    found = _found(tx, collection_id, id_)
    if found.state not in ("ready", "canary"):
        _refuse(found, "cannot be swapped")
    _require_whole(found)
    _require_gate(found, force=force)
    return swap(tx, found)


def swap(tx: Connection, found: Reembedding) -> Reembedding:
    """Of one that is ready, under the collection's lock."""
    before = _collection(tx, found.collection_id).space
    collection_store.settle(tx, found.collection_id, found.after)
    return store.put(tx, found.id, state="swapped", before=before, swapped_at=now(tx), attempts=0, reason=None)


def roll_back(tx: Connection, collection_id: str, id_: str, reason: str | None) -> Reembedding:
    """The old version for all, at once. Raises NotFound, Conflict."""
    found = _found(tx, collection_id, id_)
    if found.state == "swapped":
        _require_whole(found)
        collection_store.settle(tx, collection_id, found.before)
    elif found.state == "canary":
        collection_store.lend(tx, collection_id, None)
    else:
        _refuse(found, "cannot be rolled back")
    return _end(tx, found, "rolled_back", reason)


def finish(tx: Connection, collection_id: str, id_: str, reason: str | None = None) -> Reembedding:
    """Without a way back. Raises NotFound, Conflict."""
    found = _found(tx, collection_id, id_)
    if found.state != "swapped":
        _refuse(found, "is not swapped")
    return _end(tx, found, "finished", reason)


def cancel(tx: Connection, collection_id: str, id_: str, reason: str | None = None) -> Reembedding:
    """Raises NotFound, Conflict."""
    found = _found(tx, collection_id, id_)
    if found.state not in (*BEFORE_SWAP, "failed"):
        _refuse(found, "cannot be cancelled")
    collection_store.lend(tx, collection_id, None)
    return _end(tx, found, "cancelled", reason)


def resume(tx: Connection, collection_id: str, id_: str) -> Reembedding:
    """Of one that failed: what was embedded is not embedded again. Raises NotFound, Conflict."""
    found = _found(tx, collection_id, id_)
    if found.state != "failed" or found.collected:
        _refuse(found, "has not failed")
    if found.apart and found.after.chunking is not None:  # what came since, as nothing was written beside it
        cut_store.begin(tx, collection_id, found.after.edition, found.after.chunking)
    return store.put(
        tx,
        id_,
        state="backfilling",
        behind=True,
        reason=None,
        cursor=0,
        attempts=0,
        not_before=now(tx),
        ended_at=None,
        verdict=None,
    )


def fail(tx: Connection, found: Reembedding, reason: str) -> Reembedding:
    """Under the collection's lock. What is read stays as it is: of one that is swapped, the way back is lost."""
    if found.state == "swapped":
        return _end(tx, found, "finished", f"The old version could not be kept up to date: {reason}")
    collection_store.lend(tx, found.collection_id, None)
    return _end(tx, found, "failed", reason)


def done(tx: Connection, found: Reembedding) -> int:
    """How many published passages have a vector of the new version."""
    return embedding_store.number(tx, found.collection_id, found.after.version, found.after.edition)


def cut(tx: Connection, found: Reembedding) -> tuple[int, int]:
    """How many documents there are to be cut anew, and how many are."""
    return cut_store.counts(tx, found.collection_id, _beside(found))


def kept(tx: Connection, found: Reembedding, limit: int) -> Sequence[cut_store.Kept]:
    """Those that are not cut anew, but as they were."""
    return cut_store.kept(tx, found.collection_id, _beside(found), limit) if found.apart else ()


def _beside(found: Reembedding) -> int:
    """The edition whose cuts stand beside the documents: which say in whichever is not read what is said of them."""
    return found.unread.edition


def _end(tx: Connection, found: Reembedding, state: State, reason: str | None) -> Reembedding:
    free = {"owner": None, "host": None, "seen_at": None, "epoch": found.epoch + 1}
    return store.put(tx, found.id, state=state, reason=reason, ended_at=now(tx), **free)


def _found(tx: Connection, collection_id: str, id_: str) -> Reembedding:
    locked_for(tx, collection_id)
    _collection(tx, collection_id)
    found = store.by_id(tx, collection_id, id_)
    if found is None:
        raise NotFound(f"There is no re-embedding {id_!r} of {collection_id!r}", code="reembedding_not_found")
    return found


def _collection(tx: Connection, id_: str) -> Collection:
    found = collection_store.by_id(tx, id_)
    if found is None:
        raise NotFound(f"There is no collection {id_!r}", param="id", code="collection_not_found")
    return found


def _require_whole(found: Reembedding) -> None:
    if found.behind:
        raise Conflict(
            f"Version {found.unread.version} lacks passages that came since, and is catching up: try again soon",
            code="reembedding_behind",
        )


def _require_gate(found: Reembedding, *, force: bool) -> None:
    if found.verdict is not None and not found.verdict.passed and not force:
        raise Conflict(f"The quality gate failed: {found.verdict.reason}", param="force", code="gate_failed")


def _require_answers(tx: Connection, collection: Collection, gate: Gate) -> None:
    """A question that nothing can answer would let anything pass. Raises BadRequest."""
    ids = sorted({each.id for asked in gate.queries for each in asked.relevant})
    there: set[str] = set()
    for start in range(0, len(ids), 500):
        query = select(documents.c.source_id).where(
            documents.c.collection_id == collection.id,
            documents.c.source_id.in_(ids[start : start + 500]),
            documents.c.passages > 0,
        )
        there.update(tx.execute(query).scalars())
    for number, asked in enumerate(gate.queries):
        if not any(each.id in there and each.grade > 0 for each in asked.relevant):
            raise BadRequest(
                f"gate.queries.{number}: none of its files has passages in {collection.id}",
                param=f"gate.queries.{number}.relevant",
            )
    if collection.tenancy is None:
        return
    whose = document_store.tenants_of(tx, collection.id, ids)
    for number, asked in enumerate(gate.queries):
        if len({whose[each.id] for each in asked.relevant if each.id in whose}) > 1:
            raise BadRequest(
                f"gate.queries.{number}: its files are of several tenants, and a question is asked of one",
                param=f"gate.queries.{number}.relevant",
            )


def _refuse(found: Reembedding, what: str) -> NoReturn:
    raise Conflict(f"{found.id} {what}: it is {found.state.replace('_', ' ')}", code="reembedding_state")
