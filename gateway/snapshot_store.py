"""Reads one revision of keys, models, budgets and limits and compiles it into the snapshot that requests run on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, select

from gateway import budget_store, key_store, model_store, version_store
from gateway.catalog import Awaited, Catalog, Deployment, Model, Roles, compile_catalog
from gateway.database import newest_revision, reading
from gateway.guards.policy import Guard, Guards
from gateway.kinds import served_by
from gateway.mcp import store as mcp_store
from gateway.mcp.catalog import Server, Servers
from gateway.model_store import DeploymentRecord
from gateway.named_specs import SpecRecord
from gateway.price_map import Entry, price_under
from gateway.pricing import combined
from gateway.providers import IN_PROCESS, PROVIDERS, QUOTES, QUOTES_MODEL, Provider
from gateway.scopes import changed_rules
from gateway.secret_box import BoxError, SecretBox, is_sealed
from gateway.settings import CacheSpec, DeploymentSpec, ManagedSpec, ModelSpec, PricingSection
from gateway.snapshot import EMPTY, Snapshot
from gateway.tables import guards as guards_table
from gateway.tariffs import Schedule, Tariff, Terms

S = TypeVar("S", ModelSpec, DeploymentSpec)

FREE = Schedule(Tariff(input=0, output=0))  # what runs in this process is billed by nobody


class Skipped(msgspec.Struct, frozen=True):
    """An object that is stored but cannot be used: `deployment`, `chat-a`, `environment variable X is not set…`."""

    kind: str
    id: str
    reason: str


class Loaded(msgspec.Struct, frozen=True):
    snapshot: Snapshot
    skipped: tuple[Skipped, ...] = ()


class SnapshotStore:
    """`resolve` replaces `${VAR:-default}`; it raises ValueError or LookupError where there is none.

    `price_of` knows a provider's models by their names there; `pricing` says what follows where it does not. `searchable`: whether there
    are documents to search in.
    `beside` reads what another plane keeps, given what it read last: the same object if nothing changed.
    `newest` asks for the newest revision in a cheaper way.
    """

    def __init__(
        self,
        engine: Engine,
        box: SecretBox,
        resolve: Callable[[str], str],
        providers: Mapping[str, Provider] = PROVIDERS,
        *,
        price_of: Callable[[str, str], Entry | None] = lambda provider, target: None,  # noqa: ARG005
        pricing: PricingSection = PricingSection(),  # noqa: B008 — frozen
        cache: CacheSpec | None = None,
        searchable: Callable[[Connection], bool] = lambda tx: False,  # noqa: ARG005
        beside: Callable[[Connection, object], object] = lambda _, known: known,
        newest: Callable[[], int] | None = None,
    ) -> None:
        self._engine = engine
        self._box = box
        self._resolve = resolve
        self._providers = providers
        self._price_of = price_of
        self._default_pricing = pricing
        self._cache = cache
        self._searchable = searchable
        self._beside = beside
        self._newest = newest

    def revision(self) -> int:
        """The newest one."""
        if self._newest is not None:
            return self._newest()
        with self._engine.connect() as connection:
            return newest_revision(connection)

    def load(self, known: Snapshot = EMPTY) -> Loaded:
        """Everything as of one moment. Of keys, budgets and limits, only those that changed since `known` are read."""
        with reading(self._engine) as tx:
            revision = newest_revision(tx)
            keys = dict(known.keys)
            for digest, key in key_store.changed_since(tx, known.revision):
                if key is None:
                    keys.pop(digest, None)
                else:
                    keys[digest] = key
            rules = changed_rules(
                known.rules,
                budget_store.changed_budgets(tx, known.revision),
                budget_store.changed_limits(tx, known.revision),
            )
            catalog, attached, skipped = self._catalog(tx)
            guards, off, unguarded = self._guards(tx)
            versions = version_store.every(tx)
            servers, unusable = self._servers(tx)
            searchable = self._searchable(tx)
            beside = self._beside(tx, known.beside)
        if catalog == known.catalog:
            catalog = known.catalog  # what is prepared per deployment stays valid when only keys changed
        if servers == known.servers:
            servers = known.servers
        made = Guards(guards, catalog, attached, off) if guards or attached else None
        left_out = (*skipped, *unusable, *unguarded)
        return Loaded(Snapshot(revision, keys, catalog, rules, versions, servers, searchable, beside, made), left_out)

    def _catalog(self, tx: Connection) -> tuple[Catalog, Mapping[str, tuple[str, ...]], tuple[Skipped, ...]]:
        """With the guards that models name themselves."""
        models: list[Model] = []
        attached: dict[str, tuple[str, ...]] = {}
        skipped: list[Skipped] = []
        for record, below in model_store.every_model(tx):
            try:
                spec = _valid(ModelSpec, record.spec)
            except UnusableError as error:
                skipped.append(Skipped("model", record.name, str(error)))
                continue
            ready: list[Deployment] = []
            awaited: list[Awaited] = []
            for deployment in below:
                try:
                    one = self._deployment(deployment, spec)
                except UnusableError as error:
                    skipped.append(Skipped("deployment", deployment.id, str(error)))
                else:
                    away = _away(deployment)
                    if away is None:
                        ready.append(one)
                    else:
                        awaited.append(away)
            models.append(_model(record, spec, tuple(ready), self._cache, tuple(awaited)))
            if spec.guards:
                attached[spec.name] = spec.guards
        return compile_catalog(_with_last_resort(models)), attached, tuple(skipped)

    def _guards(self, tx: Connection) -> tuple[tuple[Guard, ...], frozenset[str], tuple[Skipped, ...]]:
        """With the names of those that are off. One that cannot be used stays, and fails as it says that it should."""
        if tx.execute(select(guards_table.c.name).limit(1)).one_or_none() is None:
            return (), frozenset(), ()
        from gateway.guards import store as guard_store  # noqa: PLC0415 — half a megabyte for those who have any

        ready: list[Guard] = []
        off: set[str] = set()
        skipped: list[Skipped] = []
        records = guard_store.every(tx)
        ids = guard_store.team_ids(tx, records)
        for record in records:
            try:
                guard = guard_store.compiled(record, self._clear, ids)
            except ValidationError as error:
                skipped.append(Skipped("guard", record.name, _complaint(error)))
                guard = guard_store.broken(record, ids)
            except UnusableError as error:
                skipped.append(Skipped("guard", record.name, str(error)))
                guard = guard_store.broken(record, ids)
            if guard is None:
                off.add(record.name)
            else:
                ready.append(guard)
        return tuple(ready), frozenset(off), tuple(skipped)

    def _servers(self, tx: Connection) -> tuple[Servers, tuple[Skipped, ...]]:
        ready: list[Server] = []
        skipped: list[Skipped] = []
        for record in mcp_store.SERVERS.every(tx):
            try:
                server = mcp_store.compiled(record, self._clear)
            except ValidationError as error:
                skipped.append(Skipped("mcp server", record.name, _complaint(error)))
            except UnusableError as error:
                skipped.append(Skipped("mcp server", record.name, str(error)))
            else:
                ready += [] if server is None else [server]
        return tuple(ready), tuple(skipped)

    def _deployment(self, record: DeploymentRecord, model: ModelSpec) -> Deployment:
        stored = dict(record.spec)
        api_key = stored.pop("api_key", None)
        headers = {name: self._clear(value) for name, value in stored.pop("headers", {}).items()}
        spec = _valid(DeploymentSpec, stored)
        terms, schedule, entry = self._pricing(model, spec)
        return Deployment(
            id=spec.id,
            provider=spec.provider,
            base_url=self._base_url(spec),
            target=spec.model,
            api_key=self._api_key(spec, api_key),
            headers=tuple(headers.items()),
            weight=spec.weight,
            order=spec.order,
            price=price_under(schedule, terms) if schedule is not None or "*" not in spec.model else None,
            terms=terms,
            max_input_tokens=spec.max_input_tokens or (entry.max_input_tokens if entry is not None else None),
            max_output_tokens=spec.max_output_tokens or (entry.max_output_tokens if entry is not None else None),
            verify_tls=spec.verify_tls,
            ca_file=spec.ca_file,
            limits=None if spec.limits is None else spec.limits.compile(),
            when=None if spec.when is None else spec.when.compile(),
            region=spec.region,
            api_version=spec.api_version,
            responses=self._speaks_responses(spec),
            kinds=served_by(spec.provider) if spec.kinds is None else frozenset(spec.kinds),
            marks=spec.provider == "anthropic" and model.prompt_caching == "auto",
            engine=None if spec.engine is None else spec.engine.name,
        )

    def _pricing(self, model: ModelSpec, spec: DeploymentSpec) -> tuple[Terms, Schedule | None, Entry | None]:
        """The deployment's own price before the model's, that before the map's; the factors of all of them together."""
        stated = [price for price in (spec.price, model.price) if price is not None]
        terms = (model.pricing or self._default_pricing).terms(combined(price.factor() for price in stated))
        entry = self._price_of(spec.provider, spec.model) if "*" not in spec.model else None
        if spec.provider in IN_PROCESS:
            return terms, FREE, entry
        own = next((schedule for price in stated if (schedule := price.schedule()) is not None), None)
        return terms, own or (entry.schedule if entry is not None else None), entry

    def _speaks_responses(self, spec: DeploymentSpec) -> bool:
        """As declared; else where the provider does, at its own address."""
        if spec.responses is not None:
            return spec.responses
        provider = self._providers.get(spec.provider)
        return provider is not None and provider.responses and self._base_url(spec) == provider.base_url

    def _base_url(self, spec: DeploymentSpec) -> str:
        if spec.base_url is not None:
            return str(spec.base_url).rstrip("/")
        provider = self._providers.get(spec.provider)
        if provider is None or not provider.placed:
            raise UnusableError(f"provider {spec.provider!r} has no base_url of its own: name one")
        return provider.base_url or ""

    def _api_key(self, spec: DeploymentSpec, stored: str | None) -> str | None:
        """The provider's own variable stands in for a missing key, but only at the provider's own address."""
        if stored is not None:
            return self._clear(stored)
        provider = self._providers.get(spec.provider)
        if spec.base_url is None and provider is not None and provider.env is not None:
            return self._clear(f"${{{provider.env}}}")
        return None

    def _clear(self, value: str) -> str:
        try:
            return self._box.open(value) if is_sealed(value) else self._resolve(value)
        except (LookupError, ValueError) as error:
            raise UnusableError(str(error.args[0]) if error.args else "a reference cannot be resolved") from error
        except (BoxError, OSError) as error:
            raise UnusableError(f"its secret cannot be opened: {error}") from error


