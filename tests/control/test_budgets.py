"""Budgets and limits over REST: exact money, what is left, relief before the window ends, and who has set them."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, insert, select

from admin.app import create_app
from admin.rest.money import nanousd, usd
from admin.rest.scope_fields import BudgetFields
from gateway import budget_store, key_store, keys
from gateway.budget_store import NewBudget
from gateway.database import changing, connect
from gateway.key_store import NewKey
from gateway.refresh import Refresher
from gateway.scopes import Scope, Use, bind, static_binding, window
from gateway.secret_box import SecretBox
from gateway.snapshot import Current
from gateway.snapshot_store import SnapshotStore
from gateway.tables import metadata
from tests.fixtures.control import ADMIN_KEY, CLOSED_S

KEYS, BUDGETS, LIMITS = "/admin/v1/keys", "/admin/v1/budgets", "/admin/v1/limits"


async def made(admin: httpx.AsyncClient, url: str, **body: object) -> dict[str, Any]:
    answer = await admin.post(url, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


@given(st.integers(0, 10**15 - 1), st.integers(0, 9))
def test_an_amount_goes_through_json_to_the_nano_dollar(digits: int, places: int) -> None:
    """15 digits anywhere are exact, as every JSON reader of doubles gives them back."""
    nano = digits * 10 ** (9 - places)
    written = json.loads(json.dumps({"limit_usd": float(usd(nano)), "period": "day"}))
    if nano <= 10**18:
        assert nanousd(BudgetFields.model_validate(written).limit_usd) == nano


@pytest.mark.parametrize(
    "amount", ["0.000000001", "0.1", "5", "5.0", "123456.123456789", "1000000000", "999999999.99999", "1e-9"]
)
async def test_an_amount_comes_back_as_it_was_sent(admin: httpx.AsyncClient, current: Current, amount: str) -> None:
    """And the data plane has it in whole nano-dollars."""
    body = f'{{"scope": {{"kind": "model", "id": "m"}}, "period": "day", "limit_usd": {amount}}}'
    answer = await admin.post(BUDGETS, content=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["limit_usd"] == float(amount)
    id_ = answer.json()["id"]
    shown = (await admin.get(f"{BUDGETS}/{id_}")).text
    assert json.loads(shown)["limit_usd"] == float(amount)
    assert current.snapshot.rules.budgets[id_].limit_nanousd == Decimal(amount) * 10**9


@pytest.mark.parametrize("amount", ["1e-10", "0.0000000011", "1234567.123456789", "-1", "1e10", '"5"', "true", "null"])
async def test_an_amount_that_cannot_be_kept_exactly_is_refused(admin: httpx.AsyncClient, amount: str) -> None:
    """Never rounded in silence."""
    body = f'{{"scope": {{"kind": "model", "id": "m"}}, "period": "day", "limit_usd": {amount}}}'
    assert refusal(await admin.post(BUDGETS, content=body)) == (400, "limit_usd")


async def test_a_key_is_made_with_its_budget_and_limits(admin: httpx.AsyncClient, current: Current) -> None:
    """As the contract has it; the data plane finds them by the key."""
    limits = {"rpm": 60, "tpm": 1000, "parallel": 2}
    key = await made(admin, KEYS, name="k", budget={"limit_usd": 5, "period": "day"}, limits=limits)
    budget, numbers = key["budget"], key["limits"]
    assert (budget["limit_usd"], budget["period"], budget["scope"]["id"]) == (5.0, "day", key["id"])
    assert {name: numbers[name] for name in limits} == limits
    known = current.snapshot.keys[keys.digest(str(key["key"]).encode())]
    static = static_binding(current.snapshot.rules, known, "chat", "openai")
    assert len(static.bound) == 4
    shown = (await admin.get(f"{KEYS}/{key['id']}")).json()
    assert (shown["budget"], shown["limits"]) == (budget, numbers)


async def test_a_keys_budget_and_limits_are_changed_and_taken_away_with_it(
    admin: httpx.AsyncClient, current: Current
) -> None:
    """What a PATCH leaves out stays; null deletes."""
    key = await made(admin, KEYS, name="k", budget={"limit_usd": 5, "period": "day"}, limits={"rpm": 60})
    url = f"{KEYS}/{key['id']}"
    changed = (await admin.patch(url, json={"budget": {"limit_usd": 7, "period": "week"}, "limits": {"tpm": 9}})).json()
    assert (changed["budget"]["id"], changed["budget"]["limit_usd"]) == (key["budget"]["id"], 7.0)
    assert (changed["limits"]["rpm"], changed["limits"]["tpm"]) == (60, 9)
    assert (await admin.patch(url, json={"name": "l"})).json()["budget"]["limit_usd"] == 7
    bare = (await admin.patch(url, json={"budget": None, "limits": None})).json()
    assert (bare["budget"], bare["limits"]) == (None, None)
    assert current.snapshot.rules.families == {}
    again = (await admin.patch(url, json={"budget": {"limit_usd": 1, "period": "total"}})).json()
    assert again["budget"]["id"] != key["budget"]["id"]


async def test_what_is_left_is_told_by_the_accounts(admin: httpx.AsyncClient, accounts: dict[str, Use]) -> None:
    """Settled, held and remaining of the window that is running, exact beyond what a double holds."""
    id_ = (await made(admin, BUDGETS, scope={"kind": "model", "id": "m"}, period="total", limit_usd=100_000_000))["id"]
    accounts[f"b:{id_}:0"] = Use(settled=12_345_678_123_456_789, held=1)
    answer = await admin.get(f"{BUDGETS}/{id_}")
    assert '"settled_usd":12345678.123456789' in answer.text
    assert '"remaining_usd":87654321.876543210' in answer.text
    assert answer.json()["resets_at"] is None


async def test_a_rolling_budget_counts_every_slot_and_debt_is_not_promised(
    admin: httpx.AsyncClient, current: Current, accounts: dict[str, Use]
) -> None:
    """What an upstream billed beyond the limit leaves nothing, not less than nothing."""
    scope = {"kind": "model", "id": "m"}
    id_ = (await made(admin, BUDGETS, scope=scope, period="hour", rolling=True, limit_usd=1))["id"]
    for account in window(bind(current.snapshot.rules.budgets[id_], "m"), time.time()).counted[1:]:
        accounts[account] = Use(100_000_000, 0)
    shown = (await admin.get(f"{BUDGETS}/{id_}")).json()
    assert (shown["settled_usd"], shown["remaining_usd"]) == (1.2, 0)


async def test_a_budget_for_each_tells_the_share_of_one(admin: httpx.AsyncClient, accounts: dict[str, Use]) -> None:
    """`?scope_id=` says whose; without it nothing is known."""
    id_ = (await made(admin, BUDGETS, scope={"kind": "customer", "id": "*"}, period="total", limit_usd=2))["id"]
    accounts[f"b:{id_}/alice:0"] = Use(500_000_000, 250_000_000)
    shown = (await admin.get(f"{BUDGETS}/{id_}", params={"scope_id": "alice"})).json()
    assert [shown[name] for name in ("settled_usd", "held_usd", "remaining_usd")] == [0.5, 0.25, 1.25]
    assert (await admin.get(f"{BUDGETS}/{id_}")).json()["remaining_usd"] is None


async def test_a_reset_begins_with_empty_accounts(
    admin: httpx.AsyncClient, current: Current, accounts: dict[str, Use]
) -> None:
    """Other accounts, so that what still settles for calls under way does not count again."""
    id_ = (await made(admin, BUDGETS, scope={"kind": "model", "id": "m"}, period="total", limit_usd=2))["id"]
    accounts[f"b:{id_}:0"] = Use(2_000_000_000, 0)
    assert (await admin.get(f"{BUDGETS}/{id_}")).json()["remaining_usd"] == 0
    assert (await admin.post(f"{BUDGETS}/{id_}/reset")).status_code == 200
    assert (await admin.get(f"{BUDGETS}/{id_}")).json()["remaining_usd"] == 2
    assert window(bind(current.snapshot.rules.budgets[id_], "m"), 1e9).charged == f"b:{id_}.1:0"


async def test_a_raise_adds_until_its_end(admin: httpx.AsyncClient, current: Current) -> None:
    """It shows beside the limit, counts at once and can be ended early; the past is refused."""
    id_ = (await made(admin, BUDGETS, scope={"kind": "model", "id": "m"}, period="day", limit_usd=2))["id"]
    until = float(int(time.time()) + 3600)  # whole: of two readers one may round the half of a microsecond up
    raised = (await admin.post(f"{BUDGETS}/{id_}/raise", json={"amount_usd": 1.5, "until": until})).json()
    assert (raised["limit_usd"], raised["raised"]["amount_usd"]) == (2, 1.5)
    assert datetime.fromisoformat(raised["raised"]["until"]) == datetime.fromtimestamp(until, UTC)
    assert (await admin.get(f"{BUDGETS}/{id_}")).json()["remaining_usd"] == 3.5
    assert current.snapshot.rules.budgets[id_].amount(until + 1) == 2_000_000_000
    past = await admin.post(f"{BUDGETS}/{id_}/raise", json={"amount_usd": 1, "until": time.time() - 1})
    assert refusal(past) == (400, "until")
    await admin.post(f"{BUDGETS}/{id_}/raise", json={"amount_usd": 0, "until": until})
    assert (await admin.get(f"{BUDGETS}/{id_}")).json()["raised"] is None


async def test_a_repeated_relief_counts_once(admin: httpx.AsyncClient, current: Current) -> None:
    """Reset and raise honour Idempotency-Key as everything that is posted does."""
    id_ = (await made(admin, BUDGETS, scope={"kind": "model", "id": "m"}, period="day", limit_usd=2))["id"]
    headers = {"idempotency-key": "once"}
    answers = [await admin.post(f"{BUDGETS}/{id_}/reset", headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert current.snapshot.rules.budgets[id_].generation == 1


BAD: list[tuple[dict[str, object], str | None]] = [
    ({"scope": {"kind": "key", "id": "key_0"}}, "scope.id"),
    ({"scope": {"kind": "nothing", "id": "a"}}, "scope.kind"),
    ({"scope": {"kind": "key", "id": ""}}, "scope.id"),
    ({"scope": {"kind": "customer", "id": "a", "within": "org_0"}}, "scope.within"),
    ({"period": "year"}, "period"),
    ({"timezone": "Mars/Base"}, "timezone"),
    ({"timezone": "../etc/passwd"}, "timezone"),
    ({"timezone": "right/UTC"}, "timezone"),
    ({"thresholds": [0.8, 0.5]}, "thresholds"),
    ({"thresholds": [0]}, "thresholds.0"),
    ({"on_exceeded": "pay"}, "on_exceeded"),
    ({"on_exceeded": "fallback"}, None),
    ({"period": "total", "rolling": True}, None),
    ({"unknown": 1}, "unknown"),
]


async def test_a_budget_that_makes_no_sense_is_refused_with_the_field_named(admin: httpx.AsyncClient) -> None:
    """400, also where only the whole makes no sense, and nothing is made."""
    for change, param in BAD:
        body = {"scope": {"kind": "model", "id": "m"}, "period": "day", "limit_usd": 1, **change}
        answer = await admin.post(BUDGETS, json=body)
        assert answer.status_code == 400, change
        if param is not None:
            assert answer.json()["error"]["param"] == param
    assert (await admin.get(BUDGETS)).json()["data"] == []


async def test_a_change_is_judged_as_a_whole(admin: httpx.AsyncClient) -> None:
    """A rolling budget cannot become a total by changing only its period; what is refused changes nothing."""
    scope = {"kind": "model", "id": "m"}
    id_ = (await made(admin, BUDGETS, scope=scope, period="day", rolling=True, limit_usd=1))["id"]
    assert refusal(await admin.patch(f"{BUDGETS}/{id_}", json={"period": "total"})) == (400, "rolling")
    assert (await admin.get(f"{BUDGETS}/{id_}")).json()["period"] == "day"
    both = await admin.patch(f"{BUDGETS}/{id_}", json={"period": "total", "rolling": False, "blocked": True})
    assert (both.json()["period"], both.json()["blocked"]) == ("total", True)


async def test_limits_are_made_changed_and_deleted(admin: httpx.AsyncClient, current: Current) -> None:
    """With one number at least: limits that limit nothing are a mistake."""
    scope = {"kind": "tag", "id": "batch"}
    assert (await admin.post(LIMITS, json={"scope": scope})).status_code == 400
    id_ = (await made(admin, LIMITS, scope=scope, input_tpm=10, rpd=5, timezone="Asia/Tokyo"))["id"]
    assert [limit.measure for limit in current.snapshot.rules.limits[id_].each()] == ["input_tpm", "rpd"]
    changed = (await admin.patch(f"{LIMITS}/{id_}", json={"input_tpm": None, "rpm": 3})).json()
    assert (changed["input_tpm"], changed["rpm"], changed["rpd"], changed["timezone"]) == (None, 3, 5, "Asia/Tokyo")
    assert (await admin.patch(f"{LIMITS}/{id_}", json={"rpd": None, "rpm": None})).status_code == 400
    for number in (0, -1, 1.5, 10**13, "many"):
        assert refusal(await admin.patch(f"{LIMITS}/{id_}", json={"rpm": number})) == (400, "rpm")
    assert (await admin.delete(f"{LIMITS}/{id_}")).json()["deleted"] is True
    assert (await admin.get(f"{LIMITS}/{id_}")).status_code == 404
    assert current.snapshot.rules.limits == {}


async def test_budgets_are_listed_by_scope(admin: httpx.AsyncClient) -> None:
    """Kind and id, in pages."""
    ids = []
    for number in range(3):
        scope = {"kind": "tag", "id": f"t{number}"}
        ids.append((await made(admin, BUDGETS, scope=scope, period="day", limit_usd=1))["id"])
    assert [each["id"] for each in (await admin.get(BUDGETS)).json()["data"]] == sorted(ids)
    one = (await admin.get(BUDGETS, params={"scope_kind": "tag", "scope_id": "t1"})).json()["data"]
    assert [each["id"] for each in one] == [ids[1]]
    assert (await admin.get(BUDGETS, params={"scope_kind": "key"})).json()["data"] == []
    page = (await admin.get(BUDGETS, params={"limit": 2})).json()
    assert (len(page["data"]), page["has_more"]) == (2, True)


@pytest.fixture
def not_enforcing(engine: Engine, box: SecretBox, refresher: Refresher) -> FastAPI:
    digest = keys.digest(ADMIN_KEY.encode())
    return create_app(engine=engine, box=box, refresher=refresher, admin_key_digest=digest, version="0")


async def test_nothing_is_accepted_that_nothing_enforces(not_enforcing: FastAPI) -> None:
    """Money must not be pretended: a server whose data plane holds no budgets takes none."""
    transport, headers = httpx.ASGITransport(app=not_enforcing), {"authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://penstock", headers=headers) as admin:
        id_ = (await made(admin, KEYS, name="a"))["id"]
        for field, value in (("budget", {"limit_usd": 5, "period": "day"}), ("limits", {"rpm": 1})):
            for answer in (
                await admin.post(KEYS, json={"name": "b", field: value}),
                await admin.patch(f"{KEYS}/{id_}", json={field: value}),
            ):
                assert answer.json()["error"]["code"] == "unsupported_value"
                assert refusal(answer) == (400, field)
        scope = {"kind": "model", "id": "m"}
        assert (await admin.post(LIMITS, json={"scope": scope, "rpm": 1})).status_code == 400
        assert (await admin.post(BUDGETS, json={"scope": scope, "limit_usd": 1, "period": "day"})).status_code == 400
        assert len((await admin.get(KEYS)).json()["data"]) == 1


@pytest.fixture
def elsewhere(database_url: str) -> Iterator[Engine]:
    """Another replica's engine."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


