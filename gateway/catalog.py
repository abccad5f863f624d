"""What can be called: models, the deployments behind them, and how a name finds its model.

Values only, compiled once per configuration revision, so that a request reads a dict and pays for nothing else.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from gateway.cache.policy import Policy
from gateway.grounding.policy import Retrieval
from gateway.kinds import TEXT, Kinds
from gateway.resilience.backoff import Retries
from gateway.resilience.breaker import Thresholds
from gateway.routers.policy import Router
from gateway.tariffs import Price, Terms

Strategy = Literal["weighted", "order", "least_busy", "latency", "cost", "usage", "prefix"]
Affinity = Literal["none", "session", "user"]


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds. first_token: until the first content of a stream; stall: between two pieces of it; total: of the request with all its tries.

    attempt: for one try of an answer that does not stream; None lets it have what is left of total.
    """

    connect_s: float = 5.0
    first_token_s: float = 60.0
    stall_s: float = 60.0
    total_s: float = 600.0
    attempt_s: float | None = None


class Limits(msgspec.Struct, frozen=True):
    """What a deployment takes, of all processes together: requests and tokens per minute, calls at the same time.

    `fair_share`: the active keys share the tokens.
    """

    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    fair_share: bool = False


class When(msgspec.Struct, frozen=True):
    """Which requests a deployment is for: with any of the tags, of keys with one of the values of each metadata, bound to the region."""

    tags: frozenset[str] = frozenset()
    metadata: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    region: str | None = None


class Shadow(msgspec.Struct, frozen=True):
    """A share of a model's calls is also sent to another model, whose answers nobody gets."""

    model: str
    share: float


class Deployment(msgspec.Struct, frozen=True):
    """One place that answers for a model. `target` is the model's name there; `*` stands for the wildcard's match.

    Where `target` has a `*`, price and sizes depend on what it matches: `gateway.price_map.PriceMap.quote` tells them for a name.
    """

    id: str
    provider: str
    base_url: str
    target: str
    api_key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    weight: float = 1.0
    order: int = 1
    price: Price | None = None
    terms: Terms = Terms()
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    verify_tls: bool = True
    ca_file: str | None = None
    limits: Limits | None = None
    when: When | None = None
    region: str | None = None  # where it runs
    api_version: str | None = None  # of Azure's dated API
    responses: bool = False  # it speaks `/v1/responses` itself
    kinds: Kinds | None = None  # of endpoints that it serves; None: whatever is asked of it
    marks: bool = False  # Anthropic's prompt cache is used by itself
    engine: str | None = None  # of this house, whose process it is

    def __repr__(self) -> str:
        """Without the secret: a deployment ends up in logs and tracebacks."""
        return f"Deployment(id={self.id!r}, provider={self.provider!r}, base_url={self.base_url!r}, target={self.target!r})"


Role = Literal["query", "passage"]

# What clients call the roles of texts in `input_type`: Cohere's words, NVIDIA's and Voyage's.
ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "query": "query",
        "search_query": "query",
        "passage": "passage",
        "document": "passage",
        "search_document": "passage",
    }
)


