"""A server over HTTP that does what it is told to, right or wrong. Its path says which behaviour: `/ok`, `/garbage`, `/huge`, and so on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

Json = dict[str, Any]
JSON = "application/json"


class Strange:
    """Everything that it was asked, by path, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Json]] = []  # method, path, headers, message
        self.tools: list[Json] = [{"name": "echo", "description": "d", "inputSchema": {"type": "object"}}]
        self.port = 0
        self.tokens: list[str] = []
        self.refresh = "refresh-1"
        self.token_life_s = 3600
        self.streams: list[asyncio.StreamWriter] = []
        self.cut = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self, path: str) -> list[Json]:
        return [message for _, at, _, message in self.asked if at == path and message.get("method") == "tools/call"]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """At once, and not when a task has its turn: whoever closes must know of every connection."""
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers: dict[str, str] = {}
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode("latin-1").partition(":")
                    headers[name.strip().lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._answer(method, target.partition("?")[0], target.partition("?")[2], headers, body, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        """No connection is left: an open socket would be found by the collector."""
        for _ in range(20):  # what was accepted by now becomes a connection
            await asyncio.sleep(0)
        self.cut.set()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if path.startswith("/.well-known") or path == "/token":
            self._authority(path, body, headers, writer)
            return
        if path.startswith("/api/"):
            self._api(method, path, query, headers, body, writer)
            return
        if method == "GET":
            if path == "/changing":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hi\n\n")
                self.streams.append(writer)
                await writer.drain()
                await self.cut.wait()
            else:
                send(writer, 405, b"")
            return
        if method == "DELETE":
            send(writer, 200, b"")
            return
        message = json.loads(body)
        self.asked.append((method, path, headers, message))
        if path == "/guarded" and headers.get("authorization") not in {f"Bearer {one}" for one in self.tokens[-1:]}:
            told = f'Bearer resource_metadata="{self.url}/.well-known/oauth-protected-resource/guarded"'
            send(writer, 401, b"", {"www-authenticate": told})
            return
        if "id" not in message:
            send(writer, 202, b"")
            return
        await self._message(path, message, writer)

    async def _message(self, path: str, message: Json, writer: asyncio.StreamWriter) -> None:
        answer: Json = {"jsonrpc": "2.0", "id": message["id"]}
        match message["method"]:
            case "initialize":
                version = "1999-01-01" if path == "/ancient" else message["params"]["protocolVersion"]
                told: Json = {
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s", "version": "1"},
                }
                send_json(writer, answer | {"result": told}, {"mcp-session-id": "up-1"} if path == "/forgetful" else {})
            case "tools/list":
                await self._list(path, message, answer, writer)
            case _:
                await self._call(path, answer, writer)

    async def _list(self, path: str, message: Json, answer: Json, writer: asyncio.StreamWriter) -> None:
        cursor = message["params"].get("cursor")
        if path == "/endless":
            page = [{"name": f"t{cursor or 0}", "inputSchema": {"type": "object"}}]
            send_json(writer, answer | {"result": {"tools": page, "nextCursor": str(int(cursor or 0) + 1)}})
        elif path == "/circle":
            send_json(writer, answer | {"result": {"tools": self.tools, "nextCursor": "again"}})
        elif path == "/odd":
            odd: list[Any] = [
                {"name": "a b"},
                {"name": "twice", "inputSchema": {}},
                {"name": "twice", "inputSchema": {}},
                5,
            ]
            odd += [{"name": "noschema"}, {"name": "x" * 200, "inputSchema": {}}, *self.tools]
            send_json(writer, answer | {"result": {"tools": odd}})
        else:
            send_json(writer, answer | {"result": {"tools": self.tools}})

    async def _call(self, path: str, answer: Json, writer: asyncio.StreamWriter) -> None:
        done = answer | {"result": {"content": [{"type": "text", "text": "done"}]}}
        events = {"content-type": "text/event-stream"}
        asks = {"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}}
        plain: dict[str, tuple[int, bytes, dict[str, str]]] = {
            "/garbage": (200, b"\x00not json", {"content-type": JSON}),
            "/twice": (200, event(done) + event(done), events),
            "/html": (200, b"<html>", {"content-type": "text/html"}),
            "/elsewhere": (307, b"", {"location": f"{self.url}/ok"}),
            "/asks": (200, event(asks) + event(done), events),
        }
        objects: dict[str, Json] = {
            "/other": done | {"id": 987654},
            "/shapeless": answer | {"result": {"content": 5}},
            "/refuses": answer | {"error": {"code": -32050, "message": "not today"}},
        }
        if path in plain:
            send(writer, *plain[path])
        elif path == "/huge":
            await flood(writer)
        elif path == "/silent":
            await asyncio.sleep(60)
        elif path == "/forgetful" and len(self.calls(path)) == 1:
            send(writer, 404, b"")
        elif path == "/breaks":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
            await writer.drain()
            writer.close()
        else:
            send_json(writer, objects.get(path, done))

    def _authority(self, path: str, body: bytes, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        """The server's own metadata, an authorization server, and its token endpoint."""
        match path:
            case "/.well-known/oauth-protected-resource/guarded":
                send_json(writer, {"resource": f"{self.url}/guarded", "authorization_servers": [f"{self.url}/as"]})
            case "/.well-known/oauth-authorization-server/as":
                send_json(writer, {"issuer": f"{self.url}/as", "token_endpoint": f"{self.url}/token"})
            case "/token":
                form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                self.asked.append(("POST", path, headers, form))
                if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh:
                    send_json(writer, {"error": "invalid_grant"}, status=400)
                    return
                self.tokens.append(f"token-{len(self.tokens) + 1}")
                made: Json = {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.token_life_s}
                if form["grant_type"] == "refresh_token":
                    self.refresh = f"refresh-{len(self.tokens) + 1}"
                    made["refresh_token"] = self.refresh
                send_json(writer, made)
            case _:
                send(writer, 404, b"")

    def _api(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        self.asked.append((method, path, headers, {"query": query, "body": body.decode()}))
        if path == "/api/gone":
            send_json(writer, {"error": "gone"}, status=410)
        elif path == "/api/moved":
            send(writer, 302, b"", {"location": "http://169.254.169.254/"})
        else:
            send_json(writer, {"path": path, "query": query, "body": body.decode()})


def event(message: Json) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


async def flood(writer: asyncio.StreamWriter) -> None:
    """A hundred megabytes, or as many of them as somebody takes."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(400):
            writer.write(b" " * 250_000)
            await writer.drain()


def send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    writer.write(f"HTTP/1.1 {status} S\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)


def send_json(
    writer: asyncio.StreamWriter, value: object, headers: dict[str, str] | None = None, *, status: int = 200
) -> None:
    send(writer, status, json.dumps(value).encode(), {"content-type": JSON, **(headers or {})})


@asynccontextmanager
async def strange() -> AsyncIterator[Strange]:
    made = Strange()
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        for sock in server.sockets:  # a connection that is just accepted trips over a server that is closed already
            asyncio.get_running_loop().remove_reader(sock.fileno())
        await made.close()
        server.close()
