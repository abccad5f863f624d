"""The stage between a call and its dispatch, for models that have a cache: answered from it, or asked once and kept.

A hit is a call like any other for keys, models, requests per minute and records; it costs nothing, and its tokens are nobody's: no
provider made them. What is kept is complete, of the model that was asked and not of one that stood in for it.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import msgspec

from gateway import allowance, errors, wire
from gateway.cache import words
from gateway.cache.address import ENDPOINTS, Address, address, is_sampled
from gateway.cache.controls import Controls, controls
from gateway.cache.entry import Entry
from gateway.cache.flights import Flight
from gateway.cache.known import Known
from gateway.cache.meaning import question
from gateway.cache.policy import Policy, Semantic
from gateway.cache.ports import Store
from gateway.cache.recording import Recording
from gateway.call import Call
from gateway.endpoint import RESPONSES
from gateway.metering import Meter
from gateway.need import Need, Offer
from gateway.pricing import fixed_price
from gateway.targets import where
from gateway.used import NOTHING, Usage

if TYPE_CHECKING:  # NumPy comes with them, for models that have a cache by meaning
    from gateway.cache.audit import Audit
    from gateway.cache.cross_encoder import CrossEncoders
    from gateway.cache.meanings import Match, Meaning, Meanings
    from gateway.cache.precision import Precision

PLACE: Final = "cache"  # provider and deployment of a hit, in records and spend
PIECE: Final = 64 * 1024  # of a replayed stream, so that a slow reader is waited for
_FREE: Final = Offer(fixed_price(0), Need(0, 0, 0))
_SAMPLING: Final = frozenset({"chat", "completions", "responses", "messages"})


class Answers(Protocol):
    """`gateway.dispatch`."""

    def answer(self, call: Call) -> Coroutine[Any, Any, None]: ...


@final
class Caching:
    """`unix` and `now` are clocks: Unix seconds, and monotonic ones. `max_bytes` of one entry."""

    def __init__(
        self,
        *,
        dispatch: Answers,
        store: Store,
        meter: Meter,
        unix: Callable[[], float],
        now: Callable[[], float],
        max_bytes: int,
    ) -> None:
        self.dispatch = dispatch  # the plane puts a stage before it that looks things up, where there is one
        self._store = store
        self._meter = meter
        self._unix = unix
        self._now = now
        self._max_bytes = max_bytes
        self._flights: dict[bytes, Flight] = {}
        self._known = Known()
        self._meanings: Meanings | None = None
        self._audit: Audit | None = None
        self._encoders: CrossEncoders | None = None
        self.outcomes: dict[tuple[str, str], int] = {}  # by model: for the metrics

    def compare(self, meanings: "Meanings", audit: "Audit", encoders: "CrossEncoders") -> None:
        """From here on models may have a cache by meaning."""
        self._meanings, self._audit, self._encoders = meanings, audit, encoders

    @property
    def waiting(self) -> int:
        """Calls that wait for what an equal one brings."""
        return sum(flight.waiting for flight in self._flights.values())

    @property
    def precisions(self) -> Mapping[str, "Precision"]:
        """Of the cache by meaning, by model."""
        return {} if self._meanings is None else self._meanings.precisions

    @property
    def checked(self) -> Mapping[tuple[str, str], int]:
        """What cross-encoders said, by model and verdict."""
        return {} if self._encoders is None else self._encoders.verdicts

    async def close(self) -> None:
        await self._store.close()

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        """As the dispatch. Raises BadRequest for what is wrong with a header."""
        policy = call.model.cache
        if policy is None or call.endpoint.name not in ENDPOINTS or _apart(call):
            return self.dispatch.answer(call)
        return self._answer(call, policy)

    async def _answer(self, call: Call, policy: Policy) -> None:
        if call.record.watched is not None:
            call.record.watched.begin("cache", self._now())
        asked = controls(call.exchange.headers)
        known = self._known.get(call, asked)
        if known is not None and (entry := self._store.near(known)) is not None:
            await self._replay(call, entry)
            return
        place = address(call, policy, asked)
        if place is None or (not policy.exact.sampled and call.endpoint.name in _SAMPLING and is_sampled(place.fields)):
            await self.dispatch.answer(call)
            return
        want = _Want(call, policy, asked, place)
        if asked.no_cache:
            await self._ask(want)
            return
        entry = self._fresh(self._store.near(place.key), asked)
        if entry is not None:
            self._known.put(call, asked, place.key)
            await self._replay(call, entry)
        elif policy.exact.single_flight and not asked.no_store:
            await self._together(want)
        elif not await self._found(want):
            await self._ask(want)

    async def _together(self, want: "_Want") -> None:
        """As one call with all equal ones that are on their way."""
        call, key = want.call, want.place.key
        flight = self._flights.get(key)
        if flight is not None:
            began = self._now()
            outcome = await flight.join(call.deadline - began)
            call.record.upstream_s += self._now() - began
            if isinstance(outcome, Entry) and self._fresh(outcome, want.asked) is not None:
                await self._replay(call, outcome, flight.how)
                return
            if outcome != "lead":
                await self._ask(want)
                return
        else:
            flight = self._flights[key] = Flight(self._flights, key)
        await self._lead(want, flight)

    async def _lead(self, want: "_Want", flight: Flight) -> None:
        try:
            entry, how = await self._look(want)
            found = entry is not None
            if entry is None:
                entry = await self._ask(want)
        except BaseException as error:
            flight.fail(counts=_is_upstreams(error, want.call))
            raise
        if entry is None:
            flight.scatter()
            return
        flight.how = how
        flight.land(entry)
        if found:
            await self._give(want, entry, how)

    async def _found(self, want: "_Want") -> bool:
        """Whether it was answered out of the cache."""
        entry, how = await self._look(want)
        if entry is not None:
            await self._give(want, entry, how)
        return entry is not None

    async def _look(self, want: "_Want") -> tuple[Entry | None, bytes]:
        """The same request elsewhere, or the same question in other words; and which of them it was."""
        waiting = self._store.far(want.place.key)
        entry = None if waiting is None else self._fresh(await waiting, want.asked)
        if entry is None and want.policy.semantic is not None:
            want.match = await self._in_other_words(want, want.policy.semantic)
            if want.match is not None:
                return want.match.entry, b"semantic"
        return entry, b"hit"

    async def _in_other_words(self, want: "_Want", policy: Semantic) -> "Match | None":
        meanings, call = self._meanings, want.call
        said = question(call.endpoint.name, want.place)
        if meanings is None or said is None:
            return None
        want.meaning = await meanings.of(said)
        if want.meaning is None:
            return None
        same = None
        if policy.cross_encoder is not None and self._encoders is not None:
            same = partial(self._encoders.same, policy.cross_encoder, call, said.text)
        return await meanings.find(
            want.meaning, call.model.name, policy, lambda entry: self._fresh(entry, want.asked) is not None, same
        )

    async def _give(self, want: "_Want", entry: Entry, how: bytes) -> None:
        await self._replay(want.call, entry, how)
        if want.match is not None and self._audit is not None and want.policy.semantic is not None:
            self._audit.offer(want.call, want.policy.semantic, want.match)

    def _fresh(self, entry: Entry | None, asked: Controls) -> Entry | None:
        if entry is None or asked.max_age_s is None:
            return entry
        return entry if self._unix() - entry.made_at <= asked.max_age_s else None

    async def _ask(self, want: "_Want") -> Entry | None:
        """Has the call answered, and keeps what may be kept."""
        call, asked = want.call, want.asked
        model, exchange = call.model, call.exchange
        self._count(call, "miss")
        # An upstream that reads the first of two equal names would answer something else than what the key says.
        call.body = msgspec.json.encode(want.place.fields)
        recording = Recording(exchange, self._max_bytes)
        call.exchange = recording
        try:
            await self.dispatch.answer(call)
        finally:
            call.exchange = exchange
        if asked.no_store or not recording.whole or call.model is not model or not _is_its_own(call):
            return None
        entry = self._entry(want, recording)
        if entry is not None:
            self._store.put(entry)
            if want.meaning is not None and self._meanings is not None and want.policy.semantic is not None:
                self._meanings.put(want.meaning, entry, want.policy.semantic)
        return entry

    def _entry(self, want: "_Want", recording: Recording) -> Entry | None:
        used = want.call.record.usage
        kept = words.kept(want.call.endpoint.name, recording.content, used, stream=recording.streamed)
        if kept is None:
            return None
        wanted_s, ttl_s = want.asked.ttl_s, want.policy.exact.ttl_s
        now = self._unix()
        until = now + (ttl_s if wanted_s is None else min(wanted_s, ttl_s))
        return Entry(want.place.key, now, until, kept.words, recording.streamed, kept.content, used, kept.report)

    async def _replay(self, call: Call, entry: Entry, how: bytes = b"hit") -> None:
        """Raises RateLimited and whatever else stands before a call that costs nothing."""
        record, meter = call.record, self._meter
        body = _told(call, entry)
        record.deployment = record.provider = PLACE
        if not meter.open_at_once(call.snapshot.rules, record, _FREE):
            await meter.open_borrowing(call.snapshot.rules, record, _FREE)
        self._count(call, how.decode())
        record.sent = True  # it is over, and counts as one request
        record.usage, record.usage_source = _cached(entry.used), "counted"
        record.status = 200
        record.finished_at = self._now()
        head = self._head(call, entry, how)
        exchange = call.exchange
        if not record.stream:
            exchange.respond(200, head + b"x-penstock-cost-usd: 0.000000000\r\n", body)
            return
        record.first_token_at = record.finished_at
        exchange.begin_events(200, head)
        for at in range(0, len(body), PIECE):
            if exchange.write_paused:
                await exchange.drained()
            exchange.send(body[at : at + PIECE])
        exchange.end()

    def _count(self, call: Call, outcome: str) -> None:
        place = call.record.metric_model, outcome
        self.outcomes[place] = self.outcomes.get(place, 0) + 1
        if call.record.watched is not None:
            call.record.watched.end("cache", self._now(), outcome)

    def _head(self, call: Call, entry: Entry, outcome: bytes) -> bytes:
        record = call.record
        ticket = record.ticket
        return (
            b"content-type: %b\r\nx-request-id: %b\r\n%bx-penstock-cache: %b\r\nage: %d\r\n"
            b"%b%bx-penstock-overhead-ms: %d.%03d\r\n"
        ) % (
            b"text/event-stream; charset=utf-8" if record.stream else b"application/json",
            record.id.encode(),
            where(record.model or "", PLACE, 0),
            outcome,
            max(0, int(self._unix() - entry.made_at)),
            record.relief,
            allowance.headers(ticket.tab.notices) if ticket is not None else b"",
            *divmod(int(record.overhead_s * 1_000_000), 1000),
        )


@final
class _Want:
    """One call that may be answered from the cache, and what was found out about it on the way."""

    __slots__ = ("asked", "call", "match", "meaning", "place", "policy")

    def __init__(self, call: Call, policy: Policy, asked: Controls, place: Address) -> None:
        self.call = call
        self.policy = policy
        self.asked = asked
        self.place = place
        self.meaning: Meaning | None = None
        self.match: Match | None = None


def _told(call: Call, entry: Entry) -> bytes:
    """The answer in the form that was asked for."""
    if not call.record.stream:
        return words.as_whole(entry.words, entry.content, entry.report) if entry.stream else entry.content
    keep_usage = call.endpoint is RESPONSES or wire.wants_usage(call.request)
    if entry.stream:
        body = words.streamed(entry.words, entry.content, entry.report, keep_usage=keep_usage)
    else:
        body = words.as_stream(entry.words, entry.content, keep_usage=keep_usage)
    return body + call.endpoint.done


def _apart(call: Call) -> bool:
    """Copies of calls find out how a model does; a deployment that is named, and a provider that is passed through, answer themselves."""
    routed = call.record.routed
    if call.endpoint.providers is not None:
        return True
    return call.overrides.deployment is not None or (routed is not None and routed.shadow_of is not None)


def _is_its_own(call: Call) -> bool:
    """Whether the answer is what the model says when it is asked that: not cut to fit a budget, not in two halves."""
    return not call.record.relief and (call.continuation is None or not call.continuation.halves)


def _is_upstreams(error: BaseException, call: Call) -> bool:
    """Whether the next in line may well meet the same: it was sent, and the client did not just leave."""
    return isinstance(error, errors.GatewayError) and call.record.attempts > 0


def _cached(used: Usage | None) -> Usage:
    """What the answer once took, as read from a cache."""
    if used is None:
        return NOTHING
    return msgspec.structs.replace(used, cached_read=used.input, cache_write=0, cache_write_1h=0)
