"""A second attempt for a call whose first one is slow to begin: whichever has something to say first answers, the other one is cancelled.

Opt-in (`hedge` on a model): after a fixed time, or when a call has waited longer than 95 % of the last ones did. The second attempt is
only made where this process has the money for both in hand, at once and without waiting, and for no more than a share of a model's calls:
hedging must not double the load of an upstream that is slow because it is loaded. Both are settled, the loser at what came of it, or at
its worst case.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec

from gateway.attempts import Attempts
from gateway.call import Call
from gateway.catalog import Deployment, Hedge
from gateway.drive import Run, Signal
from gateway.failed import Failed
from gateway.first_words import FirstWords
from gateway.journal_records import Try

MOST_CREDIT: Final = 10.0
LOST: Final = "hedge_lost"


@final
class _Runner:
    """One attempt on its way, with a call and a record of its own."""

    def __init__(self, call: Call, race: "Race", deployment: Deployment, number: int) -> None:
        self.call = call.twin()
        self.call.race = race
        self.record = self.call.record
        self.deployment = deployment
        self.number = number
        self.run: Run | None = None
        self.done = False
        self.settled = False  # by itself, or by its call's end
        self.failed: Failed | None = None
        self.escaped: BaseException | None = None
        if number > 1:
            self.record.id = f"{call.record.id}-{number}"
            self.record.attempts = number - 1


@final
class Race:
    """The attempts of one call. `claim` is the relay's, before it writes anything to the client."""

    def __init__(self, request: str, late: Callable[[_Runner], None], now: Callable[[], float]) -> None:
        self._request = request
        self._now = now
        self.began = now()
        self.first_s: float | None = (
            None  # what the first attempt took to say something, or had taken when it was overtaken
        )
        self.signal = Signal()
        self.runners: list[_Runner] = []
        self.winner: _Runner | None = None
        self.due = False
        self.over = False
        self._late = late

    def ring(self) -> None:
        """It is time for a second attempt."""
        self.due = True
        self.signal.fire()

    def start(self, runner: _Runner, attempts: Attempts) -> None:
        self.runners.append(runner)

        async def attempt() -> None:
            runner.failed = await attempts.run(runner.call, runner.deployment)

        def done(escaped: BaseException | None) -> None:
            runner.done, runner.escaped = True, escaped
            if self.over:
                self._late(runner)
            else:
                self.signal.fire()

        runner.run = Run(attempt(), done)
        runner.run.step()

    def claim(self, call: Call) -> None:
        """This attempt has something to say: the others are cancelled before it says it."""
        if self.winner is None:
            if not self.runners[0].done:
                self.first_s = self._now() - self.began
            self.winner = next(runner for runner in self.runners if runner.call is call)
            call.record.id, call.record.attempts = self._request, len(self.runners)
            self.cancel(spare=self.winner)

    def cancel(self, spare: _Runner | None = None) -> None:
        for runner in self.runners:
            if runner is not spare and runner.run is not None and not runner.done:
                runner.run.cancel()

    @property
    def running(self) -> bool:
        return not all(runner.done for runner in self.runners)


