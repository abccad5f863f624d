"""Engines outside of this process die, hang and lose what they had: a search is never wrong for it, never short, and never waits long."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest

from gateway.database import connect
from retrieval.access import Caller
from retrieval.database import Database
from retrieval.filters import parse
from retrieval.index import pgvector
from retrieval.index.edge import Edge, EdgeGraph
from retrieval.index.matrix import Matrix
from retrieval.index.pgvector import Pgvector
from retrieval.index.ports import Graph, NotMade, Rows
from retrieval.index.qdrant import Qdrant
from retrieval.index.resident import Sizes
from retrieval.index.residents import Residents
from retrieval.index.settings import EngineSettings
from retrieval.index.state import State
from tests.fixtures.engines import Crowd
from tests.fixtures.retrieval import attach, fill, new_collection, of

COUNT = 1500
ALL = Caller("key_all", labels=frozenset("*"))


def some(crowd: Crowd) -> Rows:
    return Rows(crowd.vectors[:COUNT], np.arange(COUNT), np.arange(COUNT))


def state_of(crowd: Crowd, graph: Graph) -> State:
    ids = np.arange(COUNT)
    return State(1, ids, ids, None, Matrix(crowd.vectors[:COUNT]), crowd.columns, graph, exact_work=0)


def right(crowd: Crowd, state: State) -> str:
    """The plan of a filtered search, whose answer is what it should be."""
    query = crowd.queries[0]
    wanted = parse({"type": "lt", "key": "random", "value": 0.2})
    allowed = state.allowed(ALL, wanted, labelled=False)
    mask = np.zeros(COUNT, np.bool_) if allowed.mask is None else allowed.mask
    answer = state.search(query, 10, allowed)
    truth = np.argsort(np.where(mask, -(crowd.vectors[:COUNT] @ query), 9))[:10]
    assert answer.hits.slots.tolist() == truth.tolist()
    return answer.plan.name


def pushed_again(crowd: Crowd, state: State) -> None:
    """Every answer on the way there is right."""
    until = time.monotonic() + 50
    while right(crowd, state) != "pushed":
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of somebody who takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def shard(crowd: Crowd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("qdrant_edge")
    path: Path = tmp_path_factory.mktemp("shard") / "1.graph"
    Edge(EngineSettings()).build(some(crowd), path)
    return path


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_an_embedded_engine_that_dies_or_hangs_is_started_again(
    crowd: Crowd, shard: Path, fault: signal.Signals
) -> None:
    """Everything is compared meanwhile, and nobody waits longer than the deadline."""
    graph = EdgeGraph(shard, COUNT, crowd.vectors.shape[1], 1, silence_s=0.05)
    try:
        state = state_of(crowd, graph)
        assert graph.ready(60)
        pushed_again(crowd, state)
        assert graph._child is not None
        folder = graph._child.folder
        os.kill(graph._child.process.pid, fault)
        began = time.monotonic()
        assert right(crowd, state) in {"exact", "pushed"}
        assert time.monotonic() - began < 10
        pushed_again(crowd, state)
        assert not folder.exists(), "what it had unpacked is gone with it"
    finally:
        graph.close()
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]


def test_what_a_killed_server_left_of_an_embedded_engine_is_swept(crowd: Crowd, shard: Path) -> None:
    """A folder that nobody holds goes with the next start, one that is in use stays."""
    left = shard.parent / "edge-left"
    left.mkdir()
    (left / "owner").touch()
    one = EdgeGraph(shard, COUNT, crowd.vectors.shape[1], 30)
    other = EdgeGraph(shard, COUNT, crowd.vectors.shape[1], 30)
    try:
        assert not left.exists()
        assert one.ready(60)
        assert other.ready(60)
        assert len(list(shard.parent.glob("edge-*"))) == 2
        assert right(crowd, state_of(crowd, one)) == right(crowd, state_of(crowd, other)) == "pushed"
    finally:
        one.close()
        other.close()


def test_a_shard_that_is_not_one_is_no_engine(crowd: Crowd, tmp_path: Path) -> None:
    """Searches go on without it."""
    pytest.importorskip("qdrant_edge")
    (tmp_path / "1.graph").write_bytes(b"nothing of the kind")
    graph = EdgeGraph(tmp_path / "1.graph", COUNT, crowd.vectors.shape[1], 1)
    try:
        assert not graph.ready(60)
        assert right(crowd, state_of(crowd, graph)) == "exact"
    finally:
        graph.close()


def test_a_server_that_says_nothing_costs_one_deadline(crowd: Crowd, silent: int, tmp_path: Path) -> None:
    """PostgreSQL and Qdrant alike; after the first search nobody waits at all."""
    pytest.importorskip("qdrant_client")
    settings = EngineSettings(
        qdrant_url=f"http://127.0.0.1:{silent}", pgvector_url=f"postgresql://a@127.0.0.1:{silent}/a", timeout_s=1
    )
    rows = some(crowd)
    for engine, copy in (
        (Qdrant(settings), b'{"name": "penstock-vs_1-1", "generation": 1}'),
        (Pgvector(settings), b'{"table": "vs_1_1", "generation": 1, "rows": 1500, "half": true}'),
    ):
        (tmp_path / "1.graph").write_bytes(copy)
        state = state_of(crowd, engine.load(tmp_path / "1.graph", rows))
        began = time.monotonic()
        assert right(crowd, state) == "exact"
        assert 0.5 < time.monotonic() - began < 20, "it was asked"
        began = time.monotonic()
        assert [right(crowd, state) for _ in range(3)] == ["exact"] * 3
        assert time.monotonic() - began < 2.5, "and is left alone"
        engine.close()


@pytest.mark.postgres
def test_a_copy_in_postgresql_lives_as_long_as_its_collection(
    crowd: Crowd, new_postgres: Callable[[str], str], migrated_postgres: str, tmp_path: Path
) -> None:
    """Made by who maintains, used by who searches, done without while it is away, made again, dropped with the collection."""
    url = new_postgres(migrated_postgres)
    engine = connect(url)
    database: Database = of(engine)
    engines = EngineSettings(engine="pgvector", pgvector_url=url, timeout_s=20)
    residents = Residents(database, tmp_path, 1 << 30, Sizes(100, 200 * 8), engines)
    collection = new_collection(database)
    document = attach(database, collection, "file-1", {"n": 1})
    other = attach(database, collection, "file-2", {"n": 2})
    fill(database, document, ["text"] * 400, crowd.vectors[:400])
    fill(database, other, ["text"] * 400, crowd.vectors[400:800])
    residents.maintain(collection.id)

    def asked() -> tuple[str, list[int]]:
        _, state = residents.current(collection.id)
        allowed = state.allowed(ALL, parse({"type": "eq", "key": "n", "value": 2}), labelled=False)
        answer = state.search(crowd.queries[0], 10, allowed)
        return answer.plan.name, answer.hits.slots.tolist()

    truth = (400 + np.argsort(-(crowd.vectors[400:800] @ crowd.queries[0]))[:10]).tolist()
    assert asked() == ("pushed", truth)
    with psycopg.connect(url, autocommit=True) as admin:
        tables = admin.execute("SELECT name FROM penstock_vectors.copies").fetchall()
        assert len(tables) == 1
        admin.execute(f'DROP TABLE penstock_vectors."{tables[0][0]}"'.encode())
        assert asked() == ("exact", truth), "a table that is gone is an answer that is compared"
        residents.retry()
        assert asked() == ("pushed", truth), "and is made again"
        residents.drop(collection.id)
        assert admin.execute("SELECT count(*) FROM penstock_vectors.copies").fetchone() == (0,)
    residents.close()
    engine.dispose()


def test_without_its_server_nothing_is_made(crowd: Crowd, tmp_path: Path) -> None:
    """And the reason is told."""
    engine = Pgvector(EngineSettings(pgvector_url="postgresql://a@127.0.0.1:1/a", timeout_s=1))
    with pytest.raises(NotMade, match="PostgreSQL"):
        engine.build(some(crowd), tmp_path / "1.graph", "vs_1", 1)


def test_more_dimensions_than_an_index_takes_are_told(tmp_path: Path, postgres_url: str) -> None:
    engine = Pgvector(EngineSettings(pgvector_url=postgres_url, half=False))
    rows = Rows(np.zeros((1, 2001), np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64))
    with pytest.raises(NotMade, match="2000 dimensions"):
        engine.build(rows, tmp_path / "1.graph", "vs_1", 1)
    assert pgvector.SCHEMA == "penstock_vectors"
