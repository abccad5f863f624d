"""What a deployment looks like on the wire, prepared once so that a request only adds its own bytes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, final
from urllib.parse import quote, urlsplit

from gateway.catalog import Deployment
from gateway.dialect import Dialect
from gateway.dialects.anthropic_marks import Marked
from gateway.front import Front, Translated
from gateway.pool import OriginKey, Pool, origin_key
from gateway.providers import PROVIDERS
from gateway.spelling import spelling_of
from gateway.target import IN_PATHS, Target

VISIBLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
CHATS: Final = "/chat/completions"
NO_FRONTS: Final[Mapping[str, Front]] = MappingProxyType({})


class Bridge(Protocol):
    """A process on this machine that speaks OpenAI's API here and other APIs there, for providers that are only reached through it."""

    def base_url(self) -> str:
        """Where it listens. Raises GatewayError where it cannot be had."""

    def headers(self, prefix: str, deployment: Deployment) -> tuple[tuple[str, str], ...]:
        """What it has to know of a deployment; `prefix` stands before the model's name there."""


Between = Callable[[Deployment, Dialect | None, str], Dialect]
"""What stands between an endpoint and a deployment whose provider has this dialect, if any, and its chat behind this path."""


@final
class Targets:
    """Targets by deployment and endpoint path, made on first use, forgotten when the configuration changes.

    `fronts` are the APIs of endpoint paths that are not OpenAI's: a target has a dialect there in any case, of its own or out of chat's.
    `between`: by path, endpoints of OpenAI's that are not asked of every deployment as they are.
    """

    def __init__(
        self,
        pool: Pool,
        user_agent: str,
        dialects: Mapping[str, Dialect],
        bridge: Bridge | None = None,
        fronts: Mapping[str, Front] = NO_FRONTS,
        between: Mapping[str, Between] = MappingProxyType({}),
    ) -> None:
        self._pool = pool
        self._between = between
        self._bridge = bridge
        self._dialects = dialects
        self._fronts = fronts
        self._user_agent = user_agent
        self._made: dict[tuple[str, str], Target] = {}

    def of(self, deployment: Deployment, path: str, model: str, *, at_root: bool = False) -> Target:
        """`path` is the endpoint's part behind the base URL, such as `/chat/completions`; `model` the public name.

        `at_root`: it stands beside the API's version, which the base URL ends with.
        """
        key = (deployment.id, path)
        target = self._made.get(key)
        if target is None or target.deployment is not deployment:
            target = self._made[key] = self._make(deployment, path, model, at_root=at_root)
        return target

    def at(self, deployment: Deployment, address: str) -> Target:
        """Another address of a deployment, where every request has a path and credentials of its own."""
        known = (deployment.id, address)
        target = self._made.get(known)
        if target is None or target.deployment is not deployment:
            key = origin_key(address, verify_tls=deployment.verify_tls, ca_file=deployment.ca_file)
            lines = (f"host: {host_of(key)}", f"user-agent: {self._user_agent}")
            head = "".join(line + "\r\n" for line in lines).encode("latin-1")
            base = quote(urlsplit(address).path.rstrip("/"), safe=IN_PATHS)
            target = Target(deployment, self._pool.origin(key), head, where("", deployment.id, 1), base=base)
            self._made[known] = target
        return target

    def translator(self, deployment: Deployment, path: str) -> Dialect | None:
        """What stands between an endpoint and a deployment that is no address and speaks OpenAI's chat; None if that is what is asked."""
        between, front = self._between.get(path), self._fronts.get(path)
        if between is not None:
            return between(deployment, None, CHATS)
        return None if front is None else Translated(front, None, deployment.provider)

    def question(self, deployment: Deployment, path: str) -> Target:
        """For a GET of what stands behind the base URL. Its head is whole but for the length."""
        return self._make(deployment, path, "", "GET")

    def forget(self, alive: Callable[[str], bool]) -> None:
        """Drops targets of deployments that are gone."""
        self._made = {key: target for key, target in self._made.items() if alive(key[0])}

    def _dialect(self, own: Dialect | None, deployment: Deployment) -> Dialect | None:
        """A provider's dialect, with marks for its prompt cache where the model wants them."""
        return Marked(own) if own is not None and deployment.marks else own

    def _make(
        self, deployment: Deployment, path: str, model: str, method: str = "POST", *, at_root: bool = False
    ) -> Target:
        provider = PROVIDERS.get(deployment.provider)
        prefix = None if provider is None else provider.litellm
        own = dialect = self._dialect(self._dialects.get(deployment.provider), deployment)
        spoken_at = path
        front = self._fronts.get(path)
        native = None if front is None else self._dialect(front.native.get(deployment.provider), deployment)
        if native is not None:
            dialect = native
        elif front is not None:
            spoken_at = CHATS
        address, credentials = deployment.base_url, authorization(deployment, dialect)
        if prefix is not None and self._bridge is not None:
            address, credentials = self._bridge.base_url(), self._bridge.headers(prefix, deployment)
        key = origin_key(address, verify_tls=deployment.verify_tls, ca_file=deployment.ca_file)
        base = quote(urlsplit(address).path.rstrip("/"), safe=IN_PATHS)
        if at_root:
            base = base.removesuffix("/v1").removesuffix("/v2").removesuffix("/compatibility")
        dated = deployment.api_version is not None
        place = _dated(base, deployment, spoken_at, method) if dated else f"{base}{spoken_at}"
        between = self._between.get(path)
        if between is not None:
            dialect = between(deployment, dialect, _dated(base, deployment, CHATS, method) if dated else CHATS)
            base = "" if dated else base
        if front is not None and native is None:
            base = "" if dated else base
            dialect = Translated(
                front, dialect, deployment.provider, bridged=prefix is not None, place=place if dated else CHATS
            )
        lines = [
            *(() if dialect is not None and method == "POST" else (f"{method} {place} HTTP/1.1",)),
            f"host: {host_of(key)}",
            "content-type: application/json",
            f"user-agent: {self._user_agent}",
        ]
        lines.extend(f"{name.lower()}: {value}" for name, value in (*credentials, *deployment.headers))
        for line in lines:
            if "\r" in line or "\n" in line:
                raise ValueError(f"deployment {deployment.id!r} has a line break in a header value")
        head = "".join(line + "\r\n" for line in lines).encode("latin-1")
        return Target(
            deployment,
            self._pool.origin(key),
            head,
            where(model, deployment.id, 1),
            dialect,
            base,
            own is not None,
            spelling_of(deployment.provider),
        )


