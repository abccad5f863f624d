"""Whose a file or batch is: a key sees what it made and what keys of its team made. To everybody else it is not there.

A key that an admin has bound to a tenant of a team's vector stores sees what it made alone, as others' files are other tenants'.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Table, or_

from gateway.keys import Key

TENANT: Final = "access_tenant"  # in a key's metadata


def visible(table: Table, key: Key) -> ColumnElement[bool]:
    """The rows that a key may see."""
    own: ColumnElement[bool] = table.c.key_id == key.id
    alone = key.team_id is None or key.metadata.get(TENANT) is not None
    return own if alone else or_(own, table.c.team_id == key.team_id)


def owned(key: Key) -> dict[str, Any]:
    """The columns that say whose a row is."""
    return {"key_id": key.id, "team_id": key.team_id, "org_id": key.org_id}


def purse(table: Table, key: Key) -> ColumnElement[bool]:
    """The rows that share one quota: a team's, or those of a key without a team."""
    if key.team_id is not None:
        return table.c.team_id == key.team_id
    return (table.c.key_id == key.id) & table.c.team_id.is_(None)
