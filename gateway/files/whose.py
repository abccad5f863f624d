"""Whose a file or batch is: a key sees what it made and what keys of its team made. To everybody else it is not there."""

from typing import Any

from sqlalchemy import ColumnElement, Table, or_

from gateway.keys import Key


def visible(table: Table, key: Key) -> ColumnElement[bool]:
    """The rows that a key may see."""
    own: ColumnElement[bool] = table.c.key_id == key.id
    return own if key.team_id is None else or_(own, table.c.team_id == key.team_id)


def owned(key: Key) -> dict[str, Any]:
    """The columns that say whose a row is."""
    return {"key_id": key.id, "team_id": key.team_id, "org_id": key.org_id}


def purse(table: Table, key: Key) -> ColumnElement[bool]:
    """The rows that share one quota: a team's, or those of a key without a team."""
    if key.team_id is not None:
        return table.c.team_id == key.team_id
    return (table.c.key_id == key.id) & table.c.team_id.is_(None)
