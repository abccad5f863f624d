"""One version of a model in a process of its own, and which rows it cannot answer: found by halves, since it says only that it failed."""

import threading
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray

from inference.errors import InferenceError, RunFailed
from inference.ports import Bundle
from inference.scoring.errors import Failed
from inference.scoring.rows import Bad, part
from inference.serving.errors import BadInput, InvalidOutput, LoadFailed
from inference.serving.frame import Frame
from inference.serving.outputs import kept
from inference.serving.remote import Remote

WHY: Final = 300  # characters of what a model says


class Scored(NamedTuple):
    """Outputs of the rows that have some, in order; the others by number."""

    outputs: dict[str, NDArray[Any]]
    bad: dict[int, Bad]


@final
class Scorer:
    """`loader`: `module:function`. `timeout_s`: of one run, after which the model's process is ended. Raises Failed."""

    def __init__(self, bundle: Bundle, loader: str, timeout_s: float) -> None:
        self._bundle = bundle
        self._loader = loader
        self._timeout_s = timeout_s
        self._timed_out = False
        self._remote = self._open()
        fixed = next((column.shape[0] for column in bundle.signature.inputs if column.shape[0] > 0), 0)
        if fixed > 1:
            self._remote.close()
            raise Failed("unsupported_model", f"The model takes exactly {fixed} rows at a time")
        self._most = fixed or None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._remote.close()

    def score(self, frame: Frame) -> Scored:
        """Raises Failed where the model breaks its signature or cannot be loaded again."""
        pieces: list[dict[str, NDArray[Any]]] = []
        bad: dict[int, Bad] = {}
        waiting = [(0, frame.rows)]
        if self._most is not None:
            waiting = [(row, row + 1) for row in range(frame.rows - 1, -1, -1)]
        while waiting:
            first, last = waiting.pop()
            found = self._run(part(frame, first, last))
            if isinstance(found, dict):
                pieces.append(found)
            elif last - first == 1:
                bad[first] = found
            else:
                middle = (first + last) // 2
                waiting += [(middle, last), (first, middle)]
        if not pieces:
            return Scored({}, bad)
        return Scored({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}, bad)

    def _run(self, frame: Frame) -> dict[str, NDArray[Any]] | Bad:
        """What a process dies of once may not be its input's fault: it is tried twice."""
        found = self._tried(frame)
        if isinstance(found, Bad) and self._remote.died:
            self._again()
            found = self._tried(frame)
            if self._remote.died:
                self._again()
        return found

    def _tried(self, frame: Frame) -> dict[str, NDArray[Any]] | Bad:
        self._timed_out = False
        timer = threading.Timer(self._timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            return kept(self._bundle, self._remote.run(frame.columns), frame.rows)
        except InvalidOutput as error:
            raise Failed("invalid_output", error.message) from error
        except BadInput as error:
            return Bad(error.code or "invalid_input", error.param, error.message[:WHY])
        except RunFailed as error:
            if self._timed_out:
                return Bad("model_timeout", None, f"The model did not return within {self._timeout_s:g} s")
            return Bad("model_failed", None, error.message[:WHY])
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._timed_out = True
        self._remote.stop()

    def _again(self) -> None:
        self._remote.close()
        self._remote = self._open()

    def _open(self) -> Remote:
        try:
            return Remote(self._bundle, self._loader)
        except LoadFailed as error:
            raise Failed("model_load_failed", error.message) from error
        except InferenceError as error:
            raise Failed(error.code or "model_load_failed", error.message) from error
