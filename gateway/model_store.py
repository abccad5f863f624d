"""The tables of models and deployments. Every function takes the transaction it works in.

What is kept of an object is its specification as `penstock.yaml` would have it, secrets sealed. The file seeds these
tables (`gateway.seeding`) and REST changes them; from then on the database is the truth.
"""

import time
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from gateway.database import record_revision
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.named_specs import REST, Spec, SpecRecord
from gateway.paging import Page, page
from gateway.routers.store import refuse_astray, refuse_needed
from gateway.secret_box import SecretBox, is_reference
from gateway.settings import DeploymentSpec, ModelSpec
from gateway.tables import deployments, models

_POSITION: Final = "position"


class DeploymentRecord(msgspec.Struct, frozen=True):
    """`spec` holds sealed values or references, never a secret in clear. `position`: where it stands in its model's list, from 0."""

    id: str
    model: str
    spec: Spec
    origin: str
    edited: bool
    created_at: float
    updated_at: float
    position: int = 0


def create_model(tx: Connection, spec: ModelSpec, box: SecretBox) -> SpecRecord:
    """The model with the deployments that its specification names. Raises Conflict when a name is taken, BadRequest for a router astray."""
    _refuse_taken(tx, models, spec.name, "name")
    refuse_astray(tx, spec.model_dump(mode="json", exclude_defaults=True))
    _replace(tx, models, spec.name, spec=model_json(spec))
    record_revision(tx, f"model {spec.name} created")
    for deployment in spec.deployments:
        create_deployment(tx, spec.name, deployment, box)
    return get_model(tx, spec.name)


def get_model(tx: Connection, name: str) -> SpecRecord:
    """Raises NotFound."""
    row = tx.execute(select(models).where(models.c.name == name, models.c.deleted_at.is_(None))).one_or_none()
    if row is None:
        raise NotFound(f"There is no model {name!r}.", param="name")
    return _model(row)


def list_models(tx: Connection, limit: int, after: str | None = None) -> Page[SpecRecord]:
    """By name."""
    query = select(models).where(models.c.deleted_at.is_(None)).order_by(models.c.name).limit(limit + 1)
    if after is not None:
        query = query.where(models.c.name > after)
    found = [_model(row) for row in tx.execute(query)]
    return page(found, limit, [model.name for model in found])


def change_model(tx: Connection, name: str, changes: Spec) -> SpecRecord:
    """Merges JSON of ModelSpec's fields; None puts a default back. Raises NotFound, BadRequest for routers that lead nowhere."""
    spec = ModelSpec.model_validate(_merged(get_model(tx, name).spec, changes))
    below = [deployment.spec for deployment in deployments_of(tx, [name])]
    refuse_astray(tx, model_json(spec) | {"deployments": below})
    _edit(tx, models, name, model_json(spec))
    record_revision(tx, f"model {name} changed")
    return get_model(tx, name)


def delete_model(tx: Connection, name: str) -> None:
    """With its deployments. Raises NotFound, Conflict where a router leads to it."""
    refuse_needed(tx, get_model(tx, name).spec)
    for deployment in deployments_of(tx, [name]):
        _delete(tx, deployments, deployment.id)
    _delete(tx, models, name)
    record_revision(tx, f"model {name} deleted")


def create_deployment(tx: Connection, model: str, spec: DeploymentSpec, box: SecretBox) -> DeploymentRecord:
    """The last of its model's list. Raises NotFound for the model, Conflict when the id is taken."""
    if get_model(tx, model).spec.get("router"):
        raise BadRequest(f"{model!r} is a router: models that it leads to have deployments.", param="model")
    _refuse_taken(tx, deployments, spec.id, "id")
    position = max((other.position + 1 for other in deployments_of(tx, [model])), default=0)
    _replace(tx, deployments, spec.id, spec=placed(deployment_json(spec, box), position), model=model)
    record_revision(tx, f"deployment {spec.id} created")
    return get_deployment(tx, spec.id)


def get_deployment(tx: Connection, id_: str) -> DeploymentRecord:
    """Raises NotFound."""
    query = select(deployments).where(deployments.c.id == id_, deployments.c.deleted_at.is_(None))
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"There is no deployment {id_!r}.", param="id", code="deployment_not_found")
    return _deployment(row)


def list_deployments(
    tx: Connection, limit: int, after: str | None = None, model: str | None = None
) -> Page[DeploymentRecord]:
    """By id."""
    query = select(deployments).where(deployments.c.deleted_at.is_(None)).order_by(deployments.c.id).limit(limit + 1)
    if after is not None:
        query = query.where(deployments.c.id > after)
    if model is not None:
        query = query.where(deployments.c.model == model)
    found = [_deployment(row) for row in tx.execute(query)]
    return page(found, limit, [deployment.id for deployment in found])


