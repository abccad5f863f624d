"""A server that has nothing to do does next to nothing, and has little in memory."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.fixtures.server import ROOT, Server

# Tests' own dependencies load some of these elsewhere: what counts is what a server that rests has loaded.
NOT_NEEDED = (
    "cryptography",
    "fastapi",
    "google.protobuf",
    "httpx",
    "litellm",
    "numpy",
    "onnxruntime",
    "opentelemetry",
    "psycopg",
    "redis",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",
)
OPENED = f"""
import asyncio, sys
from pathlib import Path
from admin.settings import load
from admin.wiring import House

async def stay(house):
    house.open()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in house.background()]
        await asyncio.sleep(0.6)
        for task in tasks:
            task.cancel()
    print("loaded", [name for name in {NOT_NEEDED!r} if name in sys.modules])
    await house.close()

house = House(load({{"--config": "penstock.yaml", "--data-dir": "data"}}, {{}}), "sk-admin-of-the-tests", "0")
Path("data").mkdir()
house.prepare()
asyncio.run(stay(house))
house.dispose()
"""
CONFIG = """
models:
  - name: chat
    deployments:
      - {id: chat, provider: openai, base_url: http://127.0.0.1:9/v1, model: x, api_key: sk-in-clear}
"""


@pytest.fixture(scope="module")
def resting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    local = {"id": "local", "base_url": "http://127.0.0.1:9/v1", "model": "x"}
    config = {"models": [{"name": "chat", "deployments": [local]}]}
    server = Server(config, tmp_path_factory.mktemp("resting"), executed=True).start(with_key=False)
    yield server
    server.stop()


def wakes(pid: int) -> int:
    """How often any thread of a process has gone to sleep by itself."""
    found = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            lines = (thread / "status").read_text().splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found


def test_a_server_that_rests_wakes_seldom(resting: Server) -> None:
    """Measured: 17 times a second, 48 when each of its parts asked the database by itself. Starting takes a while."""
    rates: list[float] = []
    deadline = time.monotonic() + 40
    while not rates or min(rates) > 30:
        assert time.monotonic() < deadline, rates
        before, began = wakes(resting.pid), time.monotonic()
        time.sleep(1.5)
        rates.append((wakes(resting.pid) - before) / (time.monotonic() - began))


def test_the_date_is_right_after_a_rest(resting: Server) -> None:
    """Nobody renews it while there are no clients."""
    for rest_s in (0.0, 2.5):
        time.sleep(rest_s)
        with resting.connect() as raw:
            asked = time.time()
            raw.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(65_536), b""))
        date = next(line for line in answer.decode().split("\r\n") if line.lower().startswith("date:"))
        told = parsedate_to_datetime(date.partition(":")[2].strip()).timestamp()
        assert -2.0 < told - asked < 2.0 + (time.time() - asked)


def test_what_nobody_uses_is_not_loaded(tmp_path: Path) -> None:
    """With a provider's key in clear, on SQLite: after everything has started, and the background has looked for work."""
    (tmp_path / "penstock.yaml").write_text(CONFIG)
    environ = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", OPENED], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "loaded []" in done.stdout, done.stdout
