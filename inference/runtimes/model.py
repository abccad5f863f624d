"""What each kind of model has in common while it is looked at: what it takes, what is known of it, how it is run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from inference.signature import Column, DataType

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a registration says beside the artefact: `inputs` by its own signature, else `kinds` of the columns in its sample.

    `classes` are the labels behind the numbers that XGBoost and LightGBM give. `pinned`: the configuration allows this very pickle.
    """

    inputs: tuple[Column, ...] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[Any, ...] | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """`facts` are kept with the version: task, classes, and what its runtime needs to open it again."""

    inputs: tuple[Column, ...]
    facts: Mapping[str, Any]
    nullable: bool = False


class Inconvertible(Exception):
    """There is no graph for this model; the message says why."""


def tensor(features: int, datatype: DataType = "FP64", *, nullable: bool = False) -> tuple[Column, ...]:
    """One matrix, for a model that knows no names."""
    return (Column("input", datatype, (-1, features), nullable=nullable),)


def named(names: list[str], hints: Hints, datatype: DataType = "FP64", *, nullable: bool = False) -> tuple[Column, ...]:
    """One column for each name: text where the sample has text, else numbers."""
    return tuple(
        Column(name, "BYTES" if hints.kinds.get(name) == "BYTES" else datatype, nullable=nullable) for name in names
    )
