"""Where the processes of one configuration meet over budgets and limits, and what REST may ask there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Engine

from admin.settings import Settings
from gateway import ledger_store
from gateway.books import Books
from gateway.database import reading
from gateway.errors import LimitsUnavailable
from gateway.leases.accounts import Account
from gateway.leases.errors import LeaseError
from gateway.leases.ports import LeaseStore
from gateway.scopes import Use


def lease_store(settings: Settings, engine: Engine) -> LeaseStore:
    """Redis if there is one, else the PostgreSQL of the control state, else a file for the workers of one machine.

    The drivers are imported for those who use them alone: an idle gateway has 80 MB.
    """
    if settings.redis_url is not None:
        from gateway.leases.redis import RedisLeases  # noqa: PLC0415 — see above

        return RedisLeases(settings.redis_url, ledger_sums=_sums(engine))
    if engine.dialect.name == "postgresql":
        from gateway.leases.postgres import PostgresLeases  # noqa: PLC0415 — see above

        return PostgresLeases(engine.url.render_as_string(hide_password=False))
    from gateway.leases.sqlite import SqliteLeases  # noqa: PLC0415 — see above

    return SqliteLeases(Path(settings.data_dir) / "leases.db")


def meets_others(settings: Settings, engine: Engine) -> bool:
    """Whether there may be other processes: workers of this machine, or replicas that share Redis or PostgreSQL."""
    return settings.server.workers > 1 or settings.redis_url is not None or engine.dialect.name == "postgresql"


def uses(books: Books) -> Callable[[Sequence[str]], Awaitable[Sequence[Use]]]:
    """What accounts hold right now, this process's own calls included."""

    async def ask(accounts: Sequence[str]) -> Sequence[Use]:
        await books.till.sync()
        try:
            states = await books.store.state([Account(account, 0) for account in accounts])
        except LeaseError as error:
            raise LimitsUnavailable("What is left of a budget cannot be told right now; try again") from error
        return [Use(state.used - state.lent, state.lent) for state in states]

    return ask


def _sums(engine: Engine) -> Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, int]]]]:
    def read(accounts: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        with reading(engine) as tx:
            return ledger_store.charges_on(tx, accounts)

    async def ask(accounts: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return await asyncio.to_thread(read, accounts)

    return ask
