"""The gateway's part of the configuration: the same objects in `penstock.yaml`, over REST and in the database.

Pydantic lives here, at the edge; `compile()` turns a specification into the frozen values of `gateway.catalog`.
"""

from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import AnyHttpUrl, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway import catalog, pricing, tariffs
from gateway.cache import policy
from gateway.embedding_settings import EmbeddingSpec
from gateway.grounding import policy as grounding
from gateway.grounding.ports import Rewrite, Wanted
from gateway.kinds import Kind
from gateway.providers import IN_PROCESS, PROVIDERS, SENTENCE_TRANSFORMERS
from gateway.resilience.backoff import Retries
from gateway.resilience.breaker import Thresholds
from gateway.routers.settings import RouterSpec

PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]
Rate = Annotated[float, Field(ge=0, le=1_000_000)]
ApiVersion = Annotated[  # without quotes it is a date in YAML
    str,
    BeforeValidator(lambda given: given.isoformat() if isinstance(given, date) else given),
    Field(max_length=40, pattern=r"^[0-9A-Za-z][0-9A-Za-z.-]*$"),
]
GROUP = "group:"
OTHER_APIS = frozenset(
    ("anthropic", "gemini", *IN_PROCESS, *(one.name for one in PROVIDERS.values() if one.litellm is not None))
)
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")]


class Section(BaseModel):
    """Unknown keys are errors everywhere: a typing error in a configuration must not pass for a setting."""

    # An infinite weight or timeout is a typing error, too.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RatesSpec(Section):
    """What a price can state. USD per million tokens, but where a unit is named: then USD per one of it."""

    input: Rate | None = None
    output: Rate | None = None
    cached_input: Rate | None = None
    cache_write: Rate | None = None
    cache_write_1h: Rate | None = None
    reasoning: Rate | None = None
    audio_input: Rate | None = None
    audio_output: Rate | None = None
    image_input: Rate | None = None
    image_output: Rate | None = None
    per_image: Rate | None = None
    per_request: Rate | None = None
    per_second: Rate | None = None
    per_character: Rate | None = None
    per_search_unit: Rate | None = None

    def tariff(self) -> tariffs.Tariff:
        def token(usd: float | None) -> int | None:
            return None if usd is None else pricing.pico_per_token(usd)

        def unit(usd: float | None) -> int | None:
            return None if usd is None else pricing.pico_per_unit(usd)

        return tariffs.Tariff(
            input=token(self.input),
            output=token(self.output),
            cached_read=token(self.cached_input),
            cache_write=token(self.cache_write),
            cache_write_1h=token(self.cache_write_1h),
            reasoning=token(self.reasoning),
            audio_input=token(self.audio_input),
            audio_output=token(self.audio_output),
            image_input=token(self.image_input),
            image_output=token(self.image_output),
            image=unit(self.per_image),
            request=unit(self.per_request),
            second=unit(self.per_second),
            character=unit(self.per_character),
            search_unit=unit(self.per_search_unit),
        )


class TierSpec(RatesSpec):
    """What every token of a call costs whose input is longer than `above` tokens."""

    above: int = Field(gt=0)


class PriceSpec(RatesSpec):
    """What is not stated here is in the bundled price map; `discount` and `markup` also act on the map's prices.

    `service_tiers` are factors: `{batch: 0.5}`.
    """

    tiers: tuple[TierSpec, ...] = ()
    service_tiers: dict[str, Annotated[float, Field(ge=0, le=100)]] = {}
    discount: float = Field(default=0, ge=0, le=1)
    markup: float = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _nothing_free_by_accident(self) -> Self:
        if self.output is not None and self.input is None:
            raise ValueError("a price with an output needs an input, too; write `input: 0` if it is free")
        if (self.tiers or self.service_tiers) and self.tariff() == tariffs.Tariff():
            raise ValueError("tiers change a price that is stated here; name its input and output")
        return self

    def schedule(self) -> tariffs.Schedule | None:
        """None where only factors are stated."""
        base = self.tariff()
        if base == tariffs.Tariff():
            return None
        plain = tariffs.Schedule(base, tuple((tier.above, tier.tariff()) for tier in self.tiers))
        services = {name: pricing.scaled(plain, Fraction(str(factor))) for name, factor in self.service_tiers.items()}
        return tariffs.Schedule(base, plain.tiers, services)

    def factor(self) -> tuple[int, int]:
        return pricing.factor_of(self.discount, self.markup)


