"""Snapshots and their refreshing: changes made elsewhere arrive, and a database in trouble disturbs no request."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import Engine, func, select, text, update

from gateway import key_store, keys, model_store
from gateway.database import appending, changing, connect, newest_revision, reading
from gateway.key_store import KeyChange, NewKey
from gateway.refresh import Refresher
from gateway.secret_box import BoxError, SecretBox, load_or_create_key
from gateway.settings import DeploymentSpec, ModelSpec
from gateway.snapshot import EMPTY, Current, Snapshot
from gateway.snapshot_store import Loaded, SnapshotStore
from gateway.tables import deployments, revisions
from gateway.tables import keys as key_table
from tests.fixtures.control import CLOSED_S
from tests.fixtures.patience import soonest


@asynccontextmanager
async def running(refresher: Refresher) -> AsyncIterator[None]:
    task = asyncio.ensure_future(refresher.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        refresher.close(CLOSED_S)


async def seconds_until(condition: Callable[[], bool], limit_s: float = 20) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, "did not happen in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


@pytest.fixture
def elsewhere(database_url: str) -> Iterator[Engine]:
    """Another replica's engine."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


def make_key(engine: Engine, name: str = "a") -> tuple[str, bytes]:
    with changing(engine) as tx:
        record, secret = key_store.create(tx, NewKey(name))
    return record.id, keys.digest(secret.encode())


async def test_a_key_made_or_revoked_elsewhere_arrives_within_a_second(
    refresher: Refresher, current: Current, elsewhere: Engine
) -> None:
    """The promise of the contract, with the interval of production."""

    async def one_life() -> float:
        """The longest of its three waits."""
        id_, digest = await asyncio.to_thread(make_key, elsewhere)
        waits = [await seconds_until(lambda: digest in current.snapshot.keys)]
        with changing(elsewhere) as tx:
            key_store.change(tx, id_, KeyChange(models=("chat",)))
        waits.append(await seconds_until(lambda: current.snapshot.keys[digest].models == frozenset({"chat"})))
        with changing(elsewhere) as tx:
            key_store.revoke(tx, id_)
        waits.append(await seconds_until(lambda: digest not in current.snapshot.keys))
        return max(waits)

    async with running(Refresher(refresher._store, current)):
        assert await soonest(one_life, 1) < 1


async def test_a_key_made_by_another_process_arrives_within_a_second(
    refresher: Refresher, current: Current, database_url: str
) -> None:
    """A real second process, as the command line is one."""
    script = (
        "import sys; from gateway import key_store; from gateway.database import changing, connect\n"
        "with changing(connect(sys.argv[1])) as tx: print(key_store.create(tx, key_store.NewKey('cli'))[1])"
    )

    async def arrival() -> float:
        process = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script, database_url], capture_output=True, text=True, check=True
        )
        digest = keys.digest(process.stdout.strip().encode())
        return await seconds_until(lambda: digest in current.snapshot.keys)

    async with running(refresher):
        assert await soonest(arrival, 1) < 1


