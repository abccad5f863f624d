"""Feature views of the configuration file: declared there, kept here, and never narrowed, whatever the file says."""

import hashlib

import msgspec
import structlog
from sqlalchemy import Connection

from admin.rest.feature_bodies import FeatureViewBody, FeatureViewChangeBody
from admin.rest.features import changed
from admin.settings import Loaded
from gateway.database import record_revision
from gateway.seeding import SeedReport
from inference.errors import BadRequest
from inference.features import view_store

log = structlog.stdlib.get_logger(__name__)


def seed_views(tx: Connection, loaded: Loaded) -> SeedReport:
    """In `gateway.database.changing`. What was edited or deleted over REST stays so, and a view that vanished from the file stays with
    its rows."""
    added: list[str] = []
    updated: list[str] = []
    kept: list[str] = []
    for at, given in enumerate(loaded.settings.features.views):
        body, origin = FeatureViewBody.model_validate(given), f"file {loaded.origin('features', 'views', at)}"
        written = hashlib.sha256(msgspec.json.encode(given, order="sorted")).hexdigest()
        known, label = view_store.declared(tx, body.name), f"feature view {body.name}"
        if known is None:
            view_store.add(tx, body.view(record_revision(tx, f"{label} seeded"), origin))
            added.append(label)
        elif known.edited or known.origin is None:
            kept.append(label)
            continue
        elif known.seed_hash != written:
            try:
                _update(tx, body)
            except BadRequest as error:
                log.error("seed.refused", object=label, reason=error.message)  # noqa: TRY400 — the reason says it all
                continue
            updated.append(label)
        view_store.declare(tx, body.name, origin, written)
    return SeedReport(tuple(added), tuple(updated), tuple(kept))


def _update(tx: Connection, body: FeatureViewBody) -> None:
    """Raises BadRequest for what would make it narrower, or another one."""
    before = view_store.find(tx, body.name)
    after = body.view(0, "")
    if after.entities != before.entities:
        raise BadRequest(
            "entities: they stay what they are, as rows are kept by them; give a new view a new name", param="entities"
        )
    gone = [each.name for each in before.features if after.feature(each.name) is None]
    if gone:
        raise BadRequest(
            f"features: '{gone[0]}' cannot be taken away, since models were trained on it", param="features"
        )
    given = {name: getattr(body, name) for name in FeatureViewChangeBody.model_fields}
    changes = changed(before, FeatureViewChangeBody.model_validate(given))
    view_store.change(tx, body.name, record_revision(tx, f"feature view {body.name} seeded"), changes)
