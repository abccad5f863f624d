"""Servers that lie, stall, flood and break, and clients that guess: each is told clearly, and nobody else notices."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.mcp.conftest import Gateway, Oddity


@pytest.mark.parametrize(
    ("path", "code", "words", "billed"),
    [
        ("garbage", -32000, "no message", True),
        ("huge", -32000, "more than 1048576 bytes", True),
        ("silent", -32000, "did not answer tools/call within 1.5 s", True),
        ("other", -32000, "without one to the question", True),
        ("html", -32000, "text/html", True),
        ("elsewhere", -32000, "redirects to another address", False),
        ("shapeless", -32000, "a shape that is none", True),
        ("refuses", -32050, "not today", False),
        ("breaks", -32000, "broke its answer off", True),
        ("twice", None, "done", True),
        ("asks", None, "done", True),
    ],
)
def test_what_a_server_answers_wrong_is_told_and_settled_once(
    gateway: Gateway, oddity: Oddity, path: str, code: int | None, words: str, billed: bool
) -> None:
    """A clear error within the server's own deadline; paid is what the server may have done, and nothing where it did not."""
    limits = {"timeout_s": 1.5 if path == "silent" else 20, "max_answer_mb": 1}
    name = gateway.register(url=f"{oddity.strange.url}/{path}", price={"per_call": 0.5}, **limits)
    key = gateway.key(name, name=f"hostile {path}")
    began = time.monotonic()
    answer = gateway.call(key, f"{name}__echo")
    assert time.monotonic() - began < 15
    if code is None:
        assert answer["result"]["content"][0]["text"] == words
    else:
        assert (answer["error"]["code"], words in answer["error"]["message"]) == (code, True), answer
    (record,) = gateway.records(f"hostile {path}")
    assert (record["cost_usd"] or 0.0) == (0.5 if billed else 0.0)
    assert gateway.call(gateway.key("remote"), "remote__add", a=1, b=1)["result"]["content"][0]["text"] == "2"
    gateway.forget(name)


@pytest.mark.parametrize(
    ("path", "wanted"), [("endless", 100), ("circle", 1), ("odd", 2)], ids=["endless", "circle", "odd"]
)
def test_a_list_without_an_end_or_with_nonsense_in_it_is_cut(
    gateway: Gateway, oddity: Oddity, path: str, wanted: int
) -> None:
    """What can be used is offered; a page that leads in a circle, or on for ever, is followed so far and no further."""
    name = gateway.register(url=f"{oddity.strange.url}/{path}")
    assert len(gateway.tools(gateway.key(name))) == wanted
    gateway.forget(name)


def test_a_dead_server_takes_nobody_down_and_comes_back(gateway: Gateway, oddity: Oddity) -> None:
    """Its tools vanish, calls say why at once, the others go on; when it answers again its tools are there again."""
    name = gateway.register(url="http://127.0.0.1:1/mcp")
    key = gateway.key(name, "remote")
    assert all(tool.startswith("remote__") for tool in gateway.tools(key))
    began = time.monotonic()
    error = gateway.call(key, f"{name}__echo")["error"]
    assert "cannot be reached" in error["message"]
    assert error["data"]["code"] == "mcp_server_unavailable"
    assert time.monotonic() - began < 10
    state = gateway.state(name)
    assert (state["up"], state["tools"]) == (False, 0)
    assert "cannot be reached" in state["last_error"]
    metrics = gateway.server.http.get("/metrics").text
    assert f'penstock_mcp_server_up{{server="{name}"}} 0.0' in metrics
    assert 'penstock_mcp_server_up{server="remote"} 1.0' in metrics
    url = f"{oddity.strange.url}/ok"
    assert gateway.server.admin.patch(f"/mcp/servers/{name}", json={"url": url}).status_code == 200
    assert f"{name}__echo" in gateway.await_tools(key, lambda found: f"{name}__echo" in found)
    gateway.forget(name)


