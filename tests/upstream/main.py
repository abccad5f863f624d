"""The scripted upstream as a process: `python -m tests.upstream.main --port 0 [--tls CERT.pem]…`

Prints the port of plain HTTP on its first line, then one port for each certificate file (key and chain in one PEM), in order.
"""

import argparse
import asyncio
import signal
import ssl
from pathlib import Path

import uvloop

from tests.upstream.journal import Journal
from tests.upstream.site import Site
from tests.upstream.wire import Connection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", action="append", default=[], type=Path, help="a PEM file with key and chain")
    parser.add_argument("--log", type=int, default=20_000, help="how many requests the log keeps")
    given = parser.parse_args()
    uvloop.run(serve(given.host, given.port, given.tls, given.log))


async def serve(host: str, port: int, certificates: list[Path], log: int) -> None:
    """Answers until a SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    site = Site(Journal(log))
    contexts: list[ssl.SSLContext | None] = [None, *(_context(path) for path in certificates)]
    servers = []
    for number, context in enumerate(contexts):
        bound = port if number == 0 else 0
        servers.append(await loop.create_server(lambda: Connection(site), host, bound, ssl=context, backlog=4096))
        print(servers[-1].sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
    for server in servers:
        server.close()


def _context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


if __name__ == "__main__":
    main()
