"""What a serving process writes into its journal: one record per step of a call, as MessagePack arrays.

A record is read by later releases: fields are only ever added at the end, with a default; anything else is a new `VERSION`.
Amounts are nano-dollars for accounts of money and units (tokens, requests) for the others.
"""

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from gateway.usage import of_tokens
from gateway.used import Source, Usage

VERSION = 2  # 2: Began and Ended

Reason = Literal["done", "disconnect", "failure", "crash"]
Amounts: TypeAlias = tuple[tuple[str, int], ...]  # account id → amount


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="o", gc=False):
    """The first record of every journal. `at` is Unix seconds, as everywhere here."""

    session: str
    at: float
    version: int = VERSION


class Intent(msgspec.Struct, frozen=True, array_like=True, tag="i", gc=False):
    """Written before an upstream may see the call. `holds` are set aside; `worst_nanousd` is what the call can cost at most."""

    id: str
    at: float
    endpoint: str
    holds: Amounts
    worst_nanousd: int
    key_id: str | None = None
    team_id: str | None = None
    org_id: str | None = None
    user_id: str | None = None
    customer: str | None = None
    model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    tags: tuple[str, ...] | None = None
    stream: bool = False
    worst: Usage | None = None


class Try(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt of a call that had several, or failed. `failure` None: it answered. `id`: of its own settlement, if it has one."""

    model: str
    deployment: str
    failure: str | None
    ms: float
    id: str | None = None
    cost_nanousd: int | None = None


class Routed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was decided about a call. `reason`: why that deployment; versions of a route and of a prompt read `name@3`."""

    reason: str | None = None
    route_version: str | None = None
    prompt_version: str | None = None
    shadow_of: str | None = None  # the request that this one is a copy of
    agreement: float | None = None  # of a copy: 1 if it was answered alike, 0 if not
    guards: tuple[str, ...] | None = None  # what each one did: `pii=redact:email+phone`
    router: str | None = None  # by which router it came to its model, and why: `auto: easy 0.930`
    part_of: str | None = None  # the request, or the answer, that it was made for


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """The end of a call, with everything that its ledger entry and its request record say.

    `source` None: nothing reached an upstream and nothing is owed (a call that was refused); it gets a request record and
    no entry in the ledger. `at` is when the request arrived. `cost_nanousd` None counts as 0 in the ledger.
    `charges` is what the call really cost each account; what was only lent (parallel calls) is not in it.
    """

    id: str
    at: float
    endpoint: str
    status: int
    source: Source | None
    cost_nanousd: int | None = None
    usage: Usage | None = None
    charges: Amounts = ()
    key_id: str | None = None
    team_id: str | None = None
    org_id: str | None = None
    user_id: str | None = None
    customer: str | None = None
    model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    tags: tuple[str, ...] | None = None
    stream: bool = False
    attempts: int = 0
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    error_code: str | None = None
    reason: Reason = "done"
    trail: tuple[Try, ...] | None = None
    routed: Routed | None = None
    answer_id: str | None = None  # what stands in the answer as its id


class Party(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands the same in the records of all calls of one key to one deployment.

    `accounts` are those that bind the call, each with which of its amounts counts there: 0 nano-dollars, 1 the call itself, 2 tokens,
    3 those of the prompt, 4 those of the answer (`gateway.shares.amounts_of`).
    """

    endpoint: str
    key_id: str | None = None
    team_id: str | None = None
    org_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    stream: bool = False
    accounts: tuple[tuple[str, int], ...] = ()


class Began(msgspec.Struct, frozen=True, array_like=True, tag="b", gc=False):
    """An Intent in its usual form. `party` is a Party that was encoded before; `holds` are set where they do not follow from it,
    `worst` where a call may use more than a text's tokens.
    """

    id: str
    at: float
    party: msgspec.Raw
    worst_nanousd: int
    prompt_tokens: int
    output_tokens: int
    customer: str | None = None
    tags: tuple[str, ...] | None = None
    holds: Amounts | None = None
    worst: Usage | None = None

    def intent(self) -> "Intent":
        party = party_of(self.party)
        prompt, output = self.prompt_tokens, self.output_tokens
        due = (self.worst_nanousd, 1, prompt + output, prompt, output)
        holds = [(account, due[counts]) for account, counts in party.accounts if due[counts]]
        return Intent(
            self.id,
            self.at,
            party.endpoint,
            tuple(holds) if self.holds is None else self.holds,
            self.worst_nanousd,
            party.key_id,
            party.team_id,
            party.org_id,
            party.user_id,
            self.customer,
            party.model,
            party.provider,
            party.deployment,
            self.tags,
            party.stream,
            of_tokens(prompt, output) if self.worst is None else self.worst,
        )


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """A Settled in its usual form: of a call that was held. `charges` are set where they do not follow from its party and its usage."""

    id: str
    at: float
    party: msgspec.Raw
    status: int
    source: Source | None
    cost_nanousd: int | None = None
    usage: Usage | None = None
    attempts: int = 0
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    error_code: str | None = None
    reason: Reason = "done"
    customer: str | None = None
    tags: tuple[str, ...] | None = None
    trail: tuple[Try, ...] | None = None
    routed: Routed | None = None
    charges: Amounts | None = None
    answer_id: str | None = None

    def settled(self, party: Party) -> Settled:
        """`party` is what this one's bytes say."""
        return Settled(
            self.id,
            self.at,
            party.endpoint,
            self.status,
            self.source,
            self.cost_nanousd,
            self.usage,
            self.charged(party.accounts) if self.charges is None else self.charges,
            party.key_id,
            party.team_id,
            party.org_id,
            party.user_id,
            self.customer,
            party.model,
            party.provider,
            party.deployment,
            self.tags,
            party.stream,
            self.attempts,
            self.latency_ms,
            self.first_token_ms,
            self.overhead_ms,
            self.error_code,
            self.reason,
            self.trail,
            self.routed,
            self.answer_id,
        )

    def charged(self, accounts: Iterable[tuple[str, int]]) -> Amounts:
        """What accounts were charged that a call's amounts decide alone; calls at the same time are only lent."""
        used = self.usage
        if self.source is None or used is None:
            return ()
        due = (self.cost_nanousd or 0, 1, used.input + used.output, used.input, used.output)
        return tuple([(account, due[counts]) for account, counts in accounts if not account.startswith("p:")])


class Closed(msgspec.Struct, frozen=True, array_like=True, tag="c", gc=False):
    """The last record of a journal whose calls are all settled."""

    at: float


Record: TypeAlias = Opened | Intent | Began | Settled | Ended | Closed

_decode_party = msgspec.msgpack.Decoder(Party).decode


def party_of(raw: msgspec.Raw) -> Party:
    """Raises msgspec.DecodeError."""
    return _decode_party(raw)


def settled_at_worst(intent: Intent) -> Settled:
    """What a call is taken to have cost when nobody lived to see its end: everything that was held for it."""
    return Settled(
        id=intent.id,
        at=intent.at,
        endpoint=intent.endpoint,
        status=0,
        source="estimated",
        cost_nanousd=intent.worst_nanousd,
        usage=intent.worst,
        charges=tuple((account, amount) for account, amount in intent.holds if not account.startswith("p:")),
        key_id=intent.key_id,
        team_id=intent.team_id,
        org_id=intent.org_id,
        user_id=intent.user_id,
        customer=intent.customer,
        model=intent.model,
        provider=intent.provider,
        deployment=intent.deployment,
        tags=intent.tags,
        stream=intent.stream,
        attempts=1,
        error_code="crashed",
        reason="crash",
    )
