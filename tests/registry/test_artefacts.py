"""Files by their hash: whole or not there, whoever dies when, and gone once nobody names them."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from admin import beside
from admin.migrate import prepare
from gateway.database import changing, connect, reading, record_revision
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox
from gateway.snapshot import Current
from gateway.snapshot_store import SnapshotStore
from inference.registry import alias_store, catalogue, version_store
from inference.registry.artefacts import FORGOTTEN_AFTER_S, Artefacts
from inference.registry.catalogue import CurrentLibrary
from inference.registry.records import NewVersion, Source
from inference.signature import Column, Signature
from tests.fixtures.server import ROOT

WHOLE = b"half of it, and the rest"


def age(folder: Path) -> None:
    """As if it had all been there for a while."""
    before = time.time() - 2 * FORGOTTEN_AFTER_S
    for path in folder.rglob("*"):
        os.utime(path, (before, before))


@pytest.mark.parametrize("step", ["half written", "written", "kept", "before the commit", "after the commit"])
def test_a_registration_that_dies_leaves_all_or_nothing(step: str, tmp_path: Path) -> None:
    """Before the commit there is no version, after it there is one with its whole file; what nobody names is taken away."""
    url, folder = f"sqlite:///{tmp_path / 'penstock.db'}", tmp_path / "registry"
    engine = connect(url)
    prepare(engine)
    done = subprocess.run(
        [sys.executable, "-m", "tests.registry.dying", step, url, str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    artefacts = Artefacts(folder)
    artefacts.prepare()

    def known(digests: object) -> frozenset[str]:
        with reading(engine) as tx:
            return version_store.known_digests(tx, digests)  # type: ignore[arg-type]

    assert artefacts.collect(known) == 0  # what is young may be about to get its row
    age(folder)
    artefacts.sweep()
    registered = step == "after the commit"
    assert artefacts.collect(known) == (1 if step in {"kept", "before the commit"} else 0)
    with reading(engine) as tx:
        state = catalogue.load(tx, artefacts)
    assert state.names() == (("fraud",) if registered else ())
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in left] == ([hashlib.sha256(WHOLE).hexdigest()] if registered else [])
    if registered:
        assert state.bundle("fraud").artifact.read_bytes() == WHOLE
    engine.dispose()


def test_the_same_bytes_are_kept_once_and_stay_young(tmp_path: Path) -> None:
    """A second registration of a file that is about to be collected saves it."""
    artefacts = Artefacts(tmp_path)
    digests = set()
    for _ in range(2):
        with artefacts.aside() as aside:
            path = aside / "artifact"
            path.write_bytes(WHOLE)
            digests.add(artefacts.keep(path)[0])
        first = artefacts.path(next(iter(digests)))
        assert first.stat().st_mtime > time.time() - FORGOTTEN_AFTER_S
        age(tmp_path)
    assert len(digests) == 1
    assert [path.name for path in (tmp_path / "objects").iterdir()] == list(digests)
    assert artefacts.collect(frozenset) == 0
    assert artefacts.collect(lambda _: frozenset()) == 1
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_every_process_sees_what_one_of_them_was_told(engine: Engine, box: SecretBox, tmp_path: Path) -> None:
    """The one that answers at once, the others with the next look at the revision; requests hold the state that they began with."""
    artefacts = Artefacts(tmp_path / "registry")

    def process() -> tuple[Refresher, CurrentLibrary]:
        store = SnapshotStore(engine, box, str, beside=lambda tx, known: beside.load(tx, artefacts, known))
        current = Current()
        refresher = Refresher(store, current, interval_s=0.02)
        refresher.load()
        return refresher, CurrentLibrary(lambda: beside.of(current.snapshot.beside).catalogue)

    def register() -> None:
        source = Source("onnx", "a" * 64, 1, "m.onnx")
        signature = Signature((Column("x", "FP32"),), (Column("y", "FP32"),))
        new = NewVersion("onnx", "a" * 64, 1, source, signature, {}, {}, None, "b" * 64)
        with changing(engine) as tx:
            version_store.add_version(tx, "fraud", new, "ada", record_revision(tx, "registered"))

    def promote(version: int) -> None:
        with changing(engine) as tx:
            alias_store.move(tx, "fraud", "champion", version, "ada", record_revision(tx, "promoted"))

    (mine, here), (others, there) = process(), process()
    running = asyncio.get_running_loop().create_task(others.run())
    try:
        register()
        register()
        promote(1)
        await mine.refresh_now()
        assert here.bundle("fraud").version == 1
        held = here.catalogue
        promote(2)
        await mine.refresh_now()
        assert (here.bundle("fraud").version, held.bundle("fraud").version) == (2, 1)
        async with asyncio.timeout(20):
            while there.names() == () or there.bundle("fraud").version != 2:  # noqa: ASYNC110 — nobody would tell
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for refresher in (mine, others):
            await asyncio.to_thread(refresher.close, 20)