def test_revisions_are_committed_in_the_order_of_their_numbers(engine: Engine, database_url: str) -> None:
    """Or a reader of the newest one would never learn of an older one that was committed after it."""
    writers, each = 4, 10
    seen: list[tuple[int, int]] = []

    def write() -> None:
        own = connect(database_url)
        for number in range(each):
            make_key(own, str(number))
        own.dispose()

    threads = [Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with reading(engine) as tx:
            seen.append((newest_revision(tx), tx.execute(select(func.count()).select_from(key_table)).scalar_one()))
    for thread in threads:
        thread.join()
    with reading(engine) as tx:
        seen.append((newest_revision(tx), tx.execute(select(func.count()).select_from(key_table)).scalar_one()))
    assert seen[-1] == (writers * each, writers * each)
    assert all(revision == count for revision, count in seen)


def test_loading_on_top_of_an_older_snapshot_equals_loading_everything(
    engine: Engine, snapshots: SnapshotStore
) -> None:
    """Only changed keys are read; the result must not depend on what was known before."""
    ids = [make_key(engine, str(number))[0] for number in range(4)]
    older = snapshots.load().snapshot
    with changing(engine) as tx:
        key_store.revoke(tx, ids[0])
        key_store.change(tx, ids[1], KeyChange(name="renamed"))
    make_key(engine, "new")
    newer = snapshots.load(older)
    assert newer.snapshot == snapshots.load().snapshot
    assert len(newer.snapshot.keys) == 4
    assert len(older.keys) == 4


def test_a_change_of_keys_leaves_the_very_objects_of_the_catalog(
    engine: Engine, snapshots: SnapshotStore, box: SecretBox
) -> None:
    """The data plane prepares bytes per deployment; a new key must not make it start over."""
    with changing(engine) as tx:
        model_store.create_model(tx, ModelSpec(name="chat"), box)
    older = snapshots.load().snapshot
    make_key(engine)
    newer = snapshots.load(older).snapshot
    assert newer.revision > older.revision
    assert newer.catalog is older.catalog


def test_a_snapshot_shows_one_moment_even_while_writers_go_on(
    engine: Engine, snapshots: SnapshotStore, elsewhere: Engine
) -> None:
    """The revision is read first, the rest afterwards: a change in between must not show."""
    make_key(engine)
    with reading(engine) as tx:
        before = newest_revision(tx)
        make_key(elsewhere, "in between")
        assert len(key_store.changed_since(tx, 0)) == 1
        assert newest_revision(tx) == before
    assert len(snapshots.load().snapshot.keys) == 2


def test_one_unusable_object_does_not_take_the_others_down(
    engine: Engine, snapshots: SnapshotStore, box: SecretBox, tmp_path: Path
) -> None:
    """A reference to nothing, a key sealed by another box, a row that no rule allows: each is left out with a reason."""
    stranger = SecretBox(lambda: load_or_create_key(tmp_path / "another-key"))

    def deployment(id_: str, **fields: object) -> DeploymentSpec:
        return DeploymentSpec.model_validate({"id": id_, "base_url": "http://127.0.0.1:1/v1", **fields})

    with changing(engine) as tx:
        model_store.create_model(
            tx, ModelSpec(name="chat", deployments=(deployment("fine"), deployment("broken"))), box
        )
        model_store.create_deployment(tx, "chat", deployment("missing", api_key="${NOT_THERE}"), box)
        model_store.create_deployment(tx, "chat", deployment("sealed", api_key="sk-x"), stranger)
        model_store.create_deployment(tx, "chat", deployment("own", base_url=None, provider="groq"), box)
        tx.execute(update(deployments).where(deployments.c.id == "broken").values(spec={"id": "broken", "order": "x"}))
    loaded = snapshots.load()
    found = loaded.snapshot.catalog.find("chat")
    assert found is not None
    assert [ready.id for ready in found[0].deployments] == ["fine"]
    reasons = {each.id: each.reason for each in loaded.skipped}
    assert set(reasons) == {"broken", "missing", "sealed", "own"}
    assert "NOT_THERE" in reasons["missing"]
    assert "secret key" in reasons["sealed"]
    assert "GROQ_API_KEY" in reasons["own"]
    assert "order" in reasons["broken"]


async def test_a_database_that_fails_leaves_the_snapshot_in_force_and_is_found_again(
    refresher: Refresher, current: Current, engine: Engine
) -> None:
    """Health and age tell; the snapshot stays; when the database is back, so are the changes."""
    _, digest = make_key(engine)
    async with running(refresher):
        await seconds_until(lambda: digest in current.snapshot.keys)
        with appending(engine) as tx:
            tx.execute(text("ALTER TABLE revisions RENAME TO away"))
        await seconds_until(lambda: not refresher.healthy)
        await asyncio.sleep(0.2)
        assert refresher.age_s >= 0.2
        assert digest in current.snapshot.keys
        with appending(engine) as tx:
            tx.execute(text("ALTER TABLE away RENAME TO revisions"))
        await seconds_until(lambda: refresher.healthy)
        assert refresher.age_s < 5


@pytest.mark.postgres
async def test_a_postgresql_that_is_gone_or_hangs_does_not_disturb_the_snapshot(
    new_postgres: Callable[[str], str], migrated_postgres: str, postgres_url: str, box: SecretBox
) -> None:
    """Gone: connections refused and cut. Hung: the server process is stopped in the middle, as by a paused machine."""
    url = new_postgres(migrated_postgres)
    engine, server = connect(url), connect(postgres_url).execution_options(isolation_level="AUTOCOMMIT")
    current = Current()
    refresher = Refresher(SnapshotStore(engine, box, str), current, interval_s=0.05, slow_s=0.3)
    _, digest = make_key(engine)
    refresher.load()
    name = engine.url.database
    backends = text("SELECT pid FROM pg_stat_activity WHERE datname = :name")
    async with running(refresher):
        await seconds_until(lambda: refresher.healthy)
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
            )
            await seconds_until(lambda: not refresher.healthy)
            assert digest in current.snapshot.keys
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        await seconds_until(lambda: refresher.healthy)

        with server.connect() as connection:
            pids = list(connection.scalars(backends, {"name": name}))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await seconds_until(lambda: not refresher.healthy)
            longest = 0.0
            for _ in range(40):  # the event loop must not notice
                start = time.monotonic()
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - start)
            assert longest < 5  # a hung server hangs for ever
            assert digest in current.snapshot.keys
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        await seconds_until(lambda: refresher.healthy)
    engine.dispose()
    server.dispose()


