"""Files that wait or could not be read: their owner hears why, operators see them over all stores, and let them be tried again."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from retrieval import backlog, collection_store, document_store, job_store
from retrieval.database import Database
from retrieval.job_store import Owner
from tests.fixtures.deployments import Route, Routes
from tests.fixtures.retrieval import ANN, EVE, attach, new_collection
from tests.fixtures.server import ADMIN_KEY, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

ROOT = Path(__file__).parents[2]
UNFIT = Behaviour(status=400, error_message="this input is not for me")
VECTOR = json.dumps(
    {
        "object": "list",
        "model": "x",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
)


@pytest.fixture
def client(documents_server: Server) -> Iterator[openai.OpenAI]:
    secret = documents_server.new_key()
    with openai.OpenAI(base_url=documents_server.base_url, api_key=secret, max_retries=0, timeout=50) as made:
        yield made


@pytest.fixture
def routes(documents_server: Server, upstream: Upstream) -> Routes:
    return Routes(documents_server, upstream)


def added(client: openai.OpenAI, model: str, text: str = "The gate closes in four seconds.") -> tuple[str, str]:
    """A store and a file in it."""
    store = client.vector_stores.create(name=f"of {model}", extra_body={"embedding_model": model})
    file = client.files.create(file=("gates.md", text.encode()), purpose="assistants")
    client.vector_stores.files.create(store.id, file_id=file.id, attributes={"plant": "north"})
    return store.id, file.id


def until(look: Callable[[], Any], *, timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


def entries(server: Server, **params: str) -> list[dict[str, Any]]:
    answer = server.admin.get("/documents", params=params)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def test_a_file_that_waits_says_why(documents_server: Server, client: openai.OpenAI, routes: Routes) -> None:
    """To its owner with the reason and the time, to operators as well; when what it waits for is there, it is read."""
    route: Route = routes(Behaviour(status=429, error_message="come back later", headers=(("retry-after", "1"),)))
    store, file = added(client, route.name)

    def waits() -> Any:
        return (client.vector_stores.files.retrieve(file, vector_store_id=store).model_extra or {}).get("waiting")

    waiting = until(waits)
    assert set(waiting) == {"reason", "attempts", "retry_at"}
    assert "come back later" in waiting["reason"]
    (row,) = entries(documents_server, collection_id=store, status="in_progress")
    assert (row["file_id"], row["last_error"]) == (file, None)
    assert row["key_id"] is not None
    listed = client.vector_stores.files.list(store).data[0]
    assert listed.status == "in_progress"
    route.places[0].handle.becomes(Behaviour(body=VECTOR))
    until(lambda: client.vector_stores.files.retrieve(file, vector_store_id=store).status == "completed")
    assert waits() is None


def test_what_failed_is_listed_and_tried_again(documents_server: Server, client: openai.OpenAI, routes: Routes) -> None:
    """With the attributes that it was added with; what is read already is not read again."""
    route = routes(UNFIT)
    store, file = added(client, route.name)
    until(lambda: client.vector_stores.files.retrieve(file, vector_store_id=store).status == "failed")
    (row,) = entries(documents_server, status="failed", collection_id=store)
    assert (row["file_id"], row["filename"], row["last_error"]["code"]) == (file, "gates.md", "server_error")
    assert row["key_id"] is None
    route.places[0].handle.becomes(Behaviour(body=VECTOR))
    answer = documents_server.admin.post(f"/collections/{store}/documents/retry", json={})
    assert answer.json() == {"collection_id": store, "file_ids": [file]}
    done = until(
        lambda: (one := client.vector_stores.files.retrieve(file, vector_store_id=store)).status == "completed" and one
    )
    assert done.attributes == {"plant": "north"}
    assert documents_server.admin.post(f"/collections/{store}/documents/retry", json={}).json()["file_ids"] == []
    assert any(one["action"] == "collection.retry" for one in documents_server.admin.get("/audit").json()["data"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"file_ids": ["file-nobody"]}, "file_ids"),
        ({"file_ids": []}, "file_ids"),
        ({"key_id": "key_nobody"}, "key_id"),
        ({"files": ["file-1"]}, "files"),
    ],
)
def test_a_retry_that_cannot_be_is_refused_by_name(
    documents_server: Server, client: openai.OpenAI, body: Any, param: str
) -> None:
    store = client.vector_stores.create(name="refused").id
    answer = documents_server.admin.post(f"/collections/{store}/documents/retry", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert documents_server.admin.get("/documents", params={"after": "x"}).json()["error"]["param"] == "after"


def test_the_command_shows_all_of_it(documents_server: Server, client: openai.OpenAI) -> None:
    """Collections, files that failed, another attempt, bounds, advice, and snapshots until they are a collection again."""

    def shell(*arguments: str) -> str:
        where = ["--url", documents_server.url, "--key", ADMIN_KEY]
        whole = [sys.executable, "-m", "admin", "collections", *arguments, *where]
        done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False, env={}, timeout=50)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    store = client.vector_stores.create(name="shelf").id
    for name, text in (("gates.md", b"The gate closes in four seconds."), ("broken.pdf", b"%PDF-1.7 and no more")):
        client.vector_stores.files.upload_and_poll(vector_store_id=store, file=(name, text))
    assert f"{store}  shelf  2 files (1 failed), 1 passages" in shell("list")
    said = shell("documents", "--collection", "shelf", "--status", "failed")
    assert said.count("\n") == 1
    assert "broken.pdf  failed: invalid_file, The PDF is damaged" in said
    assert shell("retry", "shelf").startswith("1 files of ")
    assert "quota_passages: 5" in shell("bound", "shelf", "--passages", "5", "--mb", "1")
    shown = json.loads(shell("show", "shelf", "--json"))
    assert (shown["quota_passages"], shown["quota_bytes"], shown["recall"]) == (5, 1_000_000, {})
    assert "quota_passages" not in shell("bound", "shelf", "--passages", "0")
    assert "1000000 passages: files of " in shell("advice", "shelf", "--rows", "1000000")
    made = json.loads(shell("snapshot", "shelf", "--json"))
    assert made["id"] in shell("snapshots", "shelf")
    assert shell("delete", "shelf") == f"{store} is deleted\n"
    restored = json.loads(shell("restore", store, made["id"], "--json"))
    assert (restored["name"], restored["documents"]["completed"]) == ("shelf", 1)


def test_pages_and_reach_hold(database: Database) -> None:
    """Newest first, page by page, of who asks alone; what is deleted is not there."""
    ours, theirs = new_collection(database, ANN), new_collection(database, EVE)
    for number in range(5):
        attach(database, ours, f"file-{number}")
    attach(database, theirs, "file-x")
    first = database.read(lambda tx: backlog.listed(tx, 3, team_id=ANN.team_id))
    rest = database.read(lambda tx: backlog.listed(tx, 3, team_id=ANN.team_id, after=first.data[-1].id))
    assert [one.source_id for one in (*first.data, *rest.data)] == [f"file-{n}" for n in (4, 3, 2, 1, 0)]
    assert (first.has_more, rest.has_more) == (True, False)
    database.write(lambda tx: collection_store.retire(tx, ours.id))
    assert [one.source_id for one in database.read(lambda tx: backlog.listed(tx, 9)).data] == ["file-x"]


def test_a_retry_begins_with_all_attempts(database: Database) -> None:
    """And is on the account of the store's key; who is read now is left alone."""
    collection = new_collection(database, ANN)
    document = attach(database, collection, "file-1")
    other = attach(database, collection, "file-2")
    database.write(lambda tx: job_store.add(tx, collection.id, other.id, ANN.key_id))
    database.write(lambda tx: document_store.end(tx, document, "failed", code="server_error", message="it was away"))
    assert database.write(lambda tx: backlog.retry(tx, collection)) == ["file-1"]
    job = database.read(lambda tx: job_store.of_document(tx, document.id))
    assert job is not None
    assert (job.payer, job.attempts) == (ANN.key_id, 0)
    owner = Owner("session", "host")
    mine = database.write(lambda tx: job_store.claim(tx, job, owner))
    assert mine is not None
    entry = next(one for one in database.read(lambda tx: backlog.listed(tx, 9)).data if one.source_id == "file-1")
    assert (entry.working, entry.waiting, entry.status, entry.error_code) == (True, None, "in_progress", None)
    database.write(lambda tx: job_store.later(tx, mine, 5.0, "the model is away", counted=True))
    waiting = database.read(lambda tx: job_store.put_off(tx, [document.id, other.id]))
    assert {id_: (one.reason, one.attempts) for id_, one in waiting.items()} == {document.id: ("the model is away", 1)}