class PricingSection(Section):
    """What happens to a call whose price nobody knows: `deny` it, `hold` and charge `hold_usd` for it, or `flag` its cost as unknown."""

    unknown: tariffs.UnknownPrice = "flag"
    hold_usd: float | None = Field(default=None, gt=0, le=1_000_000)

    @model_validator(mode="after")
    def _a_hold_has_an_amount(self) -> Self:
        if (self.unknown == "hold") != (self.hold_usd is not None):
            raise ValueError("`unknown: hold` and hold_usd belong together; set both or none")
        return self

    def terms(self, factor: tuple[int, int] = (1, 1)) -> tariffs.Terms:
        return tariffs.Terms(factor, self.unknown, pricing.pico_per_unit(self.hold_usd or 0) // pricing.PICO_PER_NANO)


class LimitsSpec(Section):
    """Per deployment: requests and tokens per minute, calls at the same time. What is at its limit is passed over.

    `fair_share`: each active key has its part of the tokens, and what one does not use is the others'.
    """

    rpm: int | None = Field(default=None, gt=0)
    tpm: int | None = Field(default=None, gt=0)
    parallel: int | None = Field(default=None, gt=0)
    fair_share: bool = False

    @model_validator(mode="after")
    def _there_is_something_to_share(self) -> Self:
        if self.fair_share and self.tpm is None:
            raise ValueError("fair_share divides tokens per minute; set tpm, too")
        return self

    def compile(self) -> catalog.Limits:
        return catalog.Limits(self.rpm, self.tpm, self.parallel, self.fair_share)


Plain = str | int | float | bool
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class WhenSpec(Section):
    """Which requests a deployment is for; all that is named must hold.

    `tags`: any of them; `metadata`: of the key, a value or any of a list; `region`: bound to it.
    """

    tags: tuple[Tag, ...] = ()
    metadata: dict[str, Plain | tuple[Plain, ...]] = {}
    region: Name | None = None

    def compile(self) -> catalog.When:
        def values(value: Any) -> tuple[Any, ...]:
            return value if isinstance(value, tuple) else (value,)

        metadata = tuple((name, values(value)) for name, value in sorted(self.metadata.items()))
        return catalog.When(frozenset(self.tags), metadata, self.region)


class ManagedSpec(Section):
    """Written by whoever runs the engine `name`. `away`: its process is not there, and calls may wait for it."""

    name: Name
    away: bool = False
    queue: int = Field(default=64, ge=0, le=100_000)
    wait_s: PositiveSeconds = 300


class DeploymentSpec(Section):
    """One place that answers for a model. `api_key` may be a `${VAR}` reference, which is stored as such.

    `kinds` of endpoints that it serves; default: what its provider has.
    `engine` is written by the fleet for its own processes.
    `responses`: whether it speaks `/v1/responses` itself; without it, OpenAI at its own address does.
    `api_version` is Azure's: with it the deployment is called by the dated API, where the model's name stands in the path.
    """

    id: Name
    provider: Name = "openai"
    base_url: AnyHttpUrl | None = None
    model: str = Field(default="*", min_length=1, max_length=200)
    api_key: str | None = Field(default=None, max_length=8192, repr=False)
    headers: dict[str, str] = Field(default={}, repr=False)
    weight: float = Field(default=1.0, ge=0)
    order: int = Field(default=1, ge=1)
    price: PriceSpec | None = None
    limits: LimitsSpec | None = None
    when: WhenSpec | None = None
    region: Name | None = None
    max_input_tokens: int | None = Field(default=None, gt=0)
    max_output_tokens: int | None = Field(default=None, gt=0)
    verify_tls: bool = True
    ca_file: str | None = None
    api_version: ApiVersion | None = None
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] | None = None
    responses: bool | None = None
    engine: ManagedSpec | None = None

    @model_validator(mode="after")
    def _one_model_is_loaded(self) -> Self:
        if self.provider == SENTENCE_TRANSFORMERS and "*" in self.model:
            raise ValueError(f"{SENTENCE_TRANSFORMERS} needs one model: a folder, or its name at the hub")
        return self

    @model_validator(mode="after")
    def _responses_are_openais(self) -> Self:
        if self.responses and (self.provider in OTHER_APIS or self.api_version is not None):
            raise ValueError("responses is for addresses that speak OpenAI's API, with /v1/responses among it")
        return self

    @model_validator(mode="after")
    def _a_version_has_a_path(self) -> Self:
        if self.api_version is None:
            return self
        if self.provider != "azure":
            raise ValueError("api_version is for the provider azure")
        if "*" in self.model:
            raise ValueError(
                "with an api_version, Azure needs one model's name; its v1 address (…/openai/v1) takes any"
            )
        return self


class RetriesSpec(Section):
    attempts: int = Field(default=2, ge=0, le=10)
    base_s: float = Field(default=0.25, ge=0, le=60)
    max_s: float = Field(default=8, ge=0, le=300)

    def compile(self) -> Retries:
        return Retries(self.attempts, self.base_s, self.max_s)


