"""What was embedded before is not embedded again: for another store, after a kill, for the same question. Nor is it given to others."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from embedding import bundled
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import ONCE, Json, Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour

WORDS = 700  # of a document: some passages of it
QUESTION = "which gate holds the river"


def config(paid: ScriptHandle, **more: object) -> Json:
    """A model of a provider, one in this process, and one whose place another takes when it fails."""
    place = {"base_url": paid.base_url, "model": "m", "api_key": "sk-up"}
    models: list[Json] = [
        {"name": "paid", "deployments": [{**place, "id": "paid"}], "retries": ONCE},
        {"name": "local", "deployments": [{"id": "local", "provider": "embedded", "model": "all-minilm-l6-v2"}]},
    ]
    return {"models": models, "retrieval": {"embedding_model": "paid"}, **more}


@pytest.fixture(scope="module")
def paid(upstream: Upstream) -> ScriptHandle:
    return upstream.script(Behaviour())


@pytest.fixture(scope="module")
def server(paid: ScriptHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of this module alone: its numbers are asserted."""
    if not bundled.installed():
        pytest.skip("needs the `embedded` extra")
    server = Server(config(paid), tmp_path_factory.mktemp("known")).start()
    yield server
    server.stop()


class Client:
    """One key, and stores of what it ingests."""

    def __init__(self, server: Server, key: str | None = None, **fields: object) -> None:
        self.key = key or server.new_key(**fields)
        self._server = server

    def ingested(self, name: str, model: str = "paid") -> str:
        """A new store with a document that is the same for every `name`."""
        with openai.OpenAI(api_key=self.key, base_url=self._server.base_url, max_retries=0, timeout=60) as sdk:
            made = sdk.vector_stores.create(name=name, extra_body={"embedding_model": model})
            text = " ".join(f"{name} w{number}" for number in range(WORDS))
            file = sdk.files.create(file=(f"{name}.txt", text.encode()), purpose="assistants")
            done = sdk.vector_stores.files.create_and_poll(
                file.id,
                vector_store_id=made.id,
                chunking_strategy={
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 0},
                },
            )
            assert done.status == "completed", done
            return made.id

    def found(self, store: str, question: str) -> list[float]:
        """Scores."""
        answer = self._server.post(f"/v1/vector_stores/{store}/search", {"query": question}, key=self.key)
        assert answer.status_code == 200, answer.text
        return [each["score"] for each in answer.json()["data"]]


def texts(server: Server, outcome: str) -> int:
    lines = server.http.get("/metrics").text.splitlines()
    start = f'penstock_embedding_cache_texts_total{{outcome="{outcome}"}} '
    return sum(int(float(line.removeprefix(start))) for line in lines if line.startswith(start))


def test_a_provider_is_asked_once(server: Server, paid: ScriptHandle) -> None:
    """For two stores with the same document, a question that is asked twice, and all of it again after `kill -9`."""
    client = Client(server)
    store = client.ingested("once")
    scores = client.found(store, QUESTION)
    before = paid.bill()
    assert before.calls >= 2
    other = client.ingested("once")
    assert client.found(store, QUESTION) == client.found(other, QUESTION) == scores
    assert paid.bill() == before
    assert texts(server, "memory") > 3
    path = server.data / "cache" / "vectors" / "1-1.sqlite"
    deadline = time.monotonic() + 30
    while not written(server, path):
        assert time.monotonic() < deadline, "vectors were never written"
        time.sleep(0.05)
    server.kill()
    server.start(with_key=False)
    server.await_key(client.key, known=True)
    again = client.ingested("once")
    assert client.found(again, QUESTION) == scores
    assert paid.bill() == before
    assert texts(server, "store") > 3
    assert texts(server, "miss") == 0


def written(server: Server, path: Path) -> bool:
    """Whether all that was embedded so far is on the disk."""
    with sqlite3.connect(path) as file:
        (count,) = file.execute("SELECT count(*) FROM vectors").fetchone()
    file.close()
    return bool(count >= texts(server, "miss"))


def test_only_what_is_new_is_sent(server: Server, paid: ScriptHandle) -> None:
    """And it is what is billed."""
    client = Client(server)
    store = client.ingested("new")
    before = paid.bill().prompt_tokens
    client.found(store, "one two three")
    assert paid.bill().prompt_tokens == before + 3
    answer = server.post(
        f"/v1/vector_stores/{store}/search", {"query": ["one two three", "four five", "four five"]}, key=client.key
    )
    assert answer.status_code == 200, answer.text
    assert paid.bill().prompt_tokens == before + 5


def test_the_model_in_this_process_runs_once(server: Server) -> None:
    """Whoever asks for what of it; tokens are told as if it had run."""
    client = Client(server)
    store = client.ingested("local", "local")
    client.found(store, QUESTION)
    before = texts(server, "miss")
    other = client.ingested("local", "local")
    client.found(other, QUESTION)
    assert texts(server, "miss") == before
    body = {"model": "local", "input": [QUESTION, "another text", QUESTION]}
    first, second = (server.post("/v1/embeddings", body, key=client.key).json() for _ in range(2))
    assert first == second
    assert first["data"][0]["embedding"] == first["data"][2]["embedding"] != first["data"][1]["embedding"]
    assert first["usage"]["prompt_tokens"] == 2 * 7 + 4
    assert texts(server, "miss") == before + 1


