"""One gateway for the tests of MCP, with a real server over HTTP and one that is a program, and the official client in front of it."""

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.fixtures.server import Json, Server, models
from tests.fixtures.upstream import Upstream
from tests.mcp.strange import Strange, strange

T = TypeVar("T")
OFFICIAL = str(Path(__file__).with_name("official.py"))
PROGRAM = {"command": sys.executable, "args": [OFFICIAL, "stdio", "local"], "env": ["GREETING"]}
MUTTERING = {"command": sys.executable, "args": [str(Path(__file__).with_name("mutter.py"))]}


@contextmanager
def official(*arguments: str) -> Iterator[str]:
    """The URL of a server over streamable HTTP, as long as the block lasts."""
    command = [sys.executable, OFFICIAL, "http", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


@pytest.fixture(scope="session")
def remote() -> Iterator[str]:
    """A server that is there for all tests: none of them may end it."""
    with official("remote") as url:
        yield url


class Gateway:
    """A server with MCP servers, and ways to talk to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)

    def register(self, **fields: object) -> str:
        """A server made over REST, in force; its name."""
        body = {"name": f"s{next(self._numbers)}", "start_s": 20, **fields}
        answer = self.server.admin.post("/mcp/servers", json=body)
        assert answer.status_code == 201, answer.text
        return str(body["name"])

    def forget(self, name: str) -> None:
        assert self.server.admin.delete(f"/mcp/servers/{name}").status_code == 200

    def key(self, *servers: str, **fields: object) -> str:
        return self.server.new_key(**{"mcp": {"servers": list(servers)}, **fields})

    def state(self, name: str) -> Json:
        found: Json = self.server.admin.get(f"/mcp/servers/{name}").json()["state"]
        return found

    def post(
        self,
        key: str,
        method: str,
        params: Any = None,
        *,
        path: str = "/mcp",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One message without a handshake."""
        body = {
            "jsonrpc": "2.0",
            "id": next(self._ids),
            "method": method,
            **({} if params is None else {"params": params}),
            **more,
        }
        every = {"authorization": f"Bearer {key}", "accept": "application/json", **(headers or {})}
        return self.server.http.post(path, json=body, headers=every)

    def call(
        self, key: str, tool: str, *, headers: Mapping[str, str] | None = None, path: str = "/mcp", **arguments: Any
    ) -> Any:
        """What comes of one call: `result` or `error`."""
        answer = self.post(key, "tools/call", {"name": tool, "arguments": arguments}, headers=headers, path=path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tools(self, key: str, *, path: str = "/mcp") -> list[str]:
        return [tool["name"] for tool in self.post(key, "tools/list", path=path).json()["result"]["tools"]]

    def await_tools(self, key: str, wanted: Callable[[list[str]], bool]) -> list[str]:
        deadline = time.monotonic() + 30
        while not wanted(found := self.tools(key)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def records(self, key_name: str, count: int = 1) -> list[Json]:
        """Of calls of tools with a key of that name, once there are so many, newest first."""
        ids = [
            key["id"]
            for key in self.server.admin.get("/keys", params={"limit": 1000}).json()["data"]
            if key["name"] == key_name
        ]
        deadline = time.monotonic() + 30
        while True:
            rows = [
                row
                for id_ in ids
                for row in self.server.admin.get("/requests", params={"limit": 200, "key_id": id_}).json()["data"]
                if row["endpoint"] == "mcp"
            ]
            if len(rows) >= count:
                return rows
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)

    @asynccontextmanager
    async def client(self, key: str, path: str = "/mcp", **options: Any) -> AsyncIterator[Client]:
        """The official client, as it comes."""
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
            transport = streamable_http_client(f"{self.server.url}{path}", http_client=http)
            async with Client(transport, **options) as client:
                yield client


@pytest.fixture(scope="session")
def gateway(upstream: Upstream, remote: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    servers = [
        {"name": "remote", "url": remote, "price": {"per_call": 0.01, "tools": {"add": 0.002}}, "start_s": 20},
        {"name": "local", "kind": "stdio", "command": PROGRAM["command"], "args": PROGRAM["args"], "start_s": 30}
        | {"env": {"GREETING": "hello"}},
    ]
    config = {"models": models(upstream), "mcp": {"servers": servers, "stdio_commands": [PROGRAM, MUTTERING]}}
    server = Server(config, tmp_path_factory.mktemp("mcp")).start()
    yield Gateway(server)
    alive = server.running()
    server.stop()
    assert alive, server.output


class Oddity:
    """A strange server in a thread of its own, so that tests may wait."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.strange: Strange = self.run(self._stack.enter_async_context(strange()))

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result(20)

    def tell(self, data: bytes) -> None:
        """Says something unasked on every open stream."""

        async def say() -> None:
            for writer in self.strange.streams:
                writer.write(data)
                await writer.drain()

        self.run(say())

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def oddity() -> Iterator[Oddity]:
    made = Oddity()
    yield made
    made.close()
