"""What this process knows about its deployments' load: calls in flight, how fast they answer, what of their limits is used.

Deployments without a choice and without limits are never noted here.
"""

from collections.abc import Callable, Mapping
from math import exp
from typing import Final, final

import msgspec
from msgspec.structs import astuple

from gateway.admission.fair_minute import FairMinute
from gateway.catalog import Deployment, Limits
from gateway.keys import Key
from gateway.routing.minute import Minute
from gateway.routing.quota import Measured, Quota, Used
from gateway.routing.rendezvous import fingerprint
from gateway.shares import Hold, Shares
from gateway.tariffs import Price

DECAY_S: Final = 10.0  # after so long, a measurement has lost two thirds of its say
PROMPT_TOKENS: Final = 20  # reading a prompt takes about as long as writing so many tokens
NEWS: Final = 0.2  # how much the last word of an engine counts beside those before
CROWDED: Final = 0.9  # of an engine's cache: from here on it puts calls off or throws prefixes away


class Engine(msgspec.Struct, frozen=True):
    """What an inference engine says of itself. `cache_share` is the used part of its KV cache."""

    running: float = 0.0
    waiting: float = 0.0
    cache_share: float = 0.0


@final
class Load:
    """One deployment. Times are seconds; None as long as nothing was measured."""

    __slots__ = (
        "_measured_at",
        "engine",
        "fair",
        "fingerprint",
        "first_s",
        "in_flight",
        "others",
        "quota",
        "requests",
        "token_s",
        "tokens",
        "tokens_each",
        "work_s",
    )

    def __init__(self, id_: str) -> None:
        self.fingerprint = fingerprint(id_.encode())
        self.in_flight = 0
        self.first_s: float | None = None  # until a stream's first token
        self.token_s: float | None = None  # per token after it
        self.work_s: float | None = (
            None  # per token of an answer that did not stream, its prompt counted as PROMPT_TOKENS
        )
        self.tokens_each = 0.0  # of an answer
        self.requests = Minute()
        self.tokens = Minute()
        self.fair: FairMinute | None = None  # where keys share its tokens
        self.quota: Quota | None = None  # where processes share its limits
        self.engine: Engine | None = None
        self.others = 0.0  # calls at the engine that are not ours
        self._measured_at = 0.0

    @property
    def depth(self) -> float:
        """Calls that a new one stands beside or behind."""
        return self.in_flight + self.others

    @property
    def strain(self) -> float:
        """1 for an engine that has room, more for one with a queue or a full cache."""
        engine = self.engine
        if engine is None:
            return 1.0
        strain = 1.0 + engine.waiting / max(1.0, engine.running)
        return strain * 2.0 if engine.cache_share > CROWDED else strain

    def seconds(self, now: float, tokens: float, *, stream: bool) -> float | None:
        """How long an answer of so many tokens takes there, without what waits before it; None if nothing is known.

        What was measured is forgotten with time, or whoever was slow once would never be asked again.
        """
        streamed = None if self.first_s is None else self.first_s + (self.token_s or 0.0) * tokens
        whole = None if self.work_s is None else self.work_s * (PROMPT_TOKENS + tokens)
        known = streamed if (stream and streamed is not None) or whole is None else whole
        return None if known is None else known * exp((self._measured_at - now) / DECAY_S)

    def measure(self, now: float, elapsed_s: float, first_s: float | None, tokens: int) -> None:
        """A complete answer. A peak counts at once, what is faster only bit by bit: a slow deployment is left at its first slow answer.

        Finagle's "Peak EWMA". Of an answer that did not stream only the sum is known.
        """
        fresh = 1.0 - exp((self._measured_at - now) / DECAY_S)
        self._measured_at = now
        if first_s is None:
            self.work_s = _peak(self.work_s, elapsed_s / (PROMPT_TOKENS + tokens), fresh)
        else:
            self.first_s = _peak(self.first_s, first_s, fresh)
            if tokens > 1:
                self.token_s = _peak(self.token_s, (elapsed_s - first_s) / (tokens - 1), fresh)
        if tokens:
            self.tokens_each += (tokens - self.tokens_each) * (0.1 if self.tokens_each else 1.0)

    def failed(self, now: float, elapsed_s: float) -> None:
        """That a failed call took long says something, that it was quick does not."""
        if self.first_s is not None:
            self.first_s = max(self.first_s, elapsed_s)
        if self.work_s is not None:
            self.work_s = max(self.work_s, elapsed_s / (PROMPT_TOKENS + self.tokens_each))
        self._measured_at = now

    def observe(self, engine: Engine | None) -> None:
        """What the engine says now; None if it says nothing. Smoothed: seconds later it is not so any more, and who acts on each
        word sends everything to where it was quiet a moment ago."""
        if engine is None:
            self.engine, self.others = None, 0.0
            return
        known, others = self.engine, max(0.0, engine.running + engine.waiting - self.in_flight)
        if known is None:
            self.engine, self.others = engine, others
            return
        self.others += (others - self.others) * NEWS
        self.engine = Engine(
            *(old + (new - old) * NEWS for old, new in zip(astuple(known), astuple(engine), strict=True))
        )


