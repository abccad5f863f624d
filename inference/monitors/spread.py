"""Whether vectors of length 1 are spread otherwise than others: two tests whose rate of false alarms is known. Pure.

`mmd` is the maximum mean discrepancy (Gretton et al., JMLR 13, 2012) with a Gaussian kernel whose width is the median distance, against
random relabellings of the same rows, so it holds for any number of rows and dimensions, as long as rows are independent. `ks` is
Kolmogorov and Smirnov's of one number of each row: how near it has the nearest row of a corpus.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.features.statistics import kolmogorov
from inference.monitors.monitor import Finding, Test

Vectors = NDArray[np.float32]

MOST: Final = 500  # rows of either side that are compared
AT_ONCE: Final = 1000  # relabellings of one product
LEAST: Final = 1e-4  # of squared distances: what is nearer is the same row, but for how it is rounded
EQUAL: Final = 1e-6


def of_queries(
    reference: Vectors, current: Vectors, corpus: Vectors, tests: Sequence[Test], alpha: float, seed: int
) -> list[Finding]:
    """`embedding`: where questions lie. `nearest`: how near the corpus is to them."""
    found = []
    each = alpha / len(tests)
    if "mmd" in tests:
        found.append(_mmd(reference, current, each, seed))
    if "ks" in tests:
        there, here = ((rows @ corpus.T).max(axis=1) for rows in (reference, current))
        statistic = _distance(np.sort(there), np.sort(here))
        found.append(Finding("nearest", "ks", statistic, kolmogorov(statistic, len(there), len(here)), each))
    return found


def of_corpus(reference: Vectors, current: Vectors, alpha: float, seed: int) -> list[Finding]:
    """`embedding`: where one passage of each document lies."""
    return [_mmd(reference, current, alpha, seed)]


def _mmd(reference: Vectors, current: Vectors, alpha: float, seed: int) -> Finding:
    random = np.random.default_rng(seed)
    one, other = _some(reference, random), _some(current, random)
    kernel = _kernel(np.concatenate((one, other)))
    labels = np.zeros(len(kernel), np.float32)
    labels[: len(one)] = 1
    seen = float(_discrepancies(kernel, labels[None])[0])
    wanted, as_far = ceil(20 / alpha), 0
    for start in range(0, wanted, AT_ONCE):
        shuffled = random.permuted(np.tile(labels, (min(AT_ONCE, wanted - start), 1)), axis=1)
        as_far += int(np.count_nonzero(_discrepancies(kernel, shuffled) >= seen - EQUAL))
    return Finding("embedding", "mmd", seen, (1 + as_far) / (1 + wanted), alpha)


def _some(rows: Vectors, random: np.random.Generator) -> Vectors:
    return rows if len(rows) <= MOST else rows[random.choice(len(rows), MOST, replace=False)]


def _kernel(rows: Vectors) -> Vectors:
    """Without its diagonal."""
    far = np.maximum(2 - 2 * (rows @ rows.T), 0)
    np.fill_diagonal(far, 0)
    usual = max(LEAST, float(np.median(far[np.triu_indices(len(rows), 1)])))
    kernel: Vectors = np.exp(far * np.float32(-1 / usual)).astype(np.float32)
    np.fill_diagonal(kernel, 0)
    return kernel


def _discrepancies(kernel: Vectors, labels: Vectors) -> NDArray[np.float64]:
    """The unbiased estimate of its square, for each row of labels: 1 for one side and 0 for the other."""
    n = float(labels[0].sum())
    m = labels.shape[1] - n
    towards = labels @ kernel
    within = (towards * labels).sum(axis=1, dtype=np.float64)
    across = towards.sum(axis=1, dtype=np.float64) - within
    beyond = float(kernel.sum(dtype=np.float64)) - 2 * across - within
    made: NDArray[np.float64] = within / (n * (n - 1)) + beyond / (m * (m - 1)) - 2 * across / (n * m)
    return made


def _distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of two sorted samples, the largest difference of their distribution functions."""
    every = np.concatenate((one, other))
    shares = [np.searchsorted(each, every, side="right") / len(each) for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())
