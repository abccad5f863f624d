"""A history of what can happen to a lease store, driven by bytes, beside a plain model that says what should.

The model knows two truths and checks both after every step: what the store ought to answer, to the unit, and what the
sessions really hold and spent, which must fit the limits whatever the store believes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.leases import book
from gateway.leases.accounts import SHARE_TTL_S, Account, Borrow, Report, State
from gateway.leases.errors import SessionClosed
from gateway.leases.memory import MemoryLeases
from gateway.leases.ports import LeaseStore
from tests.fixtures.leases import Stores

STEP_BYTES = 4
RATE, BURST = 8.0, 200
OVERRUN = 37


@dataclass
class Known:
    """What the store should know of an account."""

    settled: int = 0
    level: float = BURST
    filled_at: float = 0.0
    lent: dict[str, int] = field(default_factory=dict)
    reported: dict[str, int] = field(default_factory=dict)

    def used(self) -> int:
        return self.settled + sum(self.lent.values())

    def level_at(self, now: float) -> float:
        return min(self.level + RATE * max(0.0, now - self.filled_at), float(BURST - sum(self.lent.values())))

    def fill(self, now: float) -> None:
        self.level, self.filled_at = self.level_at(now), now


@dataclass
class Holding:
    """What a session really has of an account."""

    settled: int = 0
    lent: int = 0


@dataclass
class Session:
    id: str
    heard_at: float  # of the clock that nobody sets
    seen_at: float  # of the store's
    last_message: int = 0
    silent: bool = False
    holdings: dict[str, Holding] = field(default_factory=dict)
    sent: list[Report] = field(default_factory=list)

    def holding(self, account: str) -> Holding:
        return self.holdings.setdefault(account, Holding())


class History:
    """`run` takes a program: four bytes a step, the first of which chooses what happens."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._store: LeaseStore = stores.open()
        self._late: LeaseStore = stores.open()
        self._clock = stores.clock
        self._true_time = stores.clock.now
        self._messages = 0
        self._late_messages = 0
        self._count = 0
        self._window = 0
        self._limits = {"b": 1000, "p": 5}
        self._known: dict[str, Known] = {}
        self._alive: list[Session] = []
        self._dead: list[Session] = []
        self._gone: list[Session] = []
        self._allowed: dict[str, int] = {}  # beyond the limit: overruns, and what a reset forgave
        self._poured = (0.0, stores.clock.now)  # what flowed out of the bucket and has not leaked away at its rate
        # Two connections of PostgreSQL read its clock apart, so it takes a moment that is a little ahead for no sign of a clock
        # that was set back: a silence then only ends later.
        self._ahead_s = SHARE_TTL_S if stores.kind == "postgres" else 0.0
        self._steps: list[Callable[[int, int, int], object]] = [
            *[self.borrow] * 4,
            *[self.use] * 3,
            *[self.report] * 3,
            self.report_all,
            self.repeat,
            self.misremember,
            self.overtake,
            self.crash,
            self.recover,
            self.leave,
            self.wait,
            self.wait,
            self.set_back,
            self.edit_limit,
            self.roll_over,
            self.reset,
            self.overrun,
            self.beat,
            self.impostor,
        ]
        self._join()

    async def run(self, program: bytes) -> int:
        """Returns the number of steps."""
        for at in range(0, len(program) - STEP_BYTES + 1, STEP_BYTES):
            choice, a, b, c = program[at : at + STEP_BYTES]
            done = self._steps[choice % len(self._steps)](a, b, c)
            if done is not None:
                await done  # type: ignore[misc] # steps are coroutines, or plain functions that return None
            await self._check()
        return len(program) // STEP_BYTES

    # What happens

    async def borrow(self, a: int, b: int, c: int) -> None:
        session, account = self._session(a), self._account(b)
        want = 1 + c * (1 if account.kind == "slots" else 3)
        least = want if c % 3 == 0 else 1
        expected_free = self._free(account, session)
        (grant,) = await self._store.borrow(session.id, [Borrow(account, want, least)])
        expected = want if expected_free >= want else expected_free if expected_free >= least else 0
        assert (grant.amount, grant.remaining) == (expected, expected_free - expected)
        if grant.amount:
            known = self._known.setdefault(account.id, Known())
            if account.kind == "bucket":
                known.fill(self._clock.now)
                known.level -= grant.amount
            known.lent[session.id] = known.lent.get(session.id, 0) + grant.amount
            session.holding(account.id).lent += grant.amount
            self._assert_within(account)

    def use(self, a: int, b: int, c: int) -> None:
        session, account = self._session(a), self._account(b)
        holding = session.holding(account.id)
        if account.kind == "slots":
            return
        amount = min(holding.lent, c)
        holding.lent -= amount
        holding.settled += amount
        if account.kind == "bucket":
            self._pour(amount)

    async def report(self, a: int, b: int, c: int) -> None:
        session, account = self._session(a), self._account(b)
        holding = session.holding(account.id)
        holding.lent = min(holding.lent, c)
        await self._send(session, [Report(account, holding.settled, holding.lent)])

    async def report_all(self, a: int, _b: int, c: int) -> None:
        session = self._session(a)
        reports = []
        for id_, holding in session.holdings.items():
            holding.lent = min(holding.lent, c * 4)
            reports.append(Report(self._by_id(id_), holding.settled, holding.lent))
        await self._send(session, reports)

    async def repeat(self, a: int, _b: int, _c: int) -> None:
        """The last report once more, as a message of its own: what it says must still be true for that."""
        session = self._session(a)
        same = [r for r in session.sent if session.holding(r.account.id) == Holding(r.settled, r.lent)]
        await self._send(session, [Report(self._by_id(r.account.id), r.settled, r.lent) for r in same])

    async def misremember(self, a: int, b: int, c: int) -> None:
        """A figure of settled that is older than what was reported last; what was spent since counts as lent."""
        session, account = self._session(a), self._account(b)
        if account.kind != "spend":
            return
        holding = session.holding(account.id)
        holding.lent = min(holding.lent, c)
        reported = self._known.get(account.id, Known()).reported.get(session.id, 0)
        lent = holding.lent + holding.settled - reported
        await self._send(session, [Report(account, max(0, reported - c), lent)])

    async def overtake(self, a: int, _b: int, _c: int) -> None:
        """The last report arrives a second time, after later messages."""
        session = self._session(a)
        if self._late_messages + 1 >= session.last_message:
            return
        self._late_messages += 1
        if isinstance(self._store, MemoryLeases):
            book.sync(self._store._rows, session.id, self._late_messages, session.sent, self._clock())
        else:
            await self._late.sync(session.id, session.sent)

    def crash(self, a: int, _b: int, c: int) -> None:
        """Its journal has what it settled, and calls in flight that will count with all that they held."""
        session = self._session(a)
        self._alive.remove(session)
        self._dead.append(session)
        for id_, holding in session.holdings.items():
            if id_.startswith("b:"):
                in_flight = min(holding.lent, c)
                holding.settled, holding.lent = holding.settled + in_flight, 0
            else:
                holding.lent = 0
        if not self._alive:
            self._join()

    async def recover(self, _a: int, _b: int, _c: int) -> None:
        if self._dead:
            await self._close(self._dead.pop(0))

    async def leave(self, a: int, _b: int, _c: int) -> None:
        session = self._session(a)
        self._alive.remove(session)
        for holding in session.holdings.values():
            holding.lent = 0
        await self._close(session)
        self._join()

    def wait(self, a: int, b: int, _c: int) -> None:
        seconds = (a % 32) / 8 + (12.0 if b % 8 == 0 else 0.0)
        self._clock.now += seconds
        self._true_time += seconds

    def set_back(self, a: int, _b: int, _c: int) -> None:
        """The store's clock; nobody's time."""
        self._clock.now -= a / 4

    def edit_limit(self, a: int, b: int, _c: int) -> None:
        if a % 2:
            self._limits["b"] = 100 + b * 8
        else:
            self._limits["p"] = b % 8

    def roll_over(self, _a: int, _b: int, _c: int) -> None:
        self._window += 1

    async def reset(self, a: int, b: int, _c: int) -> None:
        account = self._account(b)
        if a % 4 or account.kind != "spend" or account.id not in self._known:
            return
        await self._store.reset(account)
        known = self._known[account.id]
        self._allowed[account.id] = self._allowed.get(account.id, 0) + known.settled
        known.settled = 0

    async def overrun(self, a: int, b: int, _c: int) -> None:
        """An upstream billed more than the worst case."""
        session, account = self._session(a), self._account(b)
        if account.kind != "spend":
            return
        holding = session.holding(account.id)
        holding.settled += OVERRUN
        self._allowed[account.id] = self._allowed.get(account.id, 0) + OVERRUN
        await self._send(session, [Report(account, holding.settled, holding.lent)])

    async def beat(self, a: int, _b: int, _c: int) -> None:
        await self._send(self._session(a), [])

    async def impostor(self, a: int, b: int, c: int) -> None:
        """A session that was closed goes on as if nothing had happened."""
        if not self._gone:
            return
        session = self._gone[a % len(self._gone)]
        try:
            await self._store.borrow(session.id, [Borrow(self._account(b), 1 + c)])
        except SessionClosed:
            return
        raise AssertionError("a closed session got an answer")

    # The model

    def _session(self, a: int) -> Session:
        if a > 200 and len(self._alive) < 4:
            self._join()
        session = self._alive[a % len(self._alive)]
        if self._true_time - session.heard_at > SHARE_TTL_S:
            for id_, holding in session.holdings.items():
                if not id_.startswith("b:"):
                    holding.lent = 0  # who was silent for too long must not use it, nor say that it has it
        return session

    def _join(self) -> None:
        self._count += 1
        self._alive.append(Session(f"ses_{self._count}", self._true_time, self._clock.now))

    def _account(self, b: int) -> Account:
        window = max(0, self._window - (b >> 7))
        choices = (f"b:day:{window}", "b:total:0", f"b:roll:r{window}", "l:tpm", "p:parallel")
        return self._by_id(choices[b % len(choices)])

    def _by_id(self, id_: str) -> Account:
        if id_.startswith("l:"):
            return Account(id_, BURST, RATE)
        if id_.startswith("p:"):
            return Account(id_, self._limits["p"])
        counted: tuple[str, ...] = ()
        if id_.startswith("b:roll:r"):
            slot = int(id_.removeprefix("b:roll:r"))
            counted = tuple(f"b:roll:r{each}" for each in range(max(0, slot - 2), slot + 1))
        return Account(id_, self._limits["b"], counted=counted)

    def _hear(self, session: Session) -> None:
        """A message arrives: first what it says of its sender, then the store looks who fell silent."""
        self._messages += 1
        session.last_message = self._messages
        session.heard_at, session.seen_at = self._true_time, self._clock.now
        session.silent = False
        self._expire()

    def _expire(self) -> None:
        for session in [*self._alive, *self._dead]:
            if session.seen_at > self._clock.now + self._ahead_s:
                session.seen_at = self._clock.now
            if session.silent or self._clock.now - session.seen_at <= SHARE_TTL_S or not session.last_message:
                continue
            session.silent = True
            for id_, known in self._known.items():
                if not id_.startswith("b:") and known.lent.get(session.id):
                    known.lent[session.id] = 0
                    known.filled_at = self._clock.now

    def _free(self, account: Account, session: Session) -> int:
        self._hear(session)
        if account.kind == "bucket":
            known = self._known.get(account.id, Known())
            if known.filled_at > self._clock.now:
                known.fill(self._clock.now)
            return math.floor(known.level_at(self._clock.now))
        return account.limit - self._used(account)

    def _used(self, account: Account) -> int:
        if account.kind == "slots":
            return sum(self._known.get(account.id, Known()).lent.values())
        return sum(self._known.get(id_, Known()).used() for id_ in {account.id, *account.counted})

    async def _send(self, session: Session, reports: list[Report]) -> None:
        self._hear(session)
        session.sent = reports
        states = await self._store.sync(session.id, reports)
        for report in reports:
            self._learn(session, report)
        for report, state in zip(reports, states, strict=True):
            self._compare(report.account, state)

    def _learn(self, session: Session, report: Report) -> None:
        known = self._known.get(report.account.id, Known())
        spent = max(0, report.settled - known.reported.get(session.id, 0))
        taken = report.lent - known.lent.get(session.id, 0)
        if not spent and not taken:
            return
        self._known[report.account.id] = known
        if report.account.kind == "bucket":
            known.fill(self._clock.now)
            known.level -= spent + taken
        known.settled += spent
        known.reported[session.id] = known.reported.get(session.id, 0) + spent
        known.lent[session.id] = report.lent

    async def _close(self, session: Session) -> None:
        self._messages += 1
        settled = {id_: holding.settled for id_, holding in session.holdings.items()}
        await self._store.close(session.id, settled)
        await self._store.close(session.id, settled)
        self._gone.append(session)
        self._expire()
        for id_, known in self._known.items():
            if session.id not in known.lent and id_ not in settled:
                continue
            spent = max(0, settled.get(id_, 0) - known.reported.get(session.id, 0))
            known.settled += spent
            known.level += max(0, known.lent.pop(session.id, 0) - spent)
            known.filled_at = self._clock.now
        for id_, amount in settled.items():
            if id_ not in self._known and id_.startswith("b:"):
                self._known[id_] = Known(settled=amount)

    # The checks

    async def _check(self) -> None:
        accounts = [self._by_id(id_) for id_ in self._known if id_.startswith(("b:day", "b:total", "l:", "p:"))][-4:]
        for account, state in zip(accounts, await self._store.state(accounts), strict=True):
            self._compare(account, state)

    def _compare(self, account: Account, state: State) -> None:
        known = self._known.get(account.id, Known())
        assert state.lent == sum(known.lent.values()) >= 0
        if account.kind == "bucket":
            assert state.used == BURST - math.floor(known.level_at(self._clock.now))
            assert state.remaining + state.lent <= BURST
        else:
            assert state.used == self._used(account) >= 0

    def _assert_within(self, account: Account) -> None:
        """After a grant: what all sessions really spent and can still spend fits the limit that was granted by."""
        if account.kind == "bucket":
            return
        counted = {account.id, *account.counted}
        true = sum(
            holding.lent + (holding.settled if account.kind == "spend" else 0)
            for session in (*self._alive, *self._dead, *self._gone)
            for id_, holding in session.holdings.items()
            if id_ in counted and not (account.kind == "slots" and session.silent)
        )
        assert true - sum(self._allowed.get(id_, 0) for id_ in counted) <= account.limit

    def _pour(self, amount: int) -> None:
        """Whatever window one looks at, no more than burst + rate · T was served in it."""
        poured, at = self._poured
        poured = max(0.0, poured - RATE * (self._true_time - at)) + amount
        self._poured = (poured, self._true_time)
        assert poured <= BURST + 1e-6
