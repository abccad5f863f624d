"""One serving process: start, listen, and end without losing what runs.

The order matters for the time to the first answer: the hot path listens as soon as keys and models are loaded; the search for local
servers follows in the background, and the admin application (half a second of imports) with its first request.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import ssl
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import structlog
import uvloop

from admin import allocator, first_run, logs
from admin.settings import Loaded, Settings
from admin.wiring import House

log = structlog.stdlib.get_logger(__name__)

DOCS = "README.md"


def run(loaded: Loaded, worker: int | None) -> int:
    """Serves until SIGTERM or SIGINT. `worker` is the index among several processes, None if there is one."""
    allocator.few_arenas()
    settings = loaded.settings
    logs.configure(settings.log.level, settings.log.format)
    _raise_file_limit()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    configured = settings.admin_key.get_secret_value() if settings.admin_key is not None else None
    key = first_run.admin_key(settings.data_dir, configured)
    house = House(loaded, key.secret, version("penstock"))
    house.prepare()  # every worker seeds: the first to come does it, and none takes requests without
    try:
        return uvloop.run(_serve(house, loaded, key, worker))
    finally:
        house.dispose()


async def _serve(house: House, loaded: Loaded, key: first_run.AdminKey, worker: int | None) -> int:
    settings = loaded.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    house.open()
    server = settings.server
    port = await house.listener.start(server.host, server.port, reuse_port=worker is not None, tls=_tls(settings))
    url = first_run.local_url(server.host, port, tls=server.tls_cert is not None)
    _say(f"listening on {url}")
    async with asyncio.TaskGroup() as background:
        tasks = [background.create_task(work) for work in house.background()]
        if not worker:
            background.create_task(_welcome(house, key, url, port, _say))
        gc.collect()
        gc.freeze()  # what start-up made lives for ever: the collector need not look at it again
        gc.set_threshold(10_000, 20, 50)
        allocator.trim()
        await stop.wait()
        log.info("server.draining", connections=house.listener.open_connections)
        house.drain()
        whole = await house.listener.drain(server.limits.drain_s)
        for task in tasks:
            task.cancel()
    await house.close()
    log.info("server.stopped", cut_off=not whole)
    return 0


async def _welcome(house: House, key: first_run.AdminKey, url: str, port: int, say: Callable[[str], None]) -> None:
    """Looks for local servers, then shows the first-run screen."""
    with contextlib.suppress(asyncio.CancelledError):
        groups = await house.discover(port)
        say(
            first_run.render(
                first_run.FirstRun(
                    house.version, url, DOCS, groups, key, house.embedding_model(), house.quoting_model()
                ),
            )
        )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    server = settings.server
    if server.tls_cert is None or server.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(Path(server.tls_cert), Path(server.tls_key))
    context.set_alpn_protocols(["http/1.1"])
    return context


def _raise_file_limit() -> None:
    """Each stream is two sockets; the soft limit of 1,024 that many systems start with ends at 500 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)  # noqa: T201 — what a person or a script that started us reads
