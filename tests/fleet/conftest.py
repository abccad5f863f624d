"""A gateway that runs engines: small programs here, which do what they are told."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.fixtures.server import Json, Server

PROGRAM = Path(__file__).with_name("engine_program.py")
PATIENCE_S = 40.0
RUN = [sys.executable, str(PROGRAM)]


def engine(name: str, *args: str, **fields: Any) -> Json:
    """A declaration of the scripted program, quick to look and to try again."""
    return {
        "name": name,
        "kind": "command",
        "program": RUN,
        "args": ["--host", "{host}", "--port", "{port}", *args],
        "stop_s": 5,
        "restart": {"base_s": 0.1, "max_s": 0.5, "healthy_s": 600},
        **fields,
    }


class Fleet:
    """A server with engines, and what tests ask of them."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def create(self, body: Json) -> None:
        answer = self.server.admin.post("/engines", json=body)
        assert answer.status_code == 201, answer.text

    def show(self, name: str) -> Json:
        answer = self.server.admin.get(f"/engines/{name}")
        assert answer.status_code == 200, answer.text
        shown: Json = answer.json()
        return shown

    def state(self, name: str) -> Json:
        return self.show(name)["state"] or {"state": None, "replicas": [], "ready": 0}

    def patch(self, name: str, **changes: Any) -> None:
        answer = self.server.admin.patch(f"/engines/{name}", json=changes)
        assert answer.status_code == 200, answer.text

    def act(self, name: str, action: str) -> httpx.Response:
        return self.server.admin.post(f"/engines/{name}/{action}")

    def delete(self, name: str) -> None:
        assert self.server.admin.delete(f"/engines/{name}").status_code == 200

    def ask(self, model: str, text: str = "hello") -> httpx.Response:
        return self.server.post("/v1/chat/completions", self.server.ask(model, text))

    def said(self, model: str, text: str = "hello") -> list[str]:
        """The model's name there, the engine's version, its pid."""
        answer = self.ask(model, text)
        assert answer.status_code == 200, answer.text
        words: str = answer.json()["choices"][0]["message"]["content"]
        return words.split()

    def gone(self, model: str) -> None:
        """Waits until nothing answers for a model."""
        deadline = time.monotonic() + PATIENCE_S
        while self.ask(model).status_code not in (404, 503):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def until(self, name: str, wanted: Callable[[Json], bool]) -> Json:
        """Waits for a state."""
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(state := self.state(name)):
            assert time.monotonic() < deadline, f"{state}\n{self.server.output[-3000:]}"
            time.sleep(0.1)
        return state

    def ready(self, name: str, replicas: int = 1) -> Json:
        """Waits until exactly so many processes are there, and all of them ready."""
        return self.until(name, lambda state: state["ready"] == len(state["replicas"]) == replicas)

    def adopted(self, name: str) -> list[int]:
        """Waits until all of its processes are of an earlier server; what that one wrote of them is not enough. Their ids."""
        state = self.until(name, lambda state: state["replicas"] and all(one["adopted"] for one in state["replicas"]))
        return [one["pid"] for one in state["replicas"]]

    def tell(self, name: str, path: str) -> None:
        """Speaks to the engine's process itself."""
        for replica in self.state(name)["replicas"]:
            with contextlib.suppress(httpx.TransportError):
                httpx.post(f"http://127.0.0.1:{replica['port']}{path}", json={}, trust_env=False, timeout=20)

    def told(self, name: str) -> Json:
        port = self.state(name)["replicas"][0]["port"]
        said: Json = httpx.get(f"http://127.0.0.1:{port}/told", trust_env=False, timeout=20).json()
        return said


class Load:
    """Clients that ask all the time; `failures` are answers other than 200."""

    def __init__(
        self, fleet: Fleet, model: str, clients: int = 3, patience_s: float = 60.0, max_tokens: int | None = None
    ) -> None:
        self._fleet = fleet
        self._patience_s = patience_s
        self._body = fleet.server.ask(model, "take 0.05") | ({} if max_tokens is None else {"max_tokens": max_tokens})
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.answers: list[list[str]] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(self._patience_s)

    def await_answers(self, count: int) -> None:
        """So many more than there are now."""
        wanted, deadline = len(self.answers) + count, time.monotonic() + PATIENCE_S
        while len(self.answers) < wanted and not self.failures:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _run(self) -> None:
        server = self._fleet.server
        headers = {"authorization": f"Bearer {server.key}"}
        with httpx.Client(base_url=server.url, timeout=self._patience_s, trust_env=False, headers=headers) as http:
            while not self._stop.is_set():
                answer = http.post("/v1/chat/completions", json=self._body)
                if answer.status_code == 200:
                    self.answers.append(answer.json()["choices"][0]["message"]["content"].split())
                else:
                    self.failures.append(answer.text)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server that may run the scripted program; at its end no engine may be left."""
    folder = tmp_path_factory.mktemp("fleet")
    smi = folder / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\necho '0, GPU-a, Tiny H1, 1024, 81559, 37'\necho '7, GPU-b, Tiny H1, 2048, 81559, [N/A]'\n"
    )
    smi.chmod(0o755)
    config = {
        "engines": [engine("first", env={"TOKEN": "${ENGINE_TOKEN}"}, gpus=[["0", "1"]])],
        "engine_programs": [{"program": RUN, "env": ["TOKEN"]}],
    }
    environ = {"ENGINE_TOKEN": "from the environment", "PATH": f"{folder}:/usr/bin:/bin"}
    server = Server(config, folder, environ=environ).start()
    yield Fleet(server)
    server.stop()
    left = [path for path in (server.data / "engines").glob("*/*.json") if path.exists()]
    assert not left, server.output
