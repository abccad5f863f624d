"""Logins of people: JSON Web Tokens of one identity provider, verified against its published keys.

Only asymmetric algorithms that the configuration names are taken, and a key only for the algorithm of its own kind, so a public
key can never pass for a shared secret (RFC 8725 3.1). What a token's header says about where its key might be found is ignored.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import httpx
import jwt
import msgspec
import structlog

from admin.roles import Role
from gateway.errors import AccessDenied, Overloaded, Unauthenticated

log = structlog.get_logger(__name__)

MAX_TOKEN_BYTES = 16 * 1024
MAX_DOCUMENT_BYTES = 512 * 1024
FETCH_TIMEOUT_S = 5.0
REFETCH_AFTER_S = 10.0  # an unknown key id asks the provider again, but not for every token that somebody makes up
KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "RS256": ("RSA", ()),
    "ES256": ("EC", ("P-256",)),
    "EdDSA": ("OKP", ("Ed25519", "Ed448")),
}


class Provider(msgspec.Struct, frozen=True):
    """What is trusted. `roles` says which role a value of the claim `role_claim` stands for; the rest is nobody's."""

    issuer: str
    audience: tuple[str, ...]
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    role_claim: str | None = None
    roles: Mapping[str, Role] = {}
    org_claim: str = "org_id"
    team_claim: str = "team_id"
    email_claim: str = "email"
    leeway_s: float = 30.0
    keys_ttl_s: float = 3600.0


class Login(msgspec.Struct, frozen=True):
    """What a verified token says: who, and, where the provider assigns roles, as what. `email` only if the provider vouches for it."""

    subject: str
    email: str | None
    role: Role | None
    org_id: str | None
    team_id: str | None


