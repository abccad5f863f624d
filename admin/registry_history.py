"""The history of a classic model, as the audit has it: who registered, approved, promoted or archived what, under every name it had."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select

from admin.audit import Entry, State, entries
from admin.tables import audit
from gateway.paging import Page, page
from inference.rollouts.tables import rollouts

Event = Literal[
    "created", "changed", "renamed", "deleted",
    "registered", "archived", "restored", "published", "approved", "withdrawn",
    "aliased", "unaliased",
    "rollout_started", "rollout_stepped", "rollout_paused", "rollout_resumed", "promoted", "rolled_back",
]  # fmt: skip

RENAME: Final = "classic_model.rename"
_PLAIN: Final[dict[str, Event]] = {
    "classic_model.create": "created",
    "classic_model.change": "changed",
    RENAME: "renamed",
    "classic_model.delete": "deleted",
    "classic_version.register": "registered",
    "classic_version.publish": "published",
    "classic_version.approve": "approved",
    "classic_version.withdraw": "withdrawn",
    "classic_version.delete": "deleted",
    "classic_alias.set": "aliased",
    "classic_alias.delete": "unaliased",
    "rollout.create": "rollout_started",
    "rollout.pause": "rollout_paused",
    "rollout.resume": "rollout_resumed",
    "rollout.promote": "promoted",
    "rollout.rollback": "rolled_back",
}
_STATES: Final[dict[str, Event]] = {
    "promoted": "promoted",
    "rolled_back": "rolled_back",
    "paused": "rollout_paused",
    "running": "rollout_resumed",
}


class Happened(msgspec.Struct, frozen=True):
    """One entry of the audit, told of the model. `name` is the one that it had then."""

    event: Event
    name: str
    version: int | None
    alias: str | None
    rollout: str | None
    entry: Entry


class _Span(msgspec.Struct, frozen=True):
    """A name, and the entries of the audit between which it was the model's: from `since` on, before `until`."""

    name: str
    since: str | None
    until: str | None

    def holds(self, subjects: ColumnElement[bool]) -> ColumnElement[bool]:
        bounds = [subjects]
        if self.since is not None:
            bounds.append(audit.c.id >= self.since)
        if self.until is not None:
            bounds.append(audit.c.id < self.until)
        return and_(*bounds)


def history(tx: Connection, name: str, limit: int, after: str | None = None) -> Page[Happened]:
    """Newest first; empty for a name of which nothing was ever heard. A model that is gone has one as well."""
    spans = list(_spans(tx, name))
    tried = {row.id: row for span in spans for row in _rollouts(tx, span)}
    conditions = [span.holds(_about(span.name)) for span in spans]
    if tried:
        conditions.append(audit.c.subject.in_(tried) & audit.c.action.startswith("rollout."))
    found = entries(tx, or_(*conditions), limit, after)
    told = [_told(entry, tried) for entry in found]
    return page(told, limit, [each.entry.id for each in told])


def _about(name: str) -> ColumnElement[bool]:
    subject = audit.c.subject
    mine = or_(subject == name, subject.startswith(f"{name}/", autoescape=True))
    return mine & audit.c.action.startswith("classic_", autoescape=True)


def _spans(tx: Connection, name: str) -> Iterator[_Span]:
    """The names that the model has had, back from this one. What another model was called so before is not its own."""
    until: str | None = None
    while True:
        renames = select(audit.c.id, audit.c.before).where(audit.c.subject == name, audit.c.action == RENAME)
        if until is not None:
            renames = renames.where(audit.c.id < until)
        found = tx.execute(renames.order_by(audit.c.id.desc()).limit(1)).one_or_none()
        if found is None:
            yield _Span(name, None, until)
            return
        yield _Span(name, found.id, until)
        name, until = found.before["name"], found.id


def _rollouts(tx: Connection, span: _Span) -> Sequence[Row[str, str, dict[str, int]]]:
    """A rollout keeps the name that its model had. Its id sorts by time, as those of the audit do."""
    query = select(rollouts.c.id, rollouts.c.name, rollouts.c.plan)
    query = query.where(rollouts.c.kind == "model", rollouts.c.name == span.name)
    for bound, holds in ((span.since, rollouts.c.id.__ge__), (span.until, rollouts.c.id.__lt__)):
        if bound is not None:
            query = query.where(holds("rol_" + bound.partition("_")[2]))
    return tx.execute(query).all()


def _told(entry: Entry, tried: Mapping[str, Row[str, str, dict[str, int]]]) -> Happened:
    before, after = entry.before or {}, entry.after or {}
    rollout = tried.get(entry.subject)
    if rollout is not None:
        event = _moved(after) if entry.action == "rollout.move" else _PLAIN[entry.action]
        kept = rollout.plan["champion" if event == "rolled_back" else "challenger"]
        return Happened(event, rollout.name, int(kept), None, rollout.id, entry)
    name, _, rest = entry.subject.partition("/")
    event = _PLAIN.get(entry.action) or _changed(after)
    match entry.action.partition(".")[0]:
        case "classic_model":
            return Happened(event, name, None, None, None, entry)
        case "classic_alias":
            return Happened(event, name, after.get("version", before.get("version")), rest, None, entry)
        case _:
            return Happened(event, name, int(rest), after.get("alias"), None, entry)


def _moved(after: State) -> Event:
    """What an engine's move came to: entries have the fields that differ."""
    return _STATES[after["state"]] if "state" in after else "rollout_stepped"


def _changed(after: State) -> Event:
    if "archived_at" not in after:
        return "changed"
    return "restored" if after["archived_at"] is None else "archived"
