"""`penstock models score`: predictions for a whole table, by this very process, with or without a server beside it.

Whoever is interrupted asks again in the same words, and the job goes on; a server on the same data directory goes on with it as well.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from admin import audit, logs
from admin.commands.bar import bar
from admin.commands.configuration import database, loaded
from admin.commands.documents import Failed
from admin.scoring import asked
from admin.scoring.home import Home
from admin.scoring.order import order_of, worker
from admin.settings import Settings
from gateway.database import appending, reading
from gateway.ids import new_id
from inference.errors import InferenceError
from inference.registry import catalogue
from inference.registry.artefacts import Artefacts
from inference.scoring import job_store
from inference.scoring.job import OPEN, Count, Job, Place, Spec

if TYPE_CHECKING:
    from inference.scoring.cluster import Cluster

ACTOR: Final = "command line"
POLL_S: Final = 0.5
SQL: Final = "sql:"

Tick = Callable[[Count], None]


def run(arguments: argparse.Namespace) -> int:
    """0: completed; 1: failed or cancelled; 130, 143: interrupted, and to be asked for again."""
    logs.configure("warning", "text")
    settings = loaded(arguments).settings
    spec = _spec(settings, arguments)
    heard = _signals()
    with database(arguments) as engine:
        try:
            job = _job(engine, settings, spec, arguments)
        except InferenceError as error:
            raise Failed(error.message) from error
        with _progress(quiet=arguments.json) as tick:
            job = _worked(engine, settings, job, heard, tick, _cluster(arguments))
    if arguments.json:
        print(json.dumps(_shown(job)))
    if job.state == "paused":
        print(
            f"paused after {job.count.done:,} rows: {job.message}; the same command goes on ({job.id})", file=sys.stderr
        )
        return 1
    if job.state in OPEN:
        print(f"stopped after {job.count.done:,} rows: the same command goes on ({job.id})", file=sys.stderr)
        return 128 + heard.number
    if job.state != "completed":
        raise Failed(job.message or f"the job {job.id} was {job.state}")
    if not arguments.json:
        target = job.spec.output.path or f"{job.spec.output.database}.{job.spec.output.table}"
        print(f"{job.count.done - job.count.refused:,} rows in {target} by {job.model} version {job.version}")
        if job.count.refused:
            print(f"{job.count.refused:,} rows refused: {job.spec.refused}", file=sys.stderr)
    return 0


class _Heard(threading.Event):
    number = 0


def _signals() -> _Heard:
    heard = _Heard()

    def hear(number: int, _frame: object) -> None:
        heard.number = number
        heard.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hear)
    return heard


def _spec(settings: Settings, arguments: argparse.Namespace) -> Spec:
    """Raises BadRequest."""
    names = settings.predictions.scoring.databases
    given, wanted = arguments.input, arguments.output
    if given.startswith(SQL):
        source = asked.query(given.removeprefix(SQL), arguments.query, names, "INPUT")
    else:
        source = asked.file(Path(given).resolve(), "INPUT")
    if wanted.startswith(SQL):
        name, _, table = wanted.removeprefix(SQL).partition(":")
        target: Place = asked.table(name, table, names, "--output")
        refused = Path(f"{table}.refused.jsonl")
    else:
        target = asked.file(Path(wanted).resolve(), "--output")
        refused = Path(f"{wanted}.refused.jsonl")
    features = tuple(arguments.features.split(",")) if arguments.features else None
    return asked.checked(
        Spec(
            source,
            target,
            str((Path(arguments.refused) if arguments.refused else refused).resolve()),
            arguments.key,
            features,
            arguments.chunk_rows,
            arguments.max_refused,
            arguments.key_id,
        )
    )


def _job(engine: Engine, settings: Settings, spec: Spec, arguments: argparse.Namespace) -> Job:
    """The one that was interrupted, or a new one. Raises ModelNotFound."""
    home = Home(settings.data_dir).id()
    name, _, alias = arguments.name.partition("@")
    with appending(engine) as tx:
        found = job_store.same(tx, home, name, arguments.number, spec)
        if found is not None:
            return job_store.resume(tx, found.id) if found.state == "paused" else found
        asked.payer(tx, spec)
        known = catalogue.load(tx, Artefacts(settings.registry_dir))
        version = known.bundle(name, arguments.number, alias or None).version
        job = job_store.add(tx, new_id("score"), home, name, version, spec, ACTOR)
        audit.record(tx, "scoring.create", job.id, actor=ACTOR, after=_shown(job))
        return job


def _cluster(arguments: argparse.Namespace) -> "Callable[[], Cluster] | None":
    """Where the rows are scored, if not here. Raises Failed."""
    if arguments.on is None:
        if arguments.ray_address is not None:
            raise Failed("--ray-address goes with --on ray")
        return None
    if arguments.key_id is not None:
        raise Failed("--on ray and --key-id do not go together: a server keeps the accounts, and scores by itself")

    def made() -> "Cluster":
        from inference.scoring.on_ray import RayData  # noqa: PLC0415 — NumPy, for who scores

        return RayData(arguments.ray_address)

    return made


def _worked(
    engine: Engine,
    settings: Settings,
    job: Job,
    heard: _Heard,
    tick: Tick,
    cluster: "Callable[[], Cluster] | None",
) -> Job:
    """Until it is over, whoever works on it, or until this process is to end. What is on an account is left to a server."""
    if job.spec.key_id is not None:
        print("a server on this data directory works on it, as it keeps the accounts", file=sys.stderr)
    try:
        with worker(order_of(settings), heard, tick, cluster=cluster) as work:
            while job.state in OPEN:
                mine = work.run(job.id)
                with reading(engine) as tx:
                    job = job_store.find(tx, job.id)
                if heard.is_set():
                    break
                if not mine:
                    tick(job.count)
                    time.sleep(POLL_S)
    except ImportError as error:
        raise Failed(f"predictions need {error.name}: install the extra `embedded`") from error
    return job


def _shown(job: Job) -> dict[str, object]:
    count = job.count
    return {
        "id": job.id,
        "model": job.model,
        "version": job.version,
        "state": job.state,
        "rows": count.total,
        "done": count.done,
        "refused": count.refused,
        "output": job.spec.output.path or f"{job.spec.output.database}.{job.spec.output.table}",
        "refused_file": job.spec.refused,
        "message": job.message,
    }


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Tick]:
    with bar("scoring …", quiet=quiet) as shown:
        if shown is None:
            yield lambda _: None
        else:
            task = shown.add_task("scoring", total=None)
            yield lambda count: shown.update(task, total=count.total, completed=count.done)
