"""The tries of one model: which deployment is next, and after what wait. Pure; one object per model that a call comes to.

Deployments are tried in the plan's order, each at once after the one before failed: the next one is not to blame. Only when all of them
have failed is there a wait, by backoff or as long as the upstreams ask, and a new round. Moving on costs a retry, unless the failure
cost nothing (no connection, a refused key); a wait always does.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import final

from gateway.catalog import Deployment
from gateway.resilience.backoff import Retries, bound_s, wait_s
from gateway.resilience.failures import FREE, NEVER_REPEATED, NO_USE_REPEATING, Failure


@final
class Rounds:
    """`take` after `next` said that there is something to take."""

    __slots__ = ("_asked", "_fresh", "_retries", "_spoiled", "_used", "_waits")

    def __init__(self, retries: Retries, order: Iterable[Deployment]) -> None:
        self._retries = retries
        self._fresh = deque(order)
        self._spoiled: set[str] = set()
        self._asked: dict[str, float] = {}
        self._used = 0
        self._waits = 0

    def next(
        self, failed: str, failure: Failure, asked_s: float | None, *, share: float, left_s: float, elsewhere: bool
    ) -> float | None:
        """Seconds to wait before the next try, 0 for at once; None if this model is through.

        `failed` is the deployment's id, `left_s` what is left of the call's time, `elsewhere` whether another model stands in.
        """
        if failure in NO_USE_REPEATING:
            self._spoiled.add(failed)
            self._asked.pop(failed, None)
        else:
            self._asked[failed] = asked_s or 0.0
        if left_s <= 0:
            return None
        if self._fresh and (failure in FREE or failure == "context"):  # `only` has left those that take longer prompts
            return 0.0
        if failure in NEVER_REPEATED:
            return None
        if self._used >= self._retries.attempts or not (self._fresh or self._asked):
            return None
        wait = 0.0 if self._fresh else self._wait(share, elsewhere=elsewhere)
        if wait is None or wait >= left_s:
            return None
        self._used += 1
        return wait

    @property
    def empty(self) -> bool:
        """Whether the round is over: `renew` before the next `take`."""
        return not self._fresh

    def repeatable(self, order: Iterable[Deployment]) -> tuple[Deployment, ...]:
        return tuple(deployment for deployment in order if deployment.id not in self._spoiled)

    def only(self, usable: Callable[[Sequence[Deployment]], Iterable[Deployment]]) -> None:
        """Leaves out of this round what has turned out to be unusable."""
        self._fresh = deque(usable(tuple(self._fresh)))

    def renew(self, order: Iterable[Deployment]) -> None:
        """A new round, after a wait."""
        self._fresh.extend(order)
        self._asked.clear()

    def take(self) -> Deployment:
        return self._fresh.popleft()

    def _wait(self, share: float, *, elsewhere: bool) -> float | None:
        """A long wait that an upstream asks for is only sat out where no other model stands in."""
        floor_s = min(self._asked.values())
        if elsewhere and floor_s > bound_s(self._retries, self._waits):
            return None
        wait = wait_s(self._retries, self._waits, share, floor_s or None)
        self._waits += 1
        return wait
