"""One server for conversations, one with short patience, and clients that talk to them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import Upstream

PRICE = {"input": 1000, "output": 2000, "cached_input": 100, "audio_input": 5000, "audio_output": 9000}
NEVER_LONG = {"max_input_tokens": 1000, "max_output_tokens": 100, "price": PRICE}
STRICT = {"idle_s": 5, "ping_s": 2, "message_mb": 0.01}


class Talker:
    """A client of one conversation. What it hears is kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Json] = []

    def say(self, kind: str, **fields: object) -> Self:
        self.socket.send(json.dumps({"type": kind, **fields}))
        return self

    def hear(self, kind: str, *, timeout_s: float = 30) -> Json:
        """The next event of a kind; those before it are kept."""
        deadline = time.monotonic() + timeout_s
        while True:
            event: Json = json.loads(self.socket.recv(timeout=max(0.01, deadline - time.monotonic())))
            self.heard.append(event)
            if event["type"] == kind:
                return event

    def answer(self, **response: object) -> Json:
        """One answer, whole: its `response.done`."""
        self.say("response.create", **({"response": response} if response else {}))
        done: Json = self.hear("response.done")["response"]
        return done

    def end(self, *, timeout_s: float = 30) -> tuple[int, str]:
        """Code and reason of the end, once it has come."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self.heard.append(json.loads(self.socket.recv(timeout=max(0.01, deadline - time.monotonic()))))
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else (1006, "")


class Talks(Routes):
    """Conversations with models of a server."""

    @contextmanager
    def talk(self, route: Route | str, *, key: str | None = None, **options: Any) -> Iterator[Talker]:
        name = route if isinstance(route, str) else route.name
        path = options.pop("path", f"/v1/realtime?model={name}")
        options.setdefault("additional_headers", {"authorization": f"Bearer {key or self.server.key}"})
        url = self.server.url.replace("http", "ws", 1) + path
        with connect(url, proxy=None, close_timeout=5, **options) as socket:
            yield Talker(socket)

    def of(self, route: Route, count: int, *, wait_s: float = 20) -> list[Json]:
        """The records of a model in order, once there are so many of them."""
        deadline = time.monotonic() + wait_s
        while True:
            found = [one for one in self.settled(1) if one["model"] == route.name]
            if len(found) >= count:
                assert len(found) == count, found
                return found[::-1]
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def budget(self, usd: float) -> str:
        """A key that may spend so much."""
        return self.server.new_key(budget={"limit_usd": usd, "period": "total"})


def served(upstream: Upstream, folder: Any, **realtime: Any) -> Iterator[Talks]:
    server = Server({"models": [], "realtime": realtime}, folder).start()
    yield Talks(server, upstream)
    alive = server.running()
    server.stop()
    assert alive, server.output


@pytest.fixture(scope="session")
def talks(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talks]:
    """One server for all tests of conversations; it has to be alive at the end."""
    yield from served(upstream, tmp_path_factory.mktemp("talks"))


@pytest.fixture(scope="session")
def strict_talks(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talks]:
    """The same with short patience and small messages."""
    yield from served(upstream, tmp_path_factory.mktemp("strict-talks"), **STRICT)
