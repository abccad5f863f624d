"""What the database refuses for the sake of routers: those that lead nowhere, and to take away where they lead.

Every function takes the transaction it works in, and specifications as they are stored.
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, select

from gateway.errors import BadRequest, Conflict
from gateway.routers.policy import Spec, complaints, led_to, names_of
from gateway.tables import models


def refuse_astray(tx: Connection, spec: Spec) -> None:
    """Raises BadRequest for what is wrong with a new or changed model as a router, or with its fallbacks because of one."""
    others = list(_others(tx, spec))
    for place, what in complaints(spec, [spec, *others]):
        raise BadRequest(f"{what[0].upper()}{what[1:]}.", param=".".join(map(str, place)), code="invalid_value")
    router = _who_needs(spec, others) if spec.get("router") else None
    if router is not None:
        raise BadRequest(
            f"The router {router!r} leads to {spec['name']!r}, which would be a router: a router leads to models that answer.",
            param="router",
            code="invalid_value",
        )


def refuse_needed(tx: Connection, spec: Spec) -> None:
    """Raises Conflict where a router leads to a model that is to be deleted."""
    router = _who_needs(spec, _others(tx, spec))
    if router is not None:
        raise Conflict(f"The router {router!r} leads to {spec['name']!r}: change that first.", code="model_in_use")


def _others(tx: Connection, spec: Spec) -> Iterator[Spec]:
    query = select(models.c.spec).where(models.c.deleted_at.is_(None), models.c.name != spec["name"])
    return (row.spec for row in tx.execute(query))


def _who_needs(spec: Spec, others: Iterable[Spec]) -> str | None:
    names = names_of(spec)
    for other in others:
        if other.get("router") and any(name in names for _, name in led_to(other["router"])):
            return str(other["name"])
    return None
