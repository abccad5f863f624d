"""What a collection's index will take, before it is built: measured on a sample of its own vectors with its own engine, and scaled up."""

import tempfile
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from retrieval import document_store, passage_store
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.index import artefact, building
from retrieval.index.engines import SERVERS, Engines
from retrieval.index.planner import EXACT_WORK
from retrieval.index.ports import NotMade
from retrieval.index.texts import packed
from retrieval.passage_store import Indexed
from retrieval.shown import copied

SAMPLE: Final = 2000
LEAST: Final = 200  # of which a graph says something
ROW_BYTES: Final = 16  # the ids of a passage and of its document


class Advice(msgspec.Struct, frozen=True):
    """`artefact_bytes` on the disk, of vectors and ids, and about `texts_bytes` of what is shown. A graph is made where `graph_wanted`: of
    `graph_bytes`, in `build_seconds`, both scaled up from `sampled` rows, None where there were too few, or the engine could not make
    one: then `note` says why.
    """

    rows: int
    dimensions: int | None
    engine: str | None
    graph_wanted: bool
    artefact_bytes: int
    sampled: int = 0
    graph_bytes: int | None = None
    build_seconds: float | None = None
    note: str | None = None
    texts_bytes: int = 0


def advise(database: Database, engines: Engines, collection: Collection, rows: int | None = None) -> Advice:
    """Blocks for seconds. `rows`: for so many passages, instead of those that there are. Where there are tenants: of the largest one."""
    tenancy = collection.tenancy
    with database.reading() as tx:
        if tenancy is None:
            there = passage_store.number(tx, collection.id, collection.edition)
        else:
            there = max((each.passages for each in document_store.partitions(tx, collection.id)), default=0)
        found = passage_store.indexed(tx, collection.id, 0, SAMPLE, collection.version, collection.edition)
        some = next(found, ())
        shown = copied(tx, collection.id, [each.id for each in some[:LEAST]])
    count, dimensions = there if rows is None else rows, collection.dimensions
    engine = engines.chosen(collection.engine, collection.quantization, apart=tenancy is not None)
    wanted = engine is not None and (
        count * (dimensions or 0) > EXACT_WORK if tenancy is None else count >= tenancy.promote_at
    )
    known = Advice(count, dimensions, engine, wanted, count * (4 * (dimensions or 0) + ROW_BYTES))
    if shown:
        places = bytearray()
        size = sum(map(len, packed([shown], places))) + len(places)
        known = msgspec.structs.replace(known, texts_bytes=size * count // len(shown))
    if engine is None:
        return msgspec.structs.replace(known, note="Everything is compared: there is no graph to build")
    if len(some) < LEAST:
        return msgspec.structs.replace(known, note=f"A sample needs {LEAST} passages, and there are {len(some)}")
    task = building.Wanted(engine, engines.settings, collection.quantization, f"advice_{collection.id}")
    try:
        seconds, size = _tried(some, task)
    except NotMade as error:
        return msgspec.structs.replace(known, note=f"{engine}: {error}")
    finally:
        if engine in SERVERS:
            engines.drop(task.collection_id)
    more = count / len(some)
    return msgspec.structs.replace(
        known,
        sampled=len(some),
        graph_bytes=int(size * more) if engine in ("hnswlib", "faiss", "qdrant_edge") else None,
        build_seconds=round(seconds * more * max(1.0, log(max(count, 2)) / log(len(some))), 1),
    )


def _tried(some: Sequence[Indexed], task: building.Wanted) -> tuple[float, int]:
    vectors = np.frombuffer(b"".join(each.vector for each in some), "<f4").reshape(len(some), -1)
    ids = np.fromiter((each.id for each in some), np.int64, len(some))
    documents = np.fromiter((each.document_id for each in some), np.int64, len(some))
    with tempfile.TemporaryDirectory(prefix="penstock-advice-") as name:
        return building.tried(Path(name), artefact.write(Path(name), 1, [vectors], ids, documents), task)
