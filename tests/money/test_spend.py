"""Spend is the ledger's own sums, to the nano-dollar, whatever is grouped, filtered, shipped and compacted meanwhile."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from json import loads
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Engine

from admin.migrate import prepare
from gateway.database import appending, connect, reading
from gateway.errors import BadRequest
from gateway.journal_records import Settled
from gateway.ledger_entries import Entry
from gateway.ledger_export import selected
from gateway.shipping import deliver
from gateway.spend import EVER, GroupBy, Range, Spend, spend
from gateway.spend_sums import Sums, add_partials, compact, day_of, month_start
from tests.fixtures.ledger import BEGAN, DAY_S, numbered, settled
from tests.fixtures.patience import quickest

GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
TODAY = day_of(BEGAN)
FILTERS = {
    "key": "key_1",
    "team": "team_2",
    "model": "chat",
    "provider": "vllm",
    "customer": "ada",
    "tag": "a",
    "org": "x",
}


def groups_of(entry: Entry, by: GroupBy) -> Sequence[str | int | None]:
    match by:
        case "org" | "team" | "user" | "key":
            return [getattr(entry, f"{by}_id")]
        case "model" | "provider":
            return [getattr(entry, by)]
        case "customer":
            return [] if entry.customer is None else [entry.customer]
        case "tag":
            return entry.tag_list()
        case "day":
            return [entry.day]
        case "month":
            return [month_start(entry.day)]


def added_up(entries: Sequence[Entry], by: GroupBy, days: Range, only: dict[str, str]) -> dict[str | int | None, Spend]:
    """The slow way: every entry looked at, in Python."""
    found: dict[str | int | None, Spend] = {}
    for entry in entries:
        wanted = all(value in groups_of(entry, name) for name, value in only.items())  # type: ignore[arg-type]
        if not (days.since <= entry.day < days.until and wanted):
            continue
        for name in [only["tag"]] if by == "tag" and "tag" in only else groups_of(entry, by):
            had = found.get(name, Spend(name, 0, 0, 0, 0, 0))
            found[name] = Spend(
                name,
                had.cost_nanousd + entry.cost_nanousd,
                had.requests + 1,
                had.input_tokens + entry.input_tokens,
                had.cached_tokens + entry.cached_tokens,
                had.output_tokens + entry.output_tokens,
            )
    return found


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Half a year of calls, half of them compacted, in four sessions."""
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('spend') / 'penstock.db'}")
    prepare(engine)
    for seed in range(4):
        deliver(engine, f"ses_{seed}", numbered(*(settled(n, seed=seed, days=180) for n in range(300))))
        if seed == 1:
            with appending(engine) as tx:
                compact(tx)
    yield engine
    engine.dispose()


