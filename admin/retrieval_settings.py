"""The section `retrieval`: documents, searches, and what makes graphs of large stores."""

from pydantic import Field, SecretStr

from gateway.settings import Section
from retrieval.index.settings import RECALL, EngineName, EngineSettings
from retrieval.quotas import Quota


class QdrantSection(Section):
    """A Qdrant server that keeps copies of vectors to search."""

    url: str = Field(max_length=2000, pattern=r"^https?://[^\s/]+(/\S*)?$")
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
            self.recall,
        )
