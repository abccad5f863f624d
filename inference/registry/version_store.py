"""SQL of models and versions. Every function takes the transaction that it works in, and the revision that a change belongs to."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, literal, or_, select, update

from inference.errors import Conflict, ModelNotFound, NotFound
from inference.registry.records import Gate, Model, NewVersion, Source, Version
from inference.rollouts.tables import rollouts
from inference.signature import Signature
from inference.tables import classic_aliases as aliases
from inference.tables import classic_approvals as approvals
from inference.tables import classic_models as models
from inference.tables import classic_versions as versions
from inference.tables import predictions, scoring_jobs

_SHOWN: Final = [column for column in versions.c if column.name != "profile"]


def find_model(tx: Connection, name: str) -> Model:
    """Raises ModelNotFound."""
    row = tx.execute(select(models).where(models.c.name == name)).one_or_none()
    if row is None:
        raise ModelNotFound(f"There is no classic model {name!r}.", param="name")
    return _model(row)


def list_models(tx: Connection, limit: int, after: str | None = None) -> Sequence[Model]:
    """By name, one more than `limit` where there are more."""
    query = select(models).order_by(models.c.name).limit(limit + 1)
    return [_model(row) for row in tx.execute(query if after is None else query.where(models.c.name > after))]


def ensure_model(tx: Connection, name: str, revision: int) -> None:
    """A model is there from its first version on."""
    now = time.time()
    if tx.execute(update(models).where(models.c.name == name).values(revision=revision, updated_at=now)).rowcount == 0:
        values = {"name": name, "tags": {}, "gates": {}, "newest": 0, "revision": revision}
        tx.execute(insert(models).values(**values, created_at=now, updated_at=now))


def create_model(tx: Connection, name: str, revision: int) -> None:
    """One without a version, so that its gates stand before anything can be served. Raises Conflict."""
    if tx.execute(select(models.c.name).where(models.c.name == name)).first() is not None:
        raise Conflict(f"There is a classic model {name!r} already.", param="name")
    ensure_model(tx, name, revision)


def change_model(
    tx: Connection,
    name: str,
    revision: int,
    *,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    gates: Mapping[str, Gate] | None = None,
) -> Model:
    """What is None stays. Raises ModelNotFound."""
    find_model(tx, name)
    values: dict[str, Any] = {"revision": revision, "updated_at": time.time()}
    values |= {} if description is None else {"description": description or None}
    values |= {} if tags is None else {"tags": dict(tags)}
    values |= {} if gates is None else {"gates": msgspec.to_builtins(gates)}
    tx.execute(update(models).where(models.c.name == name).values(**values))
    return find_model(tx, name)


def rename_model(tx: Connection, name: str, new: str, revision: int) -> None:
    """With its versions, aliases, approvals and captured predictions. Raises ModelNotFound, and Conflict where the name is taken, or
    while a rollout or a scoring job counts on it."""
    find_model(tx, name)
    if tx.execute(select(models.c.name).where(models.c.name == new)).first() is not None:
        raise Conflict(f"There is a classic model {new!r} already.", param="name")
    refuse_while_rolled_out(tx, name, None)
    scored = select(scoring_jobs.c.id).where(scoring_jobs.c.model == name, scoring_jobs.c.ended_at.is_(None)).limit(1)
    if (job := tx.execute(scored).scalar_one_or_none()) is not None:
        raise Conflict(f"The scoring job {job!r} works with {name!r}: wait for it, or cancel it.", code="model_in_use")
    kept = tx.execute(select(models).where(models.c.name == name)).one()._asdict()
    tx.execute(insert(models).values({**kept, "name": new, "revision": revision, "updated_at": time.time()}))
    copied = [literal(new) if column.name == "model" else column for column in versions.c]
    tx.execute(
        insert(versions).from_select(
            [column.name for column in versions.c], select(*copied).where(versions.c.model == name)
        )
    )
    for table in (aliases, approvals, predictions):
        tx.execute(update(table).where(table.c.model == name).values(model=new))
    tx.execute(delete(models).where(models.c.name == name))


def remove_model(tx: Connection, name: str) -> None:
    """With all its versions. Raises ModelNotFound, and Conflict while an alias leads to one."""
    find_model(tx, name)
    _refuse_while_named(tx, name, None)
    tx.execute(delete(models).where(models.c.name == name))


def add_version(tx: Connection, model: str, new: NewVersion, actor: str, revision: int) -> Version:
    """Under the model's next number."""
    ensure_model(tx, model, revision)
    number = find_model(tx, model).newest + 1
    tx.execute(update(models).where(models.c.name == model).values(newest=number))
    values = {field: getattr(new, field) for field in NewVersion.__struct_fields__}
    values |= {"source": msgspec.to_builtins(new.source), "source_digest": new.source.digest}
    values |= {"signature": msgspec.to_builtins(new.signature), "tags": dict(new.tags)}
    tx.execute(insert(versions).values(model=model, version=number, **values, created_by=actor, created_at=time.time()))
    return find_version(tx, model, number)


