"""Qdrant: a copy of an artefact's vectors as a collection of a Qdrant server, that every replica can search.

As with pgvector a copy never changes, and an alias names the newest one that is whole. The field that searches are narrowed by is
indexed before the first point is there: without that index a filtered search of an optimised collection misses what it should find.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, final

import httpx
import msgspec
import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.guard import Guard
from retrieval.index.ports import EngineAway, Hits, Ids, NotMade, Rows, Vector
from retrieval.index.settings import EngineSettings, Quantization
from retrieval.index.slots import SlotsOf

FIELD: Final = "document"
LINKS: Final = 16
BUILD_EFFORT: Final = 200
TOGETHER: Final = 512
PREFIX: Final = "penstock"
OVERSAMPLING: Final = {"int8": 1.5, "binary": 4.0}
BUILD_TIMEOUT_S: Final = 60
GREEN_S: Final = 3 * 3600.0
LOOK_S: Final = 0.5


class Copy(msgspec.Struct, frozen=True):
    """What the artefact's file says: where its graph is."""

    name: str
    generation: int


@final
class Qdrant:
    """A `GraphEngine`. `client` is for who has one already, and for the library's local mode."""

    name = "qdrant"

    def __init__(self, settings: EngineSettings, quantization: Quantization = "none", client: Any = None) -> None:
        self._settings = settings
        self._quantization = quantization
        self._client = client
        self._guard = Guard(self.name, _failures())

    def build(self, rows: Rows, path: Path, collection_id: str, generation: int) -> None:
        client, models = self._connected(BUILD_TIMEOUT_S), _library().models
        try:
            name = self._newer(client, collection_id, generation)
            if name is None:
                name = f"{PREFIX}-{collection_id}-{generation}"
                self._fill(client, models, name, rows)
                _point(client, models, collection_id, name)
                _forget(client, collection_id, generation)
        except _failures() as error:
            raise NotMade(f"Qdrant: {str(error).partition(chr(10))[0]}") from error
        path.write_bytes(msgspec.json.encode(Copy(name, generation)))

    def load(self, path: Path, rows: Rows) -> "QdrantGraph":
        copy = msgspec.json.decode(path.read_bytes(), type=Copy)
        self._client = self._connected(max(1, round(self._settings.timeout_s)))
        return QdrantGraph(self._client, self._guard, copy.name, rows, self._quantization)

    def drop(self, collection_id: str) -> None:
        client = self._connected(max(1, round(self._settings.timeout_s)))
        with self._guard.call():
            for name, _ in _copies(client, collection_id):
                client.delete_collection(name)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self, timeout_s: int) -> Any:
        """Asks nothing yet."""
        if self._client is not None:
            return self._client
        return _library().QdrantClient(
            url=self._settings.qdrant_url,
            api_key=self._settings.qdrant_api_key,
            timeout=timeout_s,
            check_compatibility=False,
        )

    @staticmethod
    def _newer(client: Any, collection_id: str, generation: int) -> str | None:
        """A copy that another replica made, of the same or a later generation."""
        alias = f"{PREFIX}-{collection_id}"
        target = next((each.collection_name for each in client.get_aliases().aliases if each.alias_name == alias), None)
        of = dict(_copies(client, collection_id))
        return target if target is not None and of.get(target, -1) >= generation else None

    def _fill(self, client: Any, models: ModuleType, name: str, rows: Rows) -> None:
        if client.collection_exists(name):
            client.delete_collection(name)
        client.create_collection(
            name,
            models.VectorParams(size=rows.vectors.shape[1], distance=models.Distance.DOT),
            hnsw_config=models.HnswConfigDiff(m=LINKS, ef_construct=BUILD_EFFORT),
            quantization_config=_quantised(models, self._quantization),
        )
        client.create_payload_index(name, FIELD, models.PayloadSchemaType.INTEGER, wait=True)
        for start in range(0, len(rows.ids), TOGETHER):
            part = slice(start, start + TOGETHER)
            batch = models.Batch(
                ids=rows.ids[part].tolist(),
                vectors=np.asarray(rows.vectors[part]).tolist(),
                payloads=[{FIELD: of} for of in rows.documents[part].tolist()],
            )
            client.upsert(name, batch, wait=start + TOGETHER >= len(rows.ids))
        _settled(client, models, name)
        if (count := client.count(name, exact=True).count) != len(rows.ids):
            raise NotMade(f"{count} points of {len(rows.ids)}")


