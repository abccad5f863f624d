"""Servers that are programs: which may be started, how they are looked after, and that none is left behind."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from admin.config_file import ConfigError
from admin.settings import load
from tests.fixtures.server import Server
from tests.mcp.conftest import MUTTERING, OFFICIAL, PROGRAM, Gateway


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


def test_a_program_that_prints_where_it_should_not_is_understood_or_ended(gateway: Gateway) -> None:
    """A stray line is passed over; one without an end costs the program its link, and no memory here."""
    program = {"kind": "stdio", "command": MUTTERING["command"], "args": MUTTERING["args"], "start_s": 30}
    name = gateway.register(**program, max_answer_mb=1)
    key = gateway.key(name)
    assert gateway.call(key, f"{name}__shout", size=100)["result"]["content"][0]["text"] == "shouted"
    error = gateway.call(key, f"{name}__shout", size=3_000_000)["error"]
    assert "sent a line of more than 1048576 bytes" in error["message"]
    gateway.await_tools(key, lambda found: f"{name}__shout" in found)
    gateway.forget(name)


def test_the_file_names_the_line_of_a_program_that_it_does_not_allow(tmp_path: Path) -> None:
    """At the start, before anything runs."""
    file = tmp_path / "penstock.yaml"
    file.write_text("models: []\nmcp:\n  servers:\n    - name: x\n      kind: stdio\n      command: /bin/sh\n")
    with pytest.raises(ConfigError, match=r"penstock.yaml:6: mcp.servers\[0\].command: .*mcp.stdio_commands"):
        load({"--config": str(file)}, {})


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
    """After SIGKILL they see their input close; SIGTERM ends them, and who listens. The call that ran is settled at its price."""
    gateway = Gateway(own)
    rule = {"scope": {"kind": "provider", "id": "mcp/mine"}, "limit_usd": 5, "period": "total"}
    budget = own.admin.post("/budgets", json=rule).json()["id"]
    key = own.new_key(name="killed")
    first = _process(gateway, key, "mine")
    mark = tmp_path / "mark"
    params = {"name": "mine__slow", "arguments": {"seconds": 60, "mark": str(mark)}}
    data = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = f"POST /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(data)}\r\n\r\n"
    with own.connect() as raw:
        raw.sendall(head.encode() + data)
        _until(mark.exists)
        own.kill()
    _gone(first)
    own.start()
    slow = [row for row in gateway.records("killed", 2) if row["model"] == "mcp/mine/slow"]
    assert [(row["cost_usd"], row["usage_source"]) for row in slow] == [(2.0, "estimated")]
    _until(lambda: own.admin.get(f"/budgets/{budget}").json()["settled_usd"] == 4.0)
    assert gateway.call(key, "mine__who")["error"]["data"]["code"] == "budget_exceeded"
    own.admin.delete(f"/budgets/{budget}")
    _until(lambda: "result" in gateway.call(key, "mine__who"))
    second = _process(gateway, key, "mine")
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    with own.http.stream("GET", "/mcp", headers=headers) as listening:
        lines = listening.iter_lines()
        next(lines)
        own.terminate()
        assert list(lines) == [""]  # it came to an end, and was not cut off
    own.wait()
    _gone(second)


def _process(gateway: Gateway, key: str, server: str) -> int:
    answer = gateway.call(key, f"{server}__who")
    return int(answer["result"]["content"][0]["text"].split(" ")[1])


def _gone(pid: int) -> None:
    _until(lambda: not Path(f"/proc/{pid}").exists() or _is_dead(pid))


def _is_dead(pid: int) -> bool:
    """One that nobody has waited for yet is over all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def _until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.02)
