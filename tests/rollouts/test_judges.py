"""Judged quality: a model scores a share of the answers, on the account of the key that the rollout names, and the worse version goes."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.fixtures.rollouts import Traffic, begin, over, weights
from tests.fixtures.server import Json, Server, models
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

Arms = Callable[..., str]

pytestmark = pytest.mark.timeout(180)


class Judge(BaseHTTPRequestHandler):
    """Likes what is not `rubbish`; says so with some words around it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = json.loads(asked["messages"][-1]["content"])["answer"]
        words = f'I would say {{"score": {2 if "rubbish" in answer else 9}}}.'
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words}}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        body = json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def judging(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that records what is said, with a judge at a price."""
    judge = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = Thread(target=judge.serve_forever, daemon=True)
    thread.start()
    place = {"id": "judge", "base_url": f"http://127.0.0.1:{judge.server_port}/v1", "model": "j", "api_key": "sk-up"}
    priced = {"name": "judge", "deployments": [{**place, "price": {"input": 1.0, "output": 1.0}}]}
    config = {"models": [*models(upstream), priced], "records": {"content": {"enabled": True}}}
    server = Server(config, tmp_path_factory.mktemp("judging")).start()
    yield server
    alive = server.running()
    server.stop()
    judge.shutdown()
    judge.server_close()
    thread.join()
    assert alive, server.output


def gate(key: str, **fields: object) -> Json:
    judge = {"model": "judge", "key_id": key, "share": 1.0, "rubric": "no rubbish"}
    return {"metric": "judged", "max_regression": 0.1, "judge": {**judge, **fields}}


def new_key(server: Server) -> str:
    made: Json = server.admin.post("/keys", json={"name": "pays for the judge"}).json()
    return str(made["id"])


def test_a_version_that_a_judge_finds_worse_goes_back(judging: Server, arm: Arms) -> None:
    """Its words stand beside those of people, its calls are on the account of the key that was named, and nobody may pass for it."""
    payer = new_key(judging)
    good, bad = arm(Behaviour(text="a fine answer")), arm(Behaviour(text="rubbish"))
    id_ = begin(judging, "judged", good, bad, gates=[gate(payer)], steps=[0.5, 1.0])["id"]
    traffic = Traffic(judging, "judged")
    said = traffic.ask().headers["x-request-id"]

    shown = traffic.until(id_, over)

    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("judged: ")
    assert weights(judging, "judged") == {1: 1, 2: 0}
    heard = judging.admin.get("/feedback", params={"source": "judge:judge", "limit": 500}).json()["data"]
    assert {one["score"] for one in heard} == {0.2, 0.9}
    deadline = time.monotonic() + 30
    while not (spent := judging.admin.get("/spend", params={"key_id": payer}).json()["data"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert spent[0]["requests"] >= 1
    assert spent[0]["cost_usd"] > 0
    forged = judging.post("/v1/feedback", {"id": said, "score": 1, "source": "judge:judge"})
    assert (forged.status_code, forged.json()["error"]["param"]) == (400, "source")
