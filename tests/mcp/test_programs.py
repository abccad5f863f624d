"""Servers that are programs: which may be started, how they are looked after, and that none is left behind."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.server import Server
from tests.mcp.conftest import OFFICIAL, PROGRAM, Gateway


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": "/bin/sh", "args": ["-c", "id"]}, "is not in mcp.stdio_commands"),
        ({"command": sys.executable, "args": ["-c", "import os"]}, "with these arguments"),
        ({"command": sys.executable, "args": [*PROGRAM["args"], "more"]}, "with these arguments"),
        ({"command": sys.executable, "args": PROGRAM["args"], "env": {"LD_PRELOAD": "/tmp/x.so"}}, "these variables"),
        ({"command": f"{sys.executable} ", "args": PROGRAM["args"]}, "is not in mcp.stdio_commands"),
    ],
    ids=["command", "arguments", "more", "variables", "spelling"],
)
def test_a_program_that_the_file_does_not_allow_is_refused(
    gateway: Gateway, fields: dict[str, object], words: str
) -> None:
    """Over REST nobody can have anything started that is not in the configuration file, whatever else he may do."""
    answer = gateway.server.admin.post("/mcp/servers", json={"name": "evil", "kind": "stdio", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "command_not_allowed"), answer.text
    assert words in answer.json()["error"]["message"]
    changed = gateway.server.admin.patch("/mcp/servers/local", json=fields)
    assert changed.json()["error"]["code"] == "command_not_allowed"
    assert gateway.server.admin.get("/mcp/servers/evil").status_code == 404


def test_a_program_that_ends_is_started_again(gateway: Gateway) -> None:
    """Its tools vanish and come back, with another process; the call that it died of is paid and says what happened."""
    name = gateway.register(
        kind="stdio", command=PROGRAM["command"], args=PROGRAM["args"], price={"per_call": 0.25}, start_s=30
    )
    key = gateway.key(name, name="restarts")
    first = _process(gateway, key, name)
    error = gateway.call(key, f"{name}__end")["error"]
    assert "has ended" in error["message"]
    gateway.await_tools(key, lambda found: f"{name}__who" in found)
    assert _process(gateway, key, name) != first
    costs = {row["model"]: row["cost_usd"] for row in gateway.records("restarts", 3)}
    assert costs == {f"mcp/{name}/who": 0.25, f"mcp/{name}/end": 0.25}
    last = _process(gateway, key, name)
    gateway.forget(name)
    _gone(last)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    program = {
        "name": "mine",
        "kind": "stdio",
        "command": sys.executable,
        "args": [OFFICIAL, "stdio", "mine"],
        "start_s": 30,
    }
    allowed = {"command": sys.executable, "args": [OFFICIAL], "more_args": True}
    config = {
        "models": [],
        "server": {"limits": {"drain_s": 2}},
        "mcp": {"servers": [{**program, "price": {"per_call": 2}}], "stdio_commands": [allowed], "unlisted": "allow"},
    }
    server = Server(config, tmp_path).start()
    yield server
    server.stop()


def test_programs_end_with_the_gateway_and_a_killed_call_is_settled_once(own: Server, tmp_path: Path) -> None:
    """SIGTERM ends them; after SIGKILL they see their input close. The call that ran is settled at its price by the next start."""
    gateway = Gateway(own)
    rule = {"scope": {"kind": "provider", "id": "mcp/mine"}, "limit_usd": 7, "period": "total"}
    budget = gateway.server.admin.post("/budgets", json=rule).json()["id"]
    first = _process(gateway, own.key, "mine")
    own.stop()
    _gone(first)
    own.start()
    key = own.new_key(name="killed")
    second = _process(gateway, key, "mine")
    mark = tmp_path / "mark"
    params = {"name": "mine__slow", "arguments": {"seconds": 60, "mark": str(mark)}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    with own.connect() as raw:
        data = json.dumps(body).encode()
        head = f"POST /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        raw.sendall(head + data)
        deadline = time.monotonic() + 30
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        own.kill()
    _gone(second)
    own.start()
    rows = gateway.records("killed", 2)
    slow = [row for row in rows if row["model"] == "mcp/mine/slow"]
    assert [(row["cost_usd"], row["usage_source"]) for row in slow] == [(2.0, "estimated")]
    deadline = time.monotonic() + 20
    while (found := own.admin.get(f"/budgets/{budget}").json())["settled_usd"] != 6.0:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _process(gateway: Gateway, key: str, server: str) -> int:
    answer = gateway.call(key, f"{server}__who")
    return int(answer["result"]["content"][0]["text"].split(" ")[1])


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, f"process {pid} was left behind"
        time.sleep(0.02)
