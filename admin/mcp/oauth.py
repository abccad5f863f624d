"""Logins at a server: OAuth 2.1 with client credentials or a refresh token, its endpoints found by metadata, its tokens kept.

Found are: the server's own metadata (RFC 9728) at the server's own origin, then its authorization server's (RFC 8414, or OpenID
Connect's). The client's secret goes to the token endpoint of that one alone. Where a server is reached over TLS, so is all of this.
"""

import asyncio
import time
from typing import Any, Final, final
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import structlog

from admin.mcp.web import body, client, unreachable
from gateway import errors
from gateway.mcp.catalog import OAuth, Server
from gateway.mcp.errors import ServerDown
from gateway.mcp.links import KeepToken

log = structlog.stdlib.get_logger(__name__)

MAX_BYTES: Final = 256 * 1024
EARLY_S: Final = 30.0  # before it ends a token is not used any more
UNTOLD_S: Final = 300.0  # of a token whose life nobody tells
FAILED_S: Final = 5.0  # between two attempts to log in


class _Resource(msgspec.Struct):
    resource: str | None = None
    authorization_servers: list[str] = []
    scopes_supported: list[str] | None = None


class _Authority(msgspec.Struct):
    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: list[str] | None = None


class _Token(msgspec.Struct):
    access_token: str
    token_type: str = "bearer"  # noqa: S105 — the protocol's word
    expires_in: float | None = None
    refresh_token: str | None = None


class _Endpoint(msgspec.Struct, frozen=True):
    url: str
    in_body: bool  # the secret goes into the form, not into a header


