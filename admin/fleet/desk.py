"""The fleet's desk: declarations out of the database, deployments of running engines into it, and the calls that they have."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, final

import structlog
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import DBAPIError

from gateway.database import appending, changing, newest_revision, reading, record_revision
from gateway.errors import BadRequest
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox, is_reference, is_sealed
from gateway.seeding import Seed, seed
from gateway.settings import DeploymentSpec, ManagedSpec, ModelSpec
from gateway.tables import deployments
from inference.fleet import command, store
from inference.fleet.settings import EngineSpec
from inference.fleet.states import Condition, Declared, Offer, Place

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
SOURCE: Final = "fleet"
MAX_SECRET: Final = 8192
_LEADER: Final = 7_365_627_003  # PostgreSQL's lock: of all machines on one database, one runs engines


@final
class Desk:
    """`inference.fleet.supervisor.Desk` and `gateway.waking.Keeper` on the database. `worker` names this process."""

    def __init__(
        self, engine: Engine, box: SecretBox, resolve: Callable[[str], str], refresher: Refresher, worker: str
    ) -> None:
        self._engine = engine
        self._box = box
        self._resolve = resolve
        self._refresher = refresher
        self._worker = worker
        self._leading: Connection | None = None

    async def lead(self) -> bool:
        """On PostgreSQL as long as the connection lives, which each call finds out; the file's lock is enough on SQLite."""
        return self._engine.dialect.name != "postgresql" or await asyncio.to_thread(self._take_lead)

    async def any_at_all(self) -> bool:
        return await self._read(store.any_at_all)

    async def declared(self) -> dict[str, Declared]:
        return await self._read(store.declared)

    async def publish(self, name: str, offer: Offer | None) -> int:
        seeds = () if offer is None else tuple(seeds_of(offer))
        revision = await asyncio.to_thread(self._publish, f"{SOURCE}:{name}", seeds)
        await self._refresher.refresh_now()
        return revision

    async def drained(self, name: str, slot: int, revision: int) -> bool:
        mine = deployment_id(name, slot)
        return await self._read(
            lambda tx: store.drained(tx, lambda id_: id_ == mine or id_.startswith(f"{mine}/"), revision)
        )

    async def say(self, states: Mapping[str, Condition]) -> None:
        await self._append(lambda tx: store.say(tx, states))

    async def published(self) -> tuple[str, ...]:
        def names(tx: Connection) -> tuple[str, ...]:
            query = select(deployments.c.origin).where(deployments.c.origin.like(f"{SOURCE}:%")).distinct()
            return tuple({row.origin.partition(":")[2].partition(" ")[0] for row in tx.execute(query)})

        return await self._read(names)

    async def call(self, engine: str) -> None:
        await self._append(lambda tx: store.call(tx, engine))

    async def report(self, revision: int, running: Mapping[str, int], used: Mapping[str, float]) -> None:
        await self._append(lambda tx: store.report(tx, self._worker, revision, running, used))

    async def close(self) -> None:
        if self._leading is not None:
            await asyncio.to_thread(self._leading.close)

    async def leave(self) -> None:
        """This process has no calls any more."""
        await self._append(lambda tx: store.leave(tx, self._worker))

    def clear(self, value: str) -> str:
        """Raises ValueError, LookupError, BoxError."""
        return self._box.open(value) if is_sealed(value) else self._resolve(value)

    def _publish(self, source: str, seeds: Sequence[Seed]) -> int:
        with changing(self._engine) as tx:
            # What is done to an engine's deployments over REST would be undone with its next step anyway.
            ours = update(deployments).where(deployments.c.origin == f"{source} engine", deployments.c.edited.is_(True))
            tx.execute(ours.values(edited=False, deleted_at=None, seed_hash=""))
            report = seed(tx, source, seeds, self._box)
            for kept in report.kept:
                log.debug("engine.kept", source=source, object=kept)
            return newest_revision(tx)

    def _take_lead(self) -> bool:
        """Raises SQLAlchemyError where the database cannot be asked: then nobody else can take the lead either."""
        if self._leading is not None and not _alive(self._leading):
            log.warning("fleet.lead_lost", reason="the connection that held the lock is gone")
            self._leading = None
        if self._leading is None:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LEADER}).scalar_one():
                connection.close()
                return False
            connection.detach()  # closed, it must not live on in the pool with the lock
            self._leading = connection
        return True

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with reading(self._engine) as tx:
                return work(tx)

        return await asyncio.to_thread(transaction)

    async def _append(self, work: Callable[[Connection], None]) -> None:
        def transaction() -> None:
            with appending(self._engine) as tx:
                work(tx)

        await asyncio.to_thread(transaction)


def _alive(connection: Connection) -> bool:
    """Closes one that is not."""
    try:
        connection.execute(text("SELECT 1"))
    except DBAPIError:
        connection.invalidate()
        connection.close()
        return False
    return True


def sealing(box: SecretBox) -> Callable[[str], str]:
    """How values of variables are kept: references as they are. Raises BadRequest for one that is too long."""

    def seal(value: str) -> str:
        if len(value) > MAX_SECRET:
            raise BadRequest(f"A secret has at most {MAX_SECRET} characters.", code="string_above_max_length")
        return value if is_reference(value) or is_sealed(value) else box.seal(value)

    return seal


def seed_engines(tx: Connection, specs: Sequence[tuple[EngineSpec, str]], box: SecretBox) -> store.Report:
    """The engines of the configuration file, each with its origin."""
    report = store.seed(tx, specs, sealing(box))
    if report.added or report.updated or report.removed:
        record_revision(tx, "engines seeded from file")
    return report


def deployment_id(engine: str, slot: int | None, lora: str | None = None) -> str:
    """`chat@0`, `chat@0/adapter`; `chat@` stands for one that is on its way."""
    place = f"{engine}@" if slot is None else f"{engine}@{slot}"
    return place if lora is None else f"{place}/{lora}"


def seeds_of(offer: Offer) -> list[Seed]:
    """Models and deployments of what an engine offers now. Where there is nothing and something comes, what stands for it."""
    spec = offer.spec
    names: dict[str | None, str] = {None: spec.model_name}
    names.update((one.name, one.name) for one in spec.lora)
    found: list[Seed] = []
    for lora, name in names.items():
        places = [place for place in offer.places if lora is None or lora in place.loras]
        below = [_deployment(spec, place, lora) for place in places]
        if not below and offer.comes:
            below = [_deployment(spec, None, lora)]
        if below:
            model = ModelSpec.model_validate({"name": name, "deployments": below})
            found.append(Seed(model, f"{SOURCE}:{spec.name} engine"))
    return found


def _deployment(spec: EngineSpec, place: Place | None, lora: str | None) -> DeploymentSpec:
    engine = ManagedSpec(name=spec.name, away=place is None, queue=spec.wake.queue, wait_s=spec.wake.wait_s)
    written: dict[str, Any] = {
        "id": deployment_id(spec.name, None if place is None else place.slot, lora),
        "provider": command.KINDS[spec.kind].provider,
        "base_url": f"{'http://127.0.0.1' if place is None else place.url}/v1",
        "model": lora or command.target(spec),
        "price": spec.price.model_dump(),
        "engine": engine,
    }
    if spec.parallel is not None:
        written["limits"] = {"parallel": spec.parallel}
    if command.check(spec) == "embedding":
        written["kinds"] = ("embedding",)
    return DeploymentSpec.model_validate(written)
