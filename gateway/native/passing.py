"""The door of pass-through: whose API a path is, what is called there, whom it may go to. The call itself takes the one path of all.

What OpenAI's and Anthropic's clients call is served by the endpoints that are there for them, held to deployments that speak it themselves.
What cannot be metered is refused, unless an admin has put a price on it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final
from urllib.parse import parse_qs, unquote, urlencode

import msgspec

from gateway import bodies, errors
from gateway.authentication import Authenticator
from gateway.completion import Completions
from gateway.endpoint import CHAT, COMPLETIONS, EMBEDDINGS, Endpoint
from gateway.exchange import Exchange
from gateway.fronts.registry import COUNT_TOKENS, MESSAGES
from gateway.http_exchange import HttpExchange
from gateway.kinds import Kind
from gateway.native import gemini
from gateway.native.bedrock import OPERATIONS, Bedrock
from gateway.native.credentials import keyed
from gateway.native.declared import Fixed
from gateway.native.faces import Google
from gateway.native.families import ANTHROPIC, FAMILIES, GEMINI, Family
from gateway.native.names import Names
from gateway.native.renamed import renamed
from gateway.native.responses import OpenAIResponses
from gateway.native.signing import Signer
from gateway.native.terms import Declared
from gateway.snapshot import Current
from gateway.units.door import Door
from gateway.units.endpoints import ENDPOINTS

_OPENAIS: Final[Mapping[str, Endpoint]] = {
    **{f"/v1{one.path}": one for one in (CHAT, COMPLETIONS, EMBEDDINGS)},
    **{path.decode(): one for path, one in ENDPOINTS.items()},
}
_ANTHROPICS: Final[Mapping[str, Endpoint]] = {f"/v1{one.path}": one for one in (MESSAGES, COUNT_TOKENS)}
_GEMINIS: Final = re.compile(r"(?:/(v\d+(?:alpha|beta)?\d*))?/((?:models|tunedModels)/[^:]+):([A-Za-z]+)")
_BEDROCKS: Final = re.compile(r"/model/([^/]+)/([a-z-]+)")
_ODD: Final = re.compile(r"//|\\|/\.{1,2}(?:/|$)|%2e|%2f|%5c|%00", re.IGNORECASE)


class _Asked(msgspec.Struct, frozen=True):
    """One request: `path` is what stands behind the family's name, `name` the model here for a client's name of it."""

    family: Family
    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    name: Callable[[str], str]

    def endpoint(self, door: Door, kind: Kind = "chat") -> Endpoint:
        family = self.family
        return Endpoint(
            family.name,
            self.path,
            kind=kind,
            door=door,
            mount=family.mount,
            providers=family.providers,
            face=family.face,
        )


@final
class PassThrough:
    """One per process. `counting` answers for tokens that are only counted."""

    def __init__(
        self,
        *,
        completions: Completions,
        counting: Completions,
        authenticator: Authenticator,
        current: Current,
        declared: Sequence[Declared],
    ) -> None:
        self._completions = completions
        self._counting = counting
        self._authenticator = authenticator
        self._current = current
        self._declared = declared
        self._names = Names()
        self.signer = Signer()

    async def serve(self, exchange: HttpExchange) -> None:
        """Whatever is below one of the families' names."""
        path, _, raw_query = exchange.url.partition(b"?")
        exchange.url = path  # a query may have a key in it, and paths are logged
        query = parse_qs(raw_query.decode("latin-1"), keep_blank_values=True)
        name, rest = path[1:].decode("latin-1").split("/", 1)
        family = next(one for one in FAMILIES if one.name == name)
        in_query = query.pop("key", [None])[0] if family is GEMINI else None
        exchange.headers = keyed(exchange.headers, in_query)
        asked = _Asked(family, exchange.method.decode("latin-1"), f"/{rest}", query, self._named(exchange, family))
        try:
            endpoint = self._endpoint(asked)
        except errors.GatewayError as error:
            endpoint = _refusing(asked, error)
        through = self._counting if endpoint.name == COUNT_TOKENS.name else self._completions
        seen: Exchange = exchange if endpoint.front is None else endpoint.front.exchange(exchange)
        await through.serve(endpoint, seen)

    def _endpoint(self, asked: _Asked) -> Endpoint:
        """Raises AccessDenied for what cannot be metered."""
        found = None
        if asked.method == "POST":
            match asked.family.name:
                case "openai":
                    found = _of_openai(asked)
                case "anthropic":
                    found = _mounted(asked, _ANTHROPICS)
                case "gemini":
                    found = _of_gemini(asked)
                case "bedrock":
                    found = self._of_bedrock(asked)
        return found or self._fixed(asked)

    def _of_bedrock(self, asked: _Asked) -> Endpoint | None:
        found = _BEDROCKS.fullmatch(asked.path)
        if found is None or found[2] not in OPERATIONS:
            return None
        return asked.endpoint(Bedrock(found[2], asked.name(unquote(found[1])), self.signer))

    def _fixed(self, asked: _Asked) -> Endpoint:
        path = f"{asked.family.mount}{asked.path}"
        declared = next(
            (one for one in self._declared if asked.method in one.methods and one.covers(path)),
            None,
        )
        if declared is None or _ODD.search(asked.path):
            raise errors.AccessDenied(
                f"{asked.method} {path} is not passed on: it says nothing of what it costs. An admin can put a price on it, "
                "under `passthrough` in the configuration",
                code="unmetered_path",
            )
        query = urlencode(asked.query, doseq=True)
        rest = f"{asked.path}?{query}" if query else asked.path
        return asked.endpoint(Fixed(asked.family, declared, asked.method, rest))

    def _named(self, exchange: HttpExchange, family: Family) -> Callable[[str], str]:
        snapshot = self._current.snapshot
        try:
            key = self._authenticator.caller(snapshot, exchange.headers)
        except errors.GatewayError:
            key = None  # it is told so where every call is
        return lambda name: self._names.find(snapshot.catalog, family, name, key)


