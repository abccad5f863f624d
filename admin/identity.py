"""Who shows a credential on the admin plane: the admin key, an admin token, or a person's login."""

import asyncio
import hashlib
import hmac
from typing import TYPE_CHECKING, final

from sqlalchemy import Connection, Engine

from admin import rbac, token_store
from admin.audit import ADMIN_KEY
from admin.rbac import Principal
from admin.roles import ROLES
from gateway import org_store
from gateway.database import reading
from gateway.errors import AccessDenied, BadRequest, Unauthenticated

if TYPE_CHECKING:  # logins of people are loaded for those who have them
    from admin.oidc import Login, Oidc


@final
class Identities:
    """`admin_key_digest` is the SHA-256 of the admin key; without `oidc` people have no logins."""

    def __init__(self, engine: Engine, admin_key_digest: bytes, oidc: "Oidc | None" = None) -> None:
        self._engine = engine
        self._admin_key_digest = admin_key_digest
        self._oidc = oidc

    async def identify(self, shown: bytes) -> Principal:
        """Raises Unauthenticated, AccessDenied, Overloaded; SQLAlchemyError where a database is needed and away."""
        if hmac.compare_digest(hashlib.sha256(shown).digest(), self._admin_key_digest):
            return Principal(ADMIN_KEY, "platform_admin")
        if shown.startswith(token_store.PREFIX.encode()):
            found = await asyncio.to_thread(self._read_token, shown)
            if found is None:
                raise Unauthenticated("This admin token is unknown, revoked or expired.")
            return found
        if self._oidc is not None and shown.count(b".") == 2:
            login = await self._oidc.login(shown.decode("latin-1"))
            return await asyncio.to_thread(self._person, login)
        raise Unauthenticated("This is not the admin key.")

    def _read_token(self, shown: bytes) -> Principal | None:
        with reading(self._engine) as tx:
            return token_store.holder(tx, shown)

    def _person(self, login: "Login") -> Principal:
        """As the provider says, else as the table of users says. A user who is blocked there may nothing."""
        with reading(self._engine) as tx:
            return person(tx, login)


def person(tx: Connection, login: "Login") -> Principal:
    """Raises AccessDenied."""
    user = None if login.email is None else org_store.user_by_email(tx, login.email)
    if user is not None and user.blocked:
        raise AccessDenied("You are blocked: ask an admin.", code="permission_denied")
    actor = f"user {login.email or login.subject}"[:200]
    if login.role is not None:
        try:
            return rbac.principal(actor, login.role, login.org_id, login.team_id)
        except BadRequest as error:
            raise AccessDenied(f"Your login is not complete: {error.message}", code="permission_denied") from None
    role = None if user is None else next((role for role in ROLES if role == user.role), None)
    if user is None or role is None:
        raise AccessDenied("You have no role here: ask an admin.", code="permission_denied")
    return rbac.principal(actor, role, user.org_id, user.team_id)
