"""What the engine asks of a model runtime, and what must be known of a model before it is loaded.

Kept free of NumPy at run time: these names are imported while the server starts, the model only when it is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """`max_tokens` counts the special tokens too. `matryoshka`: whether a prefix of a vector is itself an embedding."""

    name: str
    dimensions: int
    max_tokens: int
    matryoshka: bool = False


class Backend(Protocol):
    """Runs one batch. Owned by one thread: never called twice at the same time."""

    def run(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token ids, with special tokens and without padding, to unit vectors `[len(sequences), dimensions]`."""
        ...

    def close(self) -> None:
        """Gives memory and threads back. No call follows."""
        ...
