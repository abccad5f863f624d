"""The engine on a database: classic models behind it, leases, late labels, and outcomes that are told twice."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from admin.rollouts import events
from admin.rollouts.service import Levers, Rollouts
from gateway.database import appending, changing, connect, reading
from gateway.errors import GatewayError
from inference.feedback import store as words
from inference.feedback.store import Kept, Owner
from inference.feedback.word import Word
from inference.ports import Outcome
from inference.rollouts import store
from inference.rollouts.assignment import challenged
from inference.rollouts.engine import Engine as RolloutEngine
from inference.rollouts.engine import Work
from inference.rollouts.models import Live
from inference.rollouts.rollout import Gate, Plan
from inference.rollouts.store import Rollout

ERRORS = Gate("error_rate", 0.05, relative=False)
INVALID = Gate("invalid_rate", 0.05, relative=False)
ACCURACY = Gate("accuracy", 0.05, relative=False)
AGREEMENT = Gate("agreement", 0.1, relative=False)


class Shelf:
    """A registry with three versions of one model."""

    def __init__(self) -> None:
        self.serving = {"fraud": 1}

    def versions(self, tx: Connection, model: str) -> Sequence[int]:
        del tx
        return (1, 2, 3) if model in self.serving else ()

    def champion(self, tx: Connection, model: str) -> int | None:
        del tx
        return self.serving.get(model)

    def named(self, tx: Connection, model: str, alias: str) -> int | None:
        return self.champion(tx, model) if alias == "champion" else None

    def require(self, tx: Connection, model: str, version: int) -> None: ...

    def crown(self, tx: Connection, model: str, version: int) -> None:
        del tx
        self.serving[model] = version


class Known:
    """What was predicted: for every id a 1."""

    def of(self, tx: Connection, ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        del tx
        return {id_: [1] for id_ in ids}


class House:
    """A process: its engine and what requests ask. The clock goes on by a second with each turn."""

    def __init__(self, engine: Engine, owner: str, shelf: Shelf, clock: Iterator[int]) -> None:
        self._database = engine
        self._ids = itertools.count()
        self._clock = clock
        self.now = float(next(clock))
        self.live = Live(lambda: self.now)
        levers = Levers({}, shelf)
        self.rollouts = Rollouts(levers, lambda: self.now)
        work = Work(partial(reading, engine), partial(appending, engine), partial(changing, engine), events.moved)
        lever = levers.models()
        assert lever is not None
        self.engine = RolloutEngine(work, {"model": lever}, {}, Known(), owner, lambda: self.now)

    def begin(self, *gates: Gate, **plan: Any) -> Rollout:
        usual: dict[str, Any] = {"strategy": "canary", "steps": (0.3, 1.0), "bake_s": 0.0, "min_requests": 10}
        with changing(self._database) as tx:
            rollout = self.rollouts.begin(
                tx, Plan(kind="model", name="fraud", champion=1, challenger=2, gates=gates, **(usual | plan))
            )
        self.live.load(self.engine.active())
        return rollout

    def serve(self, number: int, *, fails: bool = False, invalid: bool = False, agreement: float = 1.0) -> list[str]:
        """So many predictions, of which the challenger's are as bad as that. Their ids."""
        ids = []
        for _ in range(number):
            ids.append(f"pred_{next(self._ids):06d}")
            arm = self.live.choose("fraud", ids[-1])
            assert arm is not None
            bad = arm.version == 2
            self.live.observe(Outcome("fraud", arm, ids[-1], not (fails and bad), 0.002, 10, not (invalid and bad)))
            for version in arm.shadows:
                shadow = type(arm)(version, "shadow", arm.rollout)
                self.live.observe(Outcome("fraud", shadow, ids[-1], ok=True, latency_s=0.002, agreement=agreement))
        return ids

    def turn(self) -> Sequence[Rollout]:
        self.now = float(next(self._clock))
        self.engine.observe(self.live.drain())
        moved = self.engine.turn()
        self.live.load(self.engine.active())
        return moved

    def show(self, id_: str) -> Rollout:
        with reading(self._database) as tx:
            found = store.find(tx, id_)
        assert found is not None
        return found

    def say(self, ids: Sequence[str], label: object) -> None:
        owner = Owner("prediction", "key", None, None)
        with appending(self._database) as tx:
            words.keep(tx, [Kept(f"fb_{id_}", Word(id_, label=label), owner, self.now, self.now) for id_ in ids])


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


def until_over(house: House, id_: str, turns: int = 40, **serving: Any) -> Rollout:
    for _ in range(turns):
        house.serve(60, **serving)
        house.turn()
        if (shown := house.show(id_)).position.state != "running":
            return shown
    raise AssertionError(house.show(id_))


def test_a_model_is_promoted_by_its_alias(house: House, shelf: Shelf) -> None:
    """Requests are split until then; afterwards the alias decides, and nobody is asked any more."""
    id_ = house.begin(ERRORS, INVALID).id
    shown = until_over(house, id_)
    assert (shown.position.state, shelf.serving["fraud"]) == ("promoted", 2)
    assert house.live.choose("fraud", "anybody") is None


@pytest.mark.parametrize(("serving", "metric"), [({"fails": True}, "error_rate"), ({"invalid": True}, "invalid_rate")])
def test_a_model_with_broken_output_goes_back(
    house: House, shelf: Shelf, serving: dict[str, bool], metric: str
) -> None:
    """The alias never moved."""
    shown = until_over(house, house.begin(ERRORS, INVALID).id, **serving)
    assert (shown.position.state, shelf.serving["fraud"]) == ("rolled_back", 1)
    assert (shown.position.reason or "").startswith(f"{metric}: ")


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
