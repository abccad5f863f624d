"""Asks inference engines how busy they are: what vLLM and SGLang write into `/metrics` about their queue and their cache.

Only where there is a choice to make from it: a model with several deployments and a strategy that looks at load.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Final, final

import msgspec
import structlog

from gateway import errors
from gateway.catalog import Deployment, Strategy
from gateway.drive import driven
from gateway.routing.loads import Engine, Loads
from gateway.snapshot import Current
from gateway.targets import Targets

log = structlog.stdlib.get_logger(__name__)

ENGINES: Final = frozenset(("vllm", "sglang"))
LOOKING: Final = frozenset[Strategy](("least_busy", "latency", "prefix"))
EVERY_S: Final = 2.0
PATIENCE_S: Final = 2.0
MAX_BYTES: Final = 4 * 1024 * 1024

_SAMPLE = re.compile(rb"^(?:vllm|sglang):(\w+)(?:\{[^}\n]*\})? ([0-9.eE+-]+|NaN)", re.MULTILINE)
_RUNNING = frozenset((b"num_requests_running", b"num_running_reqs"))
_WAITING = frozenset((b"num_requests_waiting", b"num_queue_reqs"))
_CACHE = frozenset((b"kv_cache_usage_perc", b"gpu_cache_usage_perc", b"token_usage"))


def read(page: bytes) -> Engine | None:
    """What a page of metrics says; None if it says nothing of the kind. Samples of several engines behind one page are added up."""
    running = waiting = cache = 0.0
    known = False
    for name, value in _SAMPLE.findall(page):
        number = float(value)
        if number != number:  # noqa: PLR0124 — not a number
            continue
        if name in _RUNNING:
            running, known = running + number, True
        elif name in _WAITING:
            waiting, known = waiting + number, True
        elif name in _CACHE:
            cache = max(cache, number)
    return Engine(running, waiting, cache) if known else None


@final
class Engines:
    """One per process. `now` is a monotonic clock."""

    def __init__(self, current: Current, targets: Targets, loads: Loads, now: Callable[[], float]) -> None:
        self._current = current
        self._targets = targets
        self._loads = loads
        self._now = now
        self._silent: set[str] = set()
        self._changed = asyncio.Event()
        current.on_change(lambda _: self._changed.set())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self._changed.clear()
            asked = list(self._asked())
            if asked:
                await asyncio.gather(*(self._ask(deployment) for deployment in asked))
            else:
                await self._changed.wait()

    def _asked(self) -> Iterator[Deployment]:
        catalog = self._current.snapshot.catalog
        for model in (*catalog.models.values(), *(model for _, model in catalog.wildcards)):
            if len(model.deployments) > 1 and model.strategy in LOOKING:
                yield from (one for one in model.deployments if one.provider in ENGINES)

    async def _ask(self, deployment: Deployment) -> None:
        said: list[Engine] = []
        try:
            await driven(self._get(deployment, said))
        except errors.GatewayError as error:
            self._note(deployment, error.message)
        except Exception:  # a task's border: one engine's trouble must not end the asking of the others
            log.exception("engine.unread", deployment=deployment.id)
        self._loads.of(deployment).observe(said[0] if said else None)

    async def _get(self, deployment: Deployment, said: list[Engine]) -> None:
        """The page stands at the root of the address, beside `/v1`."""
        root = msgspec.structs.replace(deployment, base_url=deployment.base_url.rstrip("/").removesuffix("/v1"))
        target = self._targets.question(root, "/metrics")
        connection = target.origin.idle() or await target.origin.acquire(PATIENCE_S)
        try:
            connection.send(target.head, b"")
            connection.expect(self._now() + PATIENCE_S, "metrics")
            page = await connection.whole(MAX_BYTES)
            found = read(page) if connection.status == 200 else None
            if found is None:
                self._note(deployment, f"status {connection.status}, without what is looked for")
                return
            self._silent.discard(deployment.id)
            said.append(found)
        finally:
            connection.release()

    def _note(self, deployment: Deployment, reason: str) -> None:
        """Once, until it speaks again: an engine without metrics is asked for ever, and that is no news."""
        if deployment.id not in self._silent:
            self._silent.add(deployment.id)
            log.info("engine.silent", deployment=deployment.id, reason=reason)
