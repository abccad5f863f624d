"""What a snapshot carries for the inference plane: classic models that can be served, rollouts that choose between their versions, and
monitors.

All are read in the snapshot's own transaction, so that the request after an acknowledged swap is never split by a rollout that is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sqlalchemy import Connection

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


EMPTY: Final = Beside()


def of(snapshots: object) -> Beside:
    """What a snapshot has beside the gateway's own."""
    return snapshots if isinstance(snapshots, Beside) else EMPTY


def load(tx: Connection, artefacts: Artefacts, known: object) -> Beside:
    """As of the transaction's moment; `known` is what was loaded last."""
    before = of(known)
    models = catalogue.load(tx, artefacts, before.catalogue)
    rollouts = _active(tx)
    watching = monitors.every(tx)
    if models is before.catalogue and rollouts == before.rollouts and watching == before.monitors:
        return before
    return Beside(models, rollouts, watching)


def _active(tx: Connection) -> "Sequence[Rollout]":
    if not retention.any_active(tx):
        return ()
    from inference.rollouts import store  # noqa: PLC0415 — the engine's modules, for whom one runs

    return tuple(store.active(tx, "model"))
