"""Skew: no alarm without a change, whatever the rows; an alarm for each kind of change; and the statistics equal SciPy's."""

import numpy as np
import pytest
from scipy import stats

from inference.features import statistics
from inference.features.skew import Finding, Limits, findings, flat
from inference.runtimes.profile import profiled

RNG = np.random.default_rng


def found(reference: dict[str, np.ndarray], current: dict[str, np.ndarray], **limits: float) -> dict[str, Finding]:
    profile = profiled(reference)
    values = {name: array.tolist() for name, array in current.items()}
    return {each.name: each for each in findings(profile, values, Limits(**limits))}


def test_statistics_are_those_of_scipy() -> None:
    for freedom in (1, 4, 9, 19, 99):
        for level in (0.9, 0.99, 0.9999):
            assert statistics.chi_squared(level, freedom) == pytest.approx(stats.chi2.ppf(level, freedom), rel=0.05)
    for n, m, d in ((100, 100, 0.1), (1000, 500, 0.08), (10_000, 200, 0.12)):
        expected = stats.kstwobign.sf(np.sqrt(n * m / (n + m)) * d)
        assert statistics.kolmogorov(d, n, m) == pytest.approx(expected, rel=0.25, abs=0.01)
    one, other = RNG(1).normal(size=4000), RNG(2).normal(0.3, size=3000)
    edges = np.quantile(one, np.linspace(0, 1, 101))
    edges[0], edges[-1] = -np.inf, np.inf
    seen = statistics.distance(np.histogram(one, edges)[0].tolist(), np.histogram(other, edges)[0].tolist())
    exact = stats.ks_2samp(one, other).statistic
    assert exact - 0.02 < seen <= exact
    table = np.array([[30, 970], [60, 940]])
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert statistics.proportions(0.03, 1000, 0.06, 1000) == pytest.approx(expected, rel=1e-6)


def window(chance: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {
        "normal": chance.normal(size=rows),
        "count": chance.poisson(3, size=rows).astype(float),
        "gaps": np.where(chance.random(rows) < 0.2, np.nan, chance.exponential(size=rows)),
        "kind": chance.choice(["a", "b", "c"], size=rows, p=[0.6, 0.3, 0.1]).astype(object),
    }


@pytest.mark.parametrize("rows", [40, 200, 2000])
def test_nothing_is_found_where_nothing_has_changed(rows: int) -> None:
    """A fixed threshold of PSI would alarm nearly always at 40 rows. With none but chance's, few of 200 windows alarm."""
    chance = RNG(rows)
    alarms = fixed = 0
    for _ in range(200):
        said = found(window(chance, 1000), window(chance, rows), psi=0.0, ks=0.0, nulls=0.0).values()
        alarms += any(each.reasons for each in said)
        fixed += any((each.psi or 0) > 0.1 for each in said)
    assert alarms <= 12, "1 % for each of three tests"
    if rows == 40:
        assert fixed > 100


def test_every_kind_of_change_is_found_and_named() -> None:
    chance = RNG(3)
    reference = {
        "shifted": chance.normal(size=2000),
        "scaled": chance.normal(size=2000),
        "gone": chance.normal(size=2000),
        "kind": chance.choice(["a", "b"], size=2000).astype(object),
        "constant": np.full(2000, 3.0),
        "same": chance.normal(size=2000),
    }
    current = {
        "shifted": chance.normal(0.8, size=800),
        "scaled": 100 * chance.normal(size=800),  # another unit
        "gone": np.where(chance.random(800) < 0.3, np.nan, chance.normal(size=800)),
        "kind": chance.choice(["a", "b", "new"], size=800, p=[0.48, 0.48, 0.04]).astype(object),
        "constant": np.full(800, 4.0),
        "same": chance.normal(size=800),
    }
    said = found(reference, current)
    assert {"psi", "ks"} <= set(said["shifted"].reasons)
    assert "psi" in said["scaled"].reasons
    assert said["gone"].reasons == ("nulls",)
    assert said["gone"].nulls == pytest.approx(0.3, abs=0.05)
    assert "unseen" in said["kind"].reasons
    assert said["kind"].unseen_values == ("new",)
    assert said["kind"].unseen == pytest.approx(0.04, abs=0.02)
    assert "ks" in said["constant"].reasons
    assert said["same"].reasons == ()


def test_of_few_rows_nothing_is_said() -> None:
    said = found({"x": RNG(1).normal(size=500)}, {"x": np.full(10, 50.0)})["x"]
    assert (said.psi, said.reasons, said.rows) == (None, (), 10)


def test_a_matrix_has_a_column_for_each_of_its_numbers() -> None:
    assert flat({"input": [[1.0, 2.0], [3.0, 4.0]], "secret": "[redacted]", "x": [1]}) == {
        "input[0]": [1.0, 3.0],
        "input[1]": [2.0, 4.0],
        "x": [1],
    }
