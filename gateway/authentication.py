"""Who is calling: the key in the header, looked up by its hash in the snapshot. No await, no database."""

import secrets
from collections.abc import Callable, Mapping
from math import inf
from typing import final

import msgspec

from gateway import errors
from gateway.admission.classes import Standing
from gateway.keys import Key, digest
from gateway.snapshot import Snapshot

ADMIN = Key("admin", "admin", standing=Standing(top=0))
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
        self._deputies: dict[bytes, Deputy] = {}

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

    def _fit(self, key: Key) -> Key:
        if key.blocked is not None:
            raise errors.AccessDenied(f"The {key.blocked} is blocked: ask an admin", code="blocked")
        if key.expires_at is not None and key.expires_at <= self._unix():
            raise errors.KeyExpired("This API key has expired")
        return key

    def deputy(self, key_id: str, service_tier: str | None = None, *, admitted: bool = False) -> bytes:
        """A secret that stands for a key in this process alone, as long as the key works: for who acts on its behalf later on.

        Its calls cost what the service tier costs, at deployments that have a price for it. Until `dismiss`.
        `admitted`: an admin has said which model it asks, so the key's own lists of models and routes do not.
        """
        made = secrets.token_urlsafe(32).encode()
        self._deputies[digest(made)] = Deputy(key_id, service_tier, admitted=admitted)
        return made

    def of(self, snapshot: Snapshot, deputy: "Deputy") -> Key:
        """The key that somebody stands for. Raises as `caller` does."""
        key = deputy.key(snapshot)
        if key is None:
            raise errors.Unauthenticated("The API key behind this secret is no longer valid")
        return self._fit(key)

    def dismiss(self, secret: bytes) -> None:
        self._deputies.pop(digest(secret), None)

    def _look_up(self, snapshot: Snapshot, shown: bytes) -> Key:
        hashed = digest(shown)
        key = snapshot.keys.get(hashed)
        if key is None and (deputy := self._deputies.get(hashed)) is not None:
            key = deputy.key(snapshot)
        if key is not None:
            if key.blocked is not None:
                raise errors.AccessDenied(f"The {key.blocked} is blocked: ask an admin", code="blocked")
            return key
        if hashed == self._admin_digest:  # of 256-bit secrets' hashes: how far two agree tells nothing about the secret
            return ADMIN
        raise errors.Unauthenticated("Incorrect API key provided")


@final
class Deputy:
    """Finds a key by its id. Snapshots are indexed by secrets, so where it was found is remembered."""

    def __init__(self, key_id: str, service_tier: str | None = None, *, admitted: bool = False) -> None:
        self._key_id = key_id
        self._admitted = admitted
        self._service_tier = service_tier
        self._hashed = b""

    def key(self, snapshot: Snapshot) -> Key | None:
        if self._key_id == ADMIN.id:
            return self._priced(ADMIN)
        known = snapshot.keys.get(self._hashed)
        if known is None or known.id != self._key_id or known.expires_at is not None:
            lives = {hashed: key for hashed, key in snapshot.keys.items() if key.id == self._key_id}
            if not lives:
                return None
            self._hashed = max(lives, key=lambda hashed: _expiry(lives[hashed]))  # a rotated key has several secrets
            known = lives[self._hashed]
        return self._priced(known)

    def _priced(self, key: Key) -> Key:
        """The very key where there is nothing to change: what is kept for a key is kept once."""
        if self._admitted and (key.models is not None or key.models_above or key.routes is not None):
            key = msgspec.structs.replace(key, models=None, models_above=(), routes=None)
        tier = self._service_tier
        return key if tier is None else msgspec.structs.replace(key, service_tier=tier)


def _expiry(key: Key) -> float:
    return inf if key.expires_at is None else key.expires_at


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
