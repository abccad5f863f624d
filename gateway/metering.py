"""What a call may cost is set aside before it is sent; what it did cost is settled when it ends, however it ends.

`open` and `close` are plain functions on memory: prices, holds and two journal records. Only a call that does not fit into what this
process has borrowed waits, in `fetch`, for one round trip to the lease store.
"""

from collections.abc import Callable
from typing import final

import msgspec
import structlog

from gateway import errors, prompt_bound, wire
from gateway.catalog import Deployment
from gateway.journal import Journal, JournalFull
from gateway.journal_records import Intent, Reason, Settled
from gateway.keys import Key
from gateway.price_map import PriceMap
from gateway.pricing import Price, cost, worst_case
from gateway.record import LEFT, Record
from gateway.relief import Short, longest
from gateway.scopes import Bound, Rules, Static, binding, static_binding
from gateway.shares import Hold, Need, Shares
from gateway.till import Till, blocked
from gateway.usage import Source, Usage, of_tokens
from gateway.wire import Request

log = structlog.stdlib.get_logger(__name__)

DEFAULT_OUTPUT_TOKENS = 4096  # of a model whose maximum nobody knows, for a client that names none
MAX_BINDINGS = 50_000
BYTES_PER_TOKEN = 4  # of an estimate, where a bound would be unfair


