"""The process that has a shard of qdrant-edge open: `python -m retrieval.index.edge_worker ARCHIVE FOLDER DIMENSIONS QUANTISATION`.

It reads searches from its standard input and answers each, in the frames of `retrieval.index.edge`, until the input ends.
"""

import sys
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import qdrant_edge

from retrieval.index.edge import ANSWER, FIELD, LENGTH, OVERSAMPLING, REQUEST


def main(archive: str, folder: str, dimensions: str, quantization: str) -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        home = Path(folder) / "shard"
        with tarfile.open(archive) as packed:
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since 3.11.4
            packed.extractall(home, **safely)  # noqa: S202 — ours, and its checksum was right
        shard = qdrant_edge.EdgeShard.load(str(home))
    except Exception as error:  # noqa: BLE001 — a process's border: whoever started it is told
        _complain(answers, error)
        return
    _answer(answers, [])
    while head := requests.read(REQUEST.size):
        k, effort, count = REQUEST.unpack(head)
        query = np.frombuffer(requests.read(4 * int(dimensions)), "<f4")
        documents = np.frombuffer(requests.read(8 * count), "<i8")
        try:
            _answer(answers, _found(shard, query, k, effort, documents, quantization))
        except Exception as error:  # noqa: BLE001 — as above
            _complain(answers, error)


def _found(shard: Any, query: Any, k: int, effort: int, documents: Any, quantization: str) -> list[Any]:
    only = None
    if len(documents):
        condition = qdrant_edge.FieldCondition(FIELD, qdrant_edge.MatchAny(documents.tolist()))
        only = qdrant_edge.Filter(must=[condition])
    quantised = None
    if quantization != "none":
        quantised = qdrant_edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[quantization])
    asked = qdrant_edge.SearchRequest(
        qdrant_edge.Query.Nearest(query.tolist()),
        k,
        filter=only,
        params=qdrant_edge.SearchParams(hnsw_ef=effort, quantization=quantised),
    )
    found: list[Any] = shard.search(asked)
    return found


def _answer(answers: BinaryIO, found: list[Any]) -> None:
    slots = np.fromiter((each.id for each in found), "<i8", len(found))
    scores = np.fromiter((each.score for each in found), "<f4", len(found))
    answers.write(ANSWER.pack(len(found)) + slots.tobytes() + scores.tobytes())
    answers.flush()


def _complain(answers: BinaryIO, error: Exception) -> None:
    told = f"{type(error).__name__}: {error}".encode()[:1000]
    answers.write(ANSWER.pack(-1) + LENGTH.pack(len(told)) + told)
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
