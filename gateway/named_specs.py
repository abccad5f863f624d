"""Tables of objects that are known by a name and described by a spec: guards, servers of tools.

The file seeds them (`gateway.seeding`), REST changes them, and from then on the database is the truth. Every method takes the transaction
it works in.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from gateway.database import record_revision
from gateway.errors import Conflict, NotFound
from gateway.paging import Page, page
from gateway.secret_box import SecretBox
from gateway.settings import Section

Spec = Mapping[str, Any]
S = TypeVar("S", bound=Section)
REST: Final = "rest"


class SpecRecord(msgspec.Struct, frozen=True):
    """`spec` is a spec's JSON with sealed values or references, never a secret in clear."""

    name: str
    spec: Spec
    origin: str
    edited: bool
    created_at: float
    updated_at: float


class NamedSpecs(msgspec.Struct, Generic[S], frozen=True):
    """One such table. `what` is what one of them is called, `kind` its model, whose field `name` it has; `sealed` closes what is secret."""

    table: Table
    what: str
    code: str  # of an error, for one that is not there
    kind: type[S]
    sealed: Callable[[Spec, SecretBox], dict[str, Any]]

    def create(self, tx: Connection, spec: S, box: SecretBox) -> SpecRecord:
        """In the place of a deleted one of that name. Raises Conflict when the name is taken."""
        table, name = self.table, str(getattr(spec, "name"))  # noqa: B009 — every kind has one, and Section does not know
        if tx.execute(select(table.c.name).where(self.alive(name))).one_or_none() is not None:
            raise Conflict(f"{self._called} {name!r} exists already: change it with PATCH, or delete it.", param="name")
        now = time.time()
        values = {"spec": self.json(spec, box), "origin": REST, "edited": True, "deleted_at": None}
        values |= {"created_at": now, "updated_at": now}
        if tx.execute(update(table).where(table.c.name == name).values(**values)).rowcount == 0:
            tx.execute(insert(table).values(name=name, **values))
        record_revision(tx, f"{self._called} {name} created")
        return self.get(tx, name)

    def get(self, tx: Connection, name: str) -> SpecRecord:
        """Raises NotFound."""
        row = tx.execute(select(self.table).where(self.alive(name))).one_or_none()
        if row is None:
            raise NotFound(f"There is no {self.what} {name!r}.", param="name", code=self.code)
        return _record(row)

    def listed(self, tx: Connection, limit: int, after: str | None = None) -> Page[SpecRecord]:
        """By name."""
        names = self.table.c.name
        query = select(self.table).where(self.table.c.deleted_at.is_(None)).order_by(names).limit(limit + 1)
        found = [_record(row) for row in tx.execute(query if after is None else query.where(names > after))]
        return page(found, limit, [one.name for one in found])

    def change(self, tx: Connection, name: str, changes: Spec, box: SecretBox) -> SpecRecord:
        """Merges JSON of the spec's fields, secrets in clear; None puts a default back. Raises NotFound, ValidationError."""
        merged = {**self.get(tx, name).spec, **self.sealed(changes, box)}
        merged = {key: value for key, value in merged.items() if value is not None}
        self.kind.model_validate(merged)
        values = {"spec": merged, "edited": True, "updated_at": time.time()}
        tx.execute(update(self.table).where(self.alive(name)).values(**values))
        record_revision(tx, f"{self._called} {name} changed")
        return self.get(tx, name)

    def remove(self, tx: Connection, name: str) -> None:
        """A seeded one leaves a mark, or the next start would bring it back. Raises NotFound."""
        self.get(tx, name)
        table, now = self.table, time.time()
        seeded = update(table).where(table.c.name == name, table.c.origin != REST)
        tx.execute(seeded.values(deleted_at=now, updated_at=now, edited=True))
        tx.execute(delete(table).where(table.c.name == name, table.c.origin == REST))
        record_revision(tx, f"{self._called} {name} deleted")

    def every(self, tx: Connection) -> list[SpecRecord]:
        """All that there are, by name."""
        rows = tx.execute(select(self.table).where(self.table.c.deleted_at.is_(None)).order_by(self.table.c.name))
        return [_record(row) for row in rows]

    def json(self, spec: S, box: SecretBox) -> dict[str, Any]:
        return self.sealed(spec.model_dump(mode="json", exclude_defaults=True), box)

    def alive(self, name: str) -> Any:
        """The row of that name, unless it is deleted."""
        return (self.table.c.name == name) & self.table.c.deleted_at.is_(None)

    @property
    def _called(self) -> str:
        """Within a sentence, and in the audit log."""
        return self.what.lower()


def _record(row: Row[Any]) -> SpecRecord:
    return SpecRecord(row.name, row.spec, row.origin, row.edited, row.created_at, row.updated_at)