def change_deployment(tx: Connection, id_: str, changes: Spec, box: SecretBox) -> DeploymentRecord:
    """Merges JSON of DeploymentSpec's fields, secrets in clear; None puts a default back. Raises NotFound."""
    known = get_deployment(tx, id_)
    merged = _merged(known.spec, _sealed(changes, box))
    DeploymentSpec.model_validate(_without_secrets(merged))
    _edit(tx, deployments, id_, placed(merged, known.position))
    record_revision(tx, f"deployment {id_} changed")
    return get_deployment(tx, id_)


def delete_deployment(tx: Connection, id_: str) -> None:
    """Raises NotFound."""
    get_deployment(tx, id_)
    _delete(tx, deployments, id_)
    record_revision(tx, f"deployment {id_} deleted")


def deployments_of(tx: Connection, names: list[str]) -> list[DeploymentRecord]:
    """The deployments of some models, each model's as they are listed."""
    query = select(deployments).where(deployments.c.model.in_(names), deployments.c.deleted_at.is_(None))
    return sorted((_deployment(row) for row in tx.execute(query)), key=_listed)


def every_model(tx: Connection) -> list[tuple[SpecRecord, list[DeploymentRecord]]]:
    """All that can be called, by name, with its deployments as they are listed."""
    below: dict[str, list[DeploymentRecord]] = {}
    alive = select(deployments).where(deployments.c.deleted_at.is_(None))
    for deployment in sorted((_deployment(row) for row in tx.execute(alive)), key=_listed):
        below.setdefault(deployment.model, []).append(deployment)
    rows = tx.execute(select(models).where(models.c.deleted_at.is_(None)).order_by(models.c.name))
    return [(_model(row), below.get(row.name, [])) for row in rows]


def model_json(spec: ModelSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_defaults=True, exclude={"deployments"})


def deployment_json(spec: DeploymentSpec, box: SecretBox) -> dict[str, Any]:
    return _sealed(spec.model_dump(mode="json", exclude_defaults=True), box)


def placed(stored: Spec, position: int) -> dict[str, Any]:
    """A stored specification with its place in its model's list, which is nobody's setting: what stands first has none."""
    return {**stored, _POSITION: position} if position else dict(stored)


def _sealed(spec: Spec, box: SecretBox) -> dict[str, Any]:
    """Secrets are the key and the values of headers, as one of those may be a key as well."""
    sealed = dict(spec)
    if spec.get("api_key") is not None:
        sealed["api_key"] = _seal(spec["api_key"], box)
    if spec.get("headers"):
        sealed["headers"] = {name: _seal(value, box) for name, value in spec["headers"].items()}
    return sealed


def _seal(value: str, box: SecretBox) -> str:
    return value if is_reference(value) else box.seal(value)


def _without_secrets(spec: Spec) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in {"api_key", "headers"}}


def _merged(spec: Spec, changes: Spec) -> dict[str, Any]:
    return {name: value for name, value in {**spec, **changes}.items() if value is not None}


def _refuse_taken(tx: Connection, table: Table, id_: str, param: str) -> None:
    key = table.primary_key.columns[0]
    if tx.execute(select(key).where(key == id_, table.c.deleted_at.is_(None))).one_or_none() is not None:
        raise Conflict(f"{table.name[:-1]} {id_!r} exists already: change it with PATCH, or delete it.", param=param)


def _replace(tx: Connection, table: Table, id_: str, **values: object) -> None:
    """Inserts an object made over REST, in the place of a deleted one of that name."""
    key, now = table.primary_key.columns[0], time.time()
    every: dict[str, object] = {
        "origin": REST,
        "edited": True,
        "deleted_at": None,
        "created_at": now,
        "updated_at": now,
    }
    every.update(values)
    if tx.execute(update(table).where(key == id_).values(**every)).rowcount == 0:
        tx.execute(insert(table).values(**{key.name: id_}, **every))


def _edit(tx: Connection, table: Table, id_: str, spec: Spec) -> None:
    key = table.primary_key.columns[0]
    tx.execute(update(table).where(key == id_).values(spec=spec, edited=True, updated_at=time.time()))


def _delete(tx: Connection, table: Table, id_: str) -> None:
    """A seeded object leaves a mark, or the next start would bring it back."""
    key, now = table.primary_key.columns[0], time.time()
    seeded = table.c.origin != REST
    tx.execute(update(table).where(key == id_, seeded).values(deleted_at=now, updated_at=now, edited=True))
    tx.execute(delete(table).where(key == id_, table.c.origin == REST))


def _model(row: Row[Any]) -> SpecRecord:
    return SpecRecord(row.name, row.spec, row.origin, row.edited, row.created_at, row.updated_at)


def _deployment(row: Row[Any]) -> DeploymentRecord:
    spec = dict(row.spec)
    position = spec.pop(_POSITION, 0)
    return DeploymentRecord(row.id, row.model, spec, row.origin, row.edited, row.created_at, row.updated_at, position)


def _listed(deployment: DeploymentRecord) -> tuple[int, str]:
    return deployment.position, deployment.id
