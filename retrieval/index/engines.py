"""The engines by name, each imported when it is first wanted."""

from importlib import import_module
from importlib.util import find_spec
from typing import Final, final

from retrieval.errors import BadRequest
from retrieval.index.ports import GraphEngine
from retrieval.index.settings import EngineName, EngineSettings, Quantization

LIBRARIES: Final[dict[str, str]] = {
    "usearch": "usearch",
    "faiss": "faiss",
    "hnswlib": "hnswlib",
    "qdrant_edge": "qdrant_edge",
    "qdrant": "qdrant_client",
    "pgvector": "psycopg",
    "chroma": "chromadb",
    "milvus": "pymilvus",
    "weaviate": "weaviate",
    "pinecone": "pinecone",
}
EXTRAS: Final = {"hnswlib": "retrieval", "qdrant_edge": "qdrant-edge"}  # others: as the engine is called
CODES: Final = "codes"  # of stores that are compared one by one, cut
APART: Final = ("hnswlib", "usearch", "faiss", CODES)  # graphs in files alone: as many as there are tenants
SERVERS: Final = ("qdrant", "pgvector", "chroma", "milvus", "weaviate", "pinecone")  # each at `retrieval.<name>.url`


@final
class Engines:
    """One per process: an engine is made once, with what it keeps open."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self._made: dict[tuple[str, Quantization], GraphEngine] = {}

    def chosen(
        self, of_collection: EngineName | None, quantization: Quantization = "none", *, apart: bool = False
    ) -> str | None:
        """What makes a collection's graph; None where nothing does: its vectors are compared one by one, and whole.

        `apart`: one for each of its tenants. An engine that keeps none apart leaves them to the one that is `auto`.
        """
        name = of_collection or self.settings.engine
        if apart and name not in ("exact", *APART):
            name = "auto"
        if name == "auto":
            whole = quantization == "none" and find_spec("hnswlib") is not None
            name = "hnswlib" if whole or find_spec("usearch") is None else "usearch"
        if name in SERVERS and getattr(self.settings, f"{name}_url") is None:
            return None
        if name == "exact":
            return None if quantization == "none" else CODES
        return None if find_spec(LIBRARIES[name]) is None else name

    def require(self, engine: EngineName | None, *, apart: bool = False) -> None:
        """Raises BadRequest where it is not installed, or its server is not named, or it cannot keep tenants `apart`."""
        if engine is None or engine in ("auto", "exact"):
            return
        if apart and engine not in APART:
            raise BadRequest(
                f"The engine {engine} keeps no graph of each tenant: with `tenancy` there are auto, exact, hnswlib, usearch and faiss",
                param="engine",
            )
        if find_spec(LIBRARIES[engine]) is None:
            extra = EXTRAS.get(engine, engine)
            raise BadRequest(f"The engine {engine} is not installed here: it is the extra `{extra}`", param="engine")
        if engine in SERVERS and getattr(self.settings, f"{engine}_url") is None:
            raise BadRequest(f"The engine {engine} needs retrieval.{engine}.url in the configuration", param="engine")

    def get(self, name: str, quantization: Quantization) -> GraphEngine:
        """Raises Unavailable where its library is not installed."""
        known = self._made.get((name, quantization))
        if known is None:
            known = self._made[name, quantization] = made(name, self.settings, quantization)
        return known

    def drop(self, collection_id: str) -> None:
        """What engines keep of it outside of its folder. Raises EngineAway."""
        for name in SERVERS:
            of_it = getattr(self.settings, f"{name}_url")
            if of_it is not None and find_spec(LIBRARIES[name]) is not None:
                self.get(name, "none").drop(collection_id)

    def close(self) -> None:
        for engine in self._made.values():
            engine.close()


def made(name: str, settings: EngineSettings, quantization: Quantization) -> GraphEngine:  # noqa: PLR0911 — a table
    """Raises Unavailable where its library is not installed."""
    match name:
        case "codes":
            from retrieval.index.codes import CodesEngine  # noqa: PLC0415 — as below

            return CodesEngine(quantization)
        case "hnswlib":
            from retrieval.index.hnsw import Hnsw  # noqa: PLC0415 — whoever has no use for it need not have it

            return Hnsw()
        case "usearch":
            from retrieval.index.usearch import Usearch  # noqa: PLC0415 — as above

            return Usearch(quantization)
        case "faiss":
            from retrieval.index.faiss import Faiss  # noqa: PLC0415 — as above

            return Faiss(quantization)
        case "qdrant_edge":
            from retrieval.index.edge import Edge  # noqa: PLC0415 — as above

            return Edge(settings, quantization)
        case "qdrant":
            from retrieval.index.qdrant import Qdrant  # noqa: PLC0415 — as above

            return Qdrant(settings, quantization)
        case "pgvector":
            from retrieval.index.pgvector import Pgvector  # noqa: PLC0415 — as above

            return Pgvector(settings, quantization)
        case "chroma" | "milvus" | "weaviate" | "pinecone":
            of_it: GraphEngine = import_module(f"retrieval.index.{name}").engine(settings)
            return of_it
    raise ValueError(name)
