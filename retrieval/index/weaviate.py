"""Weaviate by its official client, REST and gRPC: a copy is a collection of objects with a vector of their own and one property.

Its effort is fixed when a copy is made. Passages are known by UUIDs that are their numbers.
"""

import uuid
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final, final
from urllib.parse import urlsplit

import numpy as np

from retrieval.errors import Unavailable
from retrieval.index.copies import Copies, Kind
from retrieval.index.ports import NotMade, Rows, Vector
from retrieval.index.settings import EngineSettings

LINKS: Final = 32
BUILD_EFFORT: Final = 200
EFFORT: Final = 400
TOGETHER: Final = 1000
FIELD: Final = "document"
GRPC_PORT: Final = 50051


def engine(settings: EngineSettings) -> Copies:
    library()
    kind = Kind("weaviate", "Weaviate", lambda timeout_s: Weaviate(settings, timeout_s), _failures)
    return Copies(kind, settings.timeout_s)


@final
class Weaviate:
    """A `Store`."""

    def __init__(self, settings: EngineSettings, timeout_s: float) -> None:
        weaviate = library()
        rest = urlsplit(settings.weaviate_url or "")
        grpc = urlsplit(settings.weaviate_grpc_url or f"{rest.scheme}://{rest.hostname}:{GRPC_PORT}")
        key = settings.weaviate_api_key
        patience = weaviate.classes.init.Timeout(init=timeout_s, query=timeout_s, insert=timeout_s)
        self._classes = weaviate.classes
        self._client = weaviate.connect_to_custom(
            http_host=rest.hostname,
            http_port=rest.port or (443 if rest.scheme == "https" else 80),
            http_secure=rest.scheme == "https",
            grpc_host=grpc.hostname,
            grpc_port=grpc.port or GRPC_PORT,
            grpc_secure=grpc.scheme == "https",
            auth_credentials=None if key is None else weaviate.classes.init.Auth.api_key(key),
            additional_config=weaviate.classes.init.AdditionalConfig(timeout=patience),
        )

    def names(self) -> Sequence[str]:
        return [name[:1].lower() + name[1:] for name in self._client.collections.list_all(simple=True)]

    def count(self, name: str) -> int:
        return int(self._of(name).aggregate.over_all(total_count=True).total_count)

    def make(self, name: str, rows: Rows) -> None:
        classes = self._classes.config
        configure = classes.Configure
        graph = configure.VectorIndex.hnsw(
            distance_metric=classes.VectorDistances.DOT,
            max_connections=LINKS,
            ef_construction=BUILD_EFFORT,
            ef=EFFORT,
        )
        document = classes.Property(name=FIELD, data_type=classes.DataType.INT, index_filterable=True)
        self._client.collections.create(
            _class(name),
            properties=[document],
            vector_config=configure.Vectors.self_provided(vector_index_config=graph),
        )
        collection, one = self._of(name), self._classes.data.DataObject
        for start in range(0, len(rows.ids), TOGETHER):
            part = slice(start, start + TOGETHER)
            columns = rows.ids[part].tolist(), rows.documents[part].tolist(), np.asarray(rows.vectors[part]).tolist()
            told = collection.data.insert_many(
                [
                    one(uuid=uuid.UUID(int=id_), properties={FIELD: of}, vector=v)
                    for id_, of, v in zip(*columns, strict=True)
                ]
            )
            if told.has_errors:
                raise NotMade(f"Weaviate: {next(iter(told.errors.values())).message}")

    def remove(self, name: str) -> None:
        self._client.collections.delete(_class(name))

    def nearest(self, name: str, query: Vector, k: int, effort: int, documents: Sequence[int] | None) -> Sequence[int]:
        del effort
        only = None
        if documents is not None:
            only = self._classes.query.Filter.by_property(FIELD).contains_any(list(documents))
        found = self._of(name).query.near_vector(
            near_vector=query.tolist(), limit=k, filters=only, return_properties=[]
        )
        return [int(each.uuid.int) for each in found.objects]

    def close(self) -> None:
        self._client.close()

    def _of(self, name: str) -> Any:
        return self._client.collections.use(_class(name))


def _class(name: str) -> str:
    """Their names begin with a capital."""
    return name[:1].upper() + name[1:]


def library() -> ModuleType:
    """Raises Unavailable."""
    try:
        import weaviate  # noqa: PLC0415 — an extra; seconds of imports
        import weaviate.classes  # noqa: PLC0415 — as above
    except ImportError as error:
        raise Unavailable("The engine weaviate needs its client: install the extra `weaviate`") from error
    found: ModuleType = weaviate
    return found


def _failures() -> tuple[type[Exception], ...]:
    import grpc  # noqa: PLC0415 — comes with the extra
    import httpx  # noqa: PLC0415 — what its client speaks REST with
    from weaviate.exceptions import WeaviateBaseError  # noqa: PLC0415 — an extra

    return WeaviateBaseError, grpc.RpcError, httpx.HTTPError, OSError, ValueError
