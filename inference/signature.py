"""What a model takes and what it gives, column by column: the part of a release bundle that a caller sees."""

from dataclasses import dataclass
from typing import Literal

# The Open Inference Protocol's names of types.
DataType = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]


@dataclass(frozen=True, slots=True)
class Column:
    """One named tensor. `shape` is that of one batch: its first axis counts rows, and -1 stands for any length.

    `nullable`: whether a missing value (null, NaN) is an answerable question. `categories`: the only values that text may have.
    `minimum` and `maximum` are what the training data held: they inform, they refuse nothing.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...] = (-1,)
    required: bool = True
    nullable: bool = False
    categories: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


class Learnt:
    """Room for what a reader works out once about a signature (`inference.serving.reading`); no part of what it says."""

    __slots__ = ("learnt",)
    learnt: object


@dataclass(frozen=True, slots=True)
class Signature(Learnt):
    """`inputs` in the order that the model wants them; `outputs` in the order that it gives them."""

    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]