@final
class Oidc:
    """Keys are fetched with the first token, kept for `keys_ttl_s` and used on while the provider is away."""

    def __init__(self, provider: Provider, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._monotonic = monotonic
        self._keys: tuple[jwt.PyJWK, ...] | None = None
        self._fetched_at = self._asked_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def login(self, token: str) -> Login:
        """Raises Unauthenticated for a token that does not hold, Overloaded while the provider's keys cannot be had."""
        algorithm, key_id = self._header(token)
        key = await self._key(algorithm, key_id)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=list(self._provider.audience),
                issuer=self._provider.issuer,
                leeway=self._provider.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("This login has expired: log in again.", code="expired_login") from None
        except jwt.PyJWTError as error:
            raise _refused(type(error).__name__) from None
        return self._login(claims)

    def _header(self, token: str) -> tuple[str, str | None]:
        """The algorithm, if it is one that we take, and the key's id."""
        if len(token) > MAX_TOKEN_BYTES:
            raise _refused("too long")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, RecursionError, ValueError):
            raise _refused("not a token") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._provider.algorithms or algorithm not in KINDS:
            raise _refused("algorithm")
        if "crit" in header:  # RFC 7515 4.1.11: what must be understood, and is not
            raise _refused("crit")
        if key_id is not None and not isinstance(key_id, str):
            raise _refused("kid")
        return algorithm, key_id

    async def _key(self, algorithm: str, key_id: str | None) -> jwt.PyJWK:
        """The provider's key; a key id that is not known yet may be that of a new one."""
        keys = await self._current_keys()
        found = _choose(keys, algorithm, key_id)
        if found is None and self._monotonic() - self._asked_at >= REFETCH_AFTER_S:
            found = _choose(await self._current_keys(newer_than=self._asked_at), algorithm, key_id)
        if found is None:
            raise _refused("unknown key")
        return found

    async def _current_keys(self, newer_than: float | None = None) -> tuple[jwt.PyJWK, ...]:
        """One question at a time; who waited for it takes its answer."""
        async with self._fetching:
            stale = self._monotonic() - self._fetched_at >= self._provider.keys_ttl_s
            retry = self._monotonic() - self._asked_at >= REFETCH_AFTER_S
            again = newer_than is not None and self._asked_at <= newer_than
            if again or ((stale or self._keys is None) and retry):
                self._asked_at = self._monotonic()
                await self._fetch()
            if self._keys is None:
                raise Overloaded(
                    "The identity provider's keys cannot be had right now. Try again, or use the admin key.",
                    code="identity_provider_unavailable",
                    headers=(("retry-after", str(int(REFETCH_AFTER_S))),),
                )
            return self._keys

    async def _fetch(self) -> None:
        """A provider in trouble leaves the keys that are known."""
        try:
            async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
                url = self._provider.jwks_url or await self._discovered(client)
                keys = _usable(await _document(client, url))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
            log.warning("oidc.keys_unavailable", issuer=self._provider.issuer, type=type(error).__name__)
            return
        self._keys, self._fetched_at = keys, self._monotonic()

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        """OpenID Connect Discovery 1.0, section 4: the document must be of the issuer that was asked."""
        issuer = self._provider.issuer
        found = await _document(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != issuer or not isinstance(found.get("jwks_uri"), str):
            raise ValueError("the discovery document is not that of the issuer")
        return str(found["jwks_uri"])

    def _login(self, claims: Mapping[str, Any]) -> Login:
        provider = self._provider
        email = _text(claims.get(provider.email_claim))
        # OpenID Connect Core 5.1: an `email` is what somebody typed in until it is verified. Another claim was chosen on purpose.
        vouched = claims.get("email_verified", provider.email_claim != "email") is True
        return Login(
            subject=str(claims["sub"]),
            email=email if vouched else None,
            role=self._role(claims),
            org_id=_text(claims.get(provider.org_claim)),
            team_id=_text(claims.get(provider.team_claim)),
        )

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        """The first of `roles`, in the order of the configuration, that the claim holds."""
        if self._provider.role_claim is None:
            return None
        value: Any = claims
        for part in self._provider.role_claim.split("."):  # `realm_access.roles`
            value = value.get(part) if isinstance(value, Mapping) else None
        held = value if isinstance(value, list) else [value]
        found = next((role for name, role in self._provider.roles.items() if name in held), None)
        if found is None:
            raise AccessDenied("Your login has no role here: ask an admin.", code="permission_denied")
        return found


async def _document(client: httpx.AsyncClient, url: str) -> Mapping[str, Any]:
    """Raises httpx.HTTPError, ValueError."""
    body = b""
    async with asyncio.timeout(FETCH_TIMEOUT_S), client.stream("GET", url) as answer:
        answer.raise_for_status()
        if answer.status_code != 200:
            raise ValueError(f"status {answer.status_code}")
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError("too long")
    found = msgspec.json.decode(body)
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 — as below
    return found


def _usable(document: Mapping[str, Any]) -> tuple[jwt.PyJWK, ...]:
    """Public keys for signatures; what is of another kind, for encryption or broken is left out."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("no keys")  # noqa: TRY004 — a document's content, not a caller's type
    found: list[jwt.PyJWK] = []
    for each in listed:
        if isinstance(each, dict) and each.get("use", "sig") == "sig":
            for algorithm, (kind, curves) in KINDS.items():
                if each.get("kty") == kind and (not curves or each.get("crv") in curves):
                    try:
                        found.append(jwt.PyJWK(each, each.get("alg", algorithm)))
                    except (jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
                        log.warning("oidc.key_unusable", kid=str(each.get("kid")), type=type(error).__name__)
    return tuple(key for key in found if key.algorithm_name in KINDS)


def _choose(keys: tuple[jwt.PyJWK, ...], algorithm: str, key_id: str | None) -> jwt.PyJWK | None:
    """By id; a token without one is for the only key there is."""
    fitting = [key for key in keys if key.algorithm_name == algorithm]
    if key_id is None:
        return fitting[0] if len(fitting) == 1 else None
    return next((key for key in fitting if key.key_id == key_id), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _refused(why: str) -> Unauthenticated:
    """The reason goes to the log: to whom it may concern it is a hint, to an attacker an oracle."""
    log.info("oidc.refused", reason=why)
    return Unauthenticated("This login is not valid.", code="invalid_login")
