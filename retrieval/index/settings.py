"""Which engine makes graphs, and what it needs to be told."""

from typing import Final, Literal

import msgspec

EngineName = Literal["auto", "exact", "usearch", "hnswlib", "qdrant_edge", "qdrant", "pgvector"]
Quantization = Literal["none", "int8", "binary"]


RECALL: Final = 0.99


class EngineSettings(msgspec.Struct, frozen=True):
    """`auto` is hnswlib where it is installed and whole numbers are kept, else usearch, else no graph.
    `recall`: at 10, that a graph has to have; its effort is measured and watched for it.
    `timeout_s`: of a search, before everything is compared instead.

    `half`: pgvector keeps numbers of 16 bits.
    """

    engine: EngineName = "auto"
    qdrant_url: str | None = None
    qdrant_api_key: str | None = None
    pgvector_url: str | None = None
    half: bool = True
    timeout_s: float = 1.0
    recall: float = RECALL
