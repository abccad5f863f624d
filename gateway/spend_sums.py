"""Sums of spend: each shipped group appends its own, and one process at a time adds them to the rollup by day and month.

No row has two writers at once, so nothing waits and nothing deadlocks; a view reads the rollup and what was not added yet.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Final, final

from sqlalchemy import Connection, Engine, text

from gateway import bulk
from gateway.database import appending
from gateway.journal_records import Ended, Party, Settled, party_of
from gateway.ledger_entries import DAY_S, MAX_AMOUNT, charged, label, labels
from gateway.used import NOTHING, Usage

EPOCH: Final = date(1970, 1, 1)
OWNER: Final = ("org_id", "team_id", "user_id", "key_id", "model", "provider")
SUMS: Final = ("cost_nanousd", "requests", "input_tokens", "cached_tokens", "output_tokens")

COMPACTED_AT_ONCE: Final = 50_000  # well below PostgreSQL's statement timeout; SQLite's other writers wait as long

_COLUMNS: Final = ("facet", "label", "day", *OWNER, *SUMS, "month")
_COMPACTION_LOCK: Final = 7_365_627_003  # of PostgreSQL's compactors: who does not get it has nothing to do

_OWNER: Final = ", ".join(OWNER)
# There is one compactor, so who is not there now will not be there when they are added.
_NEW_OWNERS: Final = (
    f"INSERT INTO spend_owners ({_OWNER}) SELECT DISTINCT {_OWNER} FROM spend_partials WHERE NOT EXISTS (SELECT 1 "  # noqa: S608
    f"FROM spend_owners WHERE {' AND '.join(f'spend_owners.{name} = spend_partials.{name}' for name in OWNER)})"
)

Owner = tuple[float, str | None, str | None, str | None, str | None, str | None, str | None]
Facets = dict[tuple[str, str], list[int]]


@final
class _Calls:
    """Of one owner, or of one party, on one day. `beyond`: what of their cost is nonsense that no column holds."""

    __slots__ = ("beyond", "facets", "party", "sums")

    def __init__(self, party: Party | None = None) -> None:
        self.party = party
        self.sums = [0] * len(SUMS)
        self.facets: Facets = {}
        self.beyond = 0

    def take(self, one: Settled | Ended) -> None:
        used, cost = one.usage or NOTHING, one.cost_nanousd or 0
        if not 0 <= cost <= MAX_AMOUNT:
            kept = charged(cost)
            self.beyond += cost - kept
            cost = kept
        if one.customer is None:
            _add(self.sums, cost, used)
        else:
            _count(self.facets, "customer", one.customer, cost, used)
        if one.tags:
            for tag in labels(one.tags):
                _count(self.facets, "tag", tag, cost, used)

    def total(self) -> list[int]:
        """Of all calls; those of customers are counted with them alone."""
        parts = [self.sums, *(sums for (facet, _), sums in self.facets.items() if facet == "customer")]
        return [sum(column) for column in zip(*parts, strict=True)]


@final
class Sums:
    """Of the calls of one group, per facet, label, day and owner; and of what they charged, per account."""

    def __init__(self) -> None:
        self._owners: dict[Owner, _Calls] = {}
        self._parties: dict[tuple[bytes, float], _Calls] = {}
        self._charges: dict[str, int] = {}

    def take(self, calls: Sequence[Settled | Ended]) -> None:
        """Calls that owe something. Names are put right in `rows`, once per owner."""
        parties = self._parties
        party, day, found = None, -1.0, _Calls()
        for one in calls:
            if type(one) is not Ended:
                self._take_settled(one)  # type: ignore[arg-type]  # of the two, it is the other
                continue
            if (
                one.party is not party or one.at // DAY_S != day
            ):  # the very bytes that the last call had are not looked up again
                party, day = one.party, one.at // DAY_S
                place = bytes(party), day
                known = parties.get(place)
                found = parties[place] = _Calls(party_of(party)) if known is None else known
            if one.charges is None and one.usage is not None:
                found.take(one)
            else:
                assert found.party is not None
                self._take_settled(one.settled(found.party))  # charges of its own, or none: nobody knows what was used

    def _take_settled(self, one: Settled) -> None:
        owner = (one.at // DAY_S, one.org_id, one.team_id, one.user_id, one.key_id, one.model, one.provider)
        found = self._owners.get(owner)
        if found is None:
            found = self._owners[owner] = _Calls()
        found.take(one)
        charges = self._charges
        for account, amount in one.charges:
            charges[account] = charges.get(account, 0) + amount

    def key_ids(self) -> set[str | None]:
        return {owner[4] for owner in self._owners} | {
            calls.party.key_id for calls in self._parties.values() if calls.party is not None
        }

    def cost_nanousd(self) -> int:
        return sum(calls.total()[0] for calls in (*self._owners.values(), *self._parties.values()))

    def charges(self) -> dict[str, int]:
        """By account id."""
        found = dict(self._charges)
        for calls in self._parties.values():
            cost, requests, prompt, _, output = calls.total()
            due = (cost + calls.beyond, requests, prompt + output, prompt, output)
            for account, counts in () if calls.party is None or not requests else calls.party.accounts:
                if not account.startswith("p:"):
                    found[account] = found.get(account, 0) + due[counts]
        return found

    def rows(self) -> list[tuple[object, ...]]:
        """Of `spend_partials`."""
        whole: dict[Owner, Facets] = {}
        for owner, calls in self._owners.items():
            _merge(whole.setdefault(owner, {}), calls)
        for (_, day), calls in self._parties.items():
            party = calls.party
            if party is not None and calls.total()[1]:
                ids = party.org_id, party.team_id, party.user_id, party.key_id
                _merge(whole.setdefault((day, *ids, party.model, party.provider), {}), calls)
        return [row for owner, facets in whole.items() for row in _rows(owner, facets)]


def add_partials(tx: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    bulk.append(tx, "spend_partials", _COLUMNS, rows)


def compact(tx: Connection, limit: int = COMPACTED_AT_ONCE) -> int:
    """Adds up to `limit` partial sums to the rollup and says how many there were; inside `gateway.database.appending`."""
    if tx.dialect.name == "sqlite":
        last = "SELECT max(rowid) FROM (SELECT rowid FROM spend_partials ORDER BY rowid LIMIT :limit)"
        highest = tx.execute(text(last), {"limit": limit}).scalar_one()
        if highest is None:
            return 0
        old = "spend_partials.rowid <= :highest"
        owned = f"(SELECT * FROM spend_partials JOIN spend_owners USING ({_OWNER}) WHERE {old})"  # noqa: S608 — constants
        tx.execute(text(_NEW_OWNERS))
        tx.execute(text(_added(owned)), {"highest": highest})
        return tx.execute(text(f"DELETE FROM spend_partials WHERE {old}"), {"highest": highest}).rowcount  # noqa: S608
    if not tx.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _COMPACTION_LOCK}).scalar_one():
        return 0
    tx.execute(text(_NEW_OWNERS))
    # One statement moves exactly the rows that it sees; those of an owner that is newer than the last one wait for the next time.
    some = "ctid = ANY(ARRAY(SELECT ctid FROM spend_partials LIMIT :limit))"
    same = " AND ".join(f"spend_owners.{name} = spend_partials.{name}" for name in OWNER)
    moved = f"DELETE FROM spend_partials USING spend_owners WHERE spend_partials.{some} AND {same} RETURNING *"  # noqa: S608
    moving = f"WITH moved AS ({moved}), added AS ({_added('moved')}) SELECT count(*) FROM moved"  # noqa: S608 — constants
    return int(tx.execute(text(moving), {"limit": limit}).scalar_one())


def compact_all(engine: Engine) -> int:
    """In as many transactions as it takes."""
    moved = 0
    while True:
        with appending(engine) as tx:
            step = compact(tx)
        moved += step
        if step < COMPACTED_AT_ONCE:
            return moved


def _added(source: str) -> str:
    """What is the same is added up first; then each sum counts in four: by day and by month, over all owners and for its own.

    WHERE stands before ON CONFLICT, or SQLite takes ON for a part of the join (sqlite.org/lang_upsert.html).
    """
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
    once = f"(SELECT facet, label, day, month, id, {sums} FROM {source} AS owned GROUP BY facet, label, day, month, id)"  # noqa: S608
    grains = "(SELECT 'd' AS grain UNION ALL SELECT 'm' UNION ALL SELECT 'od' UNION ALL SELECT 'om') AS grains"
    day = "CASE WHEN grain IN ('d', 'od') THEN day ELSE month END"
    owner = "CASE WHEN grain IN ('od', 'om') THEN id ELSE 0 END"
    added = ", ".join(f"{name} = spend_rollup.{name} + excluded.{name}" for name in SUMS)
    return (
        f"INSERT INTO spend_rollup (grain, facet, day, label, owner, {', '.join(SUMS)}) "  # noqa: S608 — constants
        f"SELECT grain, facet, {day}, label, {owner}, {sums} "
        f"FROM {once} AS once CROSS JOIN {grains} WHERE true GROUP BY grain, facet, {day}, label, {owner} "
        f"ON CONFLICT (grain, facet, day, label, owner) DO UPDATE SET {added}"
    )


def month_start(day: int) -> int:
    """The first day of the month, in days since 1970."""
    return (date.fromordinal(EPOCH.toordinal() + day).replace(day=1) - EPOCH).days


def next_month(day: int) -> int:
    return month_start(month_start(day) + 31)


def day_of(unix: float) -> int:
    return (datetime.fromtimestamp(unix, UTC).date() - EPOCH).days


def _merge(whole: Facets, calls: _Calls) -> None:
    for place, sums in ((("", ""), calls.total()), *calls.facets.items()):
        before = whole.get(place)
        whole[place] = sums if before is None else [one + other for one, other in zip(before, sums, strict=True)]


def _count(facets: Facets, facet: str, name: str, cost: int, used: Usage) -> None:
    sums = facets.get((facet, name))
    if sums is None:
        facets[facet, name] = [cost, 1, used.input, used.cached_read, used.output]
    else:
        _add(sums, cost, used)


def _add(sums: list[int], cost: int, used: Usage) -> None:
    sums[0] += cost
    sums[1] += 1
    sums[2] += used.input
    sums[3] += used.cached_read
    sums[4] += used.output


def _rows(owner: Owner, facets: Facets) -> Iterator[tuple[object, ...]]:
    """What is unknown is an empty text; the names of models and customers come from clients."""
    first, org, team, user, key, model, provider = owner
    day = int(first)
    names = (org or "", team or "", user or "", key or "", label(model) or "", provider or "")
    for (facet, name), sums in facets.items():
        yield (facet, label(name), day, *names, *sums, month_start(day))
