"""What a call may cost is set aside before it is sent; what it did cost is settled when it ends, however it ends.

`open` and `close` are plain functions on memory: prices, holds and two journal records. Only a call that does not fit into what this
process has borrowed waits, in `fetch`, for one round trip to the lease store.
"""

from collections.abc import Callable, Sequence
from typing import final

import msgspec
import structlog

from gateway import bodies, errors, fair_limits, prompt_bound, wire
from gateway.bodies import Request
from gateway.catalog import Deployment
from gateway.fair_limits import Part
from gateway.journal import Journal, JournalFull
from gateway.journal_records import Amounts, Began, Ended, Reason, Settled
from gateway.need import Need, Offer
from gateway.price_map import PriceMap
from gateway.pricing import cost, worst_case
from gateway.record import LEFT, Record
from gateway.relief import Short, longest
from gateway.scopes import Rules
from gateway.shares import Hold, Shares, amounts_of, charges
from gateway.tabs import Tab, Tabs
from gateway.tariffs import Price
from gateway.till import Till, blocked
from gateway.units.ask import Ask, is_text, weighed
from gateway.units.settle import prices
from gateway.usage import of_tokens
from gateway.used import Source, Usage

log = structlog.stdlib.get_logger(__name__)

DEFAULT_OUTPUT_TOKENS = 4096  # of a model whose maximum nobody knows, for a client that names none
BYTES_PER_TOKEN = 4  # of an estimate, where a bound would be unfair


@final
class Ticket:
    """An open hold: one request that may have reached an upstream and is not settled yet."""

    __slots__ = ("capped", "fair", "hold", "offer", "tab")

    def __init__(self, tab: Tab, offer: Offer, hold: Hold, *, capped: bool) -> None:
        self.tab = tab
        self.offer = offer
        self.hold = hold
        self.capped = capped  # it needs more of a bucket than the bucket can hold
        self.fair: tuple[Part, ...] = ()  # of limits that keys share


