"""Which model comes next when one has failed: a bounded walk over the configured lists, without repetition."""

from collections import deque
from typing import Final, final

from gateway.catalog import Model
from gateway.resilience.failures import Failure

MAX_MODELS: Final = 5


def listed(model: Model, failure: Failure) -> tuple[str, ...]:
    """The models that stand in for one after a failure of some class. A wrong request is wrong everywhere."""
    match failure:
        case "context":
            return model.context_fallbacks
        case "content":
            return model.content_fallbacks
        case "client" | "unaffordable":
            return ()
        case _:
            return model.fallbacks


@final
class Chain:
    """Models in the order to try them. A fallback's own fallbacks come after those of the model that the client named."""

    __slots__ = ("_named", "_seen", "_taken", "_waiting")

    def __init__(self, model: str, named: tuple[str, ...] | None = None) -> None:
        """`named`: what the client asked for instead of the configured ones."""
        self._seen = {model}
        self._named = named
        self._waiting: deque[str] = deque()
        self._taken = 0

    def stands_in(self, model: Model, failure: Failure) -> bool:
        """Whether anything would be tried if this model failed for good."""
        return bool(self._waiting) or any(name not in self._seen for name in self._listed(model, failure))

    def failed(self, model: Model, failure: Failure) -> None:
        self._waiting.extend(self._listed(model, failure))

    def next(self) -> str | None:
        while self._waiting and self._taken < MAX_MODELS:
            name = self._waiting.popleft()
            if name not in self._seen:
                self._seen.add(name)
                self._taken += 1
                return name
        return None

    def _listed(self, model: Model, failure: Failure) -> tuple[str, ...]:
        if self._named is None or failure in ("client", "unaffordable"):
            return listed(model, failure)
        return self._named
