"""From the answers of a large model to a small one that takes its work over where it is sure: less is spent, and the same is said.

The large model is a server that labels tickets by their words and counts what it is asked.
"""

import itertools
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

import httpx
import pytest

from inference.distil.labels import example, last_text, written
from inference.distil.worker import _threshold
from tests.fixtures.rollouts import over
from tests.fixtures.server import ADMIN_KEY, ROOT, Server
from tests.fixtures.threaded import served

Json = dict[str, Any]

pytestmark = pytest.mark.timeout(240)

TOPICS = {
    "billing": ("the invoice", "my credit card", "a double charge", "the refund", "the yearly price"),
    "shipping": ("the parcel", "the courier", "the delivery address", "the tracking number", "the warehouse"),
    "password": ("my password", "the login page", "the two-factor code", "a locked account", "the reset e-mail"),
}
FORMS = (
    "I have a question about {}.",
    "Something is wrong with {}, please help me.",
    "Why does nobody answer me about {}?",
    "Hello, {} is not what I expected.",
    "Could you look into {} today?",
    "We talked about {} yesterday on the phone.",
    "There was a mistake with {} last week.",
)
TICKETS = [
    (form.format(thing), topic) for topic, things in TOPICS.items() for thing, form in itertools.product(things, FORMS)
]
URGENCY = {"billing": 2.5, "shipping": 5, "password": 9}
ODD = "qwertz 17 zwölf Boxkämpfer"


class Labeller(ThreadingHTTPServer):
    """The large model. `swapped`: it has changed its mind about two of the labels."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = 0
        self.swapped = False

    def label(self, text: str) -> str:
        found = next((topic for topic, things in TOPICS.items() if any(thing in text for thing in things)), "other")
        return {"billing": "shipping", "shipping": "billing"}.get(found, found) if self.swapped else found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Labeller

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked += 1
        text = body["messages"][-1]["content"]
        label = self.server.label(text)
        if body["model"] == "coin":
            label = ("heads", "tails")[crc32(text.encode()) & 1]
        elif body["model"] == "urgency":
            label = json.dumps({"urgency": URGENCY.get(label, 0)})
        message = {"role": "assistant", "content": label}
        usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        frame = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        said = json.dumps({**frame, "choices": choices, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def labeller() -> Iterator[Labeller]:
    with served(Labeller()) as server:
        yield server


@pytest.fixture(scope="module")
def desk(labeller: Labeller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`triage` is the large model, at two dollars for a million tokens; `coin` says what nobody can learn, `urgency` a number.

    All of it is recorded.
    """
    large = {
        "id": "large",
        "base_url": f"http://127.0.0.1:{labeller.server_port}/v1",
        "model": "large",
        "price": {"input": 2, "output": 2},
    }
    config = {
        "models": [
            {"name": "triage", "deployments": [{**large, "id": "triage"}]},
            {"name": "coin", "deployments": [{**large, "id": "coin", "model": "coin"}]},
            {"name": "urgency", "deployments": [{**large, "id": "urgency", "model": "urgency"}]},
        ],
        "records": {"content": {"enabled": True}},
        "predictions": {"timeout_s": 20},
    }
    server = Server(config, tmp_path_factory.mktemp("distil")).start()
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def ask(server: Server, model: str, text: str, **fields: Any) -> httpx.Response:
    answer = server.post("/v1/chat/completions", {**server.ask(model, text), **fields})
    assert answer.status_code == 200, answer.text
    return answer


def said(answer: httpx.Response) -> str:
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def recorded(server: Server, model: str, answers: int) -> None:
    """Until so many of a model are in the database."""
    deadline = time.monotonic() + 60
    while True:
        with sqlite3.connect(server.data / "penstock.db", timeout=20) as db:
            query = "SELECT count(*) FROM request_contents WHERE json_extract(request, '$.model') = ?"
            [kept] = db.execute(query, (model,)).fetchone()
        if kept >= answers:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def distilled(desk: Server) -> Json:
    """What was answered when the small model was made; `triage-small` is it, with the large one behind it."""
    for text, _ in TICKETS:
        ask(desk, "triage", text)
        ask(desk, "coin", text)
    recorded(desk, "triage", len(TICKETS))
    recorded(desk, "coin", len(TICKETS))
    body = {"route": "triage", "name": "tickets", "agreement": 0.9, "alias": "champion", "seed": 3}
    answer = desk.admin.post("/distil", json=body)
    assert answer.status_code == 201, answer.text
    small = {
        "name": "triage-small",
        "deployments": [{"id": "small", "provider": "distilled", "model": "tickets"}],
        "fallbacks": ["triage"],
    }
    made = desk.admin.post("/models", json=small)
    assert made.status_code == 201, made.text
    told: Json = answer.json()
    return told


