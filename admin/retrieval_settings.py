"""The sections `retrieval` and `embedding`: documents, searches, what makes graphs of large stores, and vectors."""

from typing import Final, Literal

from pydantic import Field, SecretStr

from gateway.settings import Section
from retrieval.index.settings import RECALL, EngineName, EngineSettings
from retrieval.quotas import Quota

HTTP: Final = r"^https?://[^\s/]+(/\S*)?$"


class QdrantSection(Section):
    """A Qdrant server that keeps copies of vectors to search."""

    url: str = Field(max_length=2000, pattern=HTTP)
    api_key: SecretStr | None = Field(default=None, max_length=1000)


class ChromaSection(Section):
    """A Chroma server that keeps copies of vectors to search."""

    url: str = Field(max_length=2000, pattern=HTTP)
    token: SecretStr | None = Field(default=None, max_length=1000)


class MilvusSection(Section):
    """A Milvus, or a cluster of Zilliz. `token`: `user:password`, or an API key."""

    url: str = Field(max_length=2000, pattern=HTTP)
    token: SecretStr | None = Field(default=None, max_length=1000)


class WeaviateSection(Section):
    """A Weaviate; without `grpc_url` it speaks gRPC on port 50051 of the same host."""

    url: str = Field(max_length=2000, pattern=HTTP)
    grpc_url: str | None = Field(default=None, max_length=2000, pattern=HTTP)
    api_key: SecretStr | None = Field(default=None, max_length=1000)


class PineconeSection(Section):
    """One index of Pinecone, that is there already: `url` is its host."""

    url: str = Field(max_length=2000, pattern=HTTP)
    api_key: SecretStr | None = Field(default=None, max_length=1000)


class PgvectorSection(Section):
    """A PostgreSQL with pgvector 0.8 or newer; without `url` the one of `database_url`. `half`: numbers of 16 bits."""

    url: str | None = Field(default=None, repr=False, max_length=2000, pattern=r"^postgres(ql)?(\+psycopg)?://\S+$")
    half: bool = True


class RetrievalSection(Section):
    """Documents and searches. `embedding_model`: of collections that name none; without it the one that is built in.

    `rerank_model`: reranks where a search names no ranker; `chat_model`: writes queries for searches that ask for some and name no model.

    `concurrency`: documents read at the same time, per process. `memory_mb`: of indexes in a process, the least used of which are dropped.
    `quota_passages`, `quota_mb`: of all stores of a team, or of a key that is in none.
    `engine` makes the graphs of large stores that name none; where it does not answer within `engine_timeout_s`, everything is compared.
    `recall`: at 10, that graphs have to have.
    """

    embedding_model: str | None = Field(default=None, min_length=1, max_length=200)
    rerank_model: str | None = Field(default=None, min_length=1, max_length=200)
    chat_model: str | None = Field(default=None, min_length=1, max_length=200)
    concurrency: int = Field(default=4, ge=1, le=256)
    memory_mb: float = Field(default=1024, gt=0, le=1 << 24)
    quota_passages: int | None = Field(default=None, ge=1)
    quota_mb: float | None = Field(default=None, gt=0, le=1 << 30)
    engine: EngineName = "auto"
    engine_timeout_s: float = Field(default=1, ge=0.05, le=60)
    recall: float = Field(default=RECALL, ge=0.8, le=0.999)
    qdrant: QdrantSection | None = None
    pgvector: PgvectorSection | None = None
    chroma: ChromaSection | None = None
    milvus: MilvusSection | None = None
    weaviate: WeaviateSection | None = None
    pinecone: PineconeSection | None = None

    @property
    def quota(self) -> Quota:
        return Quota(self.quota_passages, None if self.quota_mb is None else int(self.quota_mb * 1024 * 1024))

    def engines(self, database_url: str) -> EngineSettings:
        own = None if database_url.startswith("sqlite") else database_url
        pgvector = self.pgvector or PgvectorSection()
        key = None if self.qdrant is None else self.qdrant.api_key
        return EngineSettings(
            self.engine,
            None if self.qdrant is None else self.qdrant.url,
            None if key is None else key.get_secret_value(),
            (pgvector.url or own) if self.pgvector is not None or self.engine == "pgvector" else None,
            pgvector.half,
            self.engine_timeout_s,
            chroma_url=_url(self.chroma),
            chroma_token=None if self.chroma is None else _secret(self.chroma.token),
            milvus_url=_url(self.milvus),
            milvus_token=None if self.milvus is None else _secret(self.milvus.token),
            weaviate_url=_url(self.weaviate),
            weaviate_grpc_url=None if self.weaviate is None else self.weaviate.grpc_url,
            weaviate_api_key=None if self.weaviate is None else _secret(self.weaviate.api_key),
            pinecone_url=_url(self.pinecone),
            pinecone_api_key=None if self.pinecone is None else _secret(self.pinecone.api_key),
            recall=self.recall,
        )


class EmbeddingCacheSection(Section):
    """Vectors of texts that were embedded before. `memory_mb: 0` switches it off, `disk_mb: 0` is memory alone.

    `store: auto` is Redis where there is one, else a file that the processes of a machine share. Older ones than `ttl_days` are made anew.
    """

    memory_mb: float = Field(default=32, ge=0, le=1 << 20)
    disk_mb: float = Field(default=1024, ge=0, le=1 << 24)
    store: Literal["auto", "local", "redis"] = "auto"
    ttl_days: float = Field(default=30, gt=0, le=36_500)


class EmbeddingSection(Section):
    """What embeds, whoever asks."""

    cache: EmbeddingCacheSection = EmbeddingCacheSection()


def _url(section: ChromaSection | MilvusSection | WeaviateSection | PineconeSection | None) -> str | None:
    return None if section is None else section.url


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
