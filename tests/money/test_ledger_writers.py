"""Many processes' worth of shippers on one PostgreSQL: no deadlock, no lost entry, sums that agree."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog.testing
from sqlalchemy import text

from gateway import ledger
from gateway.database import connect, reading
from gateway.shipping import Shipper
from gateway.spend import spend
from tests.fixtures.ledger import BEGAN, intent, settled, small_journal

WRITERS = 32
PAUSE_S = 0.02  # between two calls of a writer: 32 of them make more than a thousand a second


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(5, id="five-seconds"),
        pytest.param(600, id="ten-minutes", marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
def test_32_writers_neither_deadlock_nor_lose_an_entry(
    tmp_path: Path, new_postgres: Callable[[str], str], migrated_postgres: str, seconds: int
) -> None:
    """Each has its own journal, shipper and connection, as a process would; all of them compact as well."""
    url = new_postgres(migrated_postgres)
    counts = [0] * WRITERS

    def write(writer: int) -> None:
        engine = connect(url)
        journal = small_journal(tmp_path, f"ses_{writer:02d}", max_bytes=1 << 26)
        shipper = Shipper(engine, journal, interval_s=0.1, compact_every_s=0.5)
        shipper.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            journal.append(intent(counts[writer], seed=writer))
            journal.append(settled(counts[writer], seed=writer))
            counts[writer] += 1
            time.sleep(PAUSE_S)
        shipper.close(BEGAN, timeout_s=30)
        engine.dispose()

    with structlog.testing.capture_logs() as logs:
        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert logs == [], "no group had to be tried twice"
    engine = connect(url)
    verdict = ledger.verify(engine)
    assert verdict.broken == ()
    assert (verdict.sessions, verdict.entries) == (WRITERS, sum(counts))
    expected = sum(
        settled(n, seed=writer).cost_nanousd or 0 for writer in range(WRITERS) for n in range(counts[writer])
    )
    with reading(engine) as tx:
        (total,) = spend(tx, "org")
        deadlocks = tx.execute(
            text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        ).scalar_one()
    assert (total.cost_nanousd, total.requests) == (expected, sum(counts))
    assert deadlocks == 0
    assert list((tmp_path / "journal").iterdir()) == []
    engine.dispose()
