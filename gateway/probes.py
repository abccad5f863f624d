"""Finds out in the background how deployments are, where the configuration wants that (`health` on a model).

A probe is a GET, by default of the list of models. One that fails counts like a failed call, so a dead deployment is known before a client
waits for it. One that is answered lets calls in again after an opening has lasted; it never shortens one, as a server may list its models
and still fail at every call.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, final

import structlog

from gateway import errors
from gateway.catalog import Deployment, Model, Probe
from gateway.drive import driven
from gateway.refusal import refusal
from gateway.resilience.failures import failure_of, wait_asked_s
from gateway.resilience.health import Health
from gateway.snapshot import Current
from gateway.targets import Targets

log = structlog.stdlib.get_logger(__name__)

TICK_S: Final = 0.1
PATIENCE_S: Final = 5.0  # for an answer to a probe
MAX_BYTES: Final = 4 * 1024 * 1024  # of an answer that nobody reads
AT_ONCE: Final = 16


@final
class Probes:
    """One per process. `now` is a monotonic clock."""

    def __init__(self, current: Current, targets: Targets, health: Health, now: Callable[[], float]) -> None:
        self._current = current
        self._targets = targets
        self._health = health
        self._now = now
        self._due: dict[str, float] = {}
        self._running: set[str] = set()
        self._changed = asyncio.Event()
        current.on_change(lambda _: self._changed.set())

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for model, deployment, probe in self._next():
                    self._running.add(deployment.id)
                    group.create_task(self._probe(model, deployment, probe))
                if self._due:
                    await asyncio.sleep(TICK_S)
                else:
                    await self._changed.wait()

    def _next(self) -> Iterator[tuple[Model, Deployment, Probe]]:
        """Whose turn it is. What is open or cooling is left alone."""
        catalog, now = self._current.snapshot.catalog, self._now()
        wanted: dict[str, float] = {}
        for model in (*catalog.models.values(), *(model for _, model in catalog.wildcards)):
            if model.health is None:
                continue
            for deployment in model.deployments:
                due = wanted[deployment.id] = self._due.get(deployment.id, now)
                free = deployment.id not in self._running and len(self._running) < AT_ONCE
                if due <= now and free and deployment.base_url and self._health.usable((deployment,)):
                    wanted[deployment.id] = now + model.health.interval_s
                    yield model, deployment, model.health
        self._due = wanted

    async def _probe(self, model: Model, deployment: Deployment, probe: Probe) -> None:
        began = self._now()
        self._health.begin(deployment)
        try:
            await driven(self._ask(model, deployment, probe))
        except errors.GatewayError as error:
            failure = failure_of(error, sent=True)
            self._health.failed(model, deployment, failure, error.message, wait_asked_s(error), began)
            log.info("probe.failed", deployment=deployment.id, failure=failure)
        except Exception:  # a task's border: one deployment's trouble must not end the others' probes
            self._health.let_go(deployment)
            log.exception("probe.broken", deployment=deployment.id)
        except asyncio.CancelledError:
            self._health.let_go(deployment)
            raise
        else:
            self._health.probed(deployment, began)
        finally:
            self._running.discard(deployment.id)

    async def _ask(self, model: Model, deployment: Deployment, probe: Probe) -> None:
        """Raises GatewayError for whatever a call would take for a failure of the deployment's."""
        target = self._targets.question(deployment, probe.path)
        connection = target.origin.idle() or await target.origin.acquire(model.timeouts.connect_s)
        try:
            connection.send(target.head, b"")
            connection.expect(self._now() + PATIENCE_S, "probe")
            await connection.whole(MAX_BYTES)
            if connection.status in (401, 402, 403, 408, 429) or connection.status >= 500:
                raise refusal(connection, target)
        finally:
            connection.release()