@given(
    by=st.sampled_from(GROUPS),
    bounds=st.tuples(st.integers(-5, 185), st.integers(-5, 185)) | st.none(),
    names=st.sets(st.sampled_from(sorted(FILTERS)), max_size=2),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_view_is_what_the_entries_add_up_to(
    embedded: Engine, by: GroupBy, bounds: tuple[int, int] | None, names: set[str]
) -> None:
    """Any grouping, range of days and filters, over months, edges of months, and sums that are not compacted yet."""
    days = EVER if bounds is None else Range(TODAY + min(bounds), TODAY + max(bounds))
    only = {name: FILTERS[name] for name in names}
    with reading(embedded) as tx:
        if {"customer", "tag"} <= {by, *names}:
            with pytest.raises(BadRequest):
                spend(tx, by, days, only)
            return
        found = spend(tx, by, days, only)
        entries = [entry for entry, _ in selected(tx, None, None)]
    expected = added_up(entries, by, days, only)
    assert {one.group: one for one in found} == expected
    if by in {"day", "month"}:
        assert [one.group for one in found] == sorted(expected)  # type: ignore[type-var]
    else:
        assert [one.cost_nanousd for one in found] == sorted((one.cost_nanousd for one in found), reverse=True)


def test_views_agree_on_both_databases(engine: Engine) -> None:
    """PostgreSQL sums into numerics and SQLite into integers: the answers are the same integers."""
    calls = [settled(n, days=100) for n in range(500)]
    deliver(engine, "ses_a", numbered(*calls[:300]))
    with appending(engine) as tx:
        assert compact(tx, limit=40) == 40
        while compact(tx, limit=40):
            pass
    deliver(engine, "ses_a", numbered(*calls[300:], first=300))
    with reading(engine) as tx:
        entries = [entry for entry, _ in selected(tx, None, None)]
        for by in GROUPS:
            for days in (EVER, Range(TODAY + 3, TODAY + 95)):
                found = spend(tx, by, days)
                assert {one.group: one for one in found} == added_up(entries, by, days, {})
                assert all(isinstance(value, int) for one in found for value in (one.cost_nanousd, one.requests))


def test_compaction_moves_and_changes_nothing(engine: Engine) -> None:
    """However often, in however small steps."""
    deliver(engine, "ses_a", numbered(*(settled(n, days=60) for n in range(300))))
    with reading(engine) as tx:
        before = [spend(tx, by) for by in GROUPS]
    moved = 0
    while True:
        with appending(engine) as tx:
            step = compact(tx, limit=37)
        moved += step
        with reading(engine) as tx:
            assert [spend(tx, by) for by in GROUPS] == before
        if step == 0:
            break
    assert moved > 100


def test_shipping_and_compacting_at_once_lose_nothing(engine: Engine) -> None:
    """Four shippers and two compactors run against each other; every view in between is of whole groups."""
    stop = threading.Event()
    failures: list[BaseException] = []
    groups = 25

    def ship(seed: int) -> None:
        for n in range(groups):
            deliver(engine, f"ses_{seed}", numbered(*(settled(n * 10 + i, seed=seed) for i in range(10)), first=n * 10))

    def compacting() -> None:
        while not stop.is_set():
            with appending(engine) as tx:
                compact(tx, limit=random.randrange(1, 60))
            time.sleep(0.002)

    def guarded(work: Any, *args: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:  # noqa: BLE001 — told by the test's own thread
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    compactors = [guarded(compacting) for _ in range(2)]
    shippers = [guarded(ship, seed) for seed in range(4)]
    while any(thread.is_alive() for thread in shippers):
        with reading(engine) as tx:
            found = spend(tx, "org")
        assert sum(one.requests for one in found) % 10 == 0
        time.sleep(0.005)
    stop.set()
    for thread in (*shippers, *compactors):
        thread.join()
    assert failures == []
    with reading(engine) as tx:
        entries = [entry for entry, _ in selected(tx, None, None)]
        assert len(entries) == 4 * groups * 10
        for by in GROUPS:
            assert {one.group: one for one in spend(tx, by)} == added_up(entries, by, EVER, {})


async def pages(admin: httpx.AsyncClient, url: str) -> list[object]:
    """All rows, page by page, as whoever follows `next` gets them."""
    rows: list[object] = []
    page = (await admin.get(url)).json()
    while page["has_more"]:
        rows += page["data"]
        page = (await admin.get(f"{url}&after={page['next']}")).json()
    return [*rows, *page["data"]]


async def test_spend_over_rest(engine: Engine, admin: httpx.AsyncClient) -> None:
    """DESIGN section 5: rows with cost_usd, requests, prompt_tokens, completion_tokens, by whatever was asked."""
    calls = [settled(n, days=3) for n in range(200)]
    deliver(engine, "ses_a", numbered(*calls))
    answer = await admin.get("/admin/v1/spend", params={"group_by": "key"})
    assert answer.status_code == 200
    body = loads(answer.text, parse_float=Decimal)
    assert (body["group_by"], body["has_more"], body["next"]) == ("key", False, None)
    assert sum(row["cost_usd"] for row in body["data"]) * 10**9 == sum(call.cost_nanousd or 0 for call in calls)
    assert all(row["cost_usd"] * 10**9 == row["cost_nanousd"] for row in body["data"])
    assert sum(row["requests"] for row in body["data"]) == 200
    assert sum(row["prompt_tokens"] for row in body["data"]) == sum(call.usage.input for call in calls if call.usage)
    by_day = (await admin.get("/admin/v1/spend?group_by=day&key_id=key_3")).json()
    assert [row["group"] for row in by_day["data"]] == sorted({row["group"] for row in by_day["data"]})
    assert sum(row["requests"] for row in by_day["data"]) == sum(call.key_id == "key_3" for call in calls)
    some = (await admin.get("/admin/v1/spend?group_by=key&limit=2")).json()
    assert (len(some["data"]), some["has_more"]) == (2, True)
    for group_by in ("key", "day", "month"):
        whole = (await admin.get(f"/admin/v1/spend?group_by={group_by}")).json()["data"]
        assert await pages(admin, f"/admin/v1/spend?group_by={group_by}&limit=2") == whole
    day = (await admin.get("/admin/v1/spend?group_by=day&since=2026-11-19&until=2026-11-20T00:00:00Z")).json()
    assert "data" in day, day
    assert [row["group"] for row in day["data"]] == ["2026-11-19"]
    assert (day["since"], day["until"]) == ("2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z")


@pytest.mark.parametrize(
    "query", ["group_by=colour", "since=yesterday", "since=2026-11-20&until=2026-11-19", "tag=a&customer=b", "limit=0"]
)
async def test_a_view_that_cannot_be_is_refused(admin: httpx.AsyncClient, query: str) -> None:
    """In the shape of every error, with the parameter that is wrong."""
    answer = await admin.get(f"/admin/v1/spend?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_view_of_many_sums_is_quick(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What remains of two million entries (90 days, 200 keys, 3 models each): any view of all of it in 300 ms of this machine."""
    engine = connect(_fresh(kind, tmp_path, request))
    calls = _many(days=90, keys=200, models=3)
    with appending(engine) as tx:
        for begin in range(0, len(calls), 20_000):
            sums = Sums()
            sums.take(calls[begin : begin + 20_000])
            add_partials(tx, sums.rows())
    for _ in range(10):
        with appending(engine) as tx:
            if not compact(tx):
                break
    clock = time.thread_time if kind == "sqlite" else time.perf_counter
    with reading(engine) as tx:

        def took_s(by: GroupBy) -> float:
            began = clock()
            assert spend(tx, by) is not None
            return clock() - began

        slowest = max(quickest(partial(took_s, by), 0.3) for by in GROUPS)
    engine.dispose()
    assert slowest < 0.3


def _fresh(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgres":
        made: str = request.getfixturevalue("new_postgres")(request.getfixturevalue("migrated_postgres"))
        return made
    engine = connect(f"sqlite:///{tmp_path / 'penstock.db'}")
    prepare(engine)
    engine.dispose()
    return str(engine.url)


def _many(*, days: int, keys: int, models: int) -> list[Settled]:
    """One call for each key, model and day."""
    one = settled(1)
    return [
        replace(
            one,
            at=BEGAN + day * DAY_S,
            key_id=f"key_{key}",
            team_id=f"team_{key // 10}",
            model=f"model_{(key + model) % 20}",
        )
        for day in range(days)
        for key in range(keys)
        for model in range(models)
    ]