def host_of(key: OriginKey) -> str:
    """As a request's head names it."""
    host = f"[{key.host}]" if ":" in key.host else key.host
    return host if key.port == (443 if key.scheme == "https" else 80) else f"{host}:{key.port}"


def authorization(deployment: Deployment, dialect: Dialect | None) -> tuple[tuple[str, str], ...]:
    secret = deployment.api_key or ""
    if dialect is not None:
        return dialect.authorization(secret)
    if not secret:
        return ()
    provider = PROVIDERS.get(deployment.provider)
    if provider is not None and provider.auth == "api-key":
        return (("api-key", secret),)
    return (("authorization", f"Bearer {secret}"),)


def _dated(base: str, deployment: Deployment, path: str, method: str) -> str:
    """A path of Azure's dated API: calls go to the deployment, which the address may name already; what there is stands above it."""
    above, named, name = base.partition("/openai/deployments/")
    above = above.removesuffix("/v1").removesuffix("/openai") + "/openai"
    below = f"/deployments/{name if named else quote(deployment.target, safe='')}" if method == "POST" else ""
    return f"{above}{below}{path}?api-version={deployment.api_version}"


def where(model: str, deployment: str, attempts: int) -> bytes:
    """The header lines that say who answered."""
    return b"x-penstock-model: %b\r\nx-penstock-deployment: %b\r\nx-penstock-attempts: %d\r\n" % (
        header_value(model),
        header_value(deployment),
        attempts,
    )


def header_value(text: str) -> bytes:
    """Any text as a header value: what is not visible ASCII is percent-encoded, so nothing can end the line."""
    if text.isascii() and text.isprintable() and " " not in text and "%" not in text:
        return text.encode()
    return quote(text, safe=VISIBLE).encode()
