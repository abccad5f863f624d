"""The engine on a database: classic models behind it, leases, late labels, and outcomes that are told twice."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.database import appending, connect
from gateway.errors import GatewayError
from inference.rollouts import store
from inference.rollouts.assignment import challenged
from inference.rollouts.rollout import Gate
from tests.fixtures.house import House, Shelf, until_over

ERRORS = Gate("error_rate", 0.05, relative=False)
INVALID = Gate("invalid_rate", 0.05, relative=False)
ACCURACY = Gate("accuracy", 0.05, relative=False)
LATENCY = Gate("latency_p95_ms", 0.1, relative=True, slack=1.0)
AGREEMENT = Gate("agreement", 0.1, relative=False)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clock() -> Iterator[int]:
    return itertools.count(1_700_000_000)


@pytest.fixture
def house(database_url: str, shelf: Shelf, clock: Iterator[int]) -> Iterator[House]:
    engine = connect(database_url)
    yield House(engine, "first", shelf, clock)
    engine.dispose()


def test_a_model_is_promoted_by_its_alias(house: House, shelf: Shelf) -> None:
    """Requests are split until then; afterwards the alias decides, and nobody is asked any more."""
    id_ = house.begin(ERRORS, INVALID).id
    shown = until_over(house, id_)
    assert (shown.position.state, shelf.serving["fraud"]) == ("promoted", 2)
    assert house.live.choose("fraud", "anybody") is None


@pytest.mark.parametrize(
    ("serving", "metric"),
    [({"fails": True}, "error_rate"), ({"invalid": True}, "invalid_rate"), ({"slower_s": 0.2}, "latency_p95_ms")],
)
def test_a_model_with_broken_output_goes_back(house: House, shelf: Shelf, serving: dict[str, Any], metric: str) -> None:
    """Within some turns of 60 requests, of which it gets three in ten. The alias never moved."""
    shown = until_over(house, house.begin(ERRORS, INVALID, LATENCY, bake_s=60).id, **serving)
    assert (shown.position.state, shelf.serving["fraud"]) == ("rolled_back", 1)
    assert (shown.position.reason or "").startswith(f"{metric}: ")
    assert max(one.n_challenger for one in shown.evidence) <= 100


def test_late_labels_decide(house: House, shelf: Shelf) -> None:
    """Labels that come turns later, twice and corrected, are counted as they last were."""
    id_ = house.begin(ACCURACY, steps=(0.5, 1.0), max_s=1e9).id
    for _ in range(12):
        ids = house.serve(60)
        chosen = {each: house.live.choose("fraud", each) for each in ids}
        house.turn()
        assert house.show(id_).position.step == 0  # nothing is known, so nothing is given away
        house.say(ids, 1)  # right, as everything is a 1; then corrected for the challenger's
        house.say([each for each in ids if (arm := chosen[each]) is not None and arm.version == 2], 7)
        for _ in range(2):
            house.turn()
        if house.show(id_).position.state != "running":
            break
    shown = house.show(id_)
    assert (shown.position.state, shelf.serving["fraud"]) == ("rolled_back", 1)
    assert (shown.position.reason or "").startswith("accuracy: ")


def test_a_shadow_never_answers(house: House) -> None:
    """It is compared; one that says something else does not take over."""
    id_ = house.begin(AGREEMENT, strategy="shadow", steps=(1.0,)).id
    arm = house.live.choose("fraud", "anybody")
    assert arm is not None
    assert (arm.version, arm.shadows) == (1, (2,))
    shown = until_over(house, id_, agreement=0.5)
    assert shown.position.state == "rolled_back"


def test_outcomes_told_twice_are_counted_once(house: House) -> None:
    """By whomever and in whatever order."""
    id_ = house.begin(ERRORS, bake_s=1e6).id
    house.serve(50)
    drained = house.live.drain()
    for _ in range(3):
        house.engine.observe(drained)
        house.turn()
    (evidence,) = house.show(id_).evidence
    assert evidence.n_champion + evidence.n_challenger == 50


def test_a_silent_process_is_replaced(house: House, database_url: str, shelf: Shelf, clock: Iterator[int]) -> None:
    """One looks after a rollout; when its lease is over, another one does; and it does not decide any more."""
    engine = connect(database_url)
    other = House(engine, "second", shelf, clock)
    id_ = house.begin(ERRORS, bake_s=1e6).id
    house.turn()
    other.live.load(other.engine.active())
    other.serve(40)
    other.turn()
    assert other.show(id_).evidence == () or other.show(id_).evidence[0].n_champion == 0
    for _ in range(int(store.LEASE_S) + 2):
        other.turn()
    with appending(engine) as tx:
        assert not store.owned(tx, id_, "first")
        assert store.owned(tx, id_, "second")
    (evidence,) = other.show(id_).evidence
    assert evidence.n_champion + evidence.n_challenger == 40
    engine.dispose()


def test_there_is_one_rollout_for_a_model(house: House) -> None:
    """Whoever asks for a second is told so."""
    house.begin(ERRORS)
    with pytest.raises(GatewayError, match="one at a time"):
        house.begin(ERRORS)


def test_who_is_in_the_challenger_stays() -> None:
    """A share that grows only takes units; the shares are what was asked for; another rollout takes others."""
    units = [f"user {number}" for number in range(4_000)]
    sizes = []
    before: set[str] = set()
    for share in (0.05, 0.25, 0.5, 1.0):
        now = {unit for unit in units if challenged("rol_1", unit, share)}
        assert before <= now
        sizes.append(len(now) / len(units))
        before = now
    assert sizes == pytest.approx([0.05, 0.25, 0.5, 1.0], abs=0.03)
    both = {unit for unit in units if challenged("rol_1", unit, 0.25) and challenged("rol_2", unit, 0.25)}
    assert len(both) / len(units) == pytest.approx(0.0625, abs=0.02)
