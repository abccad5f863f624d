"""The life of a prediction, top to bottom: resolve, read, hold, join, run, check, settle, tell. Every protocol takes this one path."""

import time
from collections.abc import Callable, Coroutine, Mapping
from decimal import Decimal
from typing import Any, Final, final

import structlog

from inference.errors import InferenceError, RunFailed
from inference.features.joining import Joining, Joins
from inference.ports import Arm, Bundle, Library, Observer, Outcome, Split
from inference.serving.capture import Capture, Captured
from inference.serving.desk import Visit
from inference.serving.errors import InvalidOutput, ModelTimeout
from inference.serving.fleet import Fleet
from inference.serving.frame import Columns, Frame
from inference.serving.outputs import Outputs, kept
from inference.serving.shadows import Shadows

log = structlog.stdlib.get_logger(__name__)

NANO: Final = 1_000_000_000
FAULTS: Final = (RunFailed, ModelTimeout)  # the model's own: what a rollout judges it by

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Wanted:
    """Which model a client asks for: `name`, `name@alias`, a version, or both of them apart."""

    __slots__ = ("alias", "name", "version")

    def __init__(self, name: str, version: int | None = None, alias: str | None = None) -> None:
        if alias is None and version is None:
            name, _, said = name.rpartition("@") if "@" in name else (name, "", "")
            alias = said or None
        self.name = name
        self.version = version
        self.alias = alias


class Answer:
    """What came of a call: `outputs` in the signature's order, one row for each of the frame's."""

    __slots__ = ("arm", "bundle", "outputs")

    def __init__(self, bundle: Bundle, arm: Arm, outputs: dict[str, Any]) -> None:
        self.bundle = bundle
        self.arm = arm
        self.outputs = outputs


@final
class Predictions:
    """One per process. `price` tells nano-dollars of a call by model, metadata and rows."""

    def __init__(
        self,
        *,
        library: Library,
        fleet: Fleet,
        capture: Capture,
        price: "Prices",
        split: Split | None,
        observer: Observer | None,
        spawn: Spawn,
        joins: Joins | None = None,
    ) -> None:
        """`joins`: where what a caller does not say of an entity is found."""
        self._joins = joins
        self.library = library
        self.fleet = fleet
        self.capture = capture
        self._price = price
        self._split = split
        self._observer = observer
        self._arms: dict[tuple[int, str], Arm] = {}  # outside of rollouts
        self._shadows = Shadows(library, fleet, observer, spawn)

    def find(self, wanted: Wanted) -> Bundle:
        """For questions about a model. Raises ModelNotFound."""
        return self.library.bundle(wanted.name, wanted.version, wanted.alias)

    async def predict(self, visit: Visit, wanted: Wanted, read: Callable[[Bundle], Frame]) -> Answer:
        """Answers, or raises InferenceError; either way `visit` knows what came of it, and the rollout."""
        bundle, arm = self._resolve(visit, wanted)
        visit.found(bundle.model, bundle.version)
        plan = None if self._joins is None else self._joins.plan(bundle)
        asked = read(bundle) if plan is None or self._joins is None else self._joins.read(plan, bundle, read)
        frame = asked.frame if isinstance(asked, Joining) else asked
        await visit.hold(self._price.of(bundle, frame.rows))
        seen = frame.columns
        if self._joins is not None and isinstance(asked, Joining):
            frame, seen = await self._joins.joined(asked, bundle)
        began = time.monotonic()
        valid, error, outputs = True, None, None
        try:
            outputs = kept(bundle, await self.fleet.run(bundle, frame), frame.rows)
        except InferenceError as failure:
            error, valid = failure, not isinstance(failure, InvalidOutput)
            raise
        finally:
            took = time.monotonic() - began
            if error is not None:
                visit.failed(error)
            elif outputs is not None:
                visit.done(took)
            if outputs is not None or error is not None:
                self._tell(visit, bundle, arm, frame, seen, outputs, error, took, valid=valid)
        return Answer(bundle, arm, outputs)

    def _resolve(self, visit: Visit, wanted: Wanted) -> tuple[Bundle, Arm]:
        """The version that a client names, else the rollout's choice, else the alias's."""
        if wanted.version is None and wanted.alias is None and self._split is not None:
            arm = self._split.choose(wanted.name, visit.unit)
            if arm is not None:
                return self.library.bundle(wanted.name, arm.version), arm
        bundle = self.find(wanted)
        place = bundle.version, wanted.alias or ("champion" if wanted.version is None else "pinned")
        arm = self._arms.get(place)
        if arm is None:
            arm = self._arms[place] = Arm(*place)
        return bundle, arm

    def _tell(
        self,
        visit: Visit,
        bundle: Bundle,
        arm: Arm,
        frame: Frame,
        seen: Columns,
        outputs: Outputs | None,
        error: InferenceError | None,
        took: float,
        *,
        valid: bool,
    ) -> None:
        faulty = isinstance(error, FAULTS)
        if self._observer is not None and arm.rollout is not None and (error is None or faulty):
            cost = visit.cost_nanos if error is None else 0
            self._observer.observe(
                Outcome(
                    bundle.model,
                    arm,
                    visit.id,
                    error is None,
                    took,
                    cost,
                    valid,
                    rows=frame.rows,
                    inputs=frame.columns,
                    outputs=outputs,
                )
            )
        if error is None or faulty:
            key, team, org = visit.owner
            self.capture.take(
                Captured(
                    visit.id,
                    visit.at,
                    bundle.model,
                    bundle.version,
                    arm.name,
                    arm.rollout,
                    key,
                    team,
                    org,
                    None if error is None else error.code,
                    valid,
                    took,
                    visit.cost_nanos if error is None else 0,
                    frame.rows,
                ),
                seen,
                outputs or {},
            )
        if arm.shadows and outputs is not None:
            self._shadows.offer(bundle, arm, visit.id, frame, outputs)


@final
class Prices:
    """What a call costs: the configuration's word for the model, else the metadata's `price: {request, row}` in USD, else nothing."""

    def __init__(self, configured: Mapping[str, tuple[int, int]]) -> None:
        """Nano-dollars of a request and of a row, by model."""
        self._configured = configured
        self._known: dict[tuple[str, int], tuple[int, int]] = {}

    def of(self, bundle: Bundle, rows: int) -> int:
        price = self._configured.get(bundle.model)
        if price is None:
            place = bundle.model, bundle.version
            price = self._known.get(place)
            if price is None:
                price = self._known[place] = _stated(bundle)
        return price[0] + price[1] * rows


def _stated(bundle: Bundle) -> tuple[int, int]:
    stated = bundle.metadata.get("price")
    if not isinstance(stated, Mapping):
        return 0, 0
    return _nanos(bundle, stated.get("request")), _nanos(bundle, stated.get("row"))


def _nanos(bundle: Bundle, usd: object) -> int:
    if usd is None:
        return 0
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd <= 1_000_000:
        log.warning("price.unreadable", model=bundle.model, version=bundle.version)
        return 0
    return int(Decimal(str(usd)) * NANO)
