"""`penstock serve`: one server in this process, or a parent with several workers on one port."""

import argparse
import os
import shutil
import sys

from admin import workers
from admin.settings import FLAGS, Loaded, environment, load

SPARE_S = 5  # a worker that drained to the last moment still has to close its database


def run(arguments: argparse.Namespace) -> int:
    """Raises ConfigError, OSError and what the server raises at its start."""
    flags = {name: getattr(arguments, name[2:].replace("-", "_")) for name in ("--config", *FLAGS)}
    loaded = load(flags, environment())
    worker: int | None = arguments.worker_index
    if worker is not None and arguments.worker_parent is not None:
        workers.end_with_parent(arguments.worker_parent)
    if not worker:  # alone, or the first of several
        for warning in loaded.warnings:
            _say(f"warning: {warning}")
    if worker is None and loaded.settings.server.workers > 1:
        return _supervise(loaded)

    from admin import serve  # noqa: PLC0415 — the parent of several workers never loads the server

    return serve.run(loaded, worker)


def _supervise(loaded: Loaded) -> int:
    """The same command line again for each worker: the last of two equal options wins."""
    server = loaded.settings.server
    shutil.rmtree(loaded.settings.data_dir / workers.METRICS_FOLDER, ignore_errors=True)  # of an earlier start
    with workers.reserved(server.host, server.port) as port:
        shared = [sys.executable, *sys.orig_argv[1:], "--port", str(port), "--worker-parent", str(os.getpid())]
        return workers.Workers(
            lambda index: [*shared, "--worker-index", str(index)],
            server.workers,
            server.limits.drain_s + SPARE_S,
            _say,
        ).run()


def _say(line: str) -> None:
    print(f"penstock: {line}", file=sys.stderr, flush=True)
