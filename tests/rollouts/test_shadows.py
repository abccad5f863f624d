"""Shadows of routes: the challenger sees copies, nobody sees the challenger, and whether the two agree is what counts."""

import json
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.exchange import Exchange
from gateway.mirroring import Heard, agreement
from tests.fixtures.rollouts import ERRORS, Traffic, begin, over, weights
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

Arms = Callable[..., str]

pytestmark = pytest.mark.timeout(120)

SAME = Behaviour(text="the same to everybody")
AGREE = {"metric": "agreement", "max_regression": 0.1}


def shadow(server: Server, name: str, champion: str, challenger: str, **fields: Any) -> Any:
    return begin(server, name, champion, challenger, strategy="shadow", steps=None, gates=[ERRORS, AGREE], **fields)


def test_a_shadow_that_agrees_takes_over(rolling_server: Server, arm: Arms) -> None:
    """All answers are the champion's until then; copies belong to no client and are found by what they are copies of."""
    server, champion, challenger = rolling_server, arm(SAME), arm(SAME)
    id_ = shadow(server, "alike", champion, challenger)["id"]
    assert weights(server, "alike") == {1: 1, 2: 0}
    traffic = Traffic(server, "alike")

    shown = traffic.until(id_, over)

    assert shown["state"] == "promoted", shown
    assert {one["metric"]: one["challenger"] for one in shown["evidence"]}["agreement"] == 1
    copies = [one for one in server.admin.get("/requests", params={"limit": 500}).json()["data"] if one["shadow_of"]]
    mine = [one for one in copies if one["route_version"] == "alike@2"]
    assert mine
    assert {(one["key_id"], one["model"], one["agreement"]) for one in mine} == {("shadow", challenger, 1)}
    assert weights(server, "alike") == {1: 0, 2: 1}


@pytest.mark.parametrize(
    "different", [Behaviour(text="something else"), Behaviour(status=503)], ids=["words", "errors"]
)
def test_a_shadow_that_differs_does_not(rolling_server: Server, arm: Arms, different: Behaviour) -> None:
    """And no client has noticed anything."""
    name = f"unlike-{different.status}"
    id_ = shadow(rolling_server, name, arm(SAME), arm(different), bake_s=30)["id"]
    traffic = Traffic(rolling_server, name)

    shown = traffic.until(id_, over)

    assert shown["state"] == "rolled_back", shown
    assert shown["reason"].startswith("agreement: " if different.status == 200 else "error_rate: ")
    assert set(traffic.statuses) == {200}
    assert rolling_server.admin.get(f"/routes/{name}").json()["versions"][0]["share"] == 1


def test_a_copy_goes_through_the_guards_of_whose_words_it_has(rolling_server: Server, upstream: Upstream) -> None:
    """A key's own, too, though the copy is recorded for nobody."""
    server, tried = rolling_server, upstream.script(SAME)
    made = server.admin.post("/guards", json={"name": "of-a-key", "kind": "pii", "action": "redact"})
    assert made.status_code == 201, made.text
    key = server.new_key(name="guarded", metadata={"guards": ["of-a-key"]})
    shadow(server, "masked", f"s/{upstream.script(SAME).id}", f"s/{tried.id}", bake_s=60)
    body = {"model": "masked", "messages": [{"role": "user", "content": "write to ada@example.com"}]}
    deadline = time.monotonic() + 30
    while not tried.entries():
        assert server.post("/v1/chat/completions", body, key=key).status_code in {200, 404}  # until it is in force
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads(tried.entries()[0].body)["messages"][0]["content"] == "write to [EMAIL]"


def message(**fields: object) -> bytes:
    return json.dumps({"choices": [{"message": fields}]}).encode()


def streamed(*pieces: str) -> bytes:
    chunks = [json.dumps({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    return "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"]).encode()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (message(content="a  b"), message(content="a b\n"), 1.0),
        (message(content='{"a": 1}'), streamed('{"a"', ":1}"), 1.0),
        (message(content="yes"), message(content="no"), 0.0),
        (b'{"choices": [{"text": "x"}]}', b'{"choices": [{"text": "x"}]}', 1.0),
        (message(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), message(content=None), 0.0),
        (b"nonsense", message(content=""), None),
        (b'{"choices": 3}', message(content=""), None),
        (b"data: [1]", b"data: [1]", None),
    ],
)
def test_answers_are_compared_by_what_they_say(one: bytes, other: bytes, expected: float | None) -> None:
    """Streamed or not, whatever white space; what cannot be read says nothing."""

    class Nowhere:
        def respond(self, status: int, head: bytes, body: bytes) -> None: ...

    heard = []
    for answer in (one, other):
        each = Heard(cast("Exchange", Nowhere()))
        each.respond(200, b"", answer)
        heard.append(each)
    assert agreement(*heard) == expected
