"""What becomes of files, as server-sent events: over the real process, with a model that answers when it is let."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.fixtures.deployments import Routes
from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

EVENTS = {"accept": "text/event-stream"}
Event = tuple[str, Json]


@pytest.fixture(scope="module")
def server(documents_server: Server) -> Server:
    return documents_server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    bearer = {"authorization": f"Bearer {server.new_key()}"}
    with httpx.Client(base_url=server.base_url, headers=bearer, timeout=60) as client:
        yield client


def upload(client: httpx.Client, text: str = "A boiler.") -> str:
    made = client.post("/files", data={"purpose": "assistants"}, files={"file": ("a.txt", text.encode())})
    return str(made.json()["id"])


def created(client: httpx.Client, model: str | None = None) -> str:
    body = {"name": "watched"} | ({} if model is None else {"embedding_model": model})
    made = client.post("/vector_stores", json=body)
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


@contextmanager
def watched(client: httpx.Client, path: str) -> Iterator[Iterator[Event]]:
    with client.stream("GET", path, headers=EVENTS) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


def events(answer: httpx.Response) -> Iterator[Event]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@pytest.fixture
def held(server: Server, upstream: Upstream) -> Callable[[], str]:
    """A model that answers nobody for half a minute."""
    routes = Routes(server, upstream)
    return lambda: routes(Behaviour(headers_after_s=30)).name


def test_a_batch_is_watched_to_its_end(client: httpx.Client) -> None:
    """Each event is the object as a GET shows it then, and the last one says how it ended."""
    store = created(client)
    ids = [upload(client, f"Boiler {number}. " * 50) for number in range(5)]
    batch = client.post(f"/vector_stores/{store}/file_batches", json={"file_ids": ids}).json()
    path = f"/vector_stores/{store}/file_batches/{batch['id']}"
    with watched(client, path) as seen:
        told = list(seen)
    *before, (name, last) = told
    assert name == "completed"
    assert last == client.get(path).json()
    assert last["file_counts"]["completed"] == 5
    assert [each for each, _ in before] == ["progress"] * len(before)
    done = [view["file_counts"]["completed"] for _, view in told]
    assert done == sorted(set(done))


def test_one_that_has_ended_says_so_at_once(client: httpx.Client) -> None:
    store = created(client)
    file_id = upload(client)
    client.post(f"/vector_stores/{store}/files", json={"file_id": file_id})
    with watched(client, f"/vector_stores/{store}/files/{file_id}") as seen:
        (*_, (name, file)) = list(seen)
    assert (name, file["status"]) == ("completed", "completed")
    with watched(client, f"/vector_stores/{store}") as seen:
        assert [each for each, _ in seen] == ["completed"]


def test_a_cancelled_batch_and_a_deleted_store_end_their_streams(client: httpx.Client, held: Callable[[], str]) -> None:
    store = created(client, held())
    batch = client.post(f"/vector_stores/{store}/file_batches", json={"file_ids": [upload(client)]}).json()
    path = f"/vector_stores/{store}/file_batches/{batch['id']}"
    with watched(client, path) as seen, watched(client, f"/vector_stores/{store}") as also:
        assert next(seen)[0] == next(also)[0] == "progress"
        client.post(f"{path}/cancel")
        (*_, (name, view)) = list(seen)
        assert (name, view["file_counts"]["cancelled"]) == ("cancelled", 1)
    another = client.post(f"/vector_stores/{store}/files", json={"file_id": upload(client)}).json()
    with watched(client, f"/vector_stores/{store}/files/{another['id']}") as seen:
        assert next(seen)[0] == "progress"
        client.delete(f"/vector_stores/{store}")
        (*_, (name, view)) = list(seen)
    assert (name, view["error"]["code"]) == ("error", "vector_store_not_found")


def test_what_is_not_there_is_no_stream(client: httpx.Client) -> None:
    answer = client.get("/vector_stores/vs_nobody", headers=EVENTS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "vector_store_not_found")


def test_nobody_who_watches_keeps_a_server_from_ending(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = upstream.script(Behaviour(headers_after_s=60))
    deployment = {"id": "slow", "base_url": script.base_url, "model": "m", "api_key": "sk-up"}
    config = {"models": [{"name": "slow", "deployments": [deployment]}]}
    server = Server(config, tmp_path_factory.mktemp("watched")).start()
    bearer = {"authorization": f"Bearer {server.new_key()}"}
    with httpx.Client(base_url=server.base_url, headers=bearer, timeout=60) as client:
        store = created(client, "slow")
        client.post(f"/vector_stores/{store}/files", json={"file_id": upload(client)})
        with watched(client, f"/vector_stores/{store}") as seen:
            assert next(seen)[0] == "progress"
            began = time.monotonic()
            server.terminate()
            assert list(seen) == []
            assert time.monotonic() - began < 20, "30 s are what a drain may take"
    server.stop()
