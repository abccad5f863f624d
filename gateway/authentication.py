"""Who is calling: the key in the header, looked up by its hash in the snapshot. No await, no database."""

from collections.abc import Callable, Mapping
from typing import final

from gateway import errors
from gateway.keys import Key, digest
from gateway.snapshot import Snapshot

ADMIN = Key("admin", "admin")
MAX_KNOWN = 10_000


@final
class Authenticator:
    """`admin_digest` is that of the admin key, which may also use the data plane. `unix` is the clock in Unix seconds."""

    def __init__(self, admin_digest: bytes, unix: Callable[[], float]) -> None:
        self._admin_digest = admin_digest
        self._unix = unix
        self._known: dict[
            bytes, Key
        ] = {}  # by the bearer header's value, for one snapshot: a key is hashed once, not per request
        self._known_in: Snapshot | None = None

    def caller(self, snapshot: Snapshot, headers: Mapping[bytes, bytes]) -> Key:
        """The active key of a request. Unknown and revoked keys take the same way and the same time.

        Raises Unauthenticated or KeyExpired, and AccessDenied where the key or what it belongs to is blocked.
        """
        if snapshot is not self._known_in:
            self._known = {}
            self._known_in = snapshot
        shown = headers.get(b"authorization")
        key = self._known.get(shown) if shown is not None else None
        if key is None:
            key = self._look_up(snapshot, secret(headers))
            if shown is not None and is_bearer(shown) and len(self._known) < MAX_KNOWN:
                self._known[shown] = key
        if key.expires_at is not None and key.expires_at <= self._unix():
            raise errors.KeyExpired("This API key has expired")
        return key

    def _look_up(self, snapshot: Snapshot, shown: bytes) -> Key:
        hashed = digest(shown)
        key = snapshot.keys.get(hashed)
        if key is not None:
            if key.blocked is not None:
                raise errors.AccessDenied(f"The {key.blocked} is blocked: ask an admin", code="blocked")
            return key
        if hashed == self._admin_digest:  # of 256-bit secrets' hashes: how far two agree tells nothing about the secret
            return ADMIN
        raise errors.Unauthenticated("Incorrect API key provided")


def secret(headers: Mapping[bytes, bytes]) -> bytes:
    """The key as it was shown: `Authorization: Bearer …`, `x-api-key` or `api-key`."""
    given = headers.get(b"authorization")
    if given is not None and is_bearer(given):
        return given[7:].strip()
    given = headers.get(b"x-api-key") or headers.get(b"api-key")
    if not given:
        raise errors.Unauthenticated(
            "You did not provide an API key: send it as 'Authorization: Bearer YOUR_KEY', 'x-api-key' or 'api-key'"
        )
    return given.strip()


def is_bearer(value: bytes) -> bool:
    return value[:7].lower() == b"bearer "
