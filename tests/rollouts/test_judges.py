"""Judged quality: a model scores a share of the answers, on the account of the key that the rollout names, and the worse version goes."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from admin.rollouts import pairs
from tests.fixtures.rollouts import Traffic, begin, over, weights
from tests.fixtures.server import Json, Server, models
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

Arms = Callable[..., str]

pytestmark = pytest.mark.timeout(180)


class Judge(BaseHTTPRequestHandler):
    """Likes what is not `rubbish`; says so with some words around it. Of two that are alike, it likes what it reads first."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        shown = json.loads(asked["messages"][-1]["content"])
        if "answer" in shown:
            words = f'I would say {{"score": {2 if "rubbish" in shown["answer"] else 9}}}.'
        else:
            poor = ["rubbish" in shown[name] for name in ("first", "second")]
            words = json.dumps({"better": "second" if poor == [True, False] else "first"})
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


PREFERRED = {"metric": "preferred", "max_regression": 0.2}


def test_a_version_whose_answers_lose_goes_back(judging: Server, arm: Arms) -> None:
    """The other version is asked the same, whoever answered; calls and verdicts are on the account of the key that was named."""
    payer = new_key(judging)
    good, bad = arm(Behaviour(text="a fine answer")), arm(Behaviour(text="rubbish"))
    id_ = begin(judging, "compared", good, bad, gates=[gate(payer) | PREFERRED], steps=[0.5, 1.0])["id"]

    shown = Traffic(judging, "compared").until(id_, over)

    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("preferred: the challenger has 0 ")
    heard = judging.admin.get("/feedback", params={"source": "judge:pairs:judge", "limit": 500}).json()["data"]
    assert 0.0 in {one["score"] for one in heard}
    deadline = time.monotonic() + 30
    while True:
        spent = judging.admin.get("/spend", params={"key_id": payer, "group_by": "model"}).json()["data"]
        called = {one["group"] for one in spent}
        if "judge" in called and called & {good, bad}:
            break
        assert time.monotonic() < deadline, spent
        time.sleep(0.1)


def test_what_is_read_first_does_not_win(judging: Server, arm: Arms) -> None:
    """A judge that always takes the first answer has said nothing: all are draws, which are as good as half won."""
    id_ = begin(judging, "alike", arm(), arm(), gates=[gate(new_key(judging)) | PREFERRED | {"max_regression": 0.45}])[
        "id"
    ]
    shown = Traffic(judging, "alike").until(id_, over)
    assert shown["state"] == "promoted", shown
    (evidence,) = shown["evidence"]
    assert (evidence["champion"], evidence["challenger"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("orders", "score"),
    [
        ((1.0, 0.0), 1.0),
        ((0.0, 1.0), 0.0),
        ((1.0, 1.0), 0.5),
        ((0.5, 0.5), 0.5),
        ((1.0, 0.5), 0.75),
        ((None, 1.0), None),
    ],
)
def test_a_win_counts_in_both_orders(orders: tuple[float | None, float | None], score: float | None) -> None:
    assert pairs.won(orders) == score


def test_the_other_version_is_asked_the_same() -> None:
    """Without what the first had set, or what would stream; nothing of what was not kept whole."""
    request = '{"model": "x", "messages": [{"role": "user", "content": "a"}], "stream": true, "temperature": 1, "n": 2}'
    answered, other = {"model": "a", "params": {"temperature": 1}}, {"model": "b", "params": {"top_p": 0.5}}
    asked = pairs.asked_again(request, answered, other)
    assert asked == {"messages": [{"role": "user", "content": "a"}], "n": 2, "top_p": 0.5, "model": "b"}
    assert pairs.asked_again(request[:40], answered, other) is None
    assert pairs.asked_again('{"input": "a"}', answered, other) is None
    assert pairs.worth('Well: {"better": "neither"}') == 0.5
    assert pairs.worth('{"better": "both"}') is None