def _peak(known: float | None, new: float, fresh: float) -> float:
    return new if known is None or new > known else known + (new - known) * fresh


@final
class Ticket:
    """A place at a deployment, for one attempt."""

    __slots__ = ("began", "key", "limited", "load", "tokens")

    def __init__(self, load: Load, began: float, tokens: int, key: Key | None, *, limited: bool) -> None:
        self.load = load
        self.key = key
        self.began = began
        self.tokens = tokens
        self.limited = limited


@final
class Loads:
    """One per process. `now` is a monotonic clock; `shares`: where other processes have their part of a deployment's limits.

    `price` knows what a deployment without a price of its own charges for what its wildcard stands for.
    """

    def __init__(
        self, now: Callable[[], float], price: Callable[[Deployment, str], Price | None], shares: Shares | None = None
    ) -> None:
        self._now = now
        self._price = price
        self._shares = shares
        self._known: dict[str, Load] = {}

    def of(self, deployment: Deployment) -> Load:
        load = self._known.get(deployment.id)
        if load is None:
            load = self._known[deployment.id] = Load(deployment.id)
        return load

    def used(self, deployment: Deployment) -> float:
        """The largest used part of any of its limits; 0 where it has none."""
        limits = deployment.limits
        if limits is None:
            return 0.0
        load = self.of(deployment)
        used = self._used(load)
        quota = self._quota(deployment, load)
        named: tuple[tuple[Measured, int, int | None], ...] = (
            ("parallel", used.parallel, limits.parallel),
            ("rpm", used.rpm, limits.rpm),
            ("tpm", used.tpm, limits.tpm),
        )
        return max(
            (
                own / limit if quota is None else quota.used_part(name)
                for name, own, limit in named
                if limit is not None
            ),
            default=0.0,
        )

    def fits(self, deployment: Deployment, tokens: int, key: Key | None = None, *, sure: bool = False) -> bool:
        """Whether one more call of about so many tokens is within its limits. One that is larger than a whole minute has it to itself.

        Where processes share the limits, it may be that this one has to borrow first, unless `sure`. Where keys share the tokens, one
        that does not fit has a part of them kept for when it comes again.
        """
        limits = deployment.limits
        if limits is None:
            return True
        load = self.of(deployment)
        quota = self._quota(deployment, load)
        if quota is not None and not sure and quota.may_ask(self._now()):
            return limits.tpm is None or self._is_fair(load, limits, limits.tpm // quota.sharers("tpm"), tokens, key)
        used = self._used(load)
        if limits.parallel is not None and used.parallel >= (
            limits.parallel if quota is None else quota.lent("parallel")
        ):
            return False
        if limits.rpm is not None and used.rpm >= (limits.rpm if quota is None else quota.lent("rpm")):
            return False
        return limits.tpm is None or self._tokens_fit(load, quota, limits, tokens, key)

    def lacking(self, deployment: Deployment, tokens: int) -> Hold:
        """What this process has to borrow before one more call fits; nothing where it has enough, or has just heard that nobody can."""
        load = self.of(deployment)
        quota = self._quota(deployment, load)
        if quota is None or not quota.may_ask(self._now()):
            return ()
        return quota.lacking(self._used(load), tokens)

    def borrowed(self, hold: Hold) -> None:
        """What was held on the way from the store is there for calls."""
        if self._shares is None:
            return
        self._shares.settle(hold, None)
        for share, need in hold:
            share.recent -= need  # it is counted when the call begins

    def denied(self, deployment: Deployment) -> None:
        """The store has no more for now."""
        quota = self.of(deployment).quota
        if quota is not None:
            quota.denied(self._now())

    def cut_off(self, deployment: Deployment) -> None:
        """The store does not answer."""
        quota = self.of(deployment).quota
        if quota is not None:
            quota.cut_off()

    def active_keys(self) -> Mapping[str, int]:
        """How many keys share the tokens of a deployment, where they do."""
        now = self._now()
        return {id_: load.fair.active(now) for id_, load in self._known.items() if load.fair is not None}

    def refresh(self) -> None:
        """Before this process reports to the store: what is not in use any more can be given back."""
        for load in self._known.values():
            if load.quota is not None:
                load.quota.refresh(self._used(load))

    def _used(self, load: Load) -> Used:
        now = self._now()
        return Used(load.in_flight, load.requests.used(now), load.tokens.used(now))

    def _quota(self, deployment: Deployment, load: Load) -> Quota | None:
        limits = deployment.limits
        if self._shares is None or limits is None:
            return None
        if load.quota is None or load.quota.limits is not limits:
            load.quota = Quota(deployment.id, limits, self._shares)
        return load.quota

    def _tokens_fit(self, load: Load, quota: Quota | None, limits: Limits, tokens: int, key: Key | None) -> bool:
        assert limits.tpm is not None
        used, limit = load.tokens.used(self._now()), limits.tpm if quota is None else quota.lent("tpm")
        larger = tokens > limits.tpm and not used and limit >= limits.tpm
        fits = larger or used + tokens <= limit
        part = limits.tpm if quota is None else limits.tpm // quota.sharers("tpm")
        return self._is_fair(load, limits, part, tokens, key, fits=fits)

    def _is_fair(
        self, load: Load, limits: Limits, limit: int, tokens: int, key: Key | None, *, fits: bool = True
    ) -> bool:
        now = self._now()
        if not limits.fair_share or key is None:
            return fits
        if load.fair is None:
            load.fair = FairMinute()
        weight = key.standing.weight
        if fits and load.fair.allows(now, limit, key.id, weight, tokens):
            return True
        load.fair.turned_away(now, key.id, weight, load.tokens.frees_s(now))
        return False

    def frees_s(self, deployment: Deployment) -> float | None:
        """When a full deployment may have room again; None where that is when a call ends."""
        limits = deployment.limits or Limits()
        load, now = self.of(deployment), self._now()
        waits = [
            used.frees_s(now)
            for limit, used in ((limits.rpm, load.requests), (limits.tpm, load.tokens))
            if limit is not None and used.used(now)
        ]
        quota = self._quota(deployment, load)
        full = limits.parallel is not None and load.in_flight >= (
            limits.parallel if quota is None else quota.lent("parallel")
        )
        return None if full or not waits else max(waits)

    def begin(self, deployment: Deployment, tokens: int, key: Key | None = None) -> Ticket:
        """A call goes there."""
        load, now = self.of(deployment), self._now()
        load.in_flight += 1
        limited = deployment.limits is not None
        if limited:
            if load.quota is not None:
                load.quota.note(tokens)
            load.requests.add(now, 1)
            load.tokens.add(now, tokens)
            if load.fair is not None and key is not None:
                load.fair.use(now, key.id, key.standing.weight, tokens)
        return Ticket(load, now, tokens, key, limited=limited)

    def end(self, ticket: Ticket, first_at: float | None, prompt: int | None, output: int, *, ok: bool) -> None:
        """It is over. `first_at`: when its first token came, if it streamed; `prompt`: tokens, None if nobody knows how many there were."""
        load, now = ticket.load, self._now()
        load.in_flight -= 1
        if prompt is not None and ticket.limited:
            _correct(ticket, now, prompt + output - ticket.tokens)
        elapsed_s = now - ticket.began
        if ok:
            load.measure(now, elapsed_s, None if first_at is None else max(0.0, first_at - ticket.began), output)
        else:
            load.failed(now, elapsed_s)

    def let_go(self, ticket: Ticket, *, sent: bool) -> None:
        """It ended without a word about the deployment's speed. What was not sent has used nothing."""
        load = ticket.load
        load.in_flight -= 1
        if not sent and ticket.limited:
            now = self._now()
            load.requests.add(now, -1)
            _correct(ticket, now, -ticket.tokens)

    def seconds(self, deployment: Deployment, tokens: float, *, stream: bool) -> float | None:
        return self.of(deployment).seconds(self._now(), tokens, stream=stream)

    def price(self, deployment: Deployment, wild: str) -> Price | None:
        return deployment.price or self._price(deployment, wild)

    def keep(self, alive: Mapping[str, Deployment]) -> None:
        """The configuration changed: what is gone is forgotten."""
        for id_ in self._known.keys() - alive.keys():
            load = self._known.pop(id_)
            if load.quota is not None:
                load.quota.close()


def _correct(ticket: Ticket, now: float, tokens: int) -> None:
    """What was counted when the call began is not what it used."""
    ticket.load.tokens.add(now, tokens)
    if ticket.load.fair is not None and ticket.key is not None:
        ticket.load.fair.correct(now, ticket.key.id, tokens)
