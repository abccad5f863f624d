"""Gates on what goes in and comes out: drift of columns, and how groups fare. Looked at all the time they keep their promise, too."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from admin.migrate import prepare
from admin.rollouts.references import trained
from gateway.database import connect
from gateway.errors import GatewayError
from inference.rollouts import drift, gaps
from inference.rollouts.rollout import Gate
from inference.rollouts.values import bucket, drawn, edges_of, mark, row_of
from inference.runtimes.profile import profiled
from tests.fixtures.house import House, Shelf, until_over

ALPHA = 0.05
ENOUGH = 3.0  # log(1 / ALPHA)
INPUTS = Gate("input_drift", 0.2, relative=False)
OUTPUTS = Gate("output_drift", 0.2, relative=False)
PARITY = Gate("demographic_parity", 0.2, relative=False, group="sex", positive="1")
OPPORTUNITY = Gate("equal_opportunity", 0.2, relative=False, group="sex", positive="1")

Row = Callable[[int], tuple[Mapping[str, Any], Mapping[str, Any]]]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def house(tmp_path: Path, shelf: Shelf) -> Iterator[House]:
    engine = connect(f"sqlite:///{tmp_path / 'penstock.db'}")
    prepare(engine)
    yield House(engine, "first", shelf, itertools.count(1_700_000_000))
    engine.dispose()


def row(amount: float, sex: str, prediction: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    inputs = {"amount": np.array([amount]), "sex": np.array([sex], object)}
    return inputs, {"predictions": np.array([prediction])}


def applicants(chance: random.Random, yes: Callable[[int, str], float], shift: float = 0.0) -> Row:
    """`yes`: how likely a version's answer to a sex is a 1. `shift`: of what the challenger is asked."""

    def made(version: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        sex = chance.choice(("f", "m"))
        amount = chance.gauss(100, 20) + (shift if version == 2 else 0.0)
        return row(amount, sex, int(chance.random() < yes(version, sex)))

    return made


def test_a_challenger_that_answers_otherwise_goes_back(house: House) -> None:
    """With the column that is furthest, and its PSI beside."""
    rows = applicants(random.Random(1), lambda version, _: 0.3 if version == 1 else 0.8)
    shown = until_over(house, house.begin(OUTPUTS, steps=(0.5, 1.0)).id, row=rows)
    assert shown.position.state == "rolled_back"
    assert (shown.position.reason or "").startswith("output_drift: ")
    (evidence,) = shown.evidence
    assert evidence.about == "predictions"
    assert evidence.challenger == pytest.approx(0.5, abs=0.2)
    assert evidence.psi is not None
    assert evidence.psi >= 0.1


def test_arms_that_are_asked_different_things_are_noticed(house: House) -> None:
    """What goes in is compared as well: a split that is none compares nothing else fairly."""
    rows = applicants(random.Random(2), lambda *_: 0.5, shift=40.0)
    shown = until_over(house, house.begin(INPUTS, steps=(0.5, 1.0)).id, row=rows)
    assert (shown.position.state, shown.evidence[0].about) == ("rolled_back", "amount")


def test_arms_that_are_alike_are_promoted(house: House, shelf: Shelf) -> None:
    rows = applicants(random.Random(3), lambda *_: 0.4)
    id_ = house.begin(INPUTS, OUTPUTS, PARITY, steps=(0.5,), max_s=1e9).id
    shown = until_over(house, id_, turns=60, row=rows)
    assert (shown.position.state, shelf.serving["fraud"]) == ("promoted", 2), shown.evidence
    assert all(one.passed for one in shown.evidence)


def test_training_data_can_be_the_reference(house: House, shelf: Shelf) -> None:
    """Of the challenger's version: the champion may have drifted from its own long ago."""
    chance = np.random.default_rng(4)
    shelf.trained = profiled({"amount": chance.normal(100, 20, 2000)})
    gate = Gate("input_drift", 0.2, relative=False, training={})
    shifted = applicants(random.Random(4), lambda *_: 0.5, shift=40.0)
    shown = until_over(house, house.begin(gate, steps=(0.5, 1.0)).id, row=shifted)
    assert (shown.position.state, shown.evidence[0].about) == ("rolled_back", "amount")
    shelf.trained = None
    with pytest.raises(GatewayError, match="training data"):
        house.begin(gate)


def test_a_challenger_that_favours_a_group_goes_back(house: House) -> None:
    """Though it is right about as often; the interval holds the gap that it has, which is 0.6."""
    rows = applicants(random.Random(5), lambda version, sex: 0.5 if version == 1 else {"f": 0.2, "m": 0.8}[sex])
    shown = until_over(house, house.begin(PARITY, steps=(0.5, 1.0), bake_s=1e6).id, row=rows)
    (evidence,) = shown.evidence
    assert (shown.position.state, evidence.about) == ("rolled_back", "f and m")
    assert evidence.low is not None
    assert evidence.high is not None
    assert 0.2 < evidence.low < 0.6 < evidence.high


def test_equal_opportunity_waits_for_labels(house: House) -> None:
    """Half of those who deserve it get it if they are women, all if they are men: nobody knows before it is said who deserved it."""
    rows = applicants(random.Random(6), lambda version, sex: 0.5 if version == 2 and sex == "f" else 1.0)
    id_ = house.begin(OPPORTUNITY, steps=(0.5, 1.0)).id
    ids = [each for _ in range(3) for each in house.serve(60, row=rows)]
    house.turn()
    assert (house.show(id_).position.step, house.show(id_).evidence[0].challenger) == (0, None)
    for _ in range(20):
        ids += house.serve(60, row=rows)
        house.turn()
        house.say(ids, 1)
        house.turn()
        if house.show(id_).position.state != "running":
            break
    shown = house.show(id_)
    assert shown.position.state == "rolled_back"
    assert (shown.position.reason or "").startswith("equal_opportunity: ")


def test_a_group_that_the_model_does_not_know_is_refused(house: House) -> None:
    with pytest.raises(GatewayError, match="no column 'race'"):
        house.begin(Gate("demographic_parity", 0.2, relative=False, group="race", positive="1"))


def test_null_arms_are_left_alone() -> None:
    """At the edge of the margin or without any drift, looked at every few requests: too many alarms would show."""
    found = {"drift": 0, "gap": 0}
    runs = 40
    for seed in range(runs):
        chance = random.Random(seed)
        arms: tuple[dict[int, int], dict[int, int]] = {}, {}
        groups = {"f": (0, 0), "m": (0, 0)}
        alarmed = set[str]()
        for number in range(240):
            arm = int(chance.random() < 0.5)
            value = chance.randrange(10) if arm == 0 or chance.random() >= 0.1 else 0
            arms[arm][value] = arms[arm].get(value, 0) + 1
            sex = chance.choice("fm")
            good, n = groups[sex]
            groups[sex] = good + (chance.random() < {"f": 0.3, "m": 0.4}[sex]), n + 1
            if number % 8:
                continue
            if drift.compare({"x": arms}, frozenset(), 0.1).against >= ENOUGH:
                alarmed.add("drift")
            if gaps.compare(groups, 0.1).against >= ENOUGH:
                alarmed.add("gap")
        for one in alarmed:
            found[one] += 1
    assert max(found.values()) <= runs * ALPHA + 4.5 * (runs * ALPHA * (1 - ALPHA)) ** 0.5


def test_a_gap_is_held_by_its_interval() -> None:
    """As fairlearn would have it, and more narrowly with more people; small groups are asked nothing."""
    few, many = ({"f": (3 * n, 10 * n), "m": (5 * n, 10 * n), "x": (1, 5)} for n in (10, 100))
    widths = []
    for groups in (few, many):
        gap = gaps.largest(groups, ALPHA)
        assert gap is not None
        assert gap.groups == ("f", "m")
        assert gap.gap == pytest.approx(0.2)
        assert gap.low < 0.2 < gap.high
        widths.append(gap.high - gap.low)
    assert widths[1] < widths[0]
    assert gaps.largest({"f": (1, 29), "m": (9, 29)}, ALPHA) is None


def test_what_is_kept_of_a_row_says_little() -> None:
    """Texts are marks, hidden columns are not there, one row of many counts, and it is the same one always."""
    columns = {"a": np.array([1.5, 2.5]), "b": np.array([["x"], ["y"]], object), "c": np.array([[1, 2], [3, 4]])}
    assert row_of(columns, 1, {"a"}) == {"b": mark("y"), "c[0]": 3.0, "c[1]": 4.0}
    assert row_of(columns, 0, {"*"}) == {}
    assert row_of({"a": np.array([np.nan])}, 0) == {"a": None}
    assert {drawn("req_1", 7) for _ in range(3)} == {drawn("req_1", 7)}
    assert len({drawn(f"req_{number}", 4) for number in range(100)}) == 4


def test_cuts_are_where_values_are() -> None:
    """Deciles of many, each of few, and none of texts; a value at a cut is beyond it."""
    assert edges_of([0.0, 1.0, 1.0, None]) == (1.0,)
    assert (bucket(0.0, (1.0,)), bucket(1.0, (1.0,)), bucket(None, (1.0,))) == (0, 1, -1)
    assert edges_of([float(number) for number in range(100)]) == tuple(float(10 * n) for n in range(1, 10))
    assert edges_of([mark("a"), mark("b")]) == ()


def test_a_profile_becomes_a_reference() -> None:
    """Every row is in it, and new rows of the same kind fall into the same shares."""
    chance = np.random.default_rng(5)
    texts = np.array([chance.choice(["red", "green"]) for _ in range(500)], object)
    found = trained(profiled({"x": chance.normal(0, 1, 500), "n": chance.integers(0, 3, 500), "t": texts}), "inputs")
    assert {name: sum(dict(one.counts).values()) for name, one in found.items()} == {"x": 500, "n": 500, "t": 500}
    assert len(found["x"].edges) == 9
    fresh = [bucket(float(value), found["x"].edges) for value in chance.normal(0, 1, 4000)]
    counts = {each: fresh.count(each) for each in set(fresh)}
    assert drift.psi(dict(found["x"].counts), counts) < 0.1
    assert trained({"rows": 5}, "outputs") == {}