@final
class Meter:
    """One per process. `unix` is the clock in Unix seconds."""

    def __init__(
        self, shares: Shares, till: Till, journal: Journal, prices: PriceMap, unix: Callable[[], float]
    ) -> None:
        self._shares = shares
        self._till = till
        self._journal = journal
        self._prices = prices
        self._unix = unix
        self._tabs = Tabs(shares)
        self.lost_records = 0
        self.open_holds = 0

    def offer(self, deployment: Deployment, wild: str, request: Request, body: bytes) -> Offer:
        """The price of a deployment's model, and the worst case of this call there. `wild` stands for a `*` in its target.

        Raises AccessDenied for an unknown price, if the configuration wants that.
        """
        price, most_input, most_output = deployment.price, deployment.max_input_tokens, deployment.max_output_tokens
        if price is None and "*" in deployment.target:
            quote = self._prices.quote(deployment, wild)
            price, most_input, most_output = quote.price, quote.max_input_tokens, quote.max_output_tokens
        if isinstance(request, Ask):
            return _unit_offer(
                deployment, price, request, weighed(request, most_input, most_output or DEFAULT_OUTPUT_TOKENS)
            )
        prompt = prompt_bound.upper_bound(body, request, context_tokens=most_input)
        output = prompt_bound.output_bound(request, most_output or DEFAULT_OUTPUT_TOKENS)
        if price is not None:
            plain = price.one_rate or prompt_bound.text_only(body)
            most = worst_case(prompt, output, 1, price, text_only=plain)
            return Offer(price, Need(most, prompt, output))
        flat = _flat(deployment, request)
        return Offer(None, Need(flat or 0, prompt, output), flat)

    async def open(self, rules: Rules, record: Record, offer: Offer) -> None:
        """Holds what the call may need in every account that binds it, all or nothing, and journals the intent.

        Waits only if this process has not borrowed enough. Raises BudgetExceeded (BudgetShort if a smaller call might fit),
        RateLimited, LimitsUnavailable, Overloaded.
        """
        if not self.open_at_once(rules, record, offer):
            await self.open_borrowing(rules, record, offer)

    async def open_borrowing(self, rules: Rules, record: Record, offer: Offer) -> None:
        """The part of `open` that waits: for who has just heard from `open_at_once` that it must."""
        ticket, _ = self._ticket(rules, record, offer)
        try:
            await self._till.fetch(ticket.hold)
        except errors.RateLimited as limited:
            if ticket.fair:
                back_in_s = max((float(value) for name, value in limited.headers if name == "retry-after"), default=0.0)
                fair_limits.refused(ticket.hold, ticket.tab.key, self._unix(), back_in_s)
            raise
        self._opened(record, ticket)

    def open_at_once(self, rules: Rules, record: Record, offer: Offer) -> bool:
        """As `open`, if that needs no wait: what nearly every call can do. False, and nothing done, if it does."""
        ticket, enough = self._ticket(rules, record, offer)
        if not enough:
            return False
        self._shares.hold(ticket.hold)
        self._opened(record, ticket)
        return True

    def open_owing(self, rules: Rules, record: Record, offer: Offer) -> None:
        """For work that an upstream does unasked: nothing is set aside, whatever the limits say, and all of it is owed."""
        key = record.key
        assert key is not None
        tab = self._tabs.of(rules, key, record, self._unix())
        hold = tuple([(share, 0) for share in tab.shares])
        self._shares.hold(hold)
        self._opened(record, Ticket(tab, msgspec.structs.replace(offer, need=Need(0, 0, 0)), hold, capped=False))

    def fits(self, rules: Rules, record: Record, offer: Offer) -> bool:
        """Whether `open` would not have to wait. Raises BudgetExceeded where spending is stopped."""
        return self._ticket(rules, record, offer)[1]

    def affordable(
        self, deployment: Deployment, wild: str, request: Request, body: bytes, short: Short
    ) -> tuple[int, Request, bytes] | None:
        """The longest answer that fits into what is short, with the request and body that ask for it; None where that helps nobody."""
        most = wire.asked_tokens(request) or self.offer(deployment, wild, request, body).need.output_tokens
        if isinstance(request, (bodies.EmbeddingRequest, bodies.Counted)) or not most:
            return None
        left = min(share.left for share, _ in short)
        longest_body = wire.capped(body, request, most)

        def fits(tokens: int) -> bool:
            need = self.offer(deployment, wild, wire.with_cap(request, tokens), longest_body).need
            return need.nanousd <= left

        tokens = longest(most, fits)
        if tokens is None:
            return None
        return tokens, wire.with_cap(request, tokens), wire.capped(body, request, tokens)

    def release(self, record: Record) -> None:
        """Ends a hold whose call did not reach an upstream: nothing is owed."""
        ticket, record.ticket = record.ticket, None
        if ticket is not None:
            self.open_holds -= 1
            self._shares.settle(ticket.hold, None)
            if ticket.fair:
                fair_limits.ended(ticket.fair, ticket.tab.key, self._unix(), None)

    def close(self, record: Record, body: bytes) -> None:
        """Settles a request and journals its end. Called exactly once for each, after everything else."""
        ticket, record.ticket = record.ticket, None
        if ticket is not None:
            self.open_holds -= 1
            need = None
            if record.sent:
                used, record.usage_source = _used(record, ticket, body)
                record.usage = used
                if record.cost_nanousd is None:
                    record.cost_nanousd = _price(record, ticket, used)
                need = Need(record.cost_nanousd or 0, used.input, used.output)
            self._shares.settle(ticket.hold, need)
            if ticket.fair:
                fair_limits.ended(ticket.fair, ticket.tab.key, self._unix(), need)
        if record.key is None:  # whoever shows no key leaves no trace but in the metrics: anybody could fill the disk
            return
        try:
            if ticket is not None and ticket.tab.of(record):
                self._journal.append(_ended(record, ticket))
            else:
                self._journal.append(_settled(record, ticket))
        except JournalFull:
            self.lost_records += 1  # the intent stands: a restart settles it at its worst case
            log.error("journal.full", **record.told)  # noqa: TRY400 the reason was logged by the journal itself

    def cost(self, record: Record) -> int | None:
        """What a call whose usage is known has cost; None where no price is."""
        if record.ticket is not None and record.usage is not None:
            record.cost_nanousd = _price(record, record.ticket, record.usage)
        return record.cost_nanousd

    def price(self, deployment: Deployment, wild: str) -> Price | None:
        """Of a deployment that has none of its own: of what its wildcard stands for."""
        return self._prices.quote(deployment, wild).price if "*" in deployment.target else None

    def _ticket(self, rules: Rules, record: Record, offer: Offer) -> tuple[Ticket, bool]:
        """What every account that binds the call has to set aside, and whether this process has borrowed that much."""
        key = record.key
        assert key is not None
        tab = self._tabs.of(rules, key, record, self._unix())
        amounts = amounts_of(offer.need)
        hold = []
        for share in tab.shares:
            amount = amounts[share.counts]
            if not 0 < amount <= share.cap or share.free < amount:
                return self._special_ticket(tab, offer, amounts)
            hold.append((share, amount))
        return Ticket(tab, offer, tuple(hold), capped=False), True

    def _special_ticket(self, tab: Tab, offer: Offer, amounts: Sequence[int]) -> tuple[Ticket, bool]:
        """The same where something is blocked, shared by keys, not borrowed yet, too much for a bucket, or nothing.

        Raises BudgetExceeded, RateLimited.
        """
        hold = []
        enough, capped = True, False
        for share in tab.shares:
            if share.blocked:
                raise blocked(share)
            amount = amounts[share.counts]
            if amount > share.largest:
                amount, capped = int(share.largest), True
            if amount:
                if share.fair is not None:
                    fair_limits.check(share, tab.key, amount, self._unix())
                hold.append((share, amount))
                enough = enough and share.free >= amount
        ticket = Ticket(tab, offer, tuple(hold), capped=capped)
        ticket.fair = fair_limits.parts(ticket.hold)
        return ticket, enough

    def _opened(self, record: Record, ticket: Ticket) -> None:
        record.ticket = ticket
        self.open_holds += 1
        if ticket.fair:
            fair_limits.began(ticket.fair, ticket.tab.key, self._unix())
        try:
            self._journal.append(_began(record, ticket))
        except JournalFull as error:
            self.release(record)
            raise errors.Overloaded(str(error), code="journal_full") from None