class Roles(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an embedding model is told questions from passages: by words before them, or by an `input_type` that its provider knows."""

    query_prefix: str = ""
    passage_prefix: str = ""
    query_type: str | None = None
    passage_type: str | None = None

    def prefix(self, role: Role) -> str:
        return self.query_prefix if role == "query" else self.passage_prefix

    def type_of(self, role: Role) -> str | None:
        return self.query_type if role == "query" else self.passage_type


class Hedge(msgspec.Struct, frozen=True):
    """A second attempt elsewhere for a call that has no answer after `after_s`, for at most `max_share` of a model's calls.

    `after_p95`: after as long as 95 % of the last calls took at most, and after `after_s` only while that is not known.
    """

    after_s: float | None
    max_share: float = 0.1
    after_p95: bool = False


class Queue(msgspec.Struct, frozen=True):
    """How many calls may wait where every deployment is at its limit, and how long each."""

    length: int = 256
    wait_s: float = 30.0


class Probe(msgspec.Struct, frozen=True):
    """A GET that finds out whether a deployment is well, every `interval_s`. `path` stands behind its base URL."""

    interval_s: float
    path: str = "/models"


class Awaited(msgspec.Struct, frozen=True):
    """An engine of this house that would serve the model and is not there yet: so many calls may wait for it, so long each."""

    engine: str
    queue: int
    wait_s: float


class Model(msgspec.Struct, frozen=True):
    """What a client asks for by name or alias. `created` is Unix seconds, as `/v1/models` shows it.

    `admitted_by`: what in a key's allow-list admits it beside the name that was asked for: its own name, `group:<name>` for its groups.
    """

    name: str
    deployments: tuple[Deployment, ...]
    strategy: Strategy = "weighted"
    fallbacks: tuple[str, ...] = ()
    context_fallbacks: tuple[str, ...] = ()
    content_fallbacks: tuple[str, ...] = ()
    retries: Retries = Retries()
    breaker: Thresholds = Thresholds()
    heartbeat_s: float | None = None
    continue_streams: bool = False
    hedge: Hedge | None = None
    queue: Queue | None = None
    health: Probe | None = None
    timeouts: Timeouts = Timeouts()
    created: int = 0
    owned_by: str = "penstock"
    affinity: Affinity = "session"
    aliases: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    shadow: Shadow | None = None
    cache: Policy | None = None
    retrieval: Retrieval | None = None
    roles: Roles | None = None
    awaited: tuple[Awaited, ...] = ()
    router: Router | None = None  # it has no deployments: a call of it becomes one of another model
    steered: bool = (
        False  # set by itself: there is something to decide, with several deployments or one that is not for every call
    )

    def __post_init__(self) -> None:
        steered = len(self.deployments) != 1 or self.queue is not None or not _plain(self.deployments[0])
        msgspec.structs.force_setattr(self, "steered", steered)

    @property
    def admitted_by(self) -> tuple[str, ...]:
        return (self.name, *(f"group:{group}" for group in self.groups))


class Catalog(msgspec.Struct, frozen=True):
    """Every model of one revision. Wildcards are sorted longest first, so that the most specific one wins."""

    models: Mapping[str, Model]
    wildcards: tuple[tuple[str, Model], ...] = ()
    aliases: Mapping[str, Model] = {}

    def find(self, name: str) -> tuple[Model, str] | None:
        """The model for a client's name and what its `*` matched: empty for an exact name, the model's own name for an alias."""
        model = self.models.get(name)
        if model is not None:
            return model, ""
        model = self.aliases.get(name)
        if model is not None:
            return model, model.name
        for prefix, wild in self.wildcards:
            if name.startswith(prefix) and len(name) > len(prefix):
                return wild, name[len(prefix) :]
        return None

    def places(self, model: Model) -> tuple[Deployment, ...]:
        """Where a call of it may be answered at first: of a router, by whatever it leads to."""
        if model.router is None:
            return model.deployments
        found = (self.find(name) for name in model.router.targets)
        return tuple(deployment for one in found if one is not None for deployment in one[0].deployments)


def compile_catalog(models: Iterable[Model]) -> Catalog:
    """Exact names and wildcards apart. A wildcard is a name that ends in `*`."""
    every = tuple(models)
    exact = {model.name: model for model in every if not model.name.endswith("*")}
    wild = sorted(((model.name[:-1], model) for model in every if model.name.endswith("*")), key=lambda w: -len(w[0]))
    return Catalog(exact, tuple(wild), {alias: model for model in every for alias in model.aliases})


def _plain(deployment: Deployment) -> bool:
    kinds = deployment.kinds
    return (
        deployment.limits is None
        and deployment.when is None
        and deployment.region is None
        and (kinds is None or kinds >= TEXT)
    )
