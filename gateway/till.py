"""Borrows for this process's shares and gives back what they do not need: the only part of money that waits for a store.

All waiting calls share one round trip. Reports and borrows stand in line behind one lock, since a report that overtakes a borrow would
give the same amount away twice.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import structlog

from gateway import errors, local_share
from gateway.leases.accounts import SHARE_TTL_S, Borrow, Report, State
from gateway.leases.errors import Forgotten, LeaseError, SessionClosed, StoreUnavailable
from gateway.leases.policy import kept, slice_of
from gateway.leases.ports import LeaseStore
from gateway.scopes import Budget
from gateway.shares import Hold, Share, Shares

log = structlog.stdlib.get_logger(__name__)

SYNC_S = 0.5
BEAT_S = SHARE_TTL_S / 5  # after which a store that nothing is to be told hears that this session is alive
DECAY = 0.5  # of the recent use, per sync
TRIES = 20  # rounds in which others may take what a call waits for


class _Waiter(NamedTuple):
    """A call that this process has not borrowed enough for."""

    needs: Hold
    done: "asyncio.Future[None]"
    tries: int = 0


@final
class Till:
    """One session's way to the lease store. `unix` and `now` are clocks. Lives on one event loop."""

    def __init__(
        self,
        store: LeaseStore,
        session: str,
        shares: Shares,
        *,
        unix: Callable[[], float],
        now: Callable[[], float],
        spent: Callable[[Share, int], None],
        local_part: float | None = None,
    ) -> None:
        self._store = store
        self._session = session
        self._shares = shares
        self._unix = unix
        self._now = now
        self._spent = spent  # told after a sync what all sessions have settled on an account of money, for alerts
        self._local_part = local_part  # of each limit, for calls while the store is away; None refuses them
        self._line = asyncio.Lock()
        self._queue: list[_Waiter] = []
        self._serving: asyncio.Task[None] | None = None
        self._answered_at = now()
        self._distrusts = False
        self.healthy = True
        self.before_report: Callable[[], None] = lambda: None

    async def fetch(self, needs: Hold) -> None:
        """Borrows so that `needs` can be held, and holds them. Raises BudgetShort, RateLimited or LimitsUnavailable.

        What one call can wait for is bounded by the store's own deadline.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiter(needs, done))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.get_running_loop().create_task(self._serve())
        await done

    async def run(self) -> None:
        """Reports twice a second, until cancelled; while there is nothing to report, a store that answered is left alone for `BEAT_S`."""
        while True:
            await asyncio.sleep(SYNC_S)
            await self.sync(BEAT_S)

    async def sync(self, beat_s: float = 0.0) -> None:
        """Tells the store what was settled and gives back what is not going to be needed soon; nothing, if that is nothing and the
        store's last answer is not `beat_s` old."""
        async with self._line:
            unix = self._unix()
            self.before_report()
            gone = self._shares.forget(unix)
            for share in gone:
                share.free = 0
            reports = [
                report for share in (*gone, *self._shares.every.values()) if (report := self._report(share)) is not None
            ]
            if not reports and self.healthy and self._now() - self._answered_at < beat_s:
                return
            try:
                states = await self._store.sync(self._session, reports)
            except SessionClosed:
                log.exception("session.closed", session=self._session)
                self._distrust()
                return
            except LeaseError as error:
                self._heed(error)
                if self._now() - self._answered_at > SHARE_TTL_S:
                    self._distrust()
                return
            self._note(None)
            self._take_in(reports, states)

    async def close(self) -> None:
        """Settles and gives everything back; the session is over."""
        async with self._line:
            settled = {
                share.account.id: share.settled
                for share in self._shares.every.values()
                if not share.account.id.startswith("p:")
            }
            try:
                await self._store.close(self._session, settled)
            except LeaseError as error:
                log.warning("session.not_closed", session=self._session, reason=str(error))
            await self._store.disconnect()

    async def _serve(self) -> None:
        """One round trip after another for as long as calls wait."""
        while self._queue:
            waiting, self._queue = self._queue, []
            try:
                async with self._line:
                    self._queue[:0] = await self._borrow(waiting)
            except StoreUnavailable as error:
                self._heed(error)
                self._refuse(self._lend_locally(waiting), error)
            except Exception as error:  # noqa: BLE001 a task border: whoever waits must hear of it
                self._refuse(waiting, error)

    async def _borrow(self, waiting: Sequence[_Waiter]) -> Sequence[_Waiter]:
        """Serves or denies each; those that have to ask once more are returned."""
        wanted: dict[str, tuple[Share, int, int]] = {}
        for needs, _, _ in waiting:
            for share, need in needs:
                _, total, least = wanted.get(share.account.id, (share, 0, need))
                wanted[share.account.id] = share, total + need, min(least, need)
        asks = [(share, total, least) for share, total, least in wanted.values() if share.free < total]
        if asks:
            await self._give_up([share for share, _, _ in asks if share.owes])
            requests = [self._ask(share, total, least) for share, total, least in asks]
            for share, _, _ in asks:
                share.reported = (
                    -1,
                    -1,
                )  # an answer that gets lost may have been a grant: the next report takes it back
            grants = await self._store.borrow(self._session, requests)
            self._note(None)
            for (share, _, _), grant in zip(asks, grants, strict=True):
                share.free += grant.amount
                if share.account.kind != "spend":
                    share.local = 0  # of money there is one part per window; of these one per outage
                share.remaining = grant.remaining
                share.sharers = grant.sharers
        again = []
        for needs, done, tries in waiting:
            if done.done():  # the client left
                continue
            short = self._shares.missing(needs)
            if not short:
                self._shares.hold_late(needs)
                done.set_result(None)
            elif tries < TRIES and all(share.left >= need for share, need in short):
                again.append(_Waiter(needs, done, tries + 1))  # others took it while the store was asked
            else:
                done.set_exception(denial(short))
        return again

    async def _give_up(self, owing: Sequence[Share]) -> None:
        """Returns what a lowered limit took back, so that it is there to be borrowed under the new one."""
        if owing:
            reports = [Report(share.account, share.settled, share.lent) for share in owing]
            for share in owing:
                share.owes = False
            self._take_in(reports, await self._store.sync(self._session, reports))

    def _take_in(self, reports: Sequence[Report], states: Sequence[State]) -> None:
        for report, state in zip(reports, states, strict=True):
            told = self._shares.every.get(report.account.id)
            if told is not None:
                told.reported = (report.settled, report.lent)
                told.owes = False
                told.remaining = state.remaining
                told.sharers = state.sharers
                if isinstance(told.bound.rule, Budget):
                    self._spent(told, state.used - state.lent)

    def _lend_locally(self, waiting: Sequence[_Waiter]) -> Sequence[_Waiter]:
        """Serves whom this process's own part of the limits is enough for; the others are returned."""
        if self._local_part is None:
            return waiting
        left = []
        for waiter in waiting:
            needs, done, _ = waiter
            if done.done():
                continue
            short = self._shares.missing(needs)
            if all(
                local_share.room(share, self._local_part, self._now()) >= need - share.free for share, need in short
            ):
                for share, _ in short:
                    local_share.lend(share, self._local_part, self._now())
                self._shares.hold_late(needs)
                done.set_result(None)
            else:
                left.append(waiter)
        return left

    def _ask(self, share: Share, total: int, least: int) -> Borrow:
        short = total - share.free
        want = slice_of(short, share.recent / SYNC_S, share.remaining, share.sharers)
        return Borrow(share.account, max(want, 1), max(1, min(least - share.free, short)))

    def _report(self, share: Share) -> Report | None:
        """None if the store knows it all. Debts (`free` below 0: an upstream billed more than its worst case) are in `settled`."""
        if self.healthy:  # what is leased is what an outage is survived with
            idle = kept(max(0, share.free), share.recent / SYNC_S, share.remaining, share.sharers)
            share.free = idle if idle >= share.latest else 0  # what no call fits into is of more use to others
            share.recent *= DECAY
        if share.reported == (share.settled, share.lent):
            return None
        return Report(share.account, share.settled, share.lent)

    def _distrust(self) -> None:
        """Buckets and slots lapse at the store after a silence; whoever still used them would lend them twice. Lent money never lapses.

        Once per silence: what a process lends itself afterwards is its own.
        """
        if self._distrusts:
            return
        self._distrusts = True
        for share in self._shares.every.values():
            if share.account.kind != "spend":
                share.free = min(share.free, 0)
                share.local = min(share.local, share.held) if share.account.kind == "slots" else share.local

    def _refuse(self, waiting: Sequence[_Waiter], error: Exception) -> None:
        if isinstance(error, LeaseError):
            self._note(str(error))
            wait_s = error.retry_after_s if isinstance(error, StoreUnavailable) else 1.0
            told: errors.GatewayError = errors.LimitsUnavailable(
                "Budgets and limits cannot be checked right now; nothing was spent",
                headers=(("retry-after", str(max(1, round(wait_s)))),),
            )
        else:
            log.error("till.failed", exc_info=error)
            told = errors.Internal("Budgets and limits could not be checked; the log has the details")
        for _, done, _ in waiting:
            if not done.done():
                done.set_exception(told)

    def _heed(self, error: LeaseError) -> None:
        """A store that lost its data is told everything next, also what has not changed since it was told."""
        self._note(str(error))
        if isinstance(error, Forgotten):
            for share in self._shares.every.values():
                share.reported = (-1, -1)

    def _note(self, trouble: str | None) -> None:
        if trouble is None:
            self._answered_at = self._now()
            self._distrusts = False
            if not self.healthy:
                log.info("leases.answering")
        elif self.healthy:
            log.warning("leases.silent", reason=trouble)
        self.healthy = trouble is None