def _unit_offer(deployment: Deployment, price: Price | None, ask: Ask, worst: Usage) -> Offer:
    """As `Meter.offer`. A price that says nothing of this kind of call is an unknown one."""
    if ask.flat_nanousd is not None:
        return Offer(None, Need(ask.flat_nanousd, 0, 0), ask.flat_nanousd, worst)
    if price is not None and prices(price, ask):
        most = worst_case(worst.input, worst.output, 1, price, text_only=is_text(worst), extras=worst)
        return Offer(price, Need(most, worst.input, worst.output), worst=worst)
    flat = _flat(deployment, ask)
    return Offer(None, Need(flat or 0, worst.input, worst.output), flat, worst)


def _flat(deployment: Deployment, request: Request) -> int | None:
    """What a call without a price is charged, if anything. Raises AccessDenied, if the configuration wants that."""
    terms = deployment.terms
    if terms.unknown == "deny":
        raise errors.AccessDenied(
            f"The price of '{request.model}' is not known, and the configuration denies calls without a price",
            code="unknown_price",
        )
    return terms.hold_nanousd if terms.unknown == "hold" else None


def _price(record: Record, ticket: Ticket, used: Usage) -> int | None:
    """A service tier's price is never more than the plain one, which is what is held."""
    offer = ticket.offer
    if offer.price is not None:
        plain, key = cost(used, offer.price), record.key
        if key is None or key.service_tier is None:
            return plain
        return min(plain, cost(used, offer.price, key.service_tier))
    return offer.flat_nanousd


def _used(record: Record, ticket: Ticket, body: bytes) -> tuple[Usage, Source]:
    """The provider's word; nothing for a refusal; an estimate of what passed; the worst case where nobody can know."""
    if record.usage is not None:
        return record.usage, record.usage_source or "estimated"
    if record.refused:
        return of_tokens(0, 0), "provider"
    if record.received:
        return of_tokens(-(-len(body) // BYTES_PER_TOKEN), record.received), "estimated"
    offer = ticket.offer
    return offer.worst or of_tokens(offer.need.prompt_tokens, offer.need.output_tokens), "estimated"


def _began(record: Record, ticket: Ticket) -> Began:
    need = ticket.offer.need
    return Began(
        record.id,
        record.at,
        ticket.tab.party,
        need.nanousd,
        need.prompt_tokens,
        need.output_tokens,
        record.user,
        None if record.tags is None else tuple(record.tags),
        tuple([(share.account.id, held) for share, held in ticket.hold]) if ticket.capped else None,
        ticket.offer.worst,
    )


def _ended(record: Record, ticket: Ticket) -> Ended:
    return Ended(
        record.id,
        record.at,
        ticket.tab.party,
        record.status,
        record.usage_source if record.sent else None,
        record.cost_nanousd,
        record.usage,
        record.attempts,
        (record.finished_at - record.started_at) * 1000,
        None if record.first_token_at is None else (record.first_token_at - record.started_at) * 1000,
        record.overhead_s * 1000,
        record.error_code,
        _reason(record),
        record.user,
        None if record.tags is None else tuple(record.tags),
        None if record.trail is None else tuple(record.trail),
        record.routed,
        None if len(ticket.hold) == len(ticket.tab.shares) else _charges(record, ticket.hold),
        record.answer_id,
    )


def _charges(record: Record, hold: Hold) -> Amounts:
    used = record.usage
    if not record.sent or used is None:
        return ()
    return charges(hold, Need(record.cost_nanousd or 0, used.input, used.output))


def _settled(record: Record, ticket: Ticket | None) -> Settled:
    key = record.key
    return Settled(
        record.id,
        record.at,
        record.endpoint,
        record.status,
        record.usage_source if record.sent else None,
        record.cost_nanousd,
        record.usage,
        () if ticket is None else _charges(record, ticket.hold),
        None if key is None else key.id,
        None if key is None else key.team_id,
        None if key is None else key.org_id,
        None if key is None else key.user_id,
        record.user,
        record.model,
        record.provider,
        record.deployment,
        None if record.tags is None else tuple(record.tags),
        record.stream,
        record.attempts,
        (record.finished_at - record.started_at) * 1000,
        None if record.first_token_at is None else (record.first_token_at - record.started_at) * 1000,
        record.overhead_s * 1000,
        record.error_code,
        _reason(record),
        None if record.trail is None else tuple(record.trail),
        record.routed,
        record.answer_id,
    )


def _reason(record: Record) -> Reason:
    if record.error_code == LEFT:
        return "disconnect"
    return "done" if record.error_code is None else "failure"