def test_a_server_with_an_unknown_version_is_said_to_be_one(gateway: Gateway, oddity: Oddity) -> None:
    """Nothing is guessed about a protocol that nobody here knows."""
    name = gateway.register(url=f"{oddity.strange.url}/ancient")
    assert "1999-01-01" in gateway.call(gateway.key(name), f"{name}__echo")["error"]["message"]
    gateway.forget(name)


def test_a_forgotten_session_is_begun_again(gateway: Gateway, oddity: Oddity) -> None:
    """The server never saw the call: it is made once more, and paid once."""
    name = gateway.register(url=f"{oddity.strange.url}/forgetful", price={"per_call": 1})
    answer = gateway.call(gateway.key(name, name="forgetful"), f"{name}__echo")
    assert answer["result"]["content"][0]["text"] == "done"
    assert len(oddity.strange.calls("/forgetful")) == 2
    assert [row["cost_usd"] for row in gateway.records("forgetful")] == [1.0]
    gateway.forget(name)


def test_a_list_that_changes_is_read_again_and_told(gateway: Gateway, oddity: Oddity) -> None:
    """By the server's own word; clients that listen hear of it, and find the new tool."""
    name = gateway.register(url=f"{oddity.strange.url}/changing")
    key = gateway.key(name)
    assert gateway.tools(key) == [f"{name}__echo"]
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    with gateway.server.http.stream("GET", "/mcp", headers=headers) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(":")
        deadline = time.monotonic() + 20
        while not oddity.strange.streams:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        oddity.strange.tools.append({"name": "fresh", "inputSchema": {"type": "object"}})
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        oddity.tell(b"data: " + json.dumps(changed).encode() + b"\n\n")
        heard = next(line for line in lines if line.startswith("data: "))
    assert json.loads(heard.removeprefix("data: "))["method"] == "notifications/tools/list_changed"
    assert gateway.tools(key) == [f"{name}__echo", f"{name}__fresh"]
    gateway.forget(name)


class Session:
    """A session by hand."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = gateway.post(key, "initialize", hello)
        self.id = answer.headers["mcp-session-id"]
        self.key = key
        self.gateway = gateway

    def send(self, body: object, *, method: str = "POST") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", "mcp-session-id": self.id}
        return self.gateway.server.http.request(method, "/mcp", json=body, headers=headers)


def test_a_session_belongs_to_its_key(gateway: Gateway) -> None:
    """Guessed, stolen, made up or ended: for whoever shows another key, there is no such session."""
    mine, theirs = gateway.key("remote"), gateway.key("remote")
    session = Session(gateway, mine)
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert session.send(ask).status_code == 200
    session.key = theirs
    for method in ("POST", "DELETE", "GET"):
        answer = session.send(ask, method=method)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")
    session.key = mine
    assert session.send(ask).status_code == 200  # nobody else has ended it
    for made_up in ("x", session.id[:-1] + ("0" if session.id[-1] != "0" else "1"), "0" * 96, "é"):
        headers = {b"authorization": f"Bearer {mine}".encode(), b"mcp-session-id": made_up.encode()}
        assert gateway.server.http.post("/mcp", json=ask, headers=headers).status_code == 404
    assert session.send(None, method="DELETE").status_code == 204
    assert session.send(ask).status_code == 404


def test_an_id_that_is_in_use_is_refused_and_a_call_can_be_taken_back(gateway: Gateway, tmp_path: Path) -> None:
    """The second request with the id of one that runs does not run; cancelling stops the server's work, and is settled once."""
    mark = tmp_path / "mark"
    session = Session(gateway, gateway.key("remote", name="cancelled"))
    params = {"name": "remote__slow", "arguments": {"seconds": 30, "mark": str(mark)}}
    call = {"jsonrpc": "2.0", "id": "same", "method": "tools/call", "params": params}
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(session.send(call)))
    first.start()
    _until(mark.exists)
    second = session.send(call).json()
    assert (second["error"]["code"], "with this id" in second["error"]["message"]) == (-32600, True)
    other = Session(gateway, session.key)
    taken_back = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "same"}}
    assert other.send(taken_back).status_code == 202  # of another session: means nothing here
    assert first.is_alive()
    assert session.send(taken_back).status_code == 202
    first.join(20)
    assert answers[0].json()["error"]["message"] == "Request cancelled"
    _until(lambda: "cancelled" in mark.read_text())
    (record,) = gateway.records("cancelled")
    assert (record["cost_usd"], record["usage_source"], record["status"]) == (0.01, "estimated", 499)


