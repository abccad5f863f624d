"""What a process needs to know to work on a job, and that process put together: by the command line and by the server's children alike."""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from admin.predictions.settings import nanos
from admin.scoring.home import Home
from admin.settings import Settings
from gateway.batches.batches import host
from gateway.database import appending, connect, reading
from inference.ports import Bundle
from inference.registry import catalogue, version_store
from inference.registry.artefacts import Artefacts

if TYPE_CHECKING:
    from inference.scoring.cluster import Cluster
    from inference.scoring.job import Count
    from inference.scoring.till import Till
    from inference.scoring.work import Work

LOADER: Final = "inference.runtimes.loading:load"


class Order(msgspec.Struct, frozen=True):
    """`database`: the control state's URL; `databases`: those that may be scored from and to, by name. It holds secrets.

    `prices`: nano-dollars of a call and of a row, by model.
    """

    database: str
    registry: str
    folder: str
    databases: Mapping[str, str]
    timeout_s: float
    prices: Mapping[str, tuple[int, int]] = {}
    loader: str = LOADER


def order_of(settings: Settings) -> Order:
    said = settings.predictions.scoring
    return Order(
        database=settings.database,
        registry=str(settings.registry_dir.resolve()),
        folder=str(Home(settings.data_dir).folder),
        databases={name: url.get_secret_value() for name, url in said.databases.items()},
        timeout_s=said.timeout_s,
        prices=nanos(settings.predictions.prices),
    )


@contextmanager
def worker(
    order: Order,
    stopping: threading.Event,
    told: "Callable[[Count], None]" = lambda _: None,
    till: "Callable[[int, int], Till] | None" = None,
    cluster: "Callable[[], Cluster] | None" = None,
) -> "Iterator[Work]":
    """`till` is made for what a call costs, and each of its rows. Raises ImportError where NumPy is missing."""
    from inference.scoring.job import Owner  # noqa: PLC0415 — as below
    from inference.scoring.job_store import Database  # noqa: PLC0415 — as below
    from inference.scoring.work import Terms, Work  # noqa: PLC0415 — NumPy, for processes that score
    from inference.serving.service import Prices  # noqa: PLC0415 — as above

    engine = connect(order.database)
    artefacts = Artefacts(Path(order.registry))

    def find(model: str, version: int) -> Bundle:
        with reading(engine) as tx:
            return catalogue.bundle_of(version_store.find_version(tx, model, version), artefacts)

    prices = Prices(order.prices)

    def priced(bundle: Bundle) -> "Till":
        assert till is not None, "it is asked for where there is one"
        request = prices.of(bundle, 0)
        return till(request, prices.of(bundle, 1) - request)

    try:
        yield Work(
            Database(partial(reading, engine), partial(appending, engine)),
            Owner(secrets.token_hex(8), host()),
            Terms(order.folder, order.databases, order.loader, order.timeout_s),
            find,
            stopping,
            told,
            None if till is None else priced,
            None if cluster is None else cluster(),
        )
    finally:
        engine.dispose()
