"""What the columns of training data looked like: the reference that a monitor holds later data against."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LEVELS: Final = (0.0, 0.01, 0.05, *(round(0.1 * n, 1) for n in range(1, 10)), 0.95, 0.99, 1.0)
BINS: Final = 20
MOST_CATEGORIES: Final = 100
MOST_COLUMNS: Final = 2_000

Json = dict[str, Any]


def profiled(columns: Mapping[str, NDArray[Any]]) -> Json:
    """`{"rows", "columns": {name: {...}}}`. A matrix has a column for each of its numbers, `input[3]`."""
    made: Json = {}
    for name, array in columns.items():
        if array.ndim == 1:
            made[name] = _column(array)
        else:
            flat = array.reshape(len(array), -1)
            made |= {f"{name}[{number}]": _column(flat[:, number]) for number in range(flat.shape[1])}
        if len(made) > MOST_COLUMNS:
            break
    rows = len(next(iter(columns.values()))) if columns else 0
    return {"rows": rows, "columns": dict(list(made.items())[:MOST_COLUMNS])}


def _column(values: NDArray[Any]) -> Json:
    return _numbers(values.astype(np.float64)) if values.dtype.kind in "biuf" else _texts(values)


def _numbers(values: NDArray[np.float64]) -> Json:
    """`quantiles` at LEVELS (linear interpolation); `histogram`: counts between BINS + 1 `edges` at even quantiles, as PSI wants them."""
    known = values[np.isfinite(values)]
    nulls = float(1 - len(known) / len(values)) if len(values) else 0.0
    if not len(known):
        return {"kind": "number", "nulls": nulls}
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    counts, _ = np.histogram(known, edges) if len(edges) > 1 else (np.array([len(known)]), edges)
    quantiles = {str(level): float(value) for level, value in zip(LEVELS, np.quantile(known, LEVELS), strict=True)}
    return {
        "kind": "number",
        "nulls": nulls,
        "mean": float(known.mean()),
        "std": float(known.std()),
        "min": float(known.min()),
        "max": float(known.max()),
        "distinct": len(np.unique(known)),
        "quantiles": quantiles,
        "histogram": {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]},
    }


def _texts(values: NDArray[Any]) -> Json:
    """The commonest `categories` with their shares; `other`: the share of the rest."""
    known = [str(each) for each in values.tolist() if each not in {None, ""}]
    nulls = 1 - len(known) / len(values) if len(values) else 0.0
    counts = Counter(known)
    common = {name: count / len(known) for name, count in counts.most_common(MOST_CATEGORIES)}
    other = max(0.0, 1 - sum(common.values())) if known and len(counts) > MOST_CATEGORIES else 0.0
    return {"kind": "text", "nulls": nulls, "distinct": len(counts), "categories": common, "other": other}