async def test_a_budget_edited_elsewhere_arrives_within_a_second(
    snapshots: SnapshotStore, current: Current, elsewhere: Engine
) -> None:
    """Made, changed and deleted by another replica, with the interval of production."""

    def edit(work: str, id_: str = "") -> str:
        with changing(elsewhere) as tx:
            if work == "make":
                return budget_store.create_budget(tx, NewBudget(Scope("model", "m"), 1, "day")).id
            if work == "change":
                return budget_store.reset_budget(tx, id_).id
            budget_store.delete_budget(tx, id_)
            return id_

    refresher = Refresher(snapshots, current)
    refresher.load()
    task = asyncio.ensure_future(refresher.run())
    took: list[float] = []
    try:
        id_ = ""
        for work, generation in (("make", 0), ("change", 1), ("delete", None)):
            id_ = await asyncio.to_thread(edit, work, id_)
            start = time.monotonic()
            while True:
                found = current.snapshot.rules.budgets.get(id_)
                if (None if found is None else found.generation) == generation:
                    break
                assert time.monotonic() - start < 15
                await asyncio.sleep(0.005)
            took.append(time.monotonic() - start)
    finally:
        task.cancel()
        refresher.close(CLOSED_S)
    assert min(took) < 1  # the others may have met a busy machine


