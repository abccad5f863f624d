"""Where the parts of this plane meet: the registry that knows bundles, runtimes that run them, the rollout that chooses between them.

Kept free of NumPy at run time: these names are imported while the server starts, a model only when it is first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from inference.signature import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bundle:
    """A release: model, preprocessing, signature and reference profile under one hash. It never changes.

    `digest` is the SHA-256 of `artifact`, in hexadecimal: a file whose bytes differ is never loaded.
    """

    model: str
    version: int
    runtime: str  # onnx, sklearn, xgboost, lightgbm, mlflow, remote
    digest: str
    artifact: Path
    signature: Signature
    metadata: Mapping[str, Any]


class Runnable(Protocol):
    """A loaded model. Owned by one thread or process: never called twice at the same time."""

    def run(self, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Arrays by the signature's names, rows on the first axis, to arrays by the names of its outputs."""
        ...

    def close(self) -> None:
        """Gives memory and threads back. No call follows."""
        ...


class Library(Protocol):
    """The registry as a request sees it: a snapshot in memory, so that no answer waits for a database."""

    def names(self) -> tuple[str, ...]: ...

    def versions(self, model: str) -> tuple[int, ...]:
        """The versions that may be served, in order. Raises ModelNotFound."""
        ...

    def bundle(self, model: str, version: int | None = None, alias: str | None = None) -> Bundle:
        """The version asked for, or the alias's, or `champion`'s; with no alias at all, the newest. Raises ModelNotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Arm:
    """Who answers one call: the version, its name in the rollout, and the versions that see a copy of the call."""

    version: int
    name: str  # champion, challenger, or an arm's own name
    rollout: str | None = None
    shadows: tuple[int, ...] = ()


class Split(Protocol):
    """A rollout as a request sees it. `unit` is what stays with an arm: a user, a session, else the request."""

    def choose(self, model: str, unit: str) -> Arm | None:
        """None: no rollout runs for this model, and the registry's alias decides."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of one arm came to, in the words that gates are written in."""

    model: str
    arm: Arm
    prediction: str  # the id that feedback will name
    ok: bool
    latency_s: float
    cost_nanos: int = 0
    valid: bool = True  # its output kept to the signature
    agreement: float | None = None  # of a shadow: the share of rows for which it said the same as the arm that answered
    rows: int = 1
    inputs: Mapping[str, NDArray[Any]] | None = (
        None  # by column, rows on the first axis; whoever keeps some of it copies that
    )
    outputs: Mapping[str, NDArray[Any]] | None = None


class Observer(Protocol):
    """Sees outcomes. Called on the request's way: it may count, it may not wait."""

    def observe(self, outcome: Outcome) -> None: ...
