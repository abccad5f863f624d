"""What only Redis has: clusters, scripts that it forgets, keys that end, a ledger that knows more than it."""

import time
from collections.abc import Callable, Mapping, Sequence

import pytest

from gateway.ids import uuid7_hex
from gateway.leases.accounts import Account, Borrow, Grant, Report
from gateway.leases.errors import StoreUnavailable
from gateway.leases.redis import RedisLeases
from tests.fixtures.redis import RedisServer

A, B = "ses_a", "ses_b"
BUDGET = Account("b:budget:0", 1000)


class Ledger:
    """Sums by account and session, and what was asked for."""

    def __init__(self, known: Mapping[str, Mapping[str, int]]) -> None:
        self._known = known
        self.asked: list[Sequence[str]] = []

    async def sums(self, accounts: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        self.asked.append(list(accounts))
        return {account: self._known[account] for account in accounts if account in self._known}


def leases(server: RedisServer, ledger: Ledger | None = None) -> RedisLeases:
    sums = None if ledger is None else ledger.sums
    return RedisLeases(server.url, prefix=f"test-{uuid7_hex()}", quarantine_s=0, ledger_sums=sums)


async def used(store: RedisLeases, account: Account = BUDGET) -> int:
    return (await store.state([account]))[0].used


async def test_all_keys_lie_on_one_node_of_a_cluster(new_redis: Callable[..., RedisServer]) -> None:
    """A cluster refuses scripts whose keys have different slots: every operation passes."""
    server = new_redis("--cluster-enabled", "yes")
    own_all_slots(server)
    ledger = Ledger({})
    store = leases(server, ledger)
    accounts = [BUDGET, Account("l:tpm", 10, 1.0), Account("p:slots", 3), Account("b:r:r2", 5, counted=("b:r:r1",))]
    await store.borrow(A, [Borrow(each, 2) for each in accounts])
    await store.sync(A, [Report(each, 1, 1) for each in accounts])
    assert [each.lent for each in await store.state(accounts)] == [1, 1, 1, 1]
    await store.reset(BUDGET)
    assert len(await store.sessions()) == 1
    await store.close(A, {BUDGET.id: 1})
    await store.disconnect()


async def test_a_script_that_the_server_forgot_is_sent_again(redis_server: RedisServer) -> None:
    """SCRIPT FLUSH, or a replica that took over."""
    store = leases(redis_server)
    await store.borrow(A, [Borrow(BUDGET, 10)])
    redis_server.cli("SCRIPT", "FLUSH")
    assert (await store.borrow(A, [Borrow(BUDGET, 10)]))[0].amount == 10
    assert await used(store) == 20
    await store.disconnect()


async def test_accounts_end_an_hour_after_they_are_asked_for(redis_server: RedisServer) -> None:
    """Redis drops the key by itself, and a session's share of it goes with the next reports."""
    prefix = f"test-{uuid7_hex()}"
    store = RedisLeases(redis_server.url, prefix=prefix, quarantine_s=0)
    account = Account("b:daily:0", 1000, ends_at=time.time() + 100)
    await store.borrow(A, [Borrow(account, 10), Borrow(BUDGET, 10)])
    key = f"{prefix}:{{leases}}:a:{account.id}"
    assert 3_690_000 < int(redis_server.cli("PTTL", key)) <= 3_700_000
    assert redis_server.cli("PTTL", f"{prefix}:{{leases}}:a:{BUDGET.id}") == "-1"
    redis_server.cli("DEL", key)
    for _ in range(3):
        await store.sync(A, [])
    assert account.id not in redis_server.cli("HKEYS", f"{prefix}:{{leases}}:s:{A}").split()
    await store.disconnect()


async def test_an_account_that_redis_does_not_know_is_taken_from_the_ledger(redis_server: RedisServer) -> None:
    """Once, and with all slots of a rolling window."""
    ledger = Ledger({"b:r:r1": {"ses_old": 300}, BUDGET.id: {"ses_old": 100, "ses_older": 50}})
    store = leases(redis_server, ledger)
    rolling = Account("b:r:r2", 1000, counted=("b:r:r1", "b:r:r2"))
    requests = [Borrow(BUDGET, 1000), Borrow(rolling, 1000), Borrow(Account("p:slots", 3), 1)]
    assert [each.amount for each in await store.borrow(A, requests)] == [850, 700, 1]
    assert [each.amount for each in await store.borrow(B, requests)] == [0, 0, 1]
    assert [sorted(set(asked)) for asked in ledger.asked] == [[BUDGET.id, "b:r:r1", "b:r:r2"]]
    await store.disconnect()


async def test_what_the_ledger_and_a_session_both_tell_counts_once(redis_server: RedisServer) -> None:
    """Whether the session reports before or after the account is taken from the ledger, or is closed."""
    for order in ("sync first", "sync later", "close first", "close later"):
        ledger = Ledger({BUDGET.id: {A: 100, "ses_old": 10}})
        store = leases(redis_server, ledger)
        if order == "sync first":
            await store.sync(A, [Report(BUDGET, 130, 0)])
        if order == "close first":
            await store.close(A, {BUDGET.id: 130})
        assert await store.borrow(B, [Borrow(BUDGET, 1)])
        if order == "sync later":
            await store.sync(A, [Report(BUDGET, 130, 0)])
        if order == "close later":
            await store.close(A, {BUDGET.id: 130})
        assert await used(store) == 141, order
        await store.disconnect()


async def test_a_ledger_that_does_not_answer_is_a_store_that_does_not(redis_server: RedisServer) -> None:
    """Nothing is lent from an account whose past nobody knows."""

    async def sums(_accounts: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        raise StoreUnavailable("the database is away")

    store = RedisLeases(redis_server.url, prefix=f"test-{uuid7_hex()}", quarantine_s=0, ledger_sums=sums)
    with pytest.raises(StoreUnavailable, match="the database is away"):
        await store.borrow(A, [Borrow(BUDGET, 1)])
    assert await store.borrow(A, [Borrow(Account("p:slots", 3), 1)]) == [Grant(1, 2, 1)]
    assert await used(store) == 0
    await store.disconnect()


async def test_a_call_is_one_round_trip(new_redis: Callable[..., RedisServer]) -> None:
    """However many accounts it names."""
    server = new_redis()
    store = RedisLeases(server.url, quarantine_s=0)
    accounts = [Account(f"b:{each}:0", 100) for each in range(50)]
    await store.sync(A, [])
    before = calls(server)
    await store.borrow(A, [Borrow(each, 1) for each in accounts])
    await store.sync(A, [Report(each, 1, 0) for each in accounts])
    await store.close(A, {each.id: 1 for each in accounts})
    assert calls(server) - before == 3
    await store.disconnect()


def own_all_slots(server: RedisServer) -> None:
    """A cluster of one."""
    server.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    while "cluster_state:ok" not in server.cli("CLUSTER", "INFO"):
        time.sleep(0.02)


def calls(server: RedisServer) -> int:
    """Of scripts; no other command was sent."""
    stats = server.cli("INFO", "commandstats").splitlines()
    (line,) = [each for each in stats if each.startswith("cmdstat_evalsha:")]
    return int(line.split("calls=")[1].split(",")[0])