async def test_a_database_that_went_back_in_time_is_reported_and_not_followed(
    refresher: Refresher, current: Current, engine: Engine
) -> None:
    """After a restore nobody knows what of the snapshot still holds: keep it, and say so."""
    _, digest = make_key(engine)
    assert await refresher.refresh_now()
    with appending(engine) as tx:
        tx.execute(revisions.delete())
    assert not await refresher.refresh_now()
    assert digest in current.snapshot.keys


async def test_a_slow_answer_still_counts(current: Current, engine: Engine, snapshots: SnapshotStore) -> None:
    """A database that always takes longer than `slow_s` must not mean that nothing ever arrives."""

    class Slow(SnapshotStore):
        def __init__(self) -> None:
            pass

        def revision(self) -> int:
            time.sleep(0.2)
            return snapshots.revision()

        def load(self, known: Snapshot = EMPTY) -> Loaded:
            return snapshots.load(known)

    _, digest = make_key(engine)
    refresher = Refresher(Slow(), current, interval_s=0.01, slow_s=0.05)
    async with running(refresher):
        await seconds_until(lambda: digest in current.snapshot.keys)
    assert not refresher.healthy


async def test_a_process_that_was_late_itself_shows_a_writer_what_it_wrote(
    current: Current, engine: Engine, snapshots: SnapshotStore
) -> None:
    """The database answered in time, while this process did something else for longer than is waited."""
    answered = Event()

    class Telling(SnapshotStore):
        def __init__(self) -> None: ...

        def revision(self) -> int:
            return snapshots.revision()

        def load(self, known: Snapshot = EMPTY) -> Loaded:
            loaded = snapshots.load(known)
            answered.set()
            return loaded

    def be_late() -> None:
        assert answered.wait(20)
        time.sleep(0.5)

    _, digest = make_key(engine)
    refresher = Refresher(Telling(), current, slow_s=0.3)
    asyncio.get_running_loop().call_soon(be_late)
    assert await refresher.refresh_now()
    assert digest in current.snapshot.keys
    refresher.close(CLOSED_S)


async def test_a_refresher_that_is_cancelled_as_its_answer_comes_still_ends(
    current: Current, snapshots: SnapshotStore
) -> None:
    """Otherwise a SIGTERM in that moment leaves a process that never ends."""
    answered = Event()

    class Telling(SnapshotStore):
        """Says when its answer is about to be on its way."""

        def __init__(self) -> None: ...

        def revision(self) -> int:
            answered.set()
            return snapshots.revision()

    refresher = Refresher(Telling(), current, interval_s=0.001, slow_s=5)
    loop = asyncio.get_running_loop()
    running = loop.create_task(refresher.run())
    while not answered.is_set():  # noqa: ASYNC110  # the thread sets it, and no turn may be lost
        await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251  # holds the loop, until the answer waits for its next turn
    loop.call_soon(running.cancel)
    done, _ = await asyncio.wait([running], timeout=15)
    ended = running in done
    running.cancel()
    refresher.close(CLOSED_S)
    assert ended


def test_sealed_values_open_with_their_own_key_alone(tmp_path: Path) -> None:
    """Sealing twice gives two texts; another key opens neither, and a short key is refused."""
    box = SecretBox(lambda: load_or_create_key(tmp_path / "secret-key"))
    first, second = box.seal("sk-x"), box.seal("sk-x")
    assert first != second
    assert "sk-x" not in first
    assert (box.open(first), box.open(second)) == ("sk-x", "sk-x")
    with pytest.raises(BoxError, match="another secret key"):
        SecretBox(lambda: b"another key that is long enough").open(first)
    with pytest.raises(BoxError, match="shorter"):
        SecretBox(lambda: b"short").seal("x")


def test_the_secret_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """Workers that start together agree on it, and nothing is left lying around."""
    found: list[bytes] = []
    path = tmp_path / "secret-key"
    threads = [Thread(target=lambda: found.append(load_or_create_key(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found[0]) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
