"""Feedback that names an answer by the id that stands in it, which is the one that users of SDKs have."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.answer_id import answer_id
from gateway.ids import uuid7_hex
from tests.fixtures.server import Json, Server
from tests.upstream.behaviour import Behaviour

Arms = Callable[..., str]


def answering(arm: Arms, id_: object) -> str:
    """A model whose every answer has this id."""
    said = {"role": "assistant", "content": "yes"}
    choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    body = {"object": "chat.completion", "choices": choices, "usage": usage, "id": id_}
    return arm(Behaviour(body=json.dumps(body)))


def ask(server: Server, model: str, key: str, **fields: Any) -> str:
    """The id of the request."""
    answer = server.post("/v1/chat/completions", server.ask(model, **fields), key=key)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


def say(server: Server, key: str, **body: Any) -> httpx.Response:
    return server.post("/v1/feedback", body, key=key)


def kept(server: Server, id_: str) -> list[Json]:
    found: list[Json] = server.admin.get("/feedback", params={"id": id_}).json()["data"]
    return found


def test_an_answer_has_two_names(rolling_server: Server, arm: Arms) -> None:
    """Its own id and its request's: one word under both, said again it changes nothing."""
    key, name = rolling_server.new_key(), f"chatcmpl-{uuid7_hex()}"
    request = ask(rolling_server, answering(arm, name), key)

    first = say(rolling_server, key, id=name, score=1)
    assert first.status_code == 200, first.text
    assert (first.json()["id"], first.json()["kind"]) == (name, "request")
    assert say(rolling_server, key, id=name, score=1).json() == first.json()
    assert say(rolling_server, key, id=request, label="right").json()["score"] == 1

    (one,) = kept(rolling_server, request)
    assert (one["id"], one["score"], one["label"]) == (request, 1, "right")
    assert kept(rolling_server, name) == [one]
    record = rolling_server.admin.get(f"/requests/{request}").json()
    assert record["answer_id"] == name


def test_an_id_is_that_of_whoever_asked(rolling_server: Server, arm: Arms) -> None:
    """Another key's answer with the same id is another answer, and one that only others have is not there."""
    mine, other = rolling_server.new_key(), rolling_server.new_key()
    name, alone = f"chatcmpl-{uuid7_hex()}", f"chatcmpl-{uuid7_hex()}"
    model = answering(arm, name)
    ask(rolling_server, answering(arm, alone), other)
    of_mine, of_other = ask(rolling_server, model, mine), ask(rolling_server, model, other)
    assert say(rolling_server, other, id=alone, score=0.5).status_code == 200

    assert say(rolling_server, mine, id=name, score=0.5).status_code == 200
    refused = say(rolling_server, mine, id=alone, score=0.5)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "subject_not_found")
    assert [one["id"] for one in kept(rolling_server, of_mine)] == [of_mine]
    assert kept(rolling_server, of_other) == []


def test_the_newest_is_meant_where_an_upstream_repeats_itself(rolling_server: Server, arm: Arms) -> None:
    """Some servers draw an answer's id from a thousand, or have one for all. Streams have ids as well."""
    key = rolling_server.new_key()
    ask(rolling_server, arm(), key)
    latest = ask(rolling_server, arm(), key, stream=True)
    deadline = time.monotonic() + 20
    while rolling_server.admin.get(f"/requests/{latest}").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert say(rolling_server, key, id="chatcmpl-scripted", score=1).status_code == 200
    assert kept(rolling_server, latest)[0]["score"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {"max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_other_apis_have_ids_of_their_own(
    rolling_server: Server, arm: Arms, path: str, body: Json, *, stream: bool
) -> None:
    """`resp_…` and `msg_…`, as the client sees them, whatever the upstream called its answer."""
    key = rolling_server.new_key()
    answer = rolling_server.post(path, {"model": arm(), "stream": stream, **body}, key=key)
    assert answer.status_code == 200, answer.text
    shown = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    first: Any = shown[0] if stream else answer.json()
    name = (first.get("response") or first.get("message") or first)["id"]

    assert say(rolling_server, key, id=name, score=1).status_code == 200
    assert [one["score"] for one in kept(rolling_server, answer.headers["x-request-id"])] == [1]


def test_a_table_may_use_either_name(rolling_server: Server, arm: Arms) -> None:
    """Row by row; one that names nothing is told so, and the others are kept."""
    key, names = rolling_server.new_key(), [f"chatcmpl-{uuid7_hex()}" for _ in range(3)]
    requests = [ask(rolling_server, answering(arm, name), key) for name in names]
    rows = [{"id": name, "score": 1} for name in (names[0], requests[1], names[2], "no id", requests[2])]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    taken = rolling_server.http.post("/v1/feedback/bulk", content=json.dumps(rows), headers=headers).json()
    assert (taken["accepted"], taken["unchanged"], taken["rejected"]) == (3, 1, 1)
    assert [one["row"] for one in taken["errors"]] == [4]


@pytest.mark.parametrize("id_", [7, None, ["x"], "x" * 5000, ""])
def test_an_answer_with_a_strange_id_is_an_answer(rolling_server: Server, arm: Arms, id_: object) -> None:
    """It goes on as it came; only by that id nobody finds it."""
    ask(rolling_server, answering(arm, id_), rolling_server.new_key())


@pytest.mark.parametrize(
    ("opening", "found"),
    [
        (b'{"id":"chatcmpl-1","choices":[]}', "chatcmpl-1"),
        (b'{\n  "id" : "chatcmpl-2" }', "chatcmpl-2"),
        (b'data: {"object":"x","id":"chatcmpl-3"}\n\n', "chatcmpl-3"),
        (b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_4"}}\n\n', "msg_4"),
        (b'{"id":"with \\" quotes"}', None),
        (b'{"id":"\xff"}', None),
        (b'{"id":""}', None),
        (b'{"pad":"' + b"x" * 600 + b'","id":"late"}', None),
        (b"", None),
    ],
)
def test_the_id_of_an_opening(opening: bytes, found: str | None) -> None:
    """In whatever words; none rather than a wrong one."""
    assert answer_id(opening) == found