def _of_openai(asked: _Asked) -> Endpoint | None:
    path = asked.path if re.match(r"/v\d+/", asked.path) else f"/v1{asked.path}"
    if path == "/v1/responses":
        return asked.endpoint(OpenAIResponses(asked.name))
    return _mounted(msgspec.structs.replace(asked, path=path), _OPENAIS)


def _mounted(asked: _Asked, endpoints: Mapping[str, Endpoint]) -> Endpoint | None:
    """An endpoint that is there for everybody, for deployments of the family alone."""
    endpoint = endpoints.get(asked.path)
    if endpoint is None:
        return None
    return msgspec.structs.replace(
        renamed(endpoint, asked.name),
        mount=f"{asked.family.mount}{asked.path.removesuffix(endpoint.path)}",
        providers=asked.family.providers,
    )


def _of_gemini(asked: _Asked) -> Endpoint | None:
    found = _GEMINIS.fullmatch(asked.path)
    if found is None or found[3] not in gemini.METHODS:
        return None
    version, place, method = found.groups()
    form = asked.query.get("alt", asked.query.get("$alt", ["json"]))[0]
    if form not in {"json", "sse"}:
        raise errors.BadRequest(f"Answers come as JSON or as events, not as '{form}'", param="alt")
    as_array = method == "streamGenerateContent" and form == "json"
    model = asked.name(unquote(place).removeprefix("models/"))
    door = gemini.Gemini(version or "v1beta", method, model, as_array=as_array)
    endpoint = asked.endpoint(door, "embedding" if method in gemini.EMBEDS else "chat")
    return msgspec.structs.replace(endpoint, face=Google(as_array=as_array))


def _refusing(asked: _Asked, error: errors.GatewayError) -> Endpoint:
    """An endpoint on which nothing can be asked but this error heard, by who shows a key."""

    def refuse(_: bytes) -> bodies.Request:
        raise error

    family = asked.family
    front = MESSAGES.front if family is ANTHROPIC else None
    return Endpoint(
        family.name,
        asked.path,
        refuse,
        front=front,
        mount=family.mount,
        providers=family.providers,
        face=family.face,
    )