def test_a_model_is_learnt_held_against_what_it_has_not_seen_and_registered(distilled: Json) -> None:
    assert distilled["rows"] == len(TICKETS)
    metrics = distilled["metrics"]
    assert metrics["agreement"] >= 0.9
    assert metrics["coverage"] >= 0.5
    assert metrics["rows_train"] + metrics["rows_held_out"] == len(TICKETS)
    version = distilled["version"]
    assert version["aliases"] == ["champion"]
    assert version["runtime"] == "onnx"
    lineage = version["lineage"]
    assert lineage["data"]["revision"].startswith("sha256:")
    assert (lineage["data"]["source"], lineage["data"]["rows"], lineage["seed"]) == (
        "answers of triage",
        len(TICKETS),
        3,
    )
    assert lineage["metrics"] == metrics
    facts = version["facts"]["distilled"]
    assert (facts["route"], facts["threshold"]) == ("triage", distilled["threshold"])


@pytest.mark.usefixtures("distilled")
def test_it_answers_where_it_is_sure_and_leaves_the_rest_to_the_large_one(desk: Server, labeller: Labeller) -> None:
    """Nothing is spent on the first, and nobody notices the second, in any form of answer."""
    before, answers = labeller.asked, []
    for text, topic in TICKETS[::4]:
        answer = ask(desk, "triage-small", text)
        answers.append((answer, topic))
        assert (answer.headers["x-penstock-deployment"] == "small") == ("confidence" in answer.json())
    small = [(answer, topic) for answer, topic in answers if answer.headers["x-penstock-deployment"] == "small"]
    assert len(small) >= len(answers) / 2
    assert labeller.asked - before == len(answers) - len(small)
    assert sum(said(answer) == topic for answer, topic in small) / len(small) >= 0.9
    answer = ask(desk, "triage-small", ODD)
    assert (said(answer), answer.headers["x-penstock-deployment"]) == ("other", "triage")
    assert answer.headers["x-penstock-fallback"] == "unfit"
    assert float(answer.headers["x-penstock-cost-usd"]) > 0
    answer, topic = small[0]
    text = next(text for text, label in TICKETS[::4] if label == topic)
    streamed = desk.post("/v1/chat/completions", {**desk.ask("triage-small", text), "stream": True})
    events = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    words = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(words) == topic


@pytest.mark.usefixtures("distilled")
def test_it_is_a_routers_classifier(desk: Server) -> None:
    """Where it is sure of a label, the model for that label answers; an odd text goes to the usual one."""
    homes = {"billing": "triage", "shipping": "coin"}
    router = {"classifier": "tickets", "labels": homes, "otherwise": "urgency", "threshold": 0.4, "timeout_s": 30}
    made = desk.admin.post("/models", json={"name": "sorted", "router": router})
    assert made.status_code == 201, made.text
    went = [
        (ask(desk, "sorted", text).headers["x-penstock-model"], homes.get(topic, "urgency"))
        for text, topic in TICKETS[::4]
    ]
    assert sum(model == home for model, home in went) / len(went) >= 0.9, went


@pytest.mark.usefixtures("distilled")
def test_what_is_spent_falls_under_a_canary(desk: Server, labeller: Labeller) -> None:
    """The small model takes the route over by evidence: no more errors, and two thirds less to pay."""
    body = {
        "target": {"kind": "route", "name": "tickets-route"},
        "strategy": "canary",
        "champion": "triage",
        "challenger": "triage-small",
        "steps": [0.5, 1.0],
        "bake_s": 0.2,
        "min_requests": 10,
        "gates": [
            {"metric": "error_rate", "max_regression": 0.1},
            {"metric": "cost_usd", "max_regression": -0.2},
        ],
    }
    begun = desk.admin.post("/rollouts", json=body)
    assert begun.status_code == 201, begun.text
    asked, before = 0, labeller.asked
    deadline = time.monotonic() + 100
    while True:
        for text, _ in TICKETS[::3]:
            ask(desk, "tickets-route", text)
            asked += 1
        shown = desk.admin.get(f"/rollouts/{begun.json()['id']}").json()
        if over(shown):
            break
        assert time.monotonic() < deadline, shown
    assert shown["state"] == "promoted", shown
    assert labeller.asked - before < asked
    evidence = {one["metric"]: one for one in shown["evidence"]}
    assert evidence["cost_usd"]["challenger"] < evidence["cost_usd"]["champion"] / 2


@pytest.mark.usefixtures("distilled")
def test_a_regression_goes_back_by_itself(desk: Server, labeller: Labeller) -> None:
    """The large model means something else by its labels now: the shadow of the small one shows it, and it never answers anybody."""
    body = {
        "target": {"kind": "route", "name": "tickets-drifted"},
        "strategy": "shadow",
        "champion": "triage",
        "challenger": "triage-small",
        "bake_s": 60,
        "min_requests": 10,
        "gates": [{"metric": "agreement", "max_regression": 0.1}],
    }
    labeller.swapped = True
    try:
        begun = desk.admin.post("/rollouts", json=body)
        assert begun.status_code == 201, begun.text
        deadline = time.monotonic() + 60
        while True:
            for text, topic in TICKETS[::5]:
                answer = ask(desk, "tickets-drifted", text)
                assert said(answer) == labeller.label(text), topic
            shown = desk.admin.get(f"/rollouts/{begun.json()['id']}").json()
            if over(shown):
                break
            assert time.monotonic() < deadline, shown
    finally:
        labeller.swapped = False
    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("agreement: ")


