"""Which engine makes graphs, and what it needs to be told."""

from typing import Final, Literal

import msgspec

EngineName = Literal[
    "auto",
    "exact",
    "usearch",
    "faiss",
    "hnswlib",
    "qdrant_edge",
    "qdrant",
    "pgvector",
    "chroma",
    "milvus",
    "weaviate",
    "pinecone",
]
Quantization = Literal["none", "int8", "binary"]


RECALL: Final = 0.99


class EngineSettings(msgspec.Struct, frozen=True):
    """`auto` is hnswlib where it is installed and whole numbers are kept, else usearch, else no graph.
    `recall`: at 10, that a graph has to have; its effort is measured and watched for it.
    `timeout_s`: of a search, before everything is compared instead.

    `half`: pgvector keeps numbers of 16 bits. `weaviate_grpc_url`: None is port 50051 of the same host. `pinecone_url` is of an index.
    """

    engine: EngineName = "auto"
    qdrant_url: str | None = None
    qdrant_api_key: str | None = None
    pgvector_url: str | None = None
    half: bool = True
    timeout_s: float = 1.0
    chroma_url: str | None = None
    chroma_token: str | None = None
    milvus_url: str | None = None
    milvus_token: str | None = None
    weaviate_url: str | None = None
    weaviate_grpc_url: str | None = None
    weaviate_api_key: str | None = None
    pinecone_url: str | None = None
    pinecone_api_key: str | None = None
    recall: float = RECALL