@final
class Tokens:
    """Those of one server. `keep` is told of a refresh token that replaces the one before."""

    def __init__(self, server: Server, oauth: OAuth, keep: KeepToken) -> None:
        self._server = server
        self._oauth = oauth
        self._keep = keep
        self._where = f"The MCP server '{server.name}'"
        self._client = client(msgspec.structs.replace(server, headers=()))
        self._refresh_token = oauth.refresh_token
        self._endpoint: _Endpoint | None = None
        self._told_at: str | None = None  # where the server says that its metadata are
        self._bearer = ""
        self._until = 0.0
        self._failed_at = float("-inf")
        self._line = asyncio.Lock()

    async def bearer(self) -> str:
        """The header's value. Raises ServerDown."""
        async with self._line:
            if not self._bearer or time.monotonic() >= self._until:
                await self._renew()
            return self._bearer

    def refused(self, bearer: str, challenge: str | None) -> None:
        """The server took `bearer` for no good: the next one is asked for anew."""
        if challenge is not None:
            self._told_at = _parameter(challenge, "resource_metadata")
        if bearer == self._bearer:
            self._until = 0.0

    async def close(self) -> None:
        await self._client.aclose()

    async def _renew(self) -> None:
        if time.monotonic() - self._failed_at < FAILED_S:
            raise ServerDown(f"{self._where}: the gateway could not log in", unsent=True)
        try:
            async with asyncio.timeout(self._server.start_s):
                await self._log_in()
        except (errors.GatewayError, httpx.HTTPError, TimeoutError, msgspec.DecodeError, ValueError) as error:
            self._failed_at = time.monotonic()
            why = (
                unreachable("its authorization server", error).message
                if isinstance(error, httpx.HTTPError)
                else str(error)
            )
            log.warning("mcp.login_failed", server=self._server.name, reason=why[:300])
            raise ServerDown(f"{self._where}: the gateway could not log in: {why[:300]}", unsent=True) from None

    async def _log_in(self) -> None:
        endpoint = self._endpoint = self._endpoint or await self._find()
        oauth = self._oauth
        form = {"grant_type": oauth.grant, "resource": self._server.url}
        if oauth.grant == "refresh_token":
            form["refresh_token"] = self._refresh_token or ""
        if oauth.scope is not None:
            form["scope"] = oauth.scope
        headers = {"accept": "application/json"}
        auth: httpx.BasicAuth | None = None
        if oauth.client_secret is None or endpoint.in_body:
            form["client_id"] = oauth.client_id
        if oauth.client_secret is not None and endpoint.in_body:
            form["client_secret"] = oauth.client_secret
        elif oauth.client_secret is not None:  # RFC 6749 2.3.1: encoded first
            auth = httpx.BasicAuth(quote(oauth.client_id, safe=""), quote(oauth.client_secret, safe=""))
        async with self._client.stream("POST", endpoint.url, data=form, headers=headers, auth=auth) as answer:
            data = await body(answer, MAX_BYTES, "The token endpoint")
            if answer.status_code != 200:
                raise ValueError(f"the token endpoint answered with status {answer.status_code}{_reason(data)}")
        await self._take(msgspec.json.decode(data, type=_Token))

    async def _take(self, token: _Token) -> None:
        if token.token_type.lower() != "bearer" or not token.access_token.isascii():
            raise ValueError("the token endpoint gave a token that is no bearer token")
        life_s = UNTOLD_S if token.expires_in is None else token.expires_in
        self._bearer = f"Bearer {token.access_token}"
        self._until = time.monotonic() + max(1.0, life_s - min(EARLY_S, life_s / 2))
        if token.refresh_token and token.refresh_token != self._refresh_token and self._oauth.grant == "refresh_token":
            self._refresh_token = token.refresh_token
            await self._keep(self._server.name, token.refresh_token)

    async def _find(self) -> _Endpoint:
        oauth = self._oauth
        if oauth.token_url is not None:
            return _Endpoint(oauth.token_url, in_body=False)
        issuer = oauth.issuer or await self._issuer()
        for url in _metadata_urls(issuer):
            found = await self._get(url, _Authority)
            if found is None:
                continue
            if found.issuer.rstrip("/") != issuer.rstrip("/"):  # RFC 8414 3.3
                raise ValueError("the authorization server's metadata name another issuer")
            self._check(found.token_endpoint)
            ways = found.token_endpoint_auth_methods_supported
            return _Endpoint(found.token_endpoint, ways is not None and "client_secret_basic" not in ways)
        raise ValueError(f"{issuer} has no metadata of an authorization server; set oauth.token_url")

    async def _issuer(self) -> str:
        """As the server says, at its own origin; a server that says nothing is its own."""
        parts = urlsplit(self._server.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        told = self._told_at
        urls = [told] if told is not None and _origin(told) == origin else []
        urls += [f"{origin}/.well-known/oauth-protected-resource{parts.path.rstrip('/')}"]
        urls += [f"{origin}/.well-known/oauth-protected-resource"]
        for url in urls:
            found = await self._get(url, _Resource)
            if found is not None and found.authorization_servers:
                issuer: str = found.authorization_servers[0]
                self._check(issuer)
                return issuer
        return origin

    def _check(self, url: str) -> None:
        """A server that is reached over TLS sends nobody to a place without it, nor a public one to this machine."""
        parts = urlsplit(url)
        here = urlsplit(self._server.url)
        if parts.scheme != "https" and (parts.scheme, parts.hostname) != (here.scheme, here.hostname):
            raise ValueError(f"{url[:200]} is not an https address")

    async def _get(self, url: str, shape: type[Any]) -> Any:
        """None where there is nothing."""
        async with self._client.stream("GET", url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != 200:
                return None
            return msgspec.json.decode(await body(answer, MAX_BYTES, "The server's metadata"), type=shape)


def _metadata_urls(issuer: str) -> tuple[str, ...]:
    """RFC 8414 3.1 and OpenID Connect Discovery, in the order of the MCP specification."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    first = f"{origin}/.well-known/oauth-authorization-server{path}", f"{origin}/.well-known/openid-configuration{path}"
    return (*first, f"{issuer.rstrip('/')}/.well-known/openid-configuration") if path else first


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _parameter(challenge: str, name: str) -> str | None:
    """Of a `WWW-Authenticate` header (RFC 9110 11.6.1)."""
    _, found, rest = challenge.partition(f'{name}="')
    return rest.partition('"')[0] if found else None


def _reason(data: bytes) -> str:
    """RFC 6749 5.2: one word, which is safe to show."""
    try:
        word = msgspec.json.decode(data, type=dict[str, Any]).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return f" ({word[:60]})" if isinstance(word, str) and word.replace("_", "").isalnum() else ""
