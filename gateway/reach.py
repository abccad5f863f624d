"""How far somebody who administers sees: everything, one organisation, or one team of it."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, FromClause, true


class Reach(msgspec.Struct, frozen=True):
    """Without `org_id` everything; with `team_id` only what belongs to that team."""

    org_id: str | None = None
    team_id: str | None = None

    def covers(self, org_id: str | None, team_id: str | None = None) -> bool:
        """Whether something of an organisation and a team is in sight."""
        return (self.org_id is None or self.org_id == org_id) and (self.team_id is None or self.team_id == team_id)

    def rows(self, table: FromClause, org: str = "org_id", team: str = "team_id") -> ColumnElement[bool]:
        """The same for rows of a table; `org` and `team` name its columns."""
        found: ColumnElement[Any] = true()
        if self.org_id is not None:
            found = table.c[org] == self.org_id
        if self.team_id is not None:
            found = found & (table.c[team] == self.team_id)
        return found


EVERYTHING = Reach()