class UnusableError(Exception):
    """Why one object is left out. One bad row must not take the others down."""


def _away(record: DeploymentRecord) -> Awaited | None:
    """What stands for an engine that is on its way."""
    engine = record.spec.get("engine")
    if engine is None or not engine.get("away"):
        return None
    stated = ManagedSpec.model_validate(engine)
    return Awaited(stated.name, stated.queue, stated.wait_s)


def _model(
    record: SpecRecord,
    spec: ModelSpec,
    ready: tuple[Deployment, ...],
    default_cache: CacheSpec | None,
    awaited: tuple[Awaited, ...] = (),
) -> Model:
    cache = default_cache if spec.cache is None else spec.cache
    return Model(
        name=spec.name,
        deployments=ready,
        strategy=spec.strategy,
        fallbacks=(*spec.fallbacks, *_last_resort(spec, ready)),
        context_fallbacks=spec.context_fallbacks,
        content_fallbacks=spec.content_fallbacks,
        retries=spec.retries.compile(),
        breaker=spec.breaker.compile(),
        heartbeat_s=spec.heartbeat_s,
        continue_streams=spec.continue_streams,
        hedge=None if spec.hedge is None else spec.hedge.compile(),
        queue=None if spec.queue is None else spec.queue.compile(),
        health=None if spec.health is None else spec.health.compile(),
        timeouts=spec.timeouts.compile(),
        created=int(record.created_at),
        affinity=spec.affinity,
        aliases=spec.aliases,
        groups=spec.groups,
        shadow=None if spec.shadow is None else spec.shadow.compile(),
        cache=cache.compile(spec.name, ready) if cache else None,
        retrieval=None if spec.retrieval is None else spec.retrieval.compile(),
        roles=_roles(spec, ready),
        awaited=awaited,
        router=None if spec.router is None else spec.router.compile(),
    )


