"""A server made with the official package, as a program: over standard input and output, or over streamable HTTP on a port that it prints.

`python official.py stdio [LABEL]`, `python official.py http [LABEL] [--token TOKEN]`.
"""

import os
import socket
import sys

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from starlette.types import ASGIApp, Receive, Scope, Send


def made(label: str) -> MCPServer:
    server = MCPServer(label, log_level="ERROR")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def who() -> str:
        """Says which server this is, and in which process."""
        return f"{label} {os.getpid()}"

    @server.tool()
    def broken() -> str:
        """Fails."""
        raise RuntimeError("it does not work")

    @server.tool()
    async def slow(seconds: float, mark: str = "") -> str:
        """Takes its time; writes to the file `mark` when it begins and when it is cancelled."""
        _write(mark, "began")
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            _write(mark, "cancelled")
            raise
        return "done"

    @server.tool()
    async def counting(to: int, ctx: Context) -> str:
        """Tells its progress."""
        for number in range(to):
            await ctx.report_progress(number + 1, to, f"step {number + 1}")
        return "counted"

    @server.tool()
    async def more(name: str, ctx: Context) -> str:
        """Adds a tool, and says that the list has changed."""
        server.add_tool(lambda: name, name=name, description="added later")
        await ctx.session.send_tool_list_changed()
        return "added"

    @server.tool()
    def variable(name: str) -> str:
        """What the process has in its environment."""
        return os.environ.get(name, "(none)")  # noqa: TID251 — a program's own

    @server.tool()
    def end() -> str:
        """Ends the process at once."""
        os._exit(3)

    return server


def _write(mark: str, what: str) -> None:
    if mark:
        with open(mark, "a", encoding="utf-8") as file:  # noqa: PTH123 — one line in a tool
            file.write(f"{what}\n")


class Guarded:
    """Lets through who shows the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != self._expected:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


def main() -> None:
    how, *rest = sys.argv[1:]
    token = rest.pop(rest.index("--token") + 1) if "--token" in rest else None
    rest = [one for one in rest if one != "--token"]
    server = made(rest[0] if rest else "official")
    if how == "stdio":
        server.run("stdio")
        return
    bound = socket.create_server(("127.0.0.1", int(rest[1]) if len(rest) > 1 else 0))
    app: ASGIApp = server.streamable_http_app()
    if token is not None:
        app = Guarded(app, token)
    print(bound.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)).run([bound])


if __name__ == "__main__":
    main()