@pytest.mark.usefixtures("distilled")
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"route": "nobody"}, 400, "too_few_answers"),
        ({"route": "coin", "coverage": 0.9}, 409, "quality_gate"),
        ({"least_of_a_label": 10_000}, 400, "no_labels"),
        ({"kind": "regressor"}, 400, "too_few_answers"),
        ({"name": "a b"}, 400, "invalid_value"),
        ({"held_out": 0.9}, 400, "invalid_value"),
    ],
)
def test_what_is_not_good_enough_is_not_registered(desk: Server, change: Json, status: int, code: str) -> None:
    body = {"route": "triage", "name": "refused", **change}
    answer = desk.admin.post("/distil", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert desk.admin.get("/registry/refused").status_code == 404


def command(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    reach = ["--url", server.url, "--key", ADMIN_KEY]
    run = [sys.executable, "-m", "admin", "distil", *words, *reach]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_distils_a_regressor_and_puts_it_in_front(desk: Server, labeller: Labeller) -> None:
    """`penstock distil`: a number in JSON is learnt, served under a name of its own, and asked of nobody else."""
    for text, _ in TICKETS:
        ask(desk, "urgency", text)
    recorded(desk, "urgency", len(TICKETS))
    words = ("--kind", "regressor", "--field", "urgency", "--agreement", "0.8", "--serve-as", "urgency-small")
    done = command(desk, "urgency", "urgencies", *words, "--rollout", "shadow", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == len(TICKETS)
    assert told["metrics"]["agreement"] >= 0.8
    assert told["metrics"]["coverage"] == 1
    assert told["version"]["aliases"] == ["champion"]
    assert desk.admin.get(f"/rollouts/{told['rollout']}").json()["target"]["name"] == "urgency-distilled"

    before, off = labeller.asked, []
    for text, topic in TICKETS[::6]:
        answer = ask(desk, "urgency-small", text)
        assert answer.headers["x-penstock-deployment"] == "urgency-small"
        off.append(abs(json.loads(said(answer))["urgency"] - URGENCY[topic]))
    assert labeller.asked == before
    assert sum(off) / len(off) < 2


@pytest.mark.usefixtures("distilled")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nobody", "few"), "answers"),
        (("coin", "few", "--coverage", "0.9"), "agreement"),
        (("triage", "few", "--kind", "regressor"), "answers"),
    ],
)
def test_the_command_says_why_it_distils_nothing(desk: Server, words: tuple[str, ...], why: str) -> None:
    """One line, no trace, and nothing is registered or served."""
    done = command(desk, *words, "--serve-as", "few-small")
    assert done.returncode == 1, done.stdout
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert desk.admin.get("/registry/few").status_code == 404
    assert desk.admin.get("/models/few-small").status_code == 404


def chat(model: str = "m", content: Any = "hello", answer: Any = "yes", **said: Any) -> tuple[str, str]:
    request = {"model": model, "messages": [{"role": "user", "content": content}]}
    choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop", **said.pop("choice", {})}
    return json.dumps(request), json.dumps({"choices": [choice], **said})


def test_an_example_is_a_whole_answer_of_that_model_and_no_other() -> None:
    assert example(*chat(), "m", "classifier", None) == ("hello", "yes")
    assert example(*chat(answer='{"label": "a"}'), "m", "classifier", "label") == ("hello", "a")
    assert example(*chat(answer='```json\n{"label": true}\n```'), "m", "classifier", "label") == ("hello", "true")
    assert example(*chat(answer=" 3.5 "), "m", "regressor", None) == ("hello", 3.5)
    refused = [
        chat("other"),
        chat(answer="x" * 300),
        chat(answer=None),
        chat(answer=""),
        chat(choice={"finish_reason": "length"}),
        chat(system_fingerprint="distilled:m:1"),
        chat(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        ("not json", "{}"),
        (chat()[0], "[]"),
        (chat()[0], '{"error": {}}'),
    ]
    for request, answer in refused:
        assert example(request, answer, "m", "classifier", None) is None, (request, answer)
    assert example(*chat(answer="much"), "m", "regressor", None) is None
    assert example(*chat(answer="words"), "m", "classifier", "label") is None
    assert last_text({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}) == "a"
    assert written("a", "label") == '{"label":"a"}'
    assert written(2.5, None) == "2.5"


def test_the_threshold_is_the_least_that_is_good_enough() -> None:
    sure = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert _threshold(sure, [True, True, True, True, False], 0.8) == 0.5
    assert _threshold(sure, [True, True, True, False, False], 0.9) == 0.7
    assert _threshold(sure, [False] * 5, 0.9) is None
    assert _threshold([0.5, 0.5], [True, False], 0.9) is None