@final
class Hedging:
    """`now` is a monotonic clock."""

    def __init__(self, attempts: Attempts, now: Callable[[], float]) -> None:
        self._attempts = attempts
        self._now = now
        self._credit: dict[str, float] = {}  # by model: how many second attempts its calls have earned
        self._first_words: dict[tuple[str, str, bool], FirstWords] = {}  # by model and kind of call

    async def run(self, call: Call, order: Sequence[Deployment], hedge: Hedge) -> Failed | None:
        """As `Attempts.run` for the first of the order, helped out by the second."""
        self._credit[call.model.name] = min(MOST_CREDIT, self._credit.get(call.model.name, 1.0) + hedge.max_share)
        race = Race(call.record.id, lambda runner: self._lose(call, runner), self._now)
        seen = self._seen(call) if hedge.after_p95 else None
        after_s = hedge.after_s if seen is None or seen.p95_s is None else seen.p95_s
        timer = None if after_s is None else asyncio.get_running_loop().call_later(after_s, race.ring)
        try:
            race.start(_Runner(call, race, order[0], 1), self._attempts)
            while race.running and race.winner is None and not race.due:
                await race.signal
            if race.running and race.winner is None:
                self._help(call, race, order[1])
            while race.running:
                await race.signal
                self._settle_losers(call, race)
        except BaseException:  # the client has left
            race.over = True
            race.cancel()
            self._end(call, race, race.winner or race.runners[0])
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if seen is not None and race.first_s is not None:
                seen.note(race.first_s)
        return self._outcome(call, race)

    def _seen(self, call: Call) -> FirstWords:
        """What the first attempts of such calls have taken. One that was overtaken counts with what it had taken by then: if it did not
        count, whoever is slow would seem rarer with each one that is helped."""
        kind = call.model.name, call.record.endpoint, call.record.stream
        if kind not in self._first_words:
            self._first_words[kind] = FirstWords()
        return self._first_words[kind]

    def _help(self, call: Call, race: Race, deployment: Deployment) -> None:
        """Starts the second attempt, if it is earned and its worst case is in hand."""
        second = _Runner(call, race, deployment, 2)
        if self._credit[call.model.name] >= 1 and self._attempts.fits(second.call, deployment):
            self._credit[call.model.name] -= 1
            race.start(second, self._attempts)

    def _outcome(self, call: Call, race: Race) -> Failed | None:
        """The winner's, or that of the only one; where two have failed, both are settled and the first one's failure counts."""
        chosen = race.winner or (race.runners[0] if len(race.runners) == 1 else None)
        self._end(call, race, chosen)
        told = chosen or next((runner for runner in race.runners if runner.escaped is None), race.runners[0])
        if told.escaped is not None:
            raise told.escaped
        return told.failed

    def _settle_losers(self, call: Call, race: Race) -> None:
        """Those that are over while the winner goes on."""
        for runner in race.runners:
            if runner.done and race.winner is not None and runner is not race.winner:
                self._lose(call, runner)

    def _end(self, call: Call, race: Race, chosen: _Runner | None) -> None:
        """The call's record becomes that of one attempt; the others are settled by themselves."""
        for runner in race.runners:
            if runner is not chosen and runner.done:
                self._lose(call, runner)
        if chosen is None:
            place = race.runners[0].record
            call.record.deployment, call.record.provider = place.deployment, place.provider
        else:
            chosen.settled = True
            _take_over(call, chosen)
        call.record.attempts = max(call.record.attempts, sum(runner.record.attempts > 0 for runner in race.runners))
        if race.winner is not None and race.winner.failed is None and call.record.trail:
            call.record.trail.append(_tried(race.winner, None, self._now()))

    def _lose(self, call: Call, runner: _Runner) -> None:
        """Settles an attempt that is not the call's: one that failed, or that somebody was faster than."""
        if runner.settled:
            return
        runner.settled = True
        own, record = runner.record, call.record
        own.id = f"{record.id}-{runner.number}"
        own.finished_at = self._now()
        own.status, own.error_code = 499, LOST
        if runner.failed is not None:
            error = runner.failed.error
            own.status, own.error_code = error.status, error.code or error.type
        sent = own.sent
        tried = own.trail or [_tried(runner, LOST, own.finished_at)]
        own.trail = None
        self._attempts.settle(runner.call)
        if sent:
            record.earlier_nanousd += own.cost_nanousd or 0
            tried[-1] = msgspec.structs.replace(tried[-1], id=own.id, cost_nanousd=own.cost_nanousd)
        record.trail = [*(record.trail or ()), *tried]


def _take_over(call: Call, chosen: _Runner) -> None:
    record, own = call.record, chosen.record
    id_, status, earlier = record.id, record.status, record.earlier_nanousd
    trail = [*(record.trail or ()), *(own.trail or ())]
    record.follow(own)
    record.id, record.status, record.earlier_nanousd = id_, own.status or status, earlier
    record.trail = trail or None
    call.request, call.body, call.continuation = chosen.call.request, chosen.call.body, chosen.call.continuation


def _tried(runner: _Runner, failure: str | None, now: float) -> Try:
    record = runner.record
    return Try(record.model or "", runner.deployment.id, failure, round((now - record.started_at) * 1000, 3))
