"""Responses in the background when their process ends, or when it is not the one that is asked."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import openai
import pytest

from tests.fixtures.batches import chat_line, start
from tests.fixtures.server import Server, models
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour


def begin(server: Server, upstream: Upstream, behaviour: Behaviour) -> str:
    """A response in the background that has begun to speak."""
    handle = upstream.script(behaviour)
    body = {"model": f"s/{handle.id}", "input": "hi", "background": True, "stream": True}
    headers = {"authorization": f"Bearer {server.key}"}
    id_ = ""
    with server.http.stream("POST", "/v1/responses", json=body, headers=headers) as answer:
        for line in answer.iter_lines():
            if '"id":"resp_' in line:
                id_ = line.partition('"id":"')[2].partition('"')[0]
            if line == "event: response.output_text.delta":
                return id_
    raise AssertionError("it never began")


def get(server: Server, path: str, key: str | None = None) -> httpx.Response:
    return server.http.get(path, headers={"authorization": f"Bearer {key or server.key}"})


def over(server: Server, id_: str, key: str, *, wait_s: float = 25) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    while (found := get(server, f"/v1/responses/{id_}", key).json())["status"] in {"queued", "in_progress"}:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return dict(found)


def test_a_run_that_ends_with_its_process_has_failed(own_server: Server, upstream: Upstream) -> None:
    """Told to stop, the process says so itself; killed, the next one notices. What was kept can be heard, and nobody waits for more."""
    key = own_server.key
    slow = Behaviour(text="w", chunks=2000, gap_s=0.02)
    first = begin(own_server, upstream, slow)
    own_server.restart()
    stopped = over(own_server, first, key)
    assert (stopped["status"], stopped["error"]["code"]) == ("failed", "server_error")
    assert stopped["output"][0]["content"][0]["text"].startswith("w")
    heard = get(own_server, f"/v1/responses/{first}?stream=true", key).text
    assert "event: response.output_text.delta" in heard
    assert heard.rpartition("event: ")[2].startswith("response.failed")
    key = own_server.key
    second = begin(own_server, upstream, slow)
    own_server.kill()
    own_server.start()
    killed = over(own_server, second, key)
    assert (killed["status"], killed["error"]["code"]) == ("failed", "server_error")
    assert get(own_server, f"/v1/responses/{second}?stream=true", key).status_code == 200
    answer = own_server.post("/v1/responses", {"model": "chat", "input": "x", "previous_response_id": second}, key=key)
    assert answer.status_code == 200


def test_a_run_ends_before_the_process_waits_for_others(own_server: Server, upstream: Upstream) -> None:
    """Nothing tells the database any more that it is alive, so another process would find it lost while this one drains."""
    server = own_server
    line = upstream.script(Behaviour(held_after=-1))
    with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=0) as client:
        start(client, [chat_line("held", f"s/{line.id}")])
        line.wait(bool)
    id_ = begin(server, upstream, Behaviour(text="w", chunks=100, held_after=50))
    server.terminate()
    with closing(sqlite3.connect(server.data / "penstock.db")) as database:
        deadline = time.monotonic() + 20
        while database.execute("SELECT status FROM responses WHERE id = ?", (id_,)).fetchone() != ("failed",):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert line.entries()[0].outcome == "open"
    line.let_go()
    assert server.wait() == 0


@pytest.fixture(scope="module")
def pair(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers behind one port."""
    config = {"server": {"workers": 2}, "models": models(upstream)}
    server = Server(config, tmp_path_factory.mktemp("pair")).start()
    known = 0
    while known < 30:  # a worker may learn of the key a little later than the other one; chance says which is asked
        headers = {"authorization": f"Bearer {server.key}"}
        status = httpx.get(f"{server.base_url}/models", headers=headers, trust_env=False).status_code
        known = known + 1 if status == 200 else 0
    yield server
    server.stop()


def test_another_process_finds_follows_and_cancels_a_run(pair: Server, upstream: Upstream) -> None:
    """Which worker a connection reaches is chance: every connection here is a new one."""
    id_ = begin(pair, upstream, Behaviour(text="w", chunks=2000, gap_s=0.02))
    headers = {"authorization": f"Bearer {pair.key}"}
    for _ in range(8):
        found = httpx.get(f"{pair.base_url}/responses/{id_}", headers=headers, trust_env=False)
        assert found.json()["status"] in {"queued", "in_progress"}
    streams = [
        httpx.stream(
            "GET", f"{pair.base_url}/responses/{id_}?stream=true", headers=headers, trust_env=False, timeout=20
        )
        for _ in range(4)
    ]
    answers = [stream.__enter__() for stream in streams]
    cancelled = httpx.post(f"{pair.base_url}/responses/{id_}/cancel", headers=headers, trust_env=False)
    assert cancelled.json()["status"] == "cancelled"
    for stream, answer in zip(streams, answers, strict=True):
        told = [line for line in answer.iter_lines() if line.startswith("event: ")]
        assert told[:2] == ["event: response.created", "event: response.queued"]
        assert told[-1] == "event: response.incomplete"
        stream.__exit__(None, None, None)
    assert over(pair, id_, pair.key)["status"] == "cancelled"


def test_a_store_that_is_away_costs_no_answer(pair: Server) -> None:
    """It is given, and said not to be kept; what needs the history is told to come back."""
    first = pair.post("/v1/responses", {"model": "chat", "input": "hi"})
    assert (first.status_code, first.headers.get("x-penstock-stored")) == (200, None)
    with closing(sqlite3.connect(pair.data / "penstock.db")) as database:
        database.execute("ALTER TABLE responses RENAME TO gone")
    answer = pair.post("/v1/responses", {"model": "chat", "input": "hi"})
    assert (answer.status_code, answer.headers["x-penstock-stored"]) == (200, "false")
    streamed = pair.post("/v1/responses", {"model": "chat", "input": "hi", "stream": True})
    assert "event: response.completed" in streamed.text
    body = {"model": "chat", "input": "hi", "previous_response_id": first.json()["id"]}
    for refused in (pair.post("/v1/responses", body), get(pair, f"/v1/responses/{first.json()['id']}")):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    background = pair.post("/v1/responses", {"model": "chat", "input": "hi", "background": True})
    assert background.status_code == 503
    with closing(sqlite3.connect(pair.data / "penstock.db")) as database:
        database.execute("ALTER TABLE gone RENAME TO responses")
    assert get(pair, f"/v1/responses/{first.json()['id']}").status_code == 200
