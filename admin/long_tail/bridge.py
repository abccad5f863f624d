"""The gateway's end: a socket on this machine, and a process behind it from the first call on."""

import asyncio
import contextlib
import importlib.util
import json
import secrets
import socket
import subprocess
import sys
import time
from typing import Final, final

import structlog

from gateway.catalog import Deployment
from gateway.errors import UpstreamUnreachable

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "x-litellm-"  # of the headers that become arguments of LiteLLM's
LEAST_LIFE_S: Final = 5.0  # a process that ends sooner is not started again at once
# What LiteLLM reads on import: no download of prices and features, no .env file of whoever starts it, little in its log.
QUIET: Final = (
    "LITELLM_LOCAL_MODEL_COST_MAP=True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True",
    "LITELLM_MODE=PRODUCTION",
    "LITELLM_LOG=ERROR",
    "LITELLM_DISABLE_BUG_REPORT_LINK=true",
)
COMMAND: Final = ("/usr/bin/env", *QUIET, sys.executable, "-m", "admin.long_tail.worker")


@final
class LiteLlm:
    """Belongs to the running event loop. The kernel takes connections as soon as the socket listens; the process takes them over.

    One that ends is started again by the next call; who waits for it is cut off, which the gateway knows how to deal with.
    """

    def __init__(self, command: tuple[str, ...] = COMMAND, package: str = "litellm") -> None:
        self._command = command
        self._package = package
        self._token = secrets.token_urlsafe(32)
        self._socket: socket.socket | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    def base_url(self) -> str:
        """Raises UpstreamUnreachable without LiteLLM."""
        if importlib.util.find_spec(self._package) is None:
            raise UpstreamUnreachable(
                "This provider is reached through LiteLLM, which is not installed: pip install 'penstock[litellm]'",
                code="litellm_missing",
            )
        if self._socket is None:
            self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self._socket.setblocking(False)
            self._keeper = asyncio.get_running_loop().create_task(self._keep(self._socket))
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def headers(self, prefix: str, deployment: Deployment) -> tuple[tuple[str, str], ...]:
        """The token keeps other users of this machine out."""
        told = {"prefix": prefix, "api-key": deployment.api_key, "api-base": deployment.base_url}
        return (
            ("authorization", f"Bearer {self._token}"),
            *((PREFIX + name, value) for name, value in told.items() if value),
        )

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._socket is not None:
            self._socket.close()

    async def _keep(self, listening: socket.socket) -> None:
        """Until cancelled: waits for a call, runs the process until it ends."""
        loop = asyncio.get_running_loop()
        while True:
            self._wanted.clear()
            loop.add_reader(listening, self._wanted.set)
            try:
                await self._wanted.wait()
            finally:
                loop.remove_reader(listening)
            began = time.monotonic()
            code = await self._run(listening)
            log.error("litellm.ended", exit_code=code, after_s=round(time.monotonic() - began, 1))
            _cut_off(listening)
            await asyncio.sleep(max(0.0, began + LEAST_LIFE_S - time.monotonic()))
            _cut_off(listening)

    async def _run(self, listening: socket.socket) -> int:
        """The process reads from a pipe that ends when this one does, however it does."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            pass_fds=(listening.fileno(),),
        )
        assert process.stdin is not None
        log.info("litellm.started", pid=process.pid)
        try:
            process.stdin.write(json.dumps({"socket": listening.fileno(), "token": self._token}).encode() + b"\n")
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _cut_off(listening: socket.socket) -> None:
    """Nobody will answer those that wait."""
    listening.setblocking(False)  # a flag that the process shared, and may have changed
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
