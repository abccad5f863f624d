"""Servers that are killed while they read, delete and index: what was acknowledged is found, once, and what was deleted is not.

Two hundred moments in `make soak`, a few of them everywhere.
"""

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import openai
import pytest
from sqlalchemy import create_engine, func, select

from retrieval.tables import ingestion_jobs, passages
from tests.fixtures.server import ONCE, Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour

WORDS = 700  # of a document: some passages of it, in two calls of the model


@pytest.fixture
def embeddings(upstream: Upstream) -> ScriptHandle:
    return upstream.script(Behaviour(headers_after_s=0.02))


def config(embeddings: ScriptHandle) -> dict[str, object]:
    one = {"id": "embed", "base_url": embeddings.base_url, "model": "m", "api_key": "sk-up"}
    model = {"name": "embed", "deployments": [one], "retries": ONCE}
    return {"models": [model], "retrieval": {"embedding_model": "embed", "concurrency": 3}}


@pytest.fixture
def server(embeddings: ScriptHandle, tmp_path: Path) -> Iterator[Server]:
    server = Server(config(embeddings), tmp_path).start()
    yield server
    server.stop()


def text_of(name: str) -> str:
    """Each passage of it has the name."""
    return " ".join(f"{name} w{n}" for n in range(WORDS))


class Client:
    """Tries again while the server is away: what it was told is what counts."""

    def __init__(self, server: Server, key: str) -> None:
        self.sdk = openai.OpenAI(api_key=key, base_url=server.base_url, max_retries=0, timeout=20)

    def add(self, store_id: str, name: str) -> str | None:
        """The id once it is acknowledged."""
        try:
            file = self.sdk.files.create(file=(f"{name}.txt", text_of(name).encode()), purpose="assistants")
            sizes = {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 0}}
            self.sdk.vector_stores.files.create(store_id, file_id=file.id, chunking_strategy=sizes)  # type: ignore[arg-type]
        except openai.APIConnectionError:
            return None
        return file.id

    def remove(self, store_id: str, file_id: str) -> bool:
        try:
            self.sdk.vector_stores.files.delete(file_id, vector_store_id=store_id)
        except openai.APIConnectionError:
            return False
        except openai.NotFoundError:
            return True
        return True


def torment(server: Server, kills: int, seed: int) -> None:
    """The story of one store and `kills` kills."""
    chance = random.Random(seed)
    key = server.new_key()
    client = Client(server, key)
    store = client.sdk.vector_stores.create(name="tormented").id
    kept: dict[str, str] = {}
    began = time.monotonic()
    for round_ in range(kills):
        if round_ % 10 == 0:
            print(f"{round_} kills, {len(kept)} documents, {time.monotonic() - began:.0f} s", flush=True)
        for number in range(3):
            name = f"doc{round_}x{number}"
            id_ = client.add(store, name)
            if id_ is not None:
                kept[name] = id_
        if len(kept) > 4 and chance.random() < 0.7:
            name = chance.choice(sorted(kept))
            if client.remove(store, kept[name]):
                del kept[name]
        time.sleep(chance.random() * 0.4)
        server.kill()
        client.sdk.close()
        server.start(with_key=False)
        server.await_key(key, known=True)
        client = Client(server, key)
    _settled(client, store, kept)
    everywhere = 0
    for name, id_ in kept.items():
        weights = {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
        found = client.sdk.vector_stores.search(
            store,
            query=name,
            max_num_results=50,
            ranking_options=weights,  # type: ignore[arg-type]
        ).data
        starts = [result.model_extra["citation"]["start"] for result in found if result.model_extra]
        assert {result.file_id for result in found} == {id_}
        assert sorted(set(starts)) == sorted(starts), "a passage is there twice"
        places = sorted(
            (result.model_extra["citation"]["start"], result.model_extra["citation"]["end"])
            for result in found
            if result.model_extra
        )
        gaps = [after[0] - before[1] for before, after in pairwise([(0, 0), *places, (len(text_of(name)), 0)])]
        assert max(gaps) <= 1, "something is missing"
        everywhere += len(places)
    listed = {file.id for file in client.sdk.vector_stores.files.list(store, limit=100)}
    assert listed == set(kept.values())
    engine = create_engine(f"sqlite:///{server.data / 'penstock.db'}")
    with engine.connect() as tx:
        assert tx.execute(select(func.count()).select_from(passages)).scalar_one() == everywhere, (
            "something was left behind"
        )
        assert tx.execute(select(func.count()).select_from(ingestion_jobs)).scalar_one() == 0
    engine.dispose()
    client.sdk.close()


def _settled(client: Client, store: str, kept: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        counts = client.sdk.vector_stores.retrieve(store).file_counts
        if counts.in_progress == 0:
            assert (counts.failed, counts.cancelled) == (0, 0)
            assert counts.completed == len(kept)
            return
        assert time.monotonic() < deadline, counts
        time.sleep(0.1)


def test_documents_survive_kills(server: Server) -> None:
    """All that was acknowledged is found once, nothing else is, and nothing is left behind."""
    torment(server, 2, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_documents_survive_two_hundred_kills(server: Server) -> None:
    torment(server, 200, seed=int(time.time()))


def test_a_vector_that_was_made_is_not_made_again(server: Server, embeddings: ScriptHandle) -> None:
    """Who goes on after a kill embeds what is missing; who reads an unchanged file again embeds nothing; a changed one, its change."""
    key = server.new_key()
    client = Client(server, key)
    store = client.sdk.vector_stores.create(name="thrifty").id
    id_ = client.add(store, "thrift")
    assert id_ is not None
    client.sdk.vector_stores.files.poll(id_, vector_store_id=store)
    asked = len(embeddings.entries())
    assert asked >= 1
    client.sdk.vector_stores.files.create(store, file_id=id_)
    again = client.sdk.vector_stores.files.poll(id_, vector_store_id=store)
    assert again.status == "completed"
    sizes = {"type": "static", "static": {"max_chunk_size_tokens": 150, "chunk_overlap_tokens": 0}}
    before = len(embeddings.entries())
    client.sdk.vector_stores.files.create(store, file_id=id_, chunking_strategy=sizes)  # type: ignore[arg-type]
    assert client.sdk.vector_stores.files.poll(id_, vector_store_id=store).status == "completed"
    middle = len(embeddings.entries())
    client.sdk.vector_stores.files.create(store, file_id=id_, chunking_strategy=sizes)  # type: ignore[arg-type]
    assert client.sdk.vector_stores.files.poll(id_, vector_store_id=store).status == "completed"
    assert len(embeddings.entries()) == middle
    assert middle > before
    client.sdk.close()
