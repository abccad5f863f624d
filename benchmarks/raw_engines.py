"""Raw libraries of vectors, as their documentation uses them: for `benchmarks.engines`, in an environment without Penstock.

Graphs have 16 links and are built with an effort of 200, unless they lie in the folder from an earlier run. Where a library has a filter
of its own it is used; usearch has none in Python and is asked for more, of which what passes is kept.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asked import Asked, K, one_by_one, serve

EFFORTS = (*range(10, 32, 2), *range(32, 64, 4), *range(64, 128, 8), 128, 192, 256, 512)
OVERSAMPLED = 10
Finder = Callable[[np.ndarray], Sequence[int]]
Made = tuple[Callable[[int], None], Callable[[str], Finder], Callable[[], Sequence[int]]]


def hnswlib(asked: Asked, folder: Path, url: str) -> Made:
    del url
    library: Any = import_module("hnswlib")
    rows, dimensions = asked.vectors.shape
    index = library.Index(space="ip", dim=dimensions)
    if (graph := folder / "hnswlib.graph").exists():  # the one that Penstock searches
        index.load_index(str(graph), max_elements=rows)
    else:
        index.init_index(rows, M=16, ef_construction=200)
        index.add_items(asked.vectors, num_threads=1)
        index.save_index(str(graph))

    def finder(name: str) -> Finder:
        mask = asked.masks[name]
        admit = None if name == "none-1.0" else lambda label: mask[label]

        def found(query: np.ndarray) -> Sequence[int]:
            try:
                labels: list[int] = index.knn_query(query, K, 1, admit)[0][0].tolist()
            except RuntimeError:  # fewer than k
                return []
            return labels

        return found

    return index.set_ef, finder, tuple


def usearch(asked: Asked, folder: Path, url: str) -> Made:
    del url
    made: Any = import_module("usearch.index").Index
    index = made(ndim=asked.vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=200)
    if (graph := folder / "usearch.graph").exists():
        index.load(str(graph))
    else:
        index.add(np.arange(len(asked.vectors)), np.asarray(asked.vectors), threads=1)
        index.save(str(graph))

    def effort(value: int) -> None:
        index.expansion_search = value

    def finder(name: str) -> Finder:
        mask = asked.masks[name]
        share = mask.mean()
        fetch = K if name == "none-1.0" else min(2000, int(OVERSAMPLED * K / share))
        return lambda query: [key for key in index.search(query, fetch).keys.tolist() if mask[key]][:K]

    return effort, finder, tuple


def faiss(asked: Asked, folder: Path, url: str) -> Made:
    del url
    library: Any = import_module("faiss")
    library.omp_set_num_threads(1)
    if (graph := folder / "faiss.graph").exists():
        index = library.read_index(str(graph))
    else:
        index = library.IndexHNSWFlat(asked.vectors.shape[1], 16, library.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(np.asarray(asked.vectors))
        library.write_index(index, str(graph))
    effort_now = [16]

    def effort(value: int) -> None:
        effort_now[0] = value

    def finder(name: str) -> Finder:
        only = None
        if name != "none-1.0":
            bits = np.packbits(asked.masks[name], bitorder="little")
            only = library.IDSelectorBitmap(bits)
            only.bits = bits  # which it does not keep alive itself
        params = library.SearchParametersHNSW(efSearch=effort_now[0], sel=only)
        return lambda query: index.search(query[None], K, params=params)[1][0].tolist()

    return effort, finder, tuple


def qdrant_edge(asked: Asked, folder: Path, url: str) -> Made:
    del url
    edge: Any = import_module("qdrant_edge")
    home, names = folder / "qdrant-edge", [name for name in asked.masks if name != "none-1.0"]
    config = edge.EdgeConfig(
        edge.EdgeVectorParams(asked.vectors.shape[1], edge.Distance.Dot),
        hnsw_config=edge.HnswIndexConfig(16, 200, 4096, max_indexing_threads=1),
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
        max_search_threads=1,
    )
    whole = folder / "qdrant-edge.whole"
    if whole.exists():
        shard = edge.EdgeShard.load(str(home))
    else:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        shard = edge.EdgeShard.create(str(home), config)
        _fill(edge, shard, asked, names)
        whole.touch()
    effort_now = [16]

    def effort(value: int) -> None:
        effort_now[0] = value

    def finder(name: str) -> Finder:
        only = None
        if name != "none-1.0":
            only = edge.Filter(must=[edge.FieldCondition(_column(name), edge.MatchValue(value=1))])

        def found(query: np.ndarray) -> Sequence[int]:
            params = edge.SearchParams(hnsw_ef=effort_now[0])
            request = edge.SearchRequest(edge.Query.Nearest(query.tolist()), K, filter=only, params=params)
            return [each.id for each in shard.search(request)]

        return found

    return effort, finder, tuple


def _fill(edge: Any, shard: Any, asked: Asked, names: Sequence[str]) -> None:
    """Whole numbers, as the library takes Python's True for one and then finds no row that is true."""
    for name in names:
        shard.update(edge.UpdateOperation.create_field_index(_column(name), edge.PayloadSchemaType.Integer))
    for start in range(0, len(asked.vectors), 1000):
        points = [
            edge.Point(at, vector.tolist(), {_column(name): int(asked.masks[name][at]) for name in names})
            for at, vector in enumerate(asked.vectors[start : start + 1000], start)
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    while shard.optimize():
        pass
    shard.flush()


def _column(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


def pgvector(asked: Asked, folder: Path, url: str) -> Made:
    """A boolean column for each filter; iterative scans, as filters are answered short without them."""
    del folder
    names = [name for name in asked.masks if name != "none-1.0"]
    connection: Any = import_module("psycopg").connect(url, autocommit=True)
    if connection.execute("SELECT to_regclass('raw_v_idx')").fetchone()[0] is None:
        _copy(connection, asked, names)
    connection.execute("SET hnsw.iterative_scan = relaxed_order")
    pid = connection.info.backend_pid

    def effort(value: int) -> None:
        connection.execute(f"SET hnsw.ef_search = {value}")

    def finder(name: str) -> Finder:
        where = "" if name == "none-1.0" else f"WHERE {_column(name)} "
        query = f"SELECT id FROM raw {where}ORDER BY v <#> %s::vector LIMIT {K}"

        def found(vector: np.ndarray) -> Sequence[int]:
            text = "[" + ",".join(map(str, vector.tolist())) + "]"
            return [id_ for (id_,) in connection.execute(query, (text,)).fetchall()]

        return found

    return effort, finder, lambda: [pid]


def _copy(connection: Any, asked: Asked, names: Sequence[str]) -> None:
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("DROP TABLE IF EXISTS raw")
    marks = "".join(f", {_column(name)} boolean" for name in names)
    connection.execute(f"CREATE TABLE raw (id bigint, v vector({asked.vectors.shape[1]}){marks})")
    with connection.cursor() as cursor, cursor.copy("COPY raw FROM STDIN") as out:
        for at, vector in enumerate(asked.vectors):
            out.write_row(
                [at, "[" + ",".join(map(str, vector.tolist())) + "]", *(bool(asked.masks[name][at]) for name in names)]
            )
    connection.execute("SET maintenance_work_mem = '2GB'")
    connection.execute("SET max_parallel_maintenance_workers = 0")
    connection.execute(
        "CREATE INDEX raw_v_idx ON raw USING hnsw (v vector_ip_ops) WITH (m = 16, ef_construction = 200)"
    )
    connection.execute("VACUUM ANALYZE raw")


MAKERS: dict[str, Any] = {
    "hnswlib": hnswlib,
    "usearch": usearch,
    "faiss": faiss,
    "qdrant-edge": qdrant_edge,
    "pgvector": pgvector,
}


def main(system: str, name: str, recall: str, url: str = "") -> None:
    asked, began = Asked(Path(name)), time.process_time()
    effort, finder, others = MAKERS[system](asked, Path(name), url)
    print(f"{system}: {time.process_time() - began:.0f} CPU-seconds until it is there", file=sys.stderr, flush=True)
    for chosen in EFFORTS:
        effort(chosen)
        found = finder("none-1.0")
        if asked.recall([found(query) for query in asked.tuning]) >= float(recall):
            break
    serve(f"{system}, ef {chosen}", asked, lambda each: one_by_one(finder(each)), others)


if __name__ == "__main__":
    main(*sys.argv[1:])