class BreakerSpec(Section):
    """When a deployment is left alone: after `failures` in a row, or `share` of at least `calls` within `window_s`."""

    failures: int = Field(default=5, ge=1, le=1000)
    share: float = Field(default=0.5, gt=0, le=1)
    calls: int = Field(default=20, ge=1, le=100_000)
    window_s: PositiveSeconds = 30.0
    open_s: PositiveSeconds = 5.0
    max_open_s: PositiveSeconds = 300.0
    cool_s: PositiveSeconds = 5.0

    def compile(self) -> Thresholds:
        return Thresholds(
            self.failures, self.share, self.calls, self.window_s, self.open_s, self.max_open_s, self.cool_s
        )


class HedgeSpec(Section):
    """A second attempt elsewhere for a call without an answer after `after_s`, for at most `max_share` of the calls.

    `after_p95`: after as long as 95 % of the last calls took at most, and after `after_s` only while that is not known.
    """

    after_s: PositiveSeconds | None = None
    after_p95: bool = False
    max_share: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _there_is_a_time(self) -> Self:
        if self.after_s is None and not self.after_p95:
            raise ValueError("a hedge needs after_s, or after_p95: true")
        return self

    def compile(self) -> catalog.Hedge:
        return catalog.Hedge(self.after_s, self.max_share, self.after_p95)


class QueueSpec(Section):
    """Calls that find every deployment at its limit wait: at most `length` of them, for at most `wait_s` each."""

    length: int = Field(default=256, ge=1, le=10_000)
    wait_s: float = Field(default=30, gt=0, le=3600)

    def compile(self) -> catalog.Queue:
        return catalog.Queue(self.length, self.wait_s)


class ProbeSpec(Section):
    """A GET to each deployment every `interval_s`; any answer below 500 that is not a refused key says that it is well."""

    interval_s: float = Field(ge=0.1, le=86_400)
    path: str = Field(default="/models", max_length=200, pattern=r"^/[!-~]*$")

    def compile(self) -> catalog.Probe:
        return catalog.Probe(self.interval_s, self.path)


class TimeoutsSpec(Section):
    connect_s: PositiveSeconds = 5.0
    first_token_s: PositiveSeconds = 60.0
    stall_s: PositiveSeconds = 60.0
    total_s: PositiveSeconds = 600.0
    attempt_s: PositiveSeconds | None = None

    def compile(self) -> catalog.Timeouts:
        return catalog.Timeouts(self.connect_s, self.first_token_s, self.stall_s, self.total_s, self.attempt_s)


class ShadowSpec(Section):
    """A share of the calls is copied to another model in the background. Nobody gets those answers, and no client pays for them."""

    model: Name
    share: float = Field(gt=0, le=1)

    def compile(self) -> catalog.Shadow:
        return catalog.Shadow(self.model, self.share)


class ExactSpec(Section):
    """Answers to the same request. `sampled`: also of those whose words are drawn, at a temperature above 0.

    `single_flight`: equal requests at the same time make one upstream call.
    """

    ttl_s: PositiveSeconds = 3600
    sampled: bool = True
    single_flight: bool = True

    def compile(self) -> policy.Exact:
        return policy.Exact(self.ttl_s, self.sampled, self.single_flight)


class CrossEncoderSpec(Section):
    """A model of this gateway that reranks: it has to give a question that was answered at least `threshold`, within `timeout_s`."""

    model: Name
    threshold: float = Field(default=0.5, allow_inf_nan=False)
    timeout_s: PositiveSeconds = 1

    def compile(self) -> policy.CrossEncoder:
        return policy.CrossEncoder(self.model, self.threshold, self.timeout_s)


class SemanticSpec(Section):
    """Answers to the same question in other words, within one tenant, one set of instructions and one history.

    `threshold` is the least cosine of two questions. A share of the hits, `recheck`, is asked again and judged, by the model `judge` or by
    comparing both answers; where fewer than `precision` turn out right, the threshold rises by itself. `max_entries`: questions of each
    partition. `cross_encoder`: who has to agree before an answer is given again.
    """

    threshold: float = Field(default=0.85, gt=0, le=1)
    ttl_s: PositiveSeconds = 3600
    precision: float = Field(default=0.99, gt=0, lt=1)
    recheck: float = Field(default=0.05, ge=0, le=1)
    judge: Name | None = None
    max_entries: int = Field(default=10_000, ge=1, le=1_000_000)
    cross_encoder: CrossEncoderSpec | None = None

    def compile(self) -> policy.Semantic:
        encoder = self.cross_encoder
        return policy.Semantic(
            threshold=self.threshold,
            ttl_s=self.ttl_s,
            precision=self.precision,
            recheck=self.recheck,
            judge=self.judge,
            max_entries=self.max_entries,
            cross_encoder=None if encoder is None else encoder.compile(),
        )


