"""The data plane of one process, put together: which hot path has which handler, on which pool, with which clocks."""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, final

from gateway.attempts import Attempts
from gateway.authentication import Authenticator
from gateway.call import CHAT, COMPLETIONS, EMBEDDINGS
from gateway.completion import Completions
from gateway.dialect import Dialect
from gateway.dispatch import Dispatch
from gateway.engines import Engines
from gateway.http_exchange import Route
from gateway.listing import PREFIX, Listing
from gateway.metering import Meter
from gateway.planner import Planner
from gateway.pool import Pool, PoolLimits
from gateway.probes import Probes
from gateway.recorder import Recorder
from gateway.relay import Local, Relay
from gateway.resilience.health import Health
from gateway.routing.loads import Loads
from gateway.shadow import Shadows
from gateway.snapshot import Current, Snapshot
from gateway.targets import Bridge, Targets


@final
class Plane:
    """Lives on one event loop. `routes` are exact paths, `prefixes` beginnings of paths."""

    def __init__(
        self,
        *,
        current: Current,
        admin_digest: bytes,
        meter: Meter,
        recorder: Recorder,
        local: Mapping[str, Local],
        dialects: Mapping[str, Dialect],
        bridge: Bridge | None = None,
        limits: PoolLimits,
        user_agent: str,
        ca_file: str | None = None,
        workers: int = 1,
    ) -> None:
        self.pool = Pool(limits, ca_file)
        self._targets = Targets(self.pool, user_agent, dialects, bridge)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.authenticator = authenticator = Authenticator(admin_digest, time.time)
        self.health = Health(time.monotonic, random.random)
        self.loads = Loads(time.monotonic, meter.price, workers)
        self.shadows = Shadows(self._spawn, random.random, time.monotonic)
        relay = Relay(
            targets=self._targets,
            meter=meter,
            health=self.health,
            local=local,
            now=time.monotonic,
            spawn=self._spawn,
        )
        attempts = Attempts(
            relay=relay,
            meter=meter,
            health=self.health,
            planner=Planner(self.health, self.loads, random.random),
            now=time.monotonic,
            failed=recorder.failed,
            attempted=recorder.attempted,
        )
        completions = Completions(
            current=current,
            authenticator=authenticator,
            dispatch=Dispatch(attempts, self.health, random.random, time.monotonic),
            meter=meter,
            unix=time.time,
            now=time.monotonic,
            shadows=self.shadows,
            finished=recorder.finished,
        )
        listing = Listing(current, authenticator)
        self.routes = {
            b"/v1/chat/completions": Route(b"POST", completions.handler(CHAT)),
            b"/v1/completions": Route(b"POST", completions.handler(COMPLETIONS)),
            b"/v1/embeddings": Route(b"POST", completions.handler(EMBEDDINGS)),
            b"/v1/models": Route(b"GET", listing.every),
        }
        self.prefixes = {PREFIX: Route(b"GET", listing.one)}
        self._probes = Probes(current, self._targets, self.health, time.monotonic)
        self._engines = Engines(current, self._targets, self.loads, time.monotonic)
        current.on_change(self._forget)

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs as long as the server does."""
        return (self._probes.run(), self._engines.run())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pool.close()

    def _spawn(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Code that was not written for a driven coroutine runs in a task of its own."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, snapshot: Snapshot) -> None:
        catalog = snapshot.catalog
        models = (*catalog.models.values(), *(model for _, model in catalog.wildcards))
        alive = {deployment.id: deployment for model in models for deployment in model.deployments}
        self._targets.forget(alive.__contains__)
        self.health.keep(alive)
        self.loads.keep(alive)
