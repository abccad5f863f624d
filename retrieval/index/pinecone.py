"""Pinecone by its official client: a copy is a namespace of one index that is there already, of vectors with the cosine or the dot product.

The index is somebody's to pay for, so none is made or dropped here. What was written is found a while later: whoever made a copy waits
until all of it is.
"""

import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final, final

import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.copies import Copies, Kind
from retrieval.index.ports import NotMade, Rows, Vector
from retrieval.index.settings import EngineSettings

FIELD: Final = "document"
MOST_TOGETHER: Final = 500
MOST_NUMBERS: Final = 100_000  # of one request: 2 MB of JSON is what is taken
SETTLED_S: Final = 600.0
LOOK_S: Final = 0.2


def engine(settings: EngineSettings) -> Copies:
    library()
    kind = Kind("pinecone", "Pinecone", lambda timeout_s: Pinecone(settings, timeout_s), _failures)
    return Copies(kind, settings.timeout_s)


@final
class Pinecone:
    """A `Store`. Asks nothing yet."""

    def __init__(self, settings: EngineSettings, timeout_s: float) -> None:
        pinecone = library()
        # A search that has to be tried again is sooner compared here; a build that fails is tried again as a whole.
        once = pinecone.RetryConfig(max_retries=0)
        client = pinecone.Pinecone(api_key=settings.pinecone_api_key or "none", timeout=timeout_s, retry_config=once)
        self._index = client.index(host=settings.pinecone_url or "")

    def names(self) -> Sequence[str]:
        return list(self._told().namespaces)

    def count(self, name: str) -> int:
        known = self._told().namespaces.get(name)
        return 0 if known is None else int(known.vector_count)

    def make(self, name: str, rows: Rows) -> None:
        told, dimensions = self._told(), rows.vectors.shape[1]
        if told.dimension != dimensions:
            raise NotMade(f"Pinecone's index has {told.dimension} dimensions, the vectors have {dimensions}")
        if told.metric not in (None, "cosine", "dotproduct"):
            raise NotMade(f"Pinecone's index has the metric {told.metric}: it has to be cosine or dotproduct")
        together = max(1, min(MOST_TOGETHER, MOST_NUMBERS // dimensions))
        for start in range(0, len(rows.ids), together):
            part = slice(start, start + together)
            columns = rows.ids[part].tolist(), rows.documents[part].tolist(), np.asarray(rows.vectors[part]).tolist()
            some = [(str(id_), v, {FIELD: of}) for id_, of, v in zip(*columns, strict=True)]
            self._index.upsert(vectors=some, namespace=name, show_progress=False)
        until = time.monotonic() + SETTLED_S
        while self.count(name) != len(rows.ids) and time.monotonic() < until:
            time.sleep(LOOK_S)

    def remove(self, name: str) -> None:
        self._index.delete(delete_all=True, namespace=name)

    def nearest(self, name: str, query: Vector, k: int, effort: int, documents: Sequence[int] | None) -> Sequence[int]:
        del effort
        only = None if documents is None else {FIELD: {"$in": list(documents)}}
        found = self._index.query(top_k=k, vector=query.tolist(), namespace=name, filter=only)
        return [int(each.id) for each in found.matches]

    def close(self) -> None:
        self._index.close()

    def _told(self) -> Any:
        return self._index.describe_index_stats()


def library() -> ModuleType:
    """Raises Unavailable."""
    try:
        import pinecone  # noqa: PLC0415 — an extra
    except ImportError as error:
        raise Unavailable("The engine pinecone needs its client: install the extra `pinecone`") from error
    found: ModuleType = pinecone
    return found


def _failures() -> tuple[type[Exception], ...]:
    return library().PineconeError, OSError, ValueError