class BudgetShort(errors.BudgetExceeded):
    """A call that does not fit, with everything that lacks something for it; perhaps a smaller call fits."""

    def __init__(self, message: str, short: Sequence[tuple[Share, int]]) -> None:
        super().__init__(message)
        self.short = short


def denial(short: Sequence[tuple[Share, int]]) -> errors.GatewayError:
    """What the client is told when a call does not fit. The first of what is short is named."""
    share, need = short[0]
    rule, scope = share.bound.rule, share.bound.scope
    if isinstance(rule, Budget):
        return BudgetShort(
            f"{_budget(share, rule)} has {_usd(share.left)} USD left; this call may cost {_usd(need)} USD", short
        )
    return errors.RateLimited(
        f"The limit of {rule.limit} {rule.measure} of {scope.kind} '{scope.id}' is reached: {share.left} left, this call needs {need}",
        headers=(("retry-after", str(retry_after_s(share, need))),),
    )


def blocked(share: Share) -> errors.BudgetExceeded:
    """What the client is told while somebody has stopped all spending on a budget."""
    rule = share.bound.rule
    assert isinstance(rule, Budget)
    return errors.BudgetExceeded(f"{_budget(share, rule)} is blocked by an administrator; nothing can be spent on it")


def retry_after_s(share: Share, need: int) -> int:
    """Whole seconds until a bucket has refilled by what is missing; a fixed second for calls in parallel."""
    rate = share.account.rate_per_s
    return 1 if rate <= 0 else max(1, min(60, -(-(need - share.left) // max(1, int(rate)))))


def _budget(share: Share, rule: Budget) -> str:
    scope = share.bound.scope
    period = "in total" if rule.period == "total" else f"per {rule.period}"
    return f"The budget of {scope.kind} '{scope.id}' ({_usd(share.account.limit)} USD {period})"


def _usd(nanousd: int) -> str:
    return f"{nanousd / 1e9:.9f}".rstrip("0").rstrip(".")
