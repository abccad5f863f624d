"""The serving plane put together, with the first request for it."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, final

from admin.predictions.settings import FeaturesSection, PredictionsSection, nanos
from admin.predictions.told import telling
from inference.features.joining import Joins, Views
from inference.features.online import FeastServer, OnlineStore, Post
from inference.features.rest import FeaturesRest
from inference.oip.repository import Repository
from inference.oip.rest import Rest as Oip
from inference.ports import Bundle, Library, Observer, Runnable, Split
from inference.serving import capture, capture_store, fleet
from inference.serving.capture import Capture
from inference.serving.capture_store import Transaction
from inference.serving.desk import Desk
from inference.serving.fleet import Fleet
from inference.serving.rest import Rest
from inference.serving.service import Predictions, Prices, Spawn

if TYPE_CHECKING:
    from inference.oip.grpc import Server
    from inference.runtimes.peers import Peer

MEBI = 1 << 20


@final
class Made:
    """What answers, and what has to end with the server."""

    def __init__(
        self, predictions: Predictions, rest: Rest, oip: Oip, repository: Repository, features: FeaturesRest
    ) -> None:
        self.features = features
        self.predictions = predictions
        self.rest = rest
        self.oip = oip
        self.repository = repository
        self.grpc: Server | None = None

    @property
    def capture(self) -> Capture:
        return self.predictions.capture

    async def close(self) -> None:
        if self.grpc is not None:
            await self.grpc.close()
        await self.predictions.fleet.close()
        await self.capture.close()


def make(
    settings: PredictionsSection,
    *,
    folder: Path,
    writing: Transaction,
    reading: Transaction,
    features: FeaturesSection,
    views: Views,
    post: Post,
    desk: Desk,
    library: Library,
    split: Split | None,
    observer: Observer | None,
    loader: tuple[str, str],
    version: str,
    draining: Callable[[], bool],
    most_bytes: int,
    spawn: Spawn,
    random: Callable[[], float],
    trim: Callable[[], object],
    tell: Callable[[bytes], None] | None = None,
    peers: "Mapping[str, Peer]",
) -> Made:
    """`loader`: `module:function` in this process, and in one of its own. `tell` hears of each capture that is stored."""
    here, apart = loader
    terms = fleet.Terms(
        memory=int(settings.memory_mb * MEBI),
        timeout_s=settings.timeout_s,
        load_timeout_s=settings.load_timeout_s,
        rows=settings.batch.rows,
        nbytes=int(settings.batch.mb * MEBI),
        waiting=settings.waiting,
        processes=settings.processes,
    )
    models = Fleet(partial(_loaded, here, peers), apart, terms, trim)
    keep = partial(capture_store.store, writing)
    store = OnlineStore(reading, post, _servers(features))
    predictions = Predictions(
        library=library,
        fleet=models,
        capture=Capture(folder, _captures(settings), keep if tell is None else telling(keep, tell), random),
        price=Prices(nanos(settings.prices)),
        split=split,
        observer=observer,
        spawn=spawn,
        joins=Joins(views, store),
    )
    repository = Repository(library, models)
    oip = Oip(
        predictions,
        desk,
        repository=repository,
        most_rows=settings.max_rows,
        most_bytes=most_bytes,
        version=version,
        draining=draining,
    )
    feast = FeaturesRest(views, store, desk, writing, settings.max_rows)
    return Made(predictions, Rest(predictions, desk, settings.max_rows), oip, repository, feast)


def _loaded(where: str, peers: "Mapping[str, Peer]", bundle: Bundle) -> Runnable:
    if bundle.runtime == "remote":
        from inference.runtimes.peers import restore  # noqa: PLC0415 — httpx, for those who have such models

        return restore(bundle.artifact, bundle.digest, bundle.signature, peers)
    module, _, name = where.partition(":")
    runnable: Runnable = getattr(import_module(module), name)(bundle)
    return runnable


def _servers(features: FeaturesSection) -> dict[str, FeastServer]:
    return {
        name: FeastServer(one.url, None if one.token is None else one.token.get_secret_value(), one.timeout_s)
        for name, one in features.feast.items()
    }


def _captures(settings: PredictionsSection) -> capture.Terms:
    spec = settings.capture
    return capture.Terms(
        sample=spec.sample,
        samples=spec.samples,
        redact={name: frozenset(columns) for name, columns in spec.redact.items()},
        call_bytes=int(spec.call_kb * 1024),
        file_bytes=int(spec.pending_mb * MEBI),
    )
