"""Is the graph the model? Both answer the same rows, and the graph is kept only if nobody could tell them apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Single precision has 24 bits: 6e-8 of a number, a hundred times that after sums over trees and layers.
RELATIVE: Final = 1e-5
ABSOLUTE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Verdict:
    """`difference`: the largest one, relative to the output's own scale. `reason` is None where they are the same."""

    difference: float
    reason: str | None


def compared(wanted: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]]) -> Verdict:
    """Classes have to be the same ones, numbers equal to single precision."""
    worst = 0.0
    for name, want in wanted.items():
        got = given.get(name)
        if got is None or got.shape != want.shape:
            return Verdict(1.0, f"{name} has the shape {None if got is None else got.shape}, not {want.shape}")
        if want.dtype.kind != "f":
            other = int(np.sum(got.astype(want.dtype) != want))
            if other:
                return Verdict(1.0, f"{name} differs in {other} of {want.size}")
            continue
        if bool(np.any(np.isnan(want) != np.isnan(got))):
            return Verdict(1.0, f"{name} has no number where it should, or the other way round")
        apart = np.nan_to_num(np.abs(got.astype(np.float64) - want))
        allowed = ABSOLUTE + RELATIVE * np.nan_to_num(np.abs(want))
        scale = float(np.nanmax(np.abs(want), initial=1e-12))
        worst = max(worst, float(apart.max(initial=0.0)) / scale)
        if bool(np.any(apart > allowed)):
            return Verdict(
                worst, f"{name} differs by up to {apart.max():.3g} in {int(np.sum(apart > allowed))} of {want.size}"
            )
    return Verdict(worst, None)
