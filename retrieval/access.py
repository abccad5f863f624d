"""Who may read what: the one place that decides it, for tables and for indexes alike.

A collection is for the key that made it and for keys of the same team. Within it a document may have labels: then only a caller who
holds one of them may read it, list it or find it. In a collection that is `labelled`, a document without labels is for nobody but
those who hold `*`. Labels are kept apart from attributes, so that no client's metadata can say who it is.

Where a collection declares tenancy, each of its documents is a tenant's (`retrieval.tenancy`), and a caller of one tenant reads no other's.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, exists, or_, select

from retrieval.errors import Forbidden
from retrieval.tables import collections, document_labels, documents

EVERY: Final = "*"


class Account(msgspec.Struct, frozen=True):
    """How calls are booked that are made for somebody: with tags, trace and id of the request that they are part of.

    `granted`: an admin lets whoever asks use the model, whatever its key names.
    """

    tags: tuple[str, ...] = ()
    trace: str | None = None
    granted: bool = False
    whole: str | None = None


PLAIN: Final = Account()


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `labels` are what it holds; what it is called itself, `key:…`, `team:…`, `org:…`, it always holds.

    `granted`: collections that an admin lets it search, whoever's they are. Their documents' labels hold for it all the same.
    `tenant`: in collections that declare tenancy only this one's documents are there for it; None: it has to say which it means.
    """

    key_id: str
    team_id: str | None = None
    org_id: str | None = None
    labels: frozenset[str] = frozenset()
    granted: frozenset[str] = frozenset()
    account: Account = PLAIN
    tenant: str | None = None

    @property
    def holds(self) -> frozenset[str]:
        named = (("key", self.key_id), ("team", self.team_id), ("org", self.org_id))
        return self.labels.union(f"{kind}:{name}" for kind, name in named if name is not None)

    @property
    def unbound(self) -> bool:
        return EVERY in self.labels

    def owns(self) -> dict[str, Any]:
        """The columns that say whose a row is."""
        return {"key_id": self.key_id, "team_id": self.team_id, "org_id": self.org_id}


def may_read(caller: Caller, labels: Iterable[str], tenant: str | None = None, *, labelled: bool) -> bool:
    """Whether a document of a tenant, with these labels, is for the caller. Pure; others say the same of tables and of indexes."""
    if caller.tenant is not None and tenant not in (None, caller.tenant):
        return False
    if caller.unbound:
        return True
    found = frozenset(labels)
    return not found.isdisjoint(caller.holds) if found else not labelled


def sees(caller: Caller, id_: str, key_id: str, team_id: str | None) -> bool:
    """Whether a collection of that key and team is there for the caller. Pure; the next says the same of the table."""
    return (
        id_ in caller.granted or key_id == caller.key_id or (caller.team_id is not None and team_id == caller.team_id)
    )


def visible(caller: Caller) -> ColumnElement[bool]:
    """The collections that are there for the caller."""
    own: ColumnElement[bool] = collections.c.key_id == caller.key_id
    if caller.team_id is not None:
        own = or_(own, collections.c.team_id == caller.team_id)
    if caller.granted:
        own = or_(own, collections.c.id.in_(sorted(caller.granted)))
    return own & collections.c.deleted.is_(False)


def readable(caller: Caller, *, labelled: bool) -> ColumnElement[bool] | None:
    """The documents of a collection that the caller may read; None for all of them."""
    within = None
    if caller.tenant is not None:
        within = or_(documents.c.tenant.is_(None), documents.c.tenant == caller.tenant)
    if caller.unbound:
        return within
    of_it = select(document_labels.c.label).where(document_labels.c.document_id == documents.c.id)
    held = exists(of_it.where(document_labels.c.label.in_(sorted(caller.holds))))
    opened: ColumnElement[bool] = held if labelled else or_(held, ~exists(of_it))
    return opened if within is None else within & opened


def require_held(caller: Caller, labels: Iterable[str]) -> None:
    """Nobody gives a document away to others and loses sight of it. Raises Forbidden."""
    if caller.unbound:
        return
    foreign = sorted(set(labels) - caller.holds)
    if foreign:
        raise Forbidden(
            f"This key does not hold the access label '{foreign[0]}': an admin adds it to `access_labels` in the key's metadata",
            param="access_labels",
        )
