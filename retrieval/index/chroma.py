"""Chroma by its official client, over HTTP: a copy is a collection whose metadata has the document of each vector.

Its effort is fixed when a copy is made. Its client waits for ever, so the server is asked by a plain request whether it is there before
the client asks anything, and the client's connection is given a timeout.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final, final

import httpx
import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.copies import Copies, Kind
from retrieval.index.ports import Rows, Vector
from retrieval.index.settings import EngineSettings

LINKS: Final = 24
BUILD_EFFORT: Final = 200
EFFORT: Final = 400
TOGETHER: Final = 1000
FIELD: Final = "document"


def engine(settings: EngineSettings) -> Copies:
    library()
    return Copies(
        Kind("chroma", "Chroma", lambda timeout_s: Chroma(settings, timeout_s), _failures), settings.timeout_s
    )


@final
class Chroma:
    """A `Store`."""

    def __init__(self, settings: EngineSettings, timeout_s: float) -> None:
        url = httpx.URL(settings.chroma_url or "")
        token = settings.chroma_token
        headers = {} if token is None else {"authorization": f"Bearer {token}", "x-chroma-token": token}
        httpx.get(url.copy_with(path="/api/v2/heartbeat"), headers=headers, timeout=timeout_s).raise_for_status()
        chromadb = library()
        self._client = chromadb.HttpClient(
            host=url.host,
            port=url.port or (443 if url.scheme == "https" else 8000),
            ssl=url.scheme == "https",
            headers=headers,
            settings=chromadb.Settings(anonymized_telemetry=False),
        )
        self._client._server._session.timeout = httpx.Timeout(timeout_s)  # noqa: SLF001 — there is no other way to one
        self._known: dict[str, Any] = {}

    def names(self) -> Sequence[str]:
        names: list[str] = []
        while some := self._client.list_collections(limit=500, offset=len(names)):
            names += [each.name for each in some]
        return names

    def count(self, name: str) -> int:
        return int(self._collection(name).count())

    def make(self, name: str, rows: Rows) -> None:
        graph = {"space": "ip", "max_neighbors": LINKS, "ef_construction": BUILD_EFFORT, "ef_search": EFFORT}
        collection = self._client.create_collection(name, embedding_function=None, configuration={"hnsw": graph})
        most = min(TOGETHER, self._client.get_max_batch_size())
        for start in range(0, len(rows.ids), most):
            part = slice(start, start + most)
            collection.add(
                ids=[str(id_) for id_ in rows.ids[part].tolist()],
                embeddings=np.asarray(rows.vectors[part]),
                metadatas=[{FIELD: of} for of in rows.documents[part].tolist()],
            )

    def remove(self, name: str) -> None:
        self._known.pop(name, None)
        self._client.delete_collection(name)

    def nearest(self, name: str, query: Vector, k: int, effort: int, documents: Sequence[int] | None) -> Sequence[int]:
        del effort
        only = None if documents is None else {FIELD: {"$in": list(documents)}}
        try:
            found = self._collection(name).query(query_embeddings=[query], n_results=k, where=only, include=[])
        except Exception:
            self._known.pop(name, None)  # it may be another one of that name by now
            raise
        return [int(id_) for id_ in found["ids"][0]]

    def close(self) -> None:
        """Its own `close` leaves connections open."""
        for client in (self._client, self._client._admin_client):  # noqa: SLF001 — as above
            client._server._session.close()  # noqa: SLF001 — as above
        self._client.close()

    def _collection(self, name: str) -> Any:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._client.get_collection(name, embedding_function=None)
        return known


def library() -> ModuleType:
    """Raises Unavailable."""
    try:
        import chromadb  # noqa: PLC0415 — an extra; seconds of imports
    except ImportError as error:
        raise Unavailable("The engine chroma needs its client: install the extra `chroma`") from error
    found: ModuleType = chromadb
    return found


def _failures() -> tuple[type[Exception], ...]:
    from chromadb.errors import ChromaError  # noqa: PLC0415 — an extra

    return ChromaError, httpx.HTTPError, OSError, ValueError
