"""A server that is a program: one line of JSON per message on its standard input and output.

The program gets a small environment of its own and a process group, so that all that it starts ends with it. When it dies, its link
is lost, and `gateway.mcp.upstreams` decides when there is another one.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final, final

import structlog
from msgspec import Raw

from gateway import errors
from gateway.mcp.catalog import Server
from gateway.mcp.errors import ServerDown
from gateway.mcp.links import Events, Hear
from gateway.mcp.peer import Peer
from gateway.mcp.rpc import Message

log = structlog.stdlib.get_logger(__name__)

STOP_S: Final = 2.0  # after its input was closed, and again after SIGTERM
PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LOGNAME", "SHELL")
MAX_COMPLAINT: Final = 500
MAX_NONSENSE: Final = 1000  # lines


@final
class StdioLink:
    """`environ` is that of this process, of which a program sees only what it needs to start."""

    def __init__(self, server: Server, events: Events, environ: Mapping[str, str]) -> None:
        self._server = server
        self._events = events
        self._environ = {name: environ[name] for name in PASSED_ON if name in environ} | dict(server.env)
        self._where = f"The MCP server '{server.name}'"
        self._peer = Peer(self._where, self, events, start_s=server.start_s, timeout_s=server.timeout_s)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._writing = asyncio.Lock()
        self._complaint = ""
        self._ended = False
        self._nonsense = 0

    async def open(self) -> None:
        server = self._server
        try:
            self._process = await asyncio.create_subprocess_exec(
                server.command,
                *server.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environ,
                start_new_session=True,
                limit=server.max_answer_bytes,
            )
        except (OSError, ValueError) as error:
            raise ServerDown(f"{self._where} cannot be started: {error}", unsent=True) from None
        loop = asyncio.get_running_loop()
        self._readers = [loop.create_task(self._listen()), loop.create_task(self._listen_to_complaints())]
        await self._peer.initialize()

    async def tools(self) -> list[Raw]:
        return await self._peer.tools()

    async def call(self, tool: str, arguments: Raw, hear: Hear | None, sent: Callable[[], None]) -> Raw:
        return await self._peer.call(tool, arguments, hear, sent)

    async def deliver(self, message: bytes, answered: "asyncio.Future[Message] | None") -> None:  # noqa: ARG002 — answers come by the reader
        process = self._process
        if process is None or process.stdin is None or self._ended:
            raise ServerDown(f"{self._where} is not running", unsent=True)
        try:
            async with self._writing:
                process.stdin.write(message + b"\n")
                await process.stdin.drain()
        except (OSError, RuntimeError):
            raise ServerDown(f"{self._where} has ended") from None

    async def close(self) -> None:
        """First asked, then told, then made to."""
        self._ended = True
        await self._peer.close()
        process = self._process
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        await process.wait()
                        break
                _signal(process.pid, number)
            await process.wait()
        if process is not None:
            _signal(process.pid, signal.SIGKILL)  # what it has started and left behind
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _listen(self) -> None:
        """Until the program ends, or says what nobody can read."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        reason = "has ended"
        try:
            while line := await process.stdout.readline():
                self._hear(line)
        except ValueError:
            reason = f"sent a line of more than {self._server.max_answer_bytes} bytes"
        except errors.UpstreamError as error:
            reason = error.message.removeprefix(f"{self._where} ")
        except OSError as error:
            reason = f"cannot be read: {error}"
        self._lose(reason)

    def _hear(self, line: bytes) -> None:
        """What is no message was meant for a person: programs print where they should not. Raises UpstreamError where it does not end."""
        try:
            if line.strip():
                self._peer.hear(line)
        except errors.UpstreamError:
            self._nonsense += 1
            if self._nonsense > MAX_NONSENSE:
                raise
            log.debug("mcp.nonsense", server=self._server.name)

    def _lose(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        told = f"{self._where} {reason}" + (f": {self._complaint}" if self._complaint and reason == "has ended" else "")
        log.warning("mcp.program_lost", server=self._server.name, reason=reason)
        self._peer.fail(ServerDown(f"{self._where} {reason}"))
        self._events.lost(told)

    async def _listen_to_complaints(self) -> None:
        """Read, so that the program does not block; the last words are kept for whoever asks why it ended."""
        process = self._process
        assert process is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError):
            while data := await process.stderr.read(65_536):
                self._complaint = (self._complaint + data.decode("utf-8", "replace"))[-MAX_COMPLAINT:]


def _signal(group: int, number: signal.Signals) -> None:
    """To the program and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