def _roles(spec: ModelSpec, ready: Sequence[Deployment]) -> Roles | None:
    """As it is declared, else as the one provider that it has wants it."""
    if spec.embedding is not None:
        return spec.embedding.compile()
    providers = {one.provider for one in ready}
    told = PROVIDERS.get(providers.pop()) if len(providers) == 1 else None
    return None if told is None or told.input_types is None else Roles("", "", *told.input_types)


def _last_resort(spec: ModelSpec, ready: tuple[Deployment, ...]) -> tuple[str, ...]:
    """What answers a question about documents when nobody else does, unless it is what answers them anyway."""
    if spec.retrieval is None or not spec.retrieval.last_resort or all(one.provider == QUOTES for one in ready):
        return ()
    return () if QUOTES_MODEL in spec.fallbacks else (QUOTES_MODEL,)


def _with_last_resort(models: Sequence[Model]) -> Sequence[Model]:
    """And the model that quotes, where it stands behind any of them and nobody has named it."""
    wanted = any(QUOTES_MODEL in model.fallbacks for model in models)
    if not wanted or any(model.name == QUOTES_MODEL for model in models):
        return models
    where = Deployment(
        id=f"{QUOTES}:{QUOTES_MODEL}",
        provider=QUOTES,
        base_url="",
        target=QUOTES_MODEL,
        price=price_under(FREE, Terms()),
        kinds=served_by(QUOTES),
    )
    return (*models, Model(QUOTES_MODEL, (where,)))


def _valid(kind: type[S], stored: Mapping[str, Any]) -> S:
    """Rows may be older than the rules, and pydantic's own message would quote the input, which is a secret here."""
    try:
        return kind.model_validate(stored)
    except ValidationError as error:
        raise UnusableError(_complaint(error)) from None


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