class CacheSpec(Section):
    """Which answers are kept, and who shares them. What a model says stands in place of the root's."""

    exact: ExactSpec | None = None
    semantic: SemanticSpec | None = None
    scope: policy.Scope = "user"

    def compile(self, name: str, deployments: Sequence[catalog.Deployment]) -> policy.Policy | None:
        """A cache by meaning keeps its answers in the exact one, and for as long, if that is not named."""
        exact = self.exact
        if exact is None:
            if self.semantic is None:
                return None
            exact = ExactSpec(ttl_s=self.semantic.ttl_s)
        return policy.Policy(
            exact.compile(),
            self.scope,
            policy.version_of(name, deployments),
            policy.is_conditional(deployments),
            None if self.semantic is None else self.semantic.compile(),
        )


class RetrievalSpec(Section):
    """Collections that are searched before the model answers, by id, or by name those of the admin key.

    `filters` is OpenAI's grammar. `last_resort`: where no deployment and no fallback answers, the model that quotes does.
    `rewrite_query`: a question that others stand before is made to stand alone first, by `rewrite_model` or `retrieval.chat_model`.
    """

    collections: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)]
    max_results: int = Field(default=8, ge=1, le=50)
    score_threshold: float = Field(default=0, ge=0, le=1)
    embedding_weight: float = Field(default=1, ge=0, le=1000)
    text_weight: float = Field(default=1, ge=0, le=1000)
    filters: dict[str, Any] | None = None
    instructions: str | None = Field(default=None, min_length=1, max_length=20_000)
    last_resort: bool = True
    rewrite_query: bool = False
    rewrite_model: Name | None = None
    rewrite_timeout_s: float = Field(default=5, gt=0, le=60)

    @model_validator(mode="after")
    def _something_rewrites(self) -> Self:
        if self.rewrite_model is not None and not self.rewrite_query:
            raise ValueError("rewrite_model does nothing without rewrite_query: true")
        return self

    @model_validator(mode="after")
    def _something_ranks(self) -> Self:
        if self.embedding_weight <= 0 and self.text_weight <= 0:
            raise ValueError("one of embedding_weight and text_weight must be above 0")
        return self

    def compile(self) -> grounding.Retrieval:
        wanted = Wanted(
            self.collections,
            self.max_results,
            self.filters,
            self.score_threshold,
            self.embedding_weight,
            self.text_weight,
            Rewrite(self.rewrite_model, self.rewrite_timeout_s) if self.rewrite_query else None,
        )
        return grounding.Retrieval(wanted, self.instructions)


class ModelSpec(Section):
    """What clients ask for. A name that ends in `*` answers for every name with that start."""

    name: Name
    aliases: tuple[Name, ...] = ()
    groups: tuple[Name, ...] = ()
    strategy: catalog.Strategy = "weighted"
    affinity: catalog.Affinity = "session"
    deployments: tuple[DeploymentSpec, ...] = ()
    fallbacks: tuple[Name, ...] = ()
    context_fallbacks: tuple[Name, ...] = ()
    content_fallbacks: tuple[Name, ...] = ()
    retries: RetriesSpec = RetriesSpec()
    breaker: BreakerSpec = BreakerSpec()
    heartbeat_s: float | None = Field(default=None, ge=0.05, le=3600)
    continue_streams: bool = False
    hedge: HedgeSpec | None = None
    queue: QueueSpec | None = None
    health: ProbeSpec | None = None
    timeouts: TimeoutsSpec = TimeoutsSpec()
    shadow: ShadowSpec | None = None
    cache: CacheSpec | Literal[False] | None = None
    retrieval: RetrievalSpec | None = None
    embedding: EmbeddingSpec | None = None
    prompt_caching: Literal["off", "auto"] = "off"
    price: PriceSpec | None = None
    pricing: PricingSection | None = None
    guards: tuple[Name, ...] = ()
    router: RouterSpec | None = None

    @model_validator(mode="after")
    def _names_are_plain(self) -> Self:
        if self.name.startswith(GROUP) or any(alias.startswith(GROUP) for alias in self.aliases):
            raise ValueError(f"a name that begins with `{GROUP}` would mean a group in a key's allow-list")
        if any("*" in alias for alias in self.aliases):
            raise ValueError("an alias is one name: `*` belongs into the name of a model of its own")
        if self.aliases and self.name.endswith("*"):
            raise ValueError("an alias needs a model with one name: a wildcard stands for many")
        return self