def test_a_client_that_leaves_ends_its_call(gateway: Gateway, tmp_path: Path) -> None:
    """The server is told at once; the call is paid, once."""
    mark = tmp_path / "mark"
    key = gateway.key("remote", name="left")
    params = {"name": "remote__slow", "arguments": {"seconds": 30, "mark": str(mark)}}
    data = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = f"POST /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(data)}\r\n\r\n"
    with gateway.server.connect() as raw:
        raw.sendall(head.encode() + data)
        _until(mark.exists)
    _until(lambda: "cancelled" in mark.read_text())
    (record,) = gateway.records("left")
    assert (record["cost_usd"], record["usage_source"]) == (0.01, "estimated")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"5", -32700),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":[],"method":"ping"}', -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"initialize"}]', -32600),
        (
            b"[" + b'{"jsonrpc":"2.0","id":1,"method":"ping"},' * 30 + b'{"jsonrpc":"2.0","id":1,"method":"ping"}]',
            -32600,
        ),
        (b"[" * 5000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"remote__add","arguments":5}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"!"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"resources/list"}', -32601),
    ],
    ids=range(14),
)
def test_a_message_that_is_none_is_refused_in_the_protocols_words(gateway: Gateway, body: bytes, code: int) -> None:
    """With the error that JSON-RPC has for it."""
    headers = {"authorization": f"Bearer {gateway.server.key}", "content-type": "application/json"}
    answer = gateway.server.http.post("/mcp", content=body, headers=headers)
    assert answer.json()["error"]["code"] == code, answer.text


def test_messages_in_a_batch_are_answered_together(gateway: Gateway) -> None:
    """As the revision of March 2025 has it."""
    key = gateway.key("remote")
    call = {"name": "remote__add", "arguments": {"a": 1, "b": 1}}
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
        {"jsonrpc": "2.0", "id": 3, "method": "nothing"},
    ]
    answers = gateway.server.post("/mcp", batch, key=key).json()
    assert [answer["id"] for answer in answers] == [1, 2, 3]
    assert answers[1]["result"]["content"][0]["text"] == "2"
    assert answers[2]["error"]["code"] == -32601


def test_pages_of_other_places_may_not_speak_to_it(gateway: Gateway) -> None:
    """Against a browser that is made to call a server on its machine."""
    key = gateway.key("remote")
    for origin, status in (
        ("https://evil.example", 403),
        ("http://[", 403),
        ("http://localhost:3000", 200),
    ):
        answer = gateway.post(key, "ping", headers={"origin": origin})
        assert answer.status_code == status


def test_what_is_no_text_is_said_to_be_none(gateway: Gateway) -> None:
    """Bytes that are not UTF-8, in parts that are read late."""
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "\xff"}}'
    answer = gateway.server.http.post(
        "/mcp", content=body, headers={"authorization": f"Bearer {gateway.key('remote')}"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32602)


def test_who_shows_no_key_is_told_how(gateway: Gateway) -> None:
    """As on every path, with the header that says which scheme."""
    answer = gateway.server.http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "invalid_api_key"
    restricted = gateway.key("remote", routes=["/v1/chat/completions"])
    assert gateway.post(restricted, "ping").json()["error"]["code"] == "route_access_denied"
    unknown = gateway.post(gateway.key("remote"), "ping", path="/mcp/local")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "mcp_server_not_found")


def _until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.02)
