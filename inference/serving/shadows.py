"""Versions that see a copy of a call: behind the answer, bounded, never billed, their output compared with what the client got."""

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

import numpy as np
import structlog
from numpy.typing import NDArray

from inference.errors import InferenceError, RunFailed
from inference.ports import Arm, Bundle, Library, Observer, Outcome
from inference.serving.errors import InvalidOutput, ModelTimeout
from inference.serving.fleet import Fleet
from inference.serving.frame import Frame
from inference.serving.outputs import PROBABILITIES, Outputs, kept

log = structlog.stdlib.get_logger(__name__)

MOST: Final = 64  # at the same time; what is beyond is not copied
CLOSE: Final = 1e-5  # relative: numbers that are the same prediction

SHADOW: Final = "shadow"


@final
class Shadows:
    def __init__(
        self,
        library: Library,
        fleet: Fleet,
        observer: Observer | None,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._library = library
        self._fleet = fleet
        self._observer = observer
        self._spawn = spawn
        self._running = 0
        self.left_out = 0

    def offer(self, bundle: Bundle, arm: Arm, id_: str, frame: Frame, outputs: Outputs) -> None:
        """The call was answered with these outputs."""
        for version in arm.shadows:
            if self._running >= MOST:
                self.left_out += 1
                continue
            self._running += 1
            self._spawn(self._run(bundle.model, Arm(version, SHADOW, arm.rollout), id_, frame, outputs))

    async def _run(self, model: str, arm: Arm, id_: str, frame: Frame, outputs: Outputs) -> None:
        began = time.monotonic()
        ok, valid, agreement, said = True, True, None, None
        try:
            bundle = self._library.bundle(model, arm.version)
            said = kept(bundle, await self._fleet.run(bundle, frame), frame.rows)
            agreement = agreed(outputs, said)
        except (RunFailed, ModelTimeout) as error:
            ok, valid = False, not isinstance(error, InvalidOutput)
        except InferenceError as error:  # not its fault: it is gone, busy, or wants other features
            log.info("shadow.left_out", model=model, version=arm.version, reason=error.code)
            self.left_out += 1
            return
        finally:
            self._running -= 1
        if self._observer is not None:
            took = time.monotonic() - began
            outcome = Outcome(
                model,
                arm,
                id_,
                ok,
                took,
                valid=valid,
                agreement=agreement,
                rows=frame.rows,
                inputs=frame.columns,
                outputs=said,
            )
            self._observer.observe(outcome)


def agreed(said: Outputs, other: Outputs) -> float:
    """The share of rows whose predictions are the same; probabilities are not asked, where there is anything else."""
    names = [name for name in said if name not in PROBABILITIES] or list(said)
    same: NDArray[Any] | None = None
    for name in names:
        mine, its = said[name], other.get(name)
        if its is None or its.shape != mine.shape:
            return 0.0
        if mine.dtype.kind == "f" and its.dtype.kind in "fiu":
            equal = np.isclose(its, mine, rtol=CLOSE, atol=0.0, equal_nan=True)
        else:
            equal = np.asarray(mine == its)
        rows: NDArray[Any] = np.asarray(equal.reshape(len(equal), -1).all(axis=1))
        same = rows if same is None else np.logical_and(same, rows)
    return 1.0 if same is None else float(same.mean())
