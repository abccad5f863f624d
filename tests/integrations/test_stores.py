"""Servers of vectors die, hang, refuse and lose what they had: a search is right all the same, and a copy is made again from the truth."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from socket import create_server

import numpy as np
import pytest

from retrieval.index import engines
from retrieval.index.ports import EngineAway, Graph, GraphEngine, NotMade, Rows
from retrieval.index.settings import EngineName, EngineSettings
from tests.fixtures import scripted_weaviate, store_servers
from tests.fixtures.engines import Crowd

pytest.importorskip("weaviate", reason="the stores are not installed: make test-integrations")
pytest.importorskip("pymilvus")
pytest.importorskip("chromadb")
pytestmark = [pytest.mark.integrations, pytest.mark.timeout(300)]

COUNT = 600
REAL: dict[EngineName, Callable[[Path, int], AbstractContextManager[str]]] = {
    "chroma": store_servers.chroma,
    "milvus": store_servers.milvus,
}


@pytest.fixture
def rows(crowd: Crowd) -> Rows:
    return Rows(crowd.vectors[:COUNT], np.arange(COUNT) + 7, np.arange(COUNT) % 50)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of somebody who takes connections and says nothing."""
    with closing(create_server(("127.0.0.1", 0), backlog=64)) as server:
        yield server.getsockname()[1]


def settings(name: str, url: str, timeout_s: float = 20) -> EngineSettings:
    return EngineSettings(**{f"{name}_url": url, "timeout_s": timeout_s})  # type: ignore[arg-type]


def asked(engine: GraphEngine, path: Path, rows: Rows) -> list[int]:
    """Slots of the nearest five to the first row, of documents 0 to 9."""
    graph = engine.load(path, rows)
    slots: list[int] = graph.search(rows.vectors[0], 5, 100, np.arange(10)).slots.tolist()
    return slots


def _lost(graph: Graph) -> bool:
    return graph.lost


def truth(rows: Rows) -> list[int]:
    allowed = np.flatnonzero(rows.documents < 10)
    order = np.argsort(-(rows.vectors[allowed] @ rows.vectors[0]))
    return [int(slot) for slot in allowed[order[:5]]]


@pytest.mark.parametrize("name", REAL)
def test_a_real_server_is_filled_replaced_killed_and_emptied(name: EngineName, rows: Rows, tmp_path: Path) -> None:
    """Away it says so and is asked again later; what it lost is known to be lost, and made again."""
    port, path = store_servers.free_port(), tmp_path / "1.graph"
    with REAL[name](tmp_path / "server", port) as url:
        engine = engines.made(name, settings(name, url), "none")
        for generation in (1, 2, 3):
            engine.build(rows, path, "vs_a", generation)
        engine.build(rows, path, "vs_b", 1)
        engine.build(rows, path, "vs_a", 3)
        graph = engine.load(path, rows)
        assert asked(engine, path, rows) == truth(rows)
    engine.guard._silence_s = 0.05  # type: ignore[attr-defined]
    with pytest.raises(EngineAway):
        asked(engine, path, rows)
    assert not _lost(graph), "away is not lost"
    with REAL[name](tmp_path / "server", port):
        until = time.monotonic() + 100
        while True:
            try:
                assert asked(engine, path, rows) == truth(rows)
                break
            except EngineAway:
                assert time.monotonic() < until
                time.sleep(0.2)
        store = engine.store()  # type: ignore[attr-defined]
        assert sorted(each for each in store.names()) == [
            "penstock_vs_a_2_600",
            "penstock_vs_a_3_600",
            "penstock_vs_b_1_600",
        ]
        engine.drop("vs_a")
        assert list(store.names()) == ["penstock_vs_b_1_600"], "a store's copies go with it, and no others"
        with pytest.raises(EngineAway, match="gone"):
            graph.search(rows.vectors[0], 5, 100)
        assert _lost(graph)
        engine.build(rows, path, "vs_a", 4)
        assert asked(engine, path, rows) == truth(rows)
        engine.close()


@pytest.mark.parametrize("name", ["chroma", "milvus", "weaviate"])
def test_a_server_that_says_nothing_costs_one_deadline(
    name: EngineName, rows: Rows, silent: int, tmp_path: Path
) -> None:
    """After the first search nobody waits at all."""
    path = tmp_path / "1.graph"
    path.write_bytes(b'{"name": "penstock_vs_a_1_600", "generation": 1, "rows": 600}')
    engine = engines.made(name, settings(name, f"http://127.0.0.1:{silent}", 1), "none")
    began = time.monotonic()
    with pytest.raises(EngineAway):
        asked(engine, path, rows)
    assert time.monotonic() - began < 30
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(EngineAway):
            asked(engine, path, rows)
    assert time.monotonic() - began < 4
    engine.close()


@pytest.mark.parametrize("name", ["chroma", "milvus", "weaviate"])
def test_without_its_server_nothing_is_made(name: EngineName, rows: Rows, tmp_path: Path) -> None:
    """And the reason is told."""
    engine = engines.made(name, settings(name, f"http://127.0.0.1:{store_servers.free_port()}", 1), "none")
    with pytest.raises(NotMade, match=name.capitalize()):
        engine.build(rows, tmp_path / "1.graph", "vs_a", 1)


def test_a_key_that_weaviate_does_not_know_is_told(rows: Rows, tmp_path: Path) -> None:
    with scripted_weaviate.serving(scripted_weaviate.ScriptedWeaviate()) as store:
        wrong = EngineSettings(weaviate_url=store.url, weaviate_grpc_url=store.grpc_url, weaviate_api_key="wrong")
        with pytest.raises(NotMade, match="anonymous access not enabled"):
            engines.made("weaviate", wrong, "none").build(rows, tmp_path / "1.graph", "vs_a", 1)
