"""What is there without configuration: provider keys in the environment, servers on this machine, the embedded model.

Deciding is pure; only `probe` touches the network, after the server listens. Everything found becomes seeds, as the file does.
One source per local server: a server that is down at a start keeps its models, and is not registered twice when it is back.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from admin.settings import Loaded
from embedding import bundled
from gateway.mcp.settings import ServerSpec
from gateway.providers import EMBEDDED, PROVIDERS, QUOTES, QUOTES_MODEL, RERANKER, RERANKER_MODEL, Provider
from gateway.seeding import Seed
from gateway.settings import DeploymentSpec, ModelSpec
from inference.fleet.settings import EngineSpec

if TYPE_CHECKING:
    import httpx

CONNECT_S = 0.3
TOTAL_S = 0.5
MAX_LISTING_BYTES = 1 << 20
MAX_MODELS = 200  # of one server

EMBEDDED_MODELS = ("penstock/minilm", "text-embedding-minilm")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address where a server may answer. `key_env` names the variable with its key."""

    provider: str
    base_url: str
    key_env: str | None = None


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that answered, with the models it lists."""

    provider: str
    base_url: str
    models: tuple[str, ...]
    key_env: str | None = None

    @property
    def source(self) -> str:
        """What `gateway.seeding.seed` replaces as a whole."""
        return f"local:{self.provider}"


def file_seeds(loaded: Loaded) -> tuple[Seed, ...]:
    """The models of the configuration, source `file`, each with its line."""
    return tuple(
        Seed(
            model,
            f"file {loaded.origin('models', index)}",
            {
                deployment.id: f"file {loaded.origin('models', index, 'deployments', number)}"
                for number, deployment in enumerate(model.deployments)
            },
        )
        for index, model in enumerate(loaded.settings.models)
    )


def server_seeds(loaded: Loaded) -> tuple[tuple[ServerSpec, str], ...]:
    """The MCP servers of the configuration, source `file`, each with its line."""
    servers = loaded.settings.mcp.servers
    return tuple((spec, f"file {loaded.origin('mcp', 'servers', at)}") for at, spec in enumerate(servers))


def guard_seeds(loaded: Loaded) -> tuple[tuple[dict[str, Any], str], ...]:
    """The guards of the configuration, source `file`, each with its line."""
    given = loaded.settings.guards
    if not given:
        return ()
    from gateway.guards.settings import GuardSpec  # noqa: PLC0415 — for those who have any

    written = [GuardSpec.model_validate(one).model_dump(mode="json", exclude_defaults=True) for one in given]
    return tuple((spec, f"file {loaded.origin('guards', at)}") for at, spec in enumerate(written))


def engine_seeds(loaded: Loaded) -> tuple[tuple[EngineSpec, str], ...]:
    """The engines of the configuration, source `file`, each with its line."""
    engines = loaded.settings.engines
    return tuple((spec, f"file {loaded.origin('engines', at)}") for at, spec in enumerate(engines))


def environment_seeds(environ: Mapping[str, str]) -> tuple[Seed, ...]:
    """Source `environment`: each provider whose key is set answers for its own names and for `<provider>/*`."""
    return tuple(seed for provider in keyed_providers(environ) for seed in _provider_seeds(provider, environ))


def keyed_providers(environ: Mapping[str, str]) -> tuple[Provider, ...]:
    """The providers whose usual key variable is set."""
    return tuple(
        provider
        for provider in PROVIDERS.values()
        if provider.env and environ.get(provider.env) and _base_url(provider, environ)
    )


def embedded_seeds() -> tuple[Seed, ...]:
    """Source `embedded`: what quotes and reranks, and the embedding model if its libraries are installed. All run in this process."""
    quotes = DeploymentSpec(id=f"{QUOTES}:{QUOTES_MODEL}", provider=QUOTES, model=QUOTES_MODEL)
    reranker = DeploymentSpec(id=f"{RERANKER}:{RERANKER_MODEL}", provider=RERANKER, model=RERANKER_MODEL)
    names = EMBEDDED_MODELS if bundled.installed() else ()
    return (
        Seed(_model(QUOTES_MODEL, quotes), EMBEDDED),
        Seed(_model(RERANKER_MODEL, reranker), EMBEDDED),
        *(
            Seed(
                _model(name, DeploymentSpec(id=f"{EMBEDDED}:{name}", provider=EMBEDDED, model=bundled.MINILM.name)),
                EMBEDDED,
            )
            for name in names
        ),
    )


def local_seeds(server: LocalServer) -> tuple[Seed, ...]:
    """Each model under its own name and as `<provider>/<name>`; names that cannot be asked for are left out."""
    origin = f"{server.source} {server.base_url}"
    place = urlsplit(server.base_url).netloc
    key = f"${{{server.key_env}}}" if server.key_env else None
    seeds = []
    for listed in server.models:
        for name in (listed, f"{server.provider}/{listed}"):
            with contextlib.suppress(ValidationError):
                deployment = DeploymentSpec.model_validate(
                    {
                        "id": f"{name}@{place}",
                        "provider": server.provider,
                        "base_url": server.base_url,
                        "model": listed,
                        "api_key": key,
                    }
                )
                seeds.append(Seed(_model(name, deployment), origin))
    return tuple(seeds)


def candidates(environ: Mapping[str, str], own_port: int | None = None) -> tuple[Candidate, ...]:
    """The addresses worth asking: the usual ports of this machine, and base URLs that the environment names."""
    found: dict[str, Candidate] = {}
    for provider in PROVIDERS.values():
        named = environ.get(provider.base_url_env) if provider.base_url_env else None
        url = _base_url(provider, environ)
        if url is None or not (named or provider.local_port):
            continue
        key_env = provider.env if provider.env and environ.get(provider.env) else None
        if urlsplit(url).port != own_port or urlsplit(url).hostname not in {"127.0.0.1", "localhost"}:
            found.setdefault(url, Candidate(provider.name, url, key_env))
    return tuple(found.values())


async def probe(places: Iterable[Candidate], environ: Mapping[str, str]) -> tuple[LocalServer, ...]:
    """Asks every place at the same time for its models; who does not answer in time is not there."""
    every = tuple(places)
    listening = await asyncio.gather(*(_listens(place) for place in every))
    awake = [place for place, answered in zip(every, listening, strict=True) if answered]
    if not awake:
        return ()
    async with await asyncio.to_thread(_client) as client:
        listings = await asyncio.gather(*(_listed(client, place, environ) for place in awake))
    return tuple(
        LocalServer(place.provider, place.base_url, models, place.key_env)
        for place, models in zip(awake, listings, strict=True)
        if models
    )


def _provider_seeds(provider: Provider, environ: Mapping[str, str]) -> Iterator[Seed]:
    url = _base_url(provider, environ)
    for name in (*provider.wildcards, f"{provider.name}/*"):
        deployment = DeploymentSpec.model_validate(
            {
                "id": f"{provider.name}:{name}",
                "provider": provider.name,
                "base_url": None if url == provider.base_url else url,
                "model": "*" if name == f"{provider.name}/*" else name,
                "api_key": f"${{{provider.env}}}",
            }
        )
        yield Seed(_model(name, deployment), f"environment {provider.env}")


def _model(name: str, deployment: DeploymentSpec) -> ModelSpec:
    return ModelSpec(name=name, deployments=(deployment,))


def _base_url(provider: Provider, environ: Mapping[str, str]) -> str | None:
    named = environ.get(provider.base_url_env) if provider.base_url_env else None
    if not named:
        return provider.base_url
    return normalized(named, provider.local_port)


def normalized(address: str, usual_port: int | None = None) -> str | None:
    """`0.0.0.0`, `host:port` or a URL as a base URL; None for nonsense.

    As Ollama reads OLLAMA_HOST: without a scheme the port is its usual one, and its `0.0.0.0` is no address to call.
    """
    bare = "://" not in address
    try:
        parts = urlsplit(f"http://{address}" if bare else address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in {"http", "https"}:
        return None
    if usual_port is None:
        return f"http://{address}" if bare else address.rstrip("/")
    host = "127.0.0.1" if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host
    where = f":{port or usual_port}" if bare or port else ""
    return f"{parts.scheme}://{host}{where}{parts.path.rstrip('/') or '/v1'}"


async def _listens(place: Candidate) -> bool:
    """A bare connection first: it tells the usual case, nobody there, without the client's import."""
    parts = urlsplit(place.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _client() -> "httpx.AsyncClient":
    """In a thread: the import and the TLS context take 0.2 s that requests shall not wait for."""
    import httpx  # noqa: PLC0415 — only where a server listens

    # trust_env: a proxy has no business between us and this machine.
    return httpx.AsyncClient(timeout=CONNECT_S, trust_env=False, follow_redirects=False)


async def _listed(client: "httpx.AsyncClient", place: Candidate, environ: Mapping[str, str]) -> tuple[str, ...]:
    import httpx  # noqa: PLC0415 — loaded by _client

    headers = {"authorization": f"Bearer {environ[place.key_env]}"} if place.key_env else {}
    body = bytearray()
    try:
        async with (
            asyncio.timeout(TOTAL_S),
            client.stream("GET", f"{place.base_url}/models", headers=headers) as answer,
        ):
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_LISTING_BYTES:
                    return ()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, UnicodeError):
        return ()
    return listed_models(bytes(body)) if answer.status_code == 200 else ()


def listed_models(body: bytes) -> tuple[str, ...]:
    """The ids of `{"data": [{"id": …}]}`; nothing for anything else, as strangers may own the port."""
    try:
        listing: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    data = listing.get("data") if isinstance(listing, dict) else None
    ids = [item.get("id") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    names = [name for name in ids if isinstance(name, str) and "*" not in name]
    return tuple(dict.fromkeys(names))[:MAX_MODELS]
