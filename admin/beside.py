"""What a snapshot carries beside the gateway's own: classic models that can be served, rollouts that choose between versions, monitors and
retrievers.

All are read in the snapshot's own transaction, so that the request after an acknowledged swap is never split by a rollout that is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sqlalchemy import Connection

from gateway import version_store
from gateway.routing.versions import Family, RetrieverVersion
from inference.monitors import store as monitors
from inference.monitors.monitor import Monitor
from inference.registry import catalogue
from inference.registry.artefacts import Artefacts
from inference.registry.catalogue import Catalogue
from inference.rollouts import retention

if TYPE_CHECKING:  # for whom one runs
    from inference.rollouts.store import Rollout


@final
@dataclass(frozen=True, slots=True)
class Beside:
    catalogue: Catalogue = catalogue.EMPTY
    rollouts: "Sequence[Rollout]" = ()
    monitors: Sequence[Monitor] = ()
    retrievers: Mapping[str, Family[RetrieverVersion]] = field(default_factory=dict)


EMPTY: Final = Beside()


def of(snapshots: object) -> Beside:
    """What a snapshot has beside the gateway's own."""
    return snapshots if isinstance(snapshots, Beside) else EMPTY


def load(tx: Connection, artefacts: Artefacts, known: object) -> Beside:
    """As of the transaction's moment; `known` is what was loaded last."""
    before = of(known)
    models = catalogue.load(tx, artefacts, before.catalogue)
    made = Beside(models, _active(tx), monitors.every(tx), version_store.retrievers(tx))
    return before if models is before.catalogue and made == before else made


def _active(tx: Connection) -> "Sequence[Rollout]":
    if not retention.any_active(tx):
        return ()
    from inference.rollouts import store  # noqa: PLC0415 — the engine's modules, for whom one runs

    return tuple(one for one in store.active(tx) if one.plan.kind in {"model", "retriever"})
