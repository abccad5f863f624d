"""What a rollout gets of serving: its choice is followed, every outcome is told, shadows run behind the answer and cost nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.errors import InferenceError
from inference.ports import Arm, Bundle, Outcome
from inference.serving.capture import Capture, Captured, Terms, read
from inference.serving.errors import BadInput, ModelError
from inference.serving.fleet import Fleet
from inference.serving.fleet import Terms as FleetTerms
from inference.serving.frame import Frame
from inference.serving.service import Answer, Predictions, Prices, Wanted
from inference.serving.shadows import agreed
from tests.serving import runtime
from tests.serving.library import FolderLibrary, python, write


class Chosen:
    """A split that always says the same."""

    def __init__(self) -> None:
        self.arm: Arm | None = None
        self.units: list[str] = []

    def choose(self, model: str, unit: str) -> Arm | None:
        assert model == "m"
        self.units.append(unit)
        return self.arm


class Seen:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Free:
    """A visit that everything is allowed to."""

    id, at, started_at, unit = "req_1", 1000.0, 0.0, "ann"
    owner: tuple[str, str | None, str | None] = ("key_1", None, None)

    def __init__(self) -> None:
        self.cost_nanos = 0
        self.held = 0
        self.error: InferenceError | None = None

    def enter(self) -> None: ...

    def about(self, model: str, user: str | None = None) -> None: ...

    def require_named(self, path: str) -> None: ...

    def found(self, model: str, version: int) -> None: ...

    async def hold(self, nanos: int) -> None:
        self.held += nanos

    def done(self, model_s: float) -> None:  # noqa: ARG002 — the port's name
        self.cost_nanos = self.held

    def failed(self, error: InferenceError) -> None:
        self.error = error

    def head(self, content_type: bytes) -> bytes:
        return content_type

    def fail_head(self) -> bytes:
        return b""

    def close(self) -> None: ...


class Stand:
    """The path of a prediction without a server."""

    def __init__(self, folder: Path) -> None:
        bundles = [
            python("m", 1, runtime="onnx", factor=1.0, price={"row": 0.001}),
            python("m", 2, runtime="onnx", factor=2.0, price={"row": 0.001}),
            python("m", 3, runtime="onnx", does="raise"),
            python("m", 4, runtime="onnx", does="wide"),
            python("m", 5, runtime="onnx", does="sizes", delay_s=0.05),
        ]
        write(folder, bundles)
        self.split, self.seen = Chosen(), Seen()
        self.tasks: set[asyncio.Task[None]] = set()
        self.folder = folder / "captures"
        self.stored: list[Captured] = []
        self.fleet = Fleet(runtime.load, "tests.serving.runtime:load", FleetTerms())
        self.predictions = Predictions(
            library=FolderLibrary(folder),
            fleet=self.fleet,
            capture=Capture(self.folder, Terms(), self.stored.extend, lambda: 0.5),
            price=Prices({}),
            split=self.split,
            observer=self.seen,
            spawn=self.spawn,
        )
        self.visit = Free()

    def spawn(self, coro: Any) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def ask(self, *values: float, wanted: str = "m") -> Answer:
        def rows(_: Bundle) -> Frame:
            return Frame({"x": np.array(values)}, len(values))

        self.visit = Free()
        return await self.predictions.predict(self.visit, Wanted(wanted), rows)

    async def quiet(self) -> None:
        while self.tasks:
            await asyncio.gather(*self.tasks)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    made = Stand(tmp_path)
    yield made
    await made.fleet.close()
    await made.predictions.capture.close()


def told(answer: Answer) -> Mapping[str, list[float]]:
    return {name: array.tolist() for name, array in answer.outputs.items()}


async def test_the_rollouts_arm_answers_and_its_outcome_is_told(stand: Stand) -> None:
    """The unit is what stays with an arm; cost, time and validity are those of this call."""
    stand.split.arm = Arm(2, "challenger", "ro_1")
    answer = await stand.ask(1.0, 2.0)
    assert (answer.bundle.version, answer.arm.name, told(answer)) == (2, "challenger", {"y": [2.0, 4.0]})
    (outcome,) = stand.seen.outcomes
    assert (outcome.model, outcome.arm, outcome.prediction) == ("m", stand.split.arm, "req_1")
    assert (outcome.ok, outcome.valid, outcome.cost_nanos) == (True, True, 2_000_000)
    assert outcome.latency_s > 0
    assert stand.split.units == ["ann"]


async def test_who_names_a_version_is_not_part_of_a_rollout(stand: Stand) -> None:
    """Its outcome is told all the same, as an arm of no rollout."""
    stand.split.arm = Arm(2, "challenger", "ro_1")
    answer = await stand.predictions.predict(
        stand.visit, Wanted("m", version=1), lambda _: Frame({"x": np.array([1.0])}, 1)
    )
    assert (answer.bundle.version, answer.arm.rollout) == (1, None)
    assert stand.split.units == []


async def test_a_models_fault_is_an_outcome_and_a_clients_is_not(stand: Stand) -> None:
    """Raised, or nonsense: not ok, not paid. Bad input says nothing about an arm."""
    stand.split.arm = Arm(3, "challenger", "ro_1")
    with pytest.raises(ModelError):
        await stand.ask(1.0)
    stand.split.arm = Arm(4, "challenger", "ro_1")
    with pytest.raises(ModelError):
        await stand.ask(1.0)
    assert [(one.ok, one.valid, one.cost_nanos) for one in stand.seen.outcomes] == [(False, True, 0), (False, False, 0)]

    def bad(_: Bundle) -> Frame:
        raise BadInput("no")

    with pytest.raises(BadInput):
        await stand.predictions.predict(Free(), Wanted("m"), bad)
    assert len(stand.seen.outcomes) == 2


async def test_shadows_see_a_copy_behind_the_answer_and_are_compared(stand: Stand) -> None:
    """Not billed, not in the client's way; what they say is held against what the client got."""
    stand.split.arm = Arm(1, "champion", "ro_1", shadows=(2, 3, 5))
    answer = await stand.ask(0.0, 1.0)
    assert told(answer) == {"y": [0.0, 1.0]}
    assert len(stand.seen.outcomes) == 1
    await stand.quiet()
    shadows = {one.arm.version: one for one in stand.seen.outcomes if one.arm.name == "shadow"}
    assert (shadows[2].ok, shadows[2].agreement, shadows[2].cost_nanos) == (True, 0.5, 0)
    assert (shadows[3].ok, shadows[3].agreement) == (False, None)
    assert shadows[5].agreement == 0.0
    assert all(one.arm.rollout == "ro_1" and one.prediction == "req_1" for one in shadows.values())


