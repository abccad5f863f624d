"""Which thresholds of which budgets were told already, so that replicas and restarts do not tell them again."""

from sqlalchemy import Connection, delete

from gateway.database import inserting
from gateway.tables import budget_alerts


def claim(tx: Connection, account: str, threshold: float, at: float, until: float | None) -> bool:
    """True for one caller per account, threshold and window; `until` is that window's end, None for never. Inside `appending`."""
    adding = inserting(tx.dialect.name)(budget_alerts).values(account=account, threshold=threshold, at=at, until=until)
    taken = adding.on_conflict_do_update(
        index_elements=["account", "threshold"],
        set_={"at": adding.excluded.at, "until": adding.excluded.until},
        where=budget_alerts.c.until <= adding.excluded.at,
    )
    return tx.execute(taken.returning(budget_alerts.c.account)).first() is not None


def forget(tx: Connection, before: float) -> None:
    """Deletes those of windows that ended before then."""
    tx.execute(delete(budget_alerts).where(budget_alerts.c.until < before))
