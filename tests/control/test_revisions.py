"""Revisions: the numbers that put changes in order, of which a few are kept."""

from sqlalchemy import Engine, func, select

from gateway.database import REVISIONS_KEPT, changing, newest_revision, reading, record_revision
from gateway.tables import revisions


def test_revisions_are_kept_for_people_but_not_for_ever(engine: Engine) -> None:
    """Only the newest is ever read: of the others the last thousand stay."""
    with changing(engine) as tx:
        newest = [record_revision(tx, f"change {number}") for number in range(REVISIONS_KEPT + 50)][-1]
    with reading(engine) as tx:
        kept = tx.execute(select(func.min(revisions.c.revision), func.count()).select_from(revisions)).one()
        assert newest_revision(tx) == newest
    assert tuple(kept) == (newest - REVISIONS_KEPT + 1, REVISIONS_KEPT)