def test_nothing_is_found_of_another_tenant(server: Server, paid: ScriptHandle) -> None:
    """Each pays for itself; the keys of a team share."""
    org = server.admin.post("/orgs", json={"name": "known"}).json()["id"]
    team = server.admin.post("/teams", json={"name": "known", "org_id": org}).json()["id"]
    one, mate, stranger = Client(server, team_id=team), Client(server, team_id=team), Client(server)
    one.ingested("tenant")
    calls = paid.bill().calls
    mate.ingested("tenant")
    assert paid.bill().calls == calls
    stranger.ingested("tenant")
    assert paid.bill().calls > calls
    body = {"model": "local", "input": "which secret does the tenant have"}
    server.post("/v1/embeddings", body, key=one.key)
    before = texts(server, "miss")
    server.post("/v1/embeddings", body, key=mate.key)
    assert texts(server, "miss") == before
    server.post("/v1/embeddings", body, key=stranger.key)
    assert texts(server, "miss") == before + 1


def test_a_known_question_is_no_way_around_a_key_s_list(server: Server) -> None:
    """Who may not call the model any more is refused as before."""
    made = server.admin.post("/keys", json={"name": "listed"}).json()
    client = Client(server, made["key"])
    server.await_key(client.key, known=True)
    store = client.ingested("listed")
    client.found(store, QUESTION)
    assert server.admin.patch(f"/keys/{made['id']}", json={"models": ["local"]}).status_code == 200
    deadline = time.monotonic() + 30
    while (answer := search(server, client, store)).status_code == 200:
        assert time.monotonic() < deadline, "the list never came into force"
        time.sleep(0.05)
    assert answer.json()["error"]["code"] == "model_access_denied"


def search(server: Server, client: Client, store: str) -> httpx.Response:
    return server.post(f"/v1/vector_stores/{store}/search", {"query": QUESTION}, key=client.key)


def test_a_new_guard_sees_what_is_known(server: Server, upstream: Upstream) -> None:
    """A question that was let through before is not let through by the cache."""
    place = {"id": "vetted-a", "base_url": upstream.script(Behaviour()).base_url, "model": "m", "api_key": "sk-up"}
    made = server.admin.post("/models", json={"name": "vetted", "deployments": [place], "retries": ONCE})
    assert made.status_code == 201, made.text
    client = Client(server)
    store = client.ingested("vetted", "vetted")
    client.found(store, QUESTION)
    guard = {
        "name": "vetting",
        "kind": "patterns",
        "deny": [{"name": "river", "pattern": "river"}],
        "models": ["vetted"],
    }
    made = server.admin.post("/guards", json=guard)
    assert made.status_code == 201, made.text
    deadline = time.monotonic() + 30
    while (answer := search(server, client, store)).status_code == 200:
        assert time.monotonic() < deadline, "the guard never came into force"
        time.sleep(0.05)
    assert answer.json()["error"]["code"] == "content_policy_violation"


def test_what_stood_in_is_not_kept(server: Server, upstream: Upstream) -> None:
    """A model that is back is asked, not what another one said in its place."""
    sick, nurse = upstream.script(Behaviour(status=500)), upstream.script(Behaviour())
    for name, handle, fallbacks in (("nurse", nurse, []), ("sick", sick, ["nurse"])):
        place = {"id": f"{name}-a", "base_url": handle.base_url, "model": "m", "api_key": "sk-up"}
        model = {"name": name, "deployments": [place], "retries": ONCE, "fallbacks": fallbacks}
        answer = server.admin.post("/models", json=model)
        assert answer.status_code == 201, answer.text
    client = Client(server)
    store = client.ingested("sick", "sick")
    client.found(store, QUESTION)
    asked = nurse.bill().calls
    client.found(store, QUESTION)
    assert nurse.bill().calls == asked + 1
    sick.becomes(Behaviour())
    deadline = time.monotonic() + 60
    while not sick.bill().calls:  # it is left alone for a while
        assert time.monotonic() < deadline
        client.found(store, f"at {time.monotonic()}")
        time.sleep(0.05)
    asked = sick.bill().calls
    for _ in range(3):
        client.found(store, QUESTION)
    assert sick.bill().calls == asked + 1


def test_off_is_off(upstream: Upstream, tmp_path: Path) -> None:
    """Everything is asked again, and there is no file."""
    paid = upstream.script(Behaviour())
    server = Server(config(paid, embedding={"cache": {"memory_mb": 0}}), tmp_path).start()
    try:
        client = Client(server)
        store = client.ingested("off")
        client.found(store, QUESTION)
        calls = paid.bill().calls
        client.found(store, QUESTION)
        assert paid.bill().calls == calls + 1
        assert not (server.data / "cache" / "vectors").exists()
        assert "penstock_embedding_cache" not in server.http.get("/metrics").text
    finally:
        server.stop()


def test_where_there_is_redis_it_is_there(redis_server: RedisServer, upstream: Upstream, tmp_path: Path) -> None:
    """For every process that has the same one, and on no disk."""
    paid = upstream.script(Behaviour())
    server = Server(config(paid, redis_url=redis_server.url), tmp_path).start()
    try:
        client = Client(server)
        client.found(client.ingested("redis"), QUESTION)
        before, made = paid.bill(), texts(server, "miss")
        deadline = time.monotonic() + 30
        while int(redis_server.cli("EVAL", "return #redis.call('KEYS', 'penstock:vector:*')", "0")) < made:
            assert time.monotonic() < deadline, "vectors were never written"
            time.sleep(0.05)
        server.kill()
        server.start(with_key=False)
        server.await_key(client.key, known=True)
        client.found(client.ingested("redis"), QUESTION)
        assert paid.bill() == before
        assert (texts(server, "store"), texts(server, "miss")) == (made, 0)
        assert not (server.data / "cache" / "vectors").exists()
    finally:
        server.stop()
