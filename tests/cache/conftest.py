"""Servers with a cache, one on its own disk and one on Redis, and models in them that are made over REST."""

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.fixtures.deployments import PRICE, QUICK
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour

EXACT: Json = {"exact": {"ttl_s": 600}}


class Asker:
    """A model with a script behind it, and a client that asks it."""

    def __init__(self, server: Server, model: str, handle: ScriptHandle) -> None:
        self.server = server
        self.model = model
        self.handle = handle

    @property
    def asked(self) -> int:
        """How many calls came upstream."""
        return len(self.handle.entries())

    def post(self, path: str, body: Json, *, key: str | None = None, **headers: str) -> httpx.Response:
        every = {"authorization": f"Bearer {key or self.server.key}"}
        every |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.http.post(path, json={"model": self.model, **body}, headers=every)

    def chat(
        self, text: str = "hello", *, key: str | None = None, headers: Json | None = None, **fields: Any
    ) -> httpx.Response:
        return self.post(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": text}], **fields},
            key=key,
            **(headers or {}),
        )

    def send(self, text: str, **fields: Any) -> socket.socket:
        """A chat request on a connection of its own, whose answer nobody has read yet."""
        body = json.dumps({"model": self.model, "messages": [{"role": "user", "content": text}], **fields}).encode()
        raw = self.server.connect()
        raw.settimeout(40)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.server.key}\r\n"
        raw.sendall(
            f"{head}content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return raw

    def waiting(self) -> int:
        lines = self.server.http.get("/metrics").text.splitlines()
        return int(float(next(line for line in lines if line.startswith("penstock_cache_waiting")).split()[-1]))

    def until_waiting(self, count: int) -> None:
        deadline = time.monotonic() + 30
        while self.waiting() < count:
            assert time.monotonic() < deadline, "the calls never came to wait"
            time.sleep(0.02)


class Askers:
    """Makes models in one server."""

    def __init__(self, server: Server, upstream: Upstream, prefix: str) -> None:
        self.server = server
        self._upstream = upstream
        self._prefix = prefix
        self._numbers = itertools.count()

    def __call__(self, *behaviours: Behaviour, deployment: Json | None = None, **spec: object) -> Asker:
        """One that answers so, one request after another; the last one for ever."""
        handle = self._upstream.script(*(behaviours or (Behaviour(),)))
        name = f"{self._prefix}{next(self._numbers)}"
        place = {"id": name, "base_url": handle.base_url, "model": "scripted", "api_key": "sk-up", "price": PRICE}
        body = {"name": name, "deployments": [place | (deployment or {})], "retries": QUICK, **spec}
        answer = self.server.admin.post("/models", json=body)
        assert answer.status_code == 201, answer.text
        return Asker(self.server, name, handle)


@pytest.fixture(scope="session")
def local_cache(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Askers]:
    """A server that keeps answers in memory and on its disk."""
    server = Server({"models": [], "cache": {**EXACT, "max_entry_kb": 64}}, tmp_path_factory.mktemp("cache")).start()
    yield Askers(server, upstream, "local")
    alive = server.running()
    server.stop()
    assert alive, server.output


@pytest.fixture(scope="session")
def redis_cache(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[Askers]:
    """One that keeps them in Redis."""
    config = {"models": [], "cache": EXACT, "redis_url": redis_server.url}
    server = Server(config, tmp_path_factory.mktemp("cache-redis")).start()
    yield Askers(server, upstream, "redis")
    alive = server.running()
    server.stop()
    assert alive, server.output


@pytest.fixture
def own_cache(upstream: Upstream, tmp_path: Any) -> Iterator[Callable[[Json], Askers]]:
    """Starts one that a test may end, with a root section of its own."""
    servers: list[Server] = []

    def start(config: Json) -> Askers:
        servers.append(Server({"models": [], **config}, tmp_path).start())
        return Askers(servers[-1], upstream, f"own{len(servers)}-")

    yield start
    for server in servers:
        server.stop()


def warm(askers: Askers) -> Askers:
    """Once its server can compare questions: the model is opened when the first one of its models wants that."""
    asker = askers(cache={"exact": {}, "semantic": {"recheck": 0}})
    deadline = time.monotonic() + 50
    for number in itertools.count():
        asker.chat(f"How warm is room {number}?")
        if outcome(asker.chat(f"How warm is room {number}, please?")) == "semantic":
            return askers
        assert time.monotonic() < deadline, "no question was ever compared"
        time.sleep(0.2)
    raise AssertionError


@pytest.fixture(scope="session")
def comparing(local_cache: Askers) -> Askers:
    return warm(local_cache)


@pytest.fixture(scope="session")
def comparing_redis(redis_cache: Askers) -> Askers:
    return warm(redis_cache)


def outcome(answer: httpx.Response) -> str | None:
    told: str | None = answer.headers.get("x-penstock-cache")
    return told
