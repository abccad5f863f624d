"""The rows of one call as arrays, and what makes one batch of several calls."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inference.stacked import Stacked

Columns = Mapping[str, NDArray[Any]]

TEXT_BYTES = 64  # of a string, for want of a look at each


@final
class Frame:
    """`columns` by the names of a signature's inputs, rows on the first axis."""

    __slots__ = ("columns", "nbytes", "rows")

    def __init__(self, columns: Columns, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        if type(columns) is Stacked:
            self.nbytes = columns.matrix.nbytes
            return
        self.nbytes = sum(
            array.nbytes if array.dtype.kind != "O" else array.size * TEXT_BYTES for array in columns.values()
        )

    def joins(self, other: "Frame") -> bool:
        """Whether both can be rows of one batch: the same columns, rows of the same shape."""
        mine, its = self.columns, other.columns
        if type(mine) is Stacked and type(its) is Stacked:
            return True  # of the same model
        return len(mine) == len(its) and all(
            name in its and its[name].shape[1:] == array.shape[1:] for name, array in mine.items()
        )


def joined(frames: Sequence[Frame]) -> Columns:
    """All of their rows, in order."""
    if len(frames) == 1:
        return frames[0].columns
    first, matrices = frames[0].columns, [frame.columns.matrix for frame in frames if type(frame.columns) is Stacked]
    if type(first) is Stacked and len(matrices) == len(frames):
        return Stacked(first.names, np.concatenate(matrices))
    return {name: np.concatenate([frame.columns[name] for frame in frames]) for name in frames[0].columns}


def parted(outputs: Columns, frames: Sequence[Frame]) -> list[dict[str, NDArray[Any]]]:
    """Each call's own rows of what the batch gave."""
    parts, first = [], 0
    for frame in frames:
        last = first + frame.rows
        parts.append({name: array[first:last] for name, array in outputs.items()})
        first = last
    return parts
