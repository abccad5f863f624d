"""Virtual keys: what a client shows, what we store of it, and who it turns out to be."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from gateway.admission.classes import PLAIN, Standing
from gateway.mcp.rights import Rights

PREFIX = "sk-ps-"


class Key(msgspec.Struct, frozen=True):
    """One active virtual key as the data plane sees it. The secret itself is nowhere: only its SHA-256 is kept."""

    id: str
    name: str
    team_id: str | None = None
    models: frozenset[str] | None = None  # None: every model
    expires_at: float | None = None  # Unix seconds
    metadata: Mapping[str, Any] = {}
    org_id: str | None = None
    user_id: str | None = None
    routes: tuple[str, ...] | None = None  # paths such as `/v1/embeddings`, `/v1/audio/*`; None: every one
    models_above: tuple[frozenset[str], ...] = ()  # the allow-lists of its user, team and organisation: all must admit
    regions: tuple[str, ...] = ()  # where its answers have to come from, by its metadata and that of what it belongs to
    standing: Standing = PLAIN  # against other keys, where a model is full or a limit is shared
    tools: tuple[Rights, ...] = ()  # its own list of MCP tools and its team's: all must admit; none: as configured
    blocked: str | None = None  # who is blocked, for the client to read: `key key_…`, `team team_…`
    service_tier: str | None = (
        None  # whose price its calls have, where the deployment has one: they ask their upstream for it
    )

    def may_use(self, model: str, also: Collection[str] = ()) -> bool:
        """Whether the allow-lists admit a model by its public name; `gpt-*` admits every name with that start.

        `also` are the model's own name and its groups (`group:cheap`), as they have to stand in a list.
        """
        if self.models is not None and not _admits(self.models, model, also):
            return False
        return all(_admits(allowed, model, also) for allowed in self.models_above)

    @property
    def tenant(self) -> str:
        """Who shares what is kept: the team, or a key that is in none by itself."""
        return f"key {self.id}" if self.team_id is None else f"team {self.team_id}"

    def may_call(self, path: str) -> bool:
        """Whether the allow-list admits a route by its path."""
        return self.routes is None or _admits(self.routes, path)


def new_secret() -> str:
    """A fresh key as it is shown once: `sk-ps-` and 43 characters (256 bits), far beyond guessing."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: bytes) -> bytes:
    """What is stored and looked up. A plain hash is enough: the input has 256 random bits, no dictionary reaches it."""
    return hashlib.sha256(secret).digest()


def hint(secret: str) -> str:
    """How a key is shown later on: `sk-ps-…a1b2`."""
    return f"{PREFIX}…{secret[-4:]}"


def _admits(allowed: Collection[str], name: str, also: Collection[str] = ()) -> bool:
    if name in allowed or any(one in allowed for one in also):
        return True
    return any(entry.endswith("*") and name.startswith(entry[:-1]) for entry in allowed)
