"""Rollouts by hand and by mistake: what is refused, what a person may do, and what stands in the audit afterwards."""

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.fixtures.rollouts import Traffic, begin, over, weights
from tests.fixtures.server import Json, Server, models
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

Arms = Callable[..., str]
JUDGED = {"metric": "judged", "max_regression": 0.1, "judge": {"model": "chat", "key_id": "key_none"}}

pytestmark = pytest.mark.timeout(120)


def body(**fields: Any) -> Json:
    usual = {"target": {"kind": "route", "name": "none"}, "champion": "chat", "challenger": "embed"}
    return usual | {"gates": [{"metric": "error_rate", "max_regression": 0.02}]} | fields


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"challenger": "nobody"}, 404, "challenger"),
        ({"champion": "7"}, 404, "name"),
        ({"challenger": "chat"}, 400, "challenger"),
        ({"target": {"kind": "retriever", "name": "none"}, "champion": "1"}, 404, "name"),
        ({"gates": [{"metric": "empty_rate", "max_regression": 0.1}]}, 400, "gates.0.metric"),
        ({"gates": [{**JUDGED, "metric": "preferred", "max_regression": 0.5}]}, 400, "gates.0.max_regression"),
        ({"max_requests": 0}, 400, "max_requests"),
        ({"target": {"kind": "model", "name": "x"}, "champion": "1", "challenger": "2"}, 404, "target.name"),
        ({"target": {"kind": "prompt", "name": "x"}, "champion": "1", "challenger": "2"}, 404, "name"),
        ({"target": {"kind": "route", "name": "a/b"}}, 400, "target.name"),
        ({"target": {"kind": "thing", "name": "x"}}, 400, "target.kind"),
        ({"strategy": "big_bang"}, 400, "strategy"),
        ({"steps": [0.5, 0.25]}, 400, "steps"),
        ({"steps": [0.1, 2]}, 400, "steps.1"),
        ({"steps": []}, 400, "steps"),
        ({"steps": [1.0]}, 400, "steps"),
        ({"gates": [{"metric": "beauty", "max_regression": 0}]}, 400, "gates.0.metric"),
        ({"gates": [{"metric": "agreement", "max_regression": 0}]}, 400, "gates.0.metric"),
        ({"gates": [{"metric": "error_rate", "max_regression": 2}]}, 400, "gates.0.max_regression"),
        ({"gates": [{"metric": "error_rate", "max_regression": 0}] * 2}, 400, "gates"),
        ({"gates": [{"metric": "feedback", "max_regression": 0, "range": [5, 1]}]}, 400, "gates.0.range"),
        ({"gates": [{"metric": "error_rate"}]}, 400, "gates.0.max_regression"),
        ({"gates": [{"metric": "output_drift", "max_regression": 0}]}, 400, "gates.0.max_regression"),
        (
            {"gates": [{"metric": "input_drift", "max_regression": 0.1, "reference": "training"}]},
            400,
            "gates.0.reference",
        ),
        ({"gates": [{"metric": "error_rate", "max_regression": 0.1, "columns": ["x"]}]}, 400, "gates.0.columns"),
        ({"gates": [{"metric": "demographic_parity", "max_regression": 0.1, "group": "sex"}]}, 400, "gates.0.metric"),
        ({"gates": [{"metric": "error_rate", "max_regression": 0.1, "group": "sex"}]}, 400, "gates.0.group"),
        ({"gates": [{"metric": "judged", "max_regression": 0.1}]}, 400, "gates.0.judge"),
        ({"gates": [{**JUDGED, "metric": "error_rate"}]}, 400, "gates.0.judge"),
        ({"gates": [JUDGED], "strategy": "shadow"}, 400, "gates.0.judge"),
        ({"gates": [JUDGED]}, 404, "gates.0.judge.key_id"),
        ({"alpha": 0}, 400, "alpha"),
        ({"bake_s": -1}, 400, "bake_s"),
        ({"speed": 1}, 400, "speed"),
        ({"champion": None}, 400, "champion"),
        ({"challenger": [2]}, 400, "challenger"),
    ],
)
def test_what_cannot_be_meant_is_refused(rolling_server: Server, fields: Json, status: int, param: str) -> None:
    """With the field, before anything is made."""
    refused = rolling_server.admin.post("/rollouts", json=body(**fields))
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text
    assert rolling_server.admin.get("/routes/none").status_code == 404


