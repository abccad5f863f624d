"""Classic models for the rollout engine: the alias `champion` as what moves, captured predictions as what labels are held against."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, final

from sqlalchemy import Connection, select

from gateway.database import record_revision
from inference.registry import alias_store, version_store
from inference.registry.names import CHAMPION
from inference.tables import classic_aliases as aliases
from inference.tables import classic_versions as versions
from inference.tables import predictions

ACTOR = "rollout"


@final
class ClassicModels:
    """`inference.rollouts.ports.Registry`."""

    def versions(self, tx: Connection, model: str) -> Sequence[int]:
        columns = versions.c
        mine = (columns.model == model) & columns.archived_at.is_(None)
        return tx.execute(select(columns.version).where(mine).order_by(columns.version)).scalars().all()

    def champion(self, tx: Connection, model: str) -> int | None:
        return self.named(tx, model, CHAMPION)

    def named(self, tx: Connection, model: str, alias: str) -> int | None:
        mine = (aliases.c.model == model) & (aliases.c.alias == alias)
        return tx.execute(select(aliases.c.version).where(mine)).scalar_one_or_none()

    def require(self, tx: Connection, model: str, version: int) -> None:
        alias_store.require_approvals(tx, model, CHAMPION, version)

    def inputs(self, tx: Connection, model: str, version: int) -> Collection[str]:
        return [column.name for column in version_store.find_version(tx, model, version).signature.inputs]

    def profile(self, tx: Connection, model: str, version: int) -> Mapping[str, Any] | None:
        return version_store.profile(tx, model, version)

    def crown(self, tx: Connection, model: str, version: int) -> None:
        revision = record_revision(tx, f"classic model {model} alias {CHAMPION} to version {version}")
        alias_store.move(tx, model, CHAMPION, version, ACTOR, revision, by_rollout=True)


@final
class CapturedAnswers:
    """`inference.rollouts.ports.Answers`."""

    def of(self, tx: Connection, ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        if not ids:
            return {}
        query = select(predictions.c.id, predictions.c.outputs).where(predictions.c.id.in_(ids))
        return {id_: _values(json.loads(outputs)) for id_, outputs in tx.execute(query) if outputs is not None}


def _values(outputs: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """The column of predictions; of a model that calls it otherwise, its first."""
    return outputs.get("predictions") or next(iter(outputs.values()), [])
