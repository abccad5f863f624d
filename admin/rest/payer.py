"""On whose account work of a collection is done that an admin asks for."""

from sqlalchemy import Connection

from admin.rbac import Principal
from gateway import key_store
from gateway.authentication import ADMIN
from gateway.errors import BadRequest, NotFound
from retrieval.collection_store import Collection


def payer_of(tx: Connection, asker: Principal, collection: Collection, key_id: str | None) -> str:
    """A key that the asker administers; without one, whose the collection is. Raises BadRequest."""
    wanted = key_id or collection.key_id
    if wanted == ADMIN.id:
        if asker.role == "platform_admin":
            return wanted
        raise BadRequest("key_id: name a key of yours that pays for it.", param="key_id")
    try:
        key = key_store.get(tx, wanted, asker.reach)
    except NotFound:
        raise BadRequest(
            f"key_id: there is no key {wanted!r} to pay for it: name one of yours.", param="key_id"
        ) from None
    if key.revoked_at is not None:
        raise BadRequest(f"key_id: {wanted} is revoked: name another one to pay for it.", param="key_id")
    return wanted
