"""Many borrowers at once: what they got together is the limit, to the unit, and nobody waits for ever."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from gateway.leases.accounts import Account, Borrow, Report
from gateway.leases.sqlite import SqliteLeases
from tests.fixtures.leases import DEADLINE_S, Stores

BORROWERS = 32
BUDGETS = [Account(f"b:budget-{each}:0", 4001) for each in range(6)]
SLOTS = Account("p:parallel", 41)
ROLLING = Account("b:rolling:r2", 2003, counted=("b:rolling:r1", "b:rolling:r2"))

# What one process of the test below does: borrows from the file until there is nothing, prints what it got.
BORROW_ALL = """
import asyncio, sys
from pathlib import Path
from tests.money.test_lease_concurrency import drain_file
asyncio.run(drain_file(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stores", ["sqlite", "postgres", "redis"], indirect=True)
async def test_32_borrowers_get_the_limit_exactly(stores: Stores) -> None:
    """Each has a connection of its own and asks for several accounts in any order: no deadlock, no lost grant, no surplus."""

    async def drain(number: int) -> dict[str, int]:
        store, session = stores.open(own_clock=True), f"ses_{number}"
        dice = random.Random(number)
        got: dict[str, int] = {}
        accounts = [*BUDGETS, SLOTS, ROLLING]
        while accounts:
            dice.shuffle(accounts)
            chosen = accounts[: dice.randint(1, 4)]
            grants = await store.borrow(session, [Borrow(each, dice.randint(1, 90)) for each in chosen])
            for account, grant in zip(chosen, grants, strict=True):
                got[account.id] = got.get(account.id, 0) + grant.amount
                if not grant.amount:
                    accounts.remove(account)
            if dice.random() < 0.2:
                await store.sync(
                    session,
                    [
                        Report(each, got[each.id] // 2, got[each.id] - got[each.id] // 2)
                        for each in chosen
                        if each in BUDGETS
                    ],
                )
        return got

    shares = await asyncio.gather(*(drain(number) for number in range(BORROWERS)))
    for account in (*BUDGETS, SLOTS, ROLLING):
        assert sum(share.get(account.id, 0) for share in shares) == account.limit
    states = await stores.open(own_clock=True).state([*BUDGETS, SLOTS, ROLLING])
    assert [each.remaining for each in states] == [0] * len(states)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stores", ["sqlite", "postgres", "redis"], indirect=True)
async def test_borrowers_reporters_and_recoverers_do_not_lock_each_other_out(stores: Stores) -> None:
    """Sessions come, borrow in any order, fall silent, are closed by others; at the end everything has come back."""
    accounts = [*BUDGETS, SLOTS, Account("l:tpm", 500, rate_per_s=5000.0)]

    async def live(number: int) -> None:
        store = stores.open(own_clock=True)
        dice = random.Random(number)
        for life in range(3):
            session = f"ses_{number}_{life}"
            for _ in range(4):
                chosen = dice.sample(accounts, 3)
                grants = await store.borrow(session, [Borrow(each, 5) for each in chosen])
                await store.sync(
                    session,
                    [Report(each, 1 if grant.amount else 0, 0) for each, grant in zip(chosen, grants, strict=True)],
                )
            await store.close(session, {})

    await asyncio.gather(*(live(number) for number in range(BORROWERS)))
    store = stores.open(own_clock=True)
    assert [each.lent for each in await store.state(accounts)] == [0] * len(accounts)
    assert await store.sessions() == []


@pytest.mark.timeout(120)
async def test_processes_share_a_file(tmp_path: Path) -> None:
    """Four workers of one machine drain one account."""
    file = tmp_path / "leases.db"
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", BORROW_ALL, str(file), f"ses_{each}", stdout=asyncio.subprocess.PIPE
        )
        for each in range(4)
    ]
    got = [int((await each.communicate())[0]) for each in workers]
    assert sum(got) == BUDGETS[0].limit


async def drain_file(file: Path, session: str) -> None:
    store = SqliteLeases(file, deadline_s=DEADLINE_S)
    got = 0
    while True:
        (grant,) = await store.borrow(session, [Borrow(BUDGETS[0], 7)])
        if not grant.amount:
            break
        got += grant.amount
    await store.disconnect()
    sys.stdout.write(f"{got}")
