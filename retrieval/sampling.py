"""A sample of what a collection holds, for whoever looks at how it is spread: one passage of each of some documents, as vectors."""

from typing import Protocol

import msgspec
import numpy as np
from sqlalchemy import Connection

from retrieval import passage_store
from retrieval.collection_store import Collection
from retrieval.index.ports import Vector, Vectors
from retrieval.index.state import State


class Asked(Protocol):
    """Hears of questions while they are searched for: a collection, the version of its vectors that is read, and the question as one."""

    def __call__(self, collection_id: str, version: int, vector: Vector, /) -> None: ...


class Sampled(msgspec.Struct, frozen=True):
    """`vectors` float32 `[documents, dimensions]`; `newest`: the id of the newest passage that there was."""

    version: int
    newest: int
    vectors: Vectors


def drawn(version: int, state: State, after: int, most: int, random: np.random.Generator) -> Sampled:
    """Of documents with passages behind `after`. Passages of one document are alike, so each has one."""
    newest = int(state.ids.max()) if state.rows else after
    wanted = state.ids > after
    if state.alive is not None:
        wanted &= state.alive
    slots = random.permutation(np.flatnonzero(wanted))
    _, firsts = np.unique(state.owners[slots], return_index=True)
    chosen = slots[random.permutation(firsts)[:most]]
    if state.matrix is None:
        return Sampled(version, newest, np.zeros((0, 0), np.float32))
    return Sampled(version, newest, state.matrix.pick(chosen))


def drawn_from(tx: Connection, collection: Collection, after: int, most: int, random: np.random.Generator) -> Sampled:
    """The same of a collection that has no index of all of it: from the truth."""
    published = passage_store.published_after(tx, collection.id, after, collection.edition)
    pairs = np.array(published, np.int64).reshape(-1, 2)
    newest = int(pairs[:, 0].max()) if len(pairs) else after
    _, firsts = np.unique((mixed := random.permutation(pairs))[:, 1], return_index=True)
    ids = mixed[random.permutation(firsts)[:most], 0].tolist()
    found = passage_store.vectors(tx, ids, collection.id, collection.version)
    vectors = [np.frombuffer(each, "<f4") for each in found.values()]
    return Sampled(collection.version, newest, np.stack(vectors) if vectors else np.zeros((0, 0), np.float32))


def nobody(_collection_id: str, _version: int, _vector: Vector) -> None:
    """Nobody listens."""