def find_version(tx: Connection, model: str, number: int) -> Version:
    """Raises ModelNotFound, NotFound."""
    row = tx.execute(_some().where(_is(model, number))).one_or_none()
    if row is None:
        find_model(tx, model)
        raise NotFound(f"The model {model!r} has no version {number}.", param="version", code="version_not_found")
    return _version(row)


def list_versions(tx: Connection, model: str, limit: int, after: int | None = None) -> Sequence[Version]:
    """Newest first, one more than `limit` where there are more. Raises ModelNotFound."""
    find_model(tx, model)
    query = _some().where(versions.c.model == model).order_by(versions.c.version.desc()).limit(limit + 1)
    return [_version(row) for row in tx.execute(query if after is None else query.where(versions.c.version < after))]


def profile(tx: Connection, model: str, number: int) -> Mapping[str, Any] | None:
    """What the columns of its training data looked like. Raises ModelNotFound, NotFound."""
    found: Mapping[str, Any] | None = tx.execute(
        select(versions.c.profile).where(_is(model, number))
    ).scalar_one_or_none()
    if found is None:
        find_version(tx, model, number)
    return found


def change_version(
    tx: Connection,
    model: str,
    number: int,
    revision: int,
    *,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Version:
    """Only its words change. Raises ModelNotFound, NotFound."""
    find_version(tx, model, number)
    values: dict[str, Any] = {} if description is None else {"description": description or None}
    values |= {} if tags is None else {"tags": dict(tags)}
    if values:
        tx.execute(update(versions).where(_is(model, number)).values(**values))
    ensure_model(tx, model, revision)
    return find_version(tx, model, number)


def archive(tx: Connection, model: str, number: int, revision: int, *, archived: bool) -> Version:
    """It stays, and is not served. Raises ModelNotFound, NotFound, and Conflict while an alias leads to it."""
    find_version(tx, model, number)
    if archived:
        _refuse_while_named(tx, model, number)
    at = func.coalesce(versions.c.archived_at, time.time()) if archived else None
    tx.execute(update(versions).where(_is(model, number)).values(archived_at=at))
    ensure_model(tx, model, revision)
    return find_version(tx, model, number)


def remove_version(tx: Connection, model: str, number: int, revision: int) -> None:
    """Its number is not given again. Raises ModelNotFound, NotFound, and Conflict while an alias leads to it."""
    find_version(tx, model, number)
    _refuse_while_named(tx, model, number)
    tx.execute(delete(versions).where(_is(model, number)))
    ensure_model(tx, model, revision)


def revisions(tx: Connection) -> Mapping[str, int]:
    """Of each model, when what can be served of it changed last."""
    return {row.name: row.revision for row in tx.execute(select(models.c.name, models.c.revision))}


def every_version(tx: Connection, model: str) -> Sequence[Version]:
    """Oldest first."""
    return [_version(row) for row in tx.execute(_some().where(versions.c.model == model).order_by(versions.c.version))]


def known_digests(tx: Connection, digests: Sequence[str]) -> frozenset[str]:
    """Which of these files some version needs."""
    wanted = or_(versions.c.digest.in_(digests), versions.c.source_digest.in_(digests))
    rows = tx.execute(select(versions.c.digest, versions.c.source_digest).where(wanted))
    return frozenset(digest for row in rows for digest in row).intersection(digests)


def refuse_while_rolled_out(tx: Connection, model: str, number: int | None) -> None:
    """Raises Conflict: what a rollout under way counts on is not taken from under it, and it would undo a move of its alias at its end."""
    mine = rollouts.c.active == f"model/{model}"
    row = tx.execute(select(rollouts.c.id, rollouts.c.plan).where(mine)).one_or_none()
    if row is not None and number in {None, row.plan["champion"], row.plan["challenger"]}:
        raise Conflict(
            f"The rollout {row.id} of {model!r} is under way: POST /admin/v1/rollouts/{row.id}/rollback or /promote ends it.",
            code="rollout_active",
        )


def _refuse_while_named(tx: Connection, model: str, number: int | None) -> None:
    refuse_while_rolled_out(tx, model, number)
    query = select(aliases.c.alias, aliases.c.version).where(aliases.c.model == model).order_by(aliases.c.alias)
    row = tx.execute(query if number is None else query.where(aliases.c.version == number)).first()
    if row is not None:
        raise Conflict(
            f"The alias {row.alias!r} leads to version {row.version} of {model!r}: move or delete it first.",
            param="version",
            code="version_in_use",
        )


def _some() -> Any:
    return select(*_SHOWN, versions.c.profile.is_not(None).label("profiled"))


def _is(model: str, number: int) -> ColumnElement[bool]:
    return (versions.c.model == model) & (versions.c.version == number)


def _model(row: Row[Any]) -> Model:
    values = dict(row._mapping)  # noqa: SLF001 — SQLAlchemy's public name for it
    return Model(**{**values, "gates": msgspec.convert(values["gates"], dict[str, Gate])})


def _version(row: Row[Any]) -> Version:
    values = dict(row._mapping)  # noqa: SLF001 — as above
    del values["source_digest"]
    return Version(
        **{
            **values,
            "source": msgspec.convert(values["source"], Source),
            "signature": msgspec.convert(values["signature"], Signature),
        },
        profile=None,
    )