_Place = tuple[str, str, str]  # a key, a model's public name, a provider


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What a call at a deployment may need: its price (None: unknown), and its worst case."""

    price: Price | None
    need: Need
    flat_nanousd: int | None = None  # a declared cost per call, where no price is known


@final
class Ticket:
    """An open hold: one request that may have reached an upstream and is not settled yet."""

    __slots__ = ("hold", "offer")

    def __init__(self, hold: Hold, offer: Offer) -> None:
        self.hold = hold
        self.offer = offer


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
        self._bindings: dict[_Place, Static] = {}
        self._named: dict[tuple[_Place, str | None, tuple[str, ...]], tuple[Bound, ...]] = {}
        self._bindings_of: Rules | None = None
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
        prompt = prompt_bound.upper_bound(body, request, context_tokens=most_input)
        output = prompt_bound.output_bound(request, most_output or DEFAULT_OUTPUT_TOKENS)
        if price is not None:
            plain = price.one_rate or prompt_bound.text_only(body)
            most = worst_case(prompt, output, 1, price, text_only=plain)
            return Offer(price, Need(most, prompt, output))
        terms = deployment.terms
        if terms.unknown == "deny":
            raise errors.AccessDenied(
                f"The price of '{request.model}' is not known, and the configuration denies calls without a price",
                code="unknown_price",
            )
        flat = terms.hold_nanousd if terms.unknown == "hold" else None
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
        needs, _ = self._needs(rules, record, offer.need)
        await self._till.fetch(needs)
        self._opened(record, Ticket(needs, offer))

    def open_at_once(self, rules: Rules, record: Record, offer: Offer) -> bool:
        """As `open`, if that needs no wait: what nearly every call can do. False, and nothing done, if it does."""
        needs, enough = self._needs(rules, record, offer.need)
        if not enough:
            return False
        self._shares.hold(needs)
        self._opened(record, Ticket(needs, offer))
        return True

    def _opened(self, record: Record, ticket: Ticket) -> None:
        record.ticket = ticket
        self.open_holds += 1
        try:
            self._journal.append(_intent(record, ticket))
        except JournalFull as error:
            self.release(record)
            raise errors.Overloaded(str(error), code="journal_full") from None

    def fits(self, rules: Rules, record: Record, offer: Offer) -> bool:
        """Whether `open` would not have to wait. Raises BudgetExceeded where spending is stopped."""
        return self._needs(rules, record, offer.need)[1]

    def affordable(
        self, deployment: Deployment, wild: str, request: Request, body: bytes, short: Short
    ) -> tuple[int, Request, bytes] | None:
        """The longest answer that fits into what is short, with the request and body that ask for it; None where that helps nobody."""
        most = wire.asked_tokens(request) or self.offer(deployment, wild, request, body).need.output_tokens
        if isinstance(request, wire.EmbeddingRequest) or not most:
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

    def close(self, record: Record, body: bytes) -> None:
        """Settles a request and journals its end. Called exactly once for each, after everything else."""
        ticket, record.ticket = record.ticket, None
        charges: tuple[tuple[str, int], ...] = ()
        if ticket is not None:
            self.open_holds -= 1
            if record.sent:
                used, source = _used(record, ticket, body)
                record.usage, record.usage_source = used, source
                if record.cost_nanousd is None:
                    record.cost_nanousd = _price(record, ticket, used)
                spent = Need(record.cost_nanousd or 0, used.input, used.output)
                charges = self._shares.settle(ticket.hold, spent)
            else:
                self._shares.settle(ticket.hold, None)
        if record.key is None:  # whoever shows no key leaves no trace but in the metrics: anybody could fill the disk
            return
        try:
            self._journal.append(_settled(record, charges))
        except JournalFull:
            self.lost_records += 1  # the intent stands: a restart settles it at its worst case
            log.error("journal.full", request=record.id)  # noqa: TRY400 the reason was logged by the journal itself

    def cost(self, record: Record) -> int | None:
        """What a call whose usage is known has cost; None where no price is."""
        if record.ticket is not None and record.usage is not None:
            record.cost_nanousd = _price(record, record.ticket, record.usage)
        return record.cost_nanousd

    def price(self, deployment: Deployment, wild: str) -> Price | None:
        """Of a deployment that has none of its own: of what its wildcard stands for."""
        return self._prices.quote(deployment, wild).price if "*" in deployment.target else None

    def _needs(self, rules: Rules, record: Record, need: Need) -> tuple[Hold, bool]:
        """What every account that binds the call has to set aside, and whether this process has borrowed that much."""
        key = record.key
        if key is None or not rules.families:
            return (), True
        bound = self._bound(rules, key, record)
        if not bound:
            return (), True
        unix = self._unix()
        needs = []
        enough = True
        amounts = need.amounts()
        for one in bound:
            share = self._shares.of(one, unix)
            if share.blocked:
                raise blocked(share)
            amount = amounts[share.counts]
            if amount > share.account.limit and one.rule.kind == "bucket":
                amount = share.account.limit  # one call that is larger than a full bucket takes all of it
            if amount:
                needs.append((share, amount))
                if share.free < amount:
                    enough = False
        return tuple(needs), enough

    def _bound(self, rules: Rules, key: Key, record: Record) -> tuple[Bound, ...]:
        """Every rule that the call has to pass: worked out once for calls that have the same key, model, provider, customer and tags."""
        if rules is not self._bindings_of or len(self._bindings) + len(self._named) > MAX_BINDINGS:
            self._bindings, self._named = {}, {}
            self._bindings_of = rules
        place = (key.id, record.metric_model, record.provider or "")
        static = self._bindings.get(place)
        if static is None:
            static = self._bindings[place] = static_binding(rules, key, place[1], place[2])
        customer = record.user if static.customer else None
        tags = tuple(record.tags) if record.tags is not None and static.tag else ()
        if customer is None and not tags:
            return static.bound
        named = (place, customer, tags)
        found = self._named.get(named)
        if found is None:
            found = self._named[named] = binding(static, customer, tags)
        return found


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
    need = ticket.offer.need
    return of_tokens(need.prompt_tokens, need.output_tokens), "estimated"


def _intent(record: Record, ticket: Ticket) -> Intent:
    key = record.key
    assert key is not None
    need = ticket.offer.need
    return Intent(
        record.id,
        record.at,
        record.endpoint,
        tuple([(share.account.id, amount) for share, amount in ticket.hold]),
        need.nanousd,
        key.id,
        key.team_id,
        key.org_id,
        key.user_id,
        record.user,
        record.model,
        record.provider,
        record.deployment,
        None if record.tags is None else tuple(record.tags),
        record.stream,
        of_tokens(need.prompt_tokens, need.output_tokens),
    )


def _settled(record: Record, charges: tuple[tuple[str, int], ...]) -> Settled:
    key = record.key
    return Settled(
        record.id,
        record.at,
        record.endpoint,
        record.status,
        record.usage_source if record.sent else None,
        record.cost_nanousd,
        record.usage,
        charges,
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
    )


def _reason(record: Record) -> Reason:
    if record.error_code == LEFT:
        return "disconnect"
    return "done" if record.error_code is None else "failure"