@final
class QdrantGraph:
    engine = Qdrant.name
    filters = True
    inside = False

    def __init__(self, client: Any, guard: Guard, name: str, rows: Rows, quantization: Quantization) -> None:
        self.rows = len(rows.ids)
        self._slots = SlotsOf(rows.ids)
        self.nbytes = self._slots.nbytes
        self.coarse = quantization != "none"
        self.lost = False
        self._client = client
        self._guard = guard
        self._name = name
        self._models = _library().models
        self._quantization = quantization

    def search(self, query: Vector, k: int, effort: int, documents: Ids | None = None) -> Hits:
        models, only, quantised = self._models, None, None
        if documents is not None:
            only = models.Filter(must=[models.FieldCondition(key=FIELD, match=models.MatchAny(any=documents.tolist()))])
        if self.coarse:
            quantised = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[self._quantization])
        params = models.SearchParams(hnsw_ef=effort, quantization=quantised)
        found: list[Any] = []
        with self._guard.call():
            try:
                found = self._client.query_points(
                    self._name, query.tolist(), query_filter=only, limit=k, search_params=params, with_payload=False
                ).points
            except _failures() as error:
                self.lost = _missing(error)
                if not self.lost:
                    raise
        if self.lost:
            raise EngineAway("the copy is gone")
        scores = {int(each.id): each.score for each in found}
        ids = np.fromiter(scores, np.int64, len(scores))
        known = self._slots.known(ids)
        return Hits(self._slots(ids), np.fromiter(scores.values(), np.float32, len(scores))[known])

    def ready(self, timeout_s: float) -> bool:
        """At once."""
        del timeout_s
        return True

    def close(self) -> None:
        """Its client is the engine's."""


def _quantised(models: ModuleType, quantization: Quantization) -> object:
    made: dict[Quantization, Callable[[], object]] = {
        "none": lambda: None,
        "int8": lambda: models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        ),
        "binary": lambda: models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    }
    return made[quantization]()


def _settled(client: Any, models: ModuleType, name: str) -> None:
    """Until the server has optimised it."""
    until = time.monotonic() + GREEN_S
    while client.get_collection(name).status != models.CollectionStatus.GREEN:
        if time.monotonic() > until:
            raise NotMade(f"the server did not optimise it within {GREEN_S:.0f} s")
        time.sleep(LOOK_S)


def _point(client: Any, models: ModuleType, collection_id: str, name: str) -> None:
    alias = f"{PREFIX}-{collection_id}"
    known = any(each.alias_name == alias for each in client.get_aliases().aliases)
    operations: list[object] = []
    if known:
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    create = models.CreateAlias(collection_name=name, alias_name=alias)
    client.update_collection_aliases([*operations, models.CreateAliasOperation(create_alias=create)])


def _forget(client: Any, collection_id: str, newest: int) -> None:
    """All copies before the last one: that may be searched still by another replica."""
    older = sorted((generation, name) for name, generation in _copies(client, collection_id) if generation < newest)
    for _, name in older[:-1]:
        client.delete_collection(name)


def _copies(client: Any, collection_id: str) -> list[tuple[str, int]]:
    stem = f"{PREFIX}-{collection_id}-"
    names = [each.name for each in client.get_collections().collections]
    return [(name, int(name[len(stem) :])) for name in names if name.startswith(stem) and name[len(stem) :].isdigit()]


def _missing(error: Exception) -> bool:
    """Whether that is what a server says of a collection that it does not have."""
    return getattr(error, "status_code", 404 if "not found" in str(error) else None) == 404


def _failures() -> tuple[type[Exception], ...]:
    from qdrant_client.http.exceptions import ApiException  # noqa: PLC0415 — an extra

    return ApiException, httpx.HTTPError, OSError, ValueError


def installed() -> bool:
    try:
        _library()
    except Unavailable:
        return False
    return True


def _library() -> ModuleType:
    try:
        import qdrant_client  # noqa: PLC0415 — an extra; two seconds of imports
    except ImportError as error:
        raise Unavailable("The engine qdrant needs its client: install the extra `qdrant`") from error
    library: ModuleType = qdrant_client
    return library