async def test_shadows_are_bounded(stand: Stand) -> None:
    """What is too much for them is left out and counted; the answers go on."""
    stand.split.arm = Arm(1, "champion", "ro_1", shadows=(5,))
    for _ in range(100):
        await stand.ask(1.0)
    await stand.quiet()
    ran = sum(one.arm.name == "shadow" for one in stand.seen.outcomes)
    assert ran + stand.predictions._shadows.left_out == 100


async def test_the_arm_is_captured(stand: Stand) -> None:
    """Version, arm, rollout, cost: what a label joins later."""
    stand.split.arm = Arm(2, "challenger", "ro_1")
    await stand.ask(1.0)
    await asyncio.sleep(0)
    (file,) = stand.folder.iterdir()
    (one,) = read(file)
    assert (one.id, one.version, one.arm, one.rollout, one.cost_nanousd) == (
        "req_1",
        2,
        "challenger",
        "ro_1",
        1_000_000,
    )


@pytest.mark.parametrize(
    ("said", "other", "share"),
    [
        ({"y": np.array([1, 2])}, {"y": np.array([1, 3])}, 0.5),
        ({"y": np.array([1.0, np.nan])}, {"y": np.array([1.0 + 1e-9, np.nan])}, 1.0),
        ({"y": np.array(["a"], object), "probabilities": np.ones((1, 2))}, {"y": np.array(["a"], object)}, 1.0),
        ({"y": np.ones((2, 3))}, {"y": np.ones((2, 2))}, 0.0),
        ({"y": np.ones(2), "z": np.ones(2)}, {"y": np.ones(2), "z": np.array([1.0, 0.0])}, 0.5),
    ],
)
def test_agreement_is_by_row(said: dict[str, Any], other: dict[str, Any], share: float) -> None:
    """All outputs but the probabilities; numbers to float precision."""
    assert agreed(said, other) == share
