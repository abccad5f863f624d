"""The table of guards. Every function takes the transaction it works in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, select

from gateway.guards.policy import BROKEN, Guard, Where
from gateway.guards.sealing import sealed
from gateway.guards.settings import GuardSpec
from gateway.named_specs import NamedSpecs, SpecRecord
from gateway.tables import guards as table
from gateway.tables import teams

GUARDS: Final = NamedSpecs(table, "guard", "guard_not_found", GuardSpec, sealed)
USUAL_ORDER: Final = 100
_COMMON: Final = frozenset({
    "name", "kind", "order", "stage", "action", "on_error", "timeout_s", "dry_run", "enabled", "default", "keys", "teams", "models",
})  # fmt: skip


def every(tx: Connection) -> list[SpecRecord]:
    """All that there are, in their order: by `order`, and by name where that is equal."""
    return sorted(GUARDS.every(tx), key=lambda record: (record.spec.get("order", USUAL_ORDER), record.name))


def team_ids(tx: Connection, records: Sequence[SpecRecord]) -> Mapping[str, str]:
    """Ids of the teams that guards name, by name."""
    named = {team for record in records for team in record.spec.get("teams", ())}
    if not named:
        return {}
    return {row.name: row.id for row in tx.execute(select(teams.c.id, teams.c.name).where(teams.c.name.in_(named)))}


def compiled(record: SpecRecord, clear: Callable[[str], str], ids: Mapping[str, str]) -> Guard | None:
    """What the data plane works with; None for one that is switched off. Raises ValidationError, and what `clear` raises."""
    spec = GuardSpec.model_validate(record.spec)
    if not spec.enabled:
        return None
    options = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(_COMMON))
    options["window"] = spec.window
    if spec.secret is not None:
        options["secret"] = clear(spec.secret)
    if spec.headers:
        options["headers"] = {name.lower(): clear(value) for name, value in spec.headers.items()}
    return Guard(
        spec.name,
        spec.kind,
        spec.stage,
        spec.action,
        spec.on_error,
        spec.timeout_s,
        spec.dry_run,
        _where(spec.default, spec.keys, spec.teams, spec.models, ids),
        options,
    )


def broken(record: SpecRecord, ids: Mapping[str, str]) -> Guard:
    """In place of one that cannot be compiled: it fails wherever it is asked, so that `on_error` decides."""
    spec = record.spec
    where = _where(spec.get("default", False), spec.get("keys", ()), spec.get("teams", ()), spec.get("models", ()), ids)
    stages = tuple(spec.get("stage", ("before",)))
    on_error = spec.get("on_error", "fail_closed")
    return Guard(
        record.name, spec["kind"], stages, "block", on_error, 1.0, spec.get("dry_run", False), where, {BROKEN: True}
    )


def _where(
    everywhere: bool,
    keys: Iterable[str],
    teams_: Iterable[str],
    models: Iterable[str],
    ids: Mapping[str, str],
) -> Where:
    return Where(everywhere, frozenset(keys), frozenset(ids.get(team, team) for team in teams_), frozenset(models))