def test_there_is_one_rollout_at_a_time(rolling_server: Server, arm: Arms) -> None:
    """A second one for the same name is told so, until the first is over."""
    first, second, third = arm(), arm(), arm()
    begun = begin(rolling_server, "alone", first, second)
    again = body(target={"kind": "route", "name": "alone"}, champion=first, challenger=third)
    refused = rolling_server.admin.post("/rollouts", json=again)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "rollout_active")
    assert [one["model"] for one in rolling_server.admin.get("/routes/alone").json()["versions"]] == [first, second]

    assert rolling_server.admin.post(f"/rollouts/{begun['id']}/rollback").json()["state"] == "rolled_back"
    assert rolling_server.admin.post("/rollouts", json=again).status_code == 201


def test_a_person_may_pause_and_decide(rolling_server: Server, arm: Arms) -> None:
    """Pause, resume, promote: each seen at once, each in the audit; what is over is over."""
    server = rolling_server
    id_ = begin(server, "by-hand", arm(), arm(), steps=[0.25, 1.0], sticky="user")["id"]
    assert server.admin.get("/routes/by-hand").json()["sticky"] == "user"

    assert server.admin.post(f"/rollouts/{id_}/pause", json={"reason": "lunch"}).json()["reason"] == "lunch"
    assert weights(server, "by-hand") == {1: 0.75, 2: 0.25}
    assert server.admin.post(f"/rollouts/{id_}/resume").json()["state"] == "running"
    shown = server.admin.post(f"/rollouts/{id_}/promote", json={"reason": "I know it"}).json()
    assert (shown["state"], shown["reason"], shown["share"]) == ("promoted", "I know it", 1)
    assert weights(server, "by-hand") == {1: 0, 2: 1}
    assert server.admin.get("/routes/by-hand").json()["sticky"] == "key"

    for action in ("pause", "resume", "promote", "rollback"):
        assert server.admin.post(f"/rollouts/{id_}/{action}").status_code == 409
        assert server.admin.post(f"/rollouts/rol_none/{action}").status_code == 404
    found = server.admin.get("/audit", params={"subject": id_}).json()["data"]
    assert [one["action"] for one in found] == ["rollout.promote", "rollout.resume", "rollout.pause", "rollout.create"]
    listed = server.admin.get("/rollouts", params={"state": "promoted"}).json()["data"]
    assert id_ in [one["id"] for one in listed]


def test_who_changes_the_weights_has_the_last_word(rolling_server: Server, arm: Arms) -> None:
    """A rollout whose weights were moved by somebody else pauses, and says why."""
    server = rolling_server
    id_ = begin(server, "moved", arm(), arm())["id"]
    server.admin.patch("/routes/moved", json={"weights": {"1": 0.1, "2": 0.9}})

    shown = await_state(server, id_, "paused")
    assert "changed by hand" in shown["reason"]
    assert weights(server, "moved") == pytest.approx({1: 0.1, 2: 0.9})
    server.admin.post(f"/rollouts/{id_}/resume")
    assert weights(server, "moved") == pytest.approx({1: 0.8, 2: 0.2})


def test_a_rollout_that_takes_too_long_pauses(rolling_server: Server, arm: Arms) -> None:
    """Nothing can be said without requests: that is said."""
    id_ = begin(rolling_server, "quiet", arm(), arm(), max_s=0.5)["id"]
    shown = await_state(rolling_server, id_, "paused")
    assert (shown["verdict"], shown["reason"]) == ("inconclusive", "inconclusive after 0.5 s: error_rate")


def test_a_rollout_without_gates_goes_by_time(rolling_server: Server, arm: Arms) -> None:
    """Blue and green, with nothing in the way."""
    id_ = begin(rolling_server, "green", arm(), arm(), strategy="blue_green", gates=[], steps=None, bake_s=0)["id"]
    await_state(rolling_server, id_, "promoted")
    assert weights(rolling_server, "green") == {1: 0, 2: 1}


