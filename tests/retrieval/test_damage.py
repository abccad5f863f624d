"""Twenty random overwrites for each engine's index: noticed twenty times, answered right meanwhile, and made again as it was."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import psycopg
import pytest

from admin.migrate import prepare
from gateway.database import connect
from retrieval.access import Caller
from retrieval.filters import parse
from retrieval.index import artefact
from retrieval.index.resident import Sizes
from retrieval.index.residents import Residents
from retrieval.index.settings import EngineSettings
from tests.fixtures.retrieval import attach, fill, new_collection, of, unit
from tests.fixtures.store_servers import StoreServers
from tests.kill import swapping

ALL = Caller("key_all", labels=frozenset("*"))
ROWS, HALF = 400, 200
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[StoreServers]:
    servers = StoreServers(tmp_path / "servers")
    yield servers
    servers.close()


def overwritten(folder: Path, chance: random.Random) -> str:
    """Some bytes of one file of the artefact, or its end, are others."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {*artefact.PARTS, ".json"})
    name = chance.choice(names)
    data = bytearray((folder / name).read_bytes())
    if chance.random() < 0.25:
        data = data[: chance.randrange(len(data))]
    else:
        at = chance.randrange(len(data))
        length = min(len(data) - at, chance.randrange(1, 512))
        data[at : at + length] = bytes(byte ^ chance.randrange(1, 256) for byte in data[at : at + length])
    (folder / name).write_bytes(data)
    return Path(name).suffix


@pytest.mark.parametrize("name", ["exact", "hnswlib", "faiss", "qdrant_edge", "pgvector", "pinecone"])
def test_twenty_overwrites_are_noticed_and_mended(
    name: str, tmp_path: Path, servers: StoreServers, request: pytest.FixtureRequest
) -> None:
    if name in ("hnswlib", "faiss", "qdrant_edge"):
        pytest.importorskip(name)
    settings = EngineSettings(timeout_s=30)
    if name == "pgvector":
        settings = EngineSettings(pgvector_url=request.getfixturevalue("postgres_url"), timeout_s=30)
    if name == "pinecone":
        settings = servers.settings(name, swapping.DIMENSIONS)
    settings = msgspec.structs.replace(settings, engine=name)
    engine = connect(swapping.url(tmp_path))
    prepare(engine)
    database, chance = of(engine), random.Random(time.time())
    collection = new_collection(database)
    vectors = unit(np.random.default_rng(3).standard_normal((ROWS, swapping.DIMENSIONS)).astype(np.float32))
    ids: list[int] = []
    for number in range(2):
        document = attach(database, collection, f"file-{number}", {"n": number})
        ids += fill(
            database, document, [f"text {n}" for n in range(HALF)], vectors[number * HALF : (number + 1) * HALF]
        )
    folder = tmp_path / "retrieval" / collection.id

    def opened() -> Residents:
        return Residents(database, tmp_path / "retrieval", 1 << 26, Sizes(100, 60 * swapping.DIMENSIONS), settings)

    def right(residents: Residents) -> str:
        """The plan of a filtered search, whose answer is what it should be."""
        _, state = residents.current(collection.id)
        query = vectors[chance.randrange(ROWS)]
        answer = state.search(
            query, 5, state.allowed(ALL, parse({"type": "eq", "key": "n", "value": 1}), labelled=False)
        )
        truth = HALF + np.argsort(-(vectors[HALF:] @ query))[:5]
        assert [int(state.ids[slot]) for slot in answer.hits.slots] == [ids[at] for at in truth]
        return answer.plan.name

    residents = opened()
    residents.maintain(collection.id)
    whole = {"exact": "exact", "hnswlib": "widen", "faiss": "widen"}.get(name, "pushed")
    files: list[str] = []
    noticed = mended = 0
    made_by = None if name == "exact" else name
    for round_ in range(20):
        assert settled(residents, right, whole), f"round {round_}"
        residents.close()
        if name == "pgvector" and round_ % 4 == 3:
            _drop_tables(settings.pgvector_url or "")
            files.append("its table")
            residents = opened()
            noticed += right(residents) == "exact"
            residents.retry()
        else:
            files.append(overwritten(folder, chance))
            noticed += artefact.opened(folder) is None
            residents = opened()
            assert right(residents) == "exact", "nothing but the truth is asked"
            residents.maintain(collection.id)
        found = artefact.opened(folder)
        mended += found is not None and found.manifest.engine == made_by
    assert settled(residents, right, whole)
    print(f"\n{name}: {noticed} of 20 noticed, {mended} of 20 mended: {files}", flush=True)
    assert (noticed, mended) == (20, 20)
    residents.close()
    engine.dispose()


def settled(residents: Residents, right: Callable[[Residents], str], wanted: str) -> bool:
    """Its graph is used, once it is open."""
    until = time.monotonic() + 100
    while right(residents) != wanted:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _drop_tables(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        for (table,) in admin.execute("SELECT name FROM penstock_vectors.copies").fetchall():
            admin.execute(f'DROP TABLE IF EXISTS penstock_vectors."{table}"'.encode())
