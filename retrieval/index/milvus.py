"""Milvus by pymilvus: a copy is a collection with an HNSW index. Filters are expressions: numbers alone are ever written into one."""

import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final, final

import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.copies import Copies, Kind
from retrieval.index.ports import Rows, Vector
from retrieval.index.settings import EngineSettings

LINKS: Final = 16
BUILD_EFFORT: Final = 200
TOGETHER: Final = 1000
LEAST_EFFORT: Final = 100
NOT_LOADED: Final = 101  # the code of that error
METRIC: Final = "IP"  # of vectors of length 1: the cosine


def engine(settings: EngineSettings) -> Copies:
    library()
    return Copies(
        Kind("milvus", "Milvus", lambda timeout_s: Milvus(settings, timeout_s), _failures), settings.timeout_s
    )


@final
class Milvus:
    """A `Store`."""

    def __init__(self, settings: EngineSettings, timeout_s: float) -> None:
        url = settings.milvus_url
        assert url is not None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints what it raises
        token = settings.milvus_token or ""
        self._client = library().MilvusClient(uri=url, token=token, timeout=timeout_s, dedicated=True)
        self._timeout_s = timeout_s

    def names(self) -> Sequence[str]:
        names: list[str] = self._client.list_collections(timeout=self._timeout_s)
        return names

    def count(self, name: str) -> int:
        rows = self._client.query(name, output_fields=["count(*)"], consistency_level="Strong", timeout=self._timeout_s)
        return int(rows[0]["count(*)"])

    def make(self, name: str, rows: Rows) -> None:
        client, kinds = self._client, library().DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("document", kinds.INT64)
        schema.add_field("v", kinds.FLOAT_VECTOR, dim=rows.vectors.shape[1])
        indexes = client.prepare_index_params()
        params = {"M": LINKS, "efConstruction": BUILD_EFFORT}
        indexes.add_index("v", index_type="HNSW", metric_type=METRIC, params=params)
        indexes.add_index("document", index_type="INVERTED")
        client.create_collection(name, schema=schema, timeout=self._timeout_s)
        for start in range(0, len(rows.ids), TOGETHER):
            part = slice(start, start + TOGETHER)
            columns = rows.ids[part].tolist(), rows.documents[part].tolist(), np.asarray(rows.vectors[part]).tolist()
            some = [{"id": id_, "document": of, "v": v} for id_, of, v in zip(*columns, strict=True)]
            client.insert(name, some, timeout=self._timeout_s)
        client.flush(name, timeout=self._timeout_s)
        client.create_index(name, indexes)  # waits for it, however long that takes
        client.load_collection(name)

    def remove(self, name: str) -> None:
        self._client.drop_collection(name, timeout=self._timeout_s)

    def nearest(self, name: str, query: Vector, k: int, effort: int, documents: Sequence[int] | None) -> Sequence[int]:
        only = "" if documents is None else f"document in [{','.join(map(str, documents))}]"
        try:
            return self._found(name, query, k, effort, only)
        except library().MilvusException as error:
            if error.code != NOT_LOADED:
                raise
        self._client.load_collection(name, timeout=self._timeout_s)  # whoever restarted it did not
        return self._found(name, query, k, effort, only)

    def _found(self, name: str, query: Vector, k: int, effort: int, only: str) -> Sequence[int]:
        found: list[list[Any]] = self._client.search(
            name,
            [query.tolist()],
            anns_field="v",
            limit=k,
            filter=only,
            search_params={"metric_type": METRIC, "params": {"ef": max(LEAST_EFFORT, effort, k)}},
            consistency_level="Eventually",  # a copy never changes
            timeout=self._timeout_s,
        )
        return [int(each["id"]) for each in found[0]]

    def close(self) -> None:
        self._client.close()


def library() -> ModuleType:
    """Raises Unavailable."""
    try:
        import pymilvus  # noqa: PLC0415 — an extra; seconds of imports
    except ImportError as error:
        raise Unavailable("The engine milvus needs its client: install the extra `milvus`") from error
    found: ModuleType = pymilvus
    return found


def _failures() -> tuple[type[Exception], ...]:
    import grpc  # noqa: PLC0415 — comes with the extra

    return library().MilvusException, grpc.RpcError, OSError, ValueError