def test_feedback_decides_between_prompts(rolling_server: Server, arm: Arms) -> None:
    """People like the new prompt less: it goes, although nothing failed."""
    server, model = rolling_server, arm()
    for version in ("Be kind.", "Be rude."):
        path = "/prompts" if version == "Be kind." else "/prompts/tone/versions"
        made = {"messages": [{"role": "system", "content": version}], "model": model}
        name = {"name": "tone"} if path == "/prompts" else {}
        assert server.admin.post(path, json=made | name).status_code == 201
    gates = [{"metric": "feedback", "max_regression": 0.1}]
    id_ = begin(
        server, "tone", "1", "2", target={"kind": "prompt", "name": "tone"}, strategy="ab", gates=gates, steps=None
    )["id"]

    deadline = time.monotonic() + 60
    while (shown := server.admin.get(f"/rollouts/{id_}").json())["state"] == "running":
        assert time.monotonic() < deadline, shown
        rows = []
        for number in range(40):
            asked = {"prompt": {"id": "tone"}, "user": f"u{number}-{time.monotonic_ns()}"}
            answer = server.post("/v1/chat/completions", asked)
            assert answer.status_code == 200, answer.text
            rows.append(answer.headers["x-request-id"])
        records = recorded(server, rows)
        data = [{"id": id_, "score": int(records[id_]["prompt_version"] == "tone@1")} for id_ in rows]
        server.post("/v1/feedback/bulk", data)
    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("feedback: ")
    assert server.admin.get("/prompts/tone").json()["versions"][1]["share"] == 0


def test_a_bandit_moves_requests_to_the_better_arm(rolling_server: Server, arm: Arms) -> None:
    """And ends when the evidence says so."""
    worse = Behaviour(status=500)
    id_ = begin(rolling_server, "bandit", arm(worse), arm(), strategy="bandit", steps=None, bake_s=0)["id"]
    shown = Traffic(rolling_server, "bandit").until(id_, over)
    assert shown["state"] == "promoted", shown


def test_the_webhooks_hear_of_it(upstream: Upstream, arm: Arms, tmp_path: Path) -> None:
    """As CloudEvents, of what they want to hear."""
    with listener() as (url, heard):
        hook = {"url": url, "events": ["rollout", "feedback"], "format": "cloudevents"}
        server = Server({"models": models(upstream), "alerts": {"webhooks": [hook]}}, tmp_path).start()
        try:
            name = arm()
            id_ = begin(server, "told", name, arm())["id"]
            server.admin.post(f"/rollouts/{id_}/rollback", json={"reason": "no"})
            said = Traffic(server, name).ask().headers["x-request-id"]
            server.post("/v1/feedback", {"id": said, "score": 1, "comment": "private"})
            deadline = time.monotonic() + 20
            while len(heard) < 3:
                assert time.monotonic() < deadline, heard
                time.sleep(0.05)
        finally:
            server.stop()
    assert [one["type"] for one in heard] == [
        "penstock.rollout.running",
        "penstock.rollout.rolled_back",
        "penstock.feedback.said",
    ]
    assert heard[1]["data"]["reason"] == "no"
    assert (heard[2]["data"]["id"], "comment" in heard[2]["data"]) == (said, False)


def await_state(server: Server, id_: str, state: str) -> Json:
    deadline = time.monotonic() + 30
    while (shown := server.admin.get(f"/rollouts/{id_}").json())["state"] != state:
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    found: Json = shown
    return found


def recorded(server: Server, ids: list[str]) -> dict[str, Json]:
    deadline = time.monotonic() + 30
    while True:
        found = {one["id"]: one for one in server.admin.get("/requests", params={"limit": 200}).json()["data"]}
        if set(ids) <= found.keys():
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


class listener:  # noqa: N801 — a block of a test
    """Something that takes webhooks: its address, and what it has heard."""

    def __enter__(self) -> tuple[str, list[Json]]:
        heard: list[Json] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/", heard

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