def test_ten_thousand_keys_with_budgets_load_fast_and_one_edit_faster(
    engine: Engine, snapshots: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start reads them all; after that an edit costs what it changed."""
    count = 10_000
    with changing(engine) as tx:
        first, _ = key_store.create(tx, NewKey("first"))
        budget = budget_store.create_budget(tx, NewBudget(Scope("key", first.id), 1, "month"))
        for kind, table, id_ in (("key", "keys", first.id), ("budget", "budgets", budget.id)):
            _multiply(tx, kind, table, id_, count)
    start = time.perf_counter()
    loaded = snapshots.load().snapshot
    whole_ms = (time.perf_counter() - start) * 1000
    assert len(loaded.keys) == len(loaded.rules.budgets) == count
    with changing(engine) as tx:
        budget_store.reset_budget(tx, budget.id)
    start = time.perf_counter()
    after = snapshots.load(loaded).snapshot
    edit_ms = (time.perf_counter() - start) * 1000
    assert after.rules.budgets[budget.id].generation == 1
    assert snapshots.load(after).snapshot.rules is after.rules
    with capsys.disabled():
        print(f"\n  {engine.dialect.name}: {count} keys with budgets {whole_ms:.0f} ms, one edit {edit_ms:.0f} ms")
    assert whole_ms < 30_000  # 0.9 s on a quiet machine
    assert edit_ms < 5_000  # 30 ms


def _multiply(tx: Connection, kind: str, name: str, id_: str, count: int) -> None:
    """Copies of one row, straight in the table: making each through the store would take minutes."""
    table = metadata.tables[name]
    row = dict(tx.execute(select(table).where(table.c.id == id_)).one()._mapping)
    rows = [{**row, "id": f"{kind}_{number}"} for number in range(1, count)]
    for number, each in enumerate(rows, 1):
        if kind == "key":
            each["digest"] = keys.digest(str(number).encode())
        else:
            each["scope_id"] = f"key_{number}"
    tx.execute(insert(table), rows)
