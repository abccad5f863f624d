"""Models in memory: one load for all who wait, batches of whoever waits, room by use, a drain before the end, replacements."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from admin import allocator
from inference.errors import InferenceError
from inference.ports import Bundle
from inference.serving.errors import LoadFailed, ModelBusy, ModelError, ModelTimeout
from inference.serving.fleet import Fleet, Terms, resident
from inference.serving.frame import Frame
from tests.serving import runtime
from tests.serving.library import python

ROOT = Path(__file__).resolve().parents[2]
LOADER = "tests.serving.runtime:load"
Make = Callable[..., Fleet]


@pytest.fixture
async def fleet() -> AsyncIterator[Make]:
    made: list[Fleet] = []

    def make(**terms: Any) -> Fleet:
        made.append(Fleet(runtime.load, LOADER, Terms(**{"timeout_s": 20.0, **terms}), allocator.trim))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def threaded(model: str, version: int = 1, **metadata: Any) -> Bundle:
    return python(model, version, runtime="onnx", **metadata)


def frame(*values: float) -> Frame:
    return Frame({"x": np.array(values, np.float64)}, len(values))


async def test_one_load_serves_everybody_who_waits(fleet: Make, tmp_path: Path) -> None:
    """Fifty calls of a cold model load it once."""
    log = tmp_path / "loads"
    bundle, models = threaded("m", log=str(log), load_s=0.2), fleet()
    answers = await asyncio.gather(*(models.run(bundle, frame(i)) for i in range(50)))
    assert [answer["y"].tolist() for answer in answers] == [[float(i)] for i in range(50)]
    assert log.read_text() == "1\n"


async def test_whoever_waits_becomes_one_batch_and_who_is_alone_waits_for_nobody(fleet: Make) -> None:
    """The model tells how many rows it saw: one at first, then all that came meanwhile, within the bound."""
    models, bundle = fleet(rows=8), threaded("m", does="sizes", delay_s=0.1)
    assert (await models.run(bundle, frame(0)))["y"].tolist() == [1.0]
    sizes = [one["y"][0] for one in await asyncio.gather(*(models.run(bundle, frame(i)) for i in range(11)))]
    assert max(sizes) == 8.0
    assert sum(1 / size for size in sizes) == pytest.approx(round(sum(1 / size for size in sizes)))  # whole batches


async def test_each_call_gets_its_own_rows_of_a_batch(fleet: Make) -> None:
    """Of many sizes, in order."""
    models, bundle = fleet(), threaded("m", factor=3.0, delay_s=0.02)
    asked = [[float(i * 10 + j) for j in range(1 + i % 4)] for i in range(40)]
    answers = await asyncio.gather(*(models.run(bundle, frame(*values)) for values in asked))
    assert [answer["y"].tolist() for answer in answers] == [[3 * value for value in values] for values in asked]


async def test_a_bad_row_fails_its_own_call_alone(fleet: Make) -> None:
    """The batch is run again call by call."""
    models, bundle = fleet(), threaded("m", does="raise", delay_s=0.05)
    results = await asyncio.gather(
        *(models.run(bundle, frame(1.0 if i == 5 else 0.0)) for i in range(10)), return_exceptions=True
    )
    assert [isinstance(result, ModelError) for result in results] == [i == 5 for i in range(10)]


async def test_a_signature_with_a_fixed_number_of_rows_is_not_batched(fleet: Make) -> None:
    """It would be given more rows than it takes."""
    models, bundle = fleet(), threaded("m", does="sizes", rows=1, delay_s=0.01)
    sizes = [one["y"].tolist() for one in await asyncio.gather(*(models.run(bundle, frame(i)) for i in range(6)))]
    assert sizes == [[1.0]] * 6


async def test_the_least_used_model_goes_when_memory_is_short(fleet: Make) -> None:
    """Processes, whose memory can be told: three models, room for two; the one that went comes back for who asks."""
    big = [python(f"m{i}", megabytes=40) for i in range(3)]
    probe = fleet()
    await probe.run(big[0], frame(1))
    size = probe.places()[0].nbytes
    assert size > 40 << 20
    models = fleet(memory=int(2.5 * size))
    for bundle in big:
        await models.run(bundle, frame(1))
    assert [place.model for place in models.places()] == ["m1", "m2"]
    assert models.evicted == 1
    assert (await models.run(big[0], frame(2)))["y"].tolist() == [2.0]
    assert [place.model for place in models.places()] == ["m2", "m0"]


def test_memory_comes_back_after_a_hundred_loads_and_unloads() -> None:
    """Of a model of 30 MB in a thread: the allocator may keep one of them for the next, and no more."""
    done = subprocess.run(
        [sys.executable, "tests/serving/cycles.py", "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=True,
    )
    assert int(done.stdout.splitlines()[-1]) < 50 << 20


async def test_an_unload_answers_what_runs(fleet: Make) -> None:
    """And refuses what comes after it."""
    models, bundle = fleet(), threaded("m", delay_s=0.2)
    await models.load(bundle)
    work = [asyncio.ensure_future(models.run(bundle, frame(i))) for i in range(5)]
    await asyncio.sleep(0)
    await models.unload("m", (1,))
    assert [(await one)["y"].tolist() for one in work] == [[float(i)] for i in range(5)]
    with pytest.raises(ModelBusy, match="unloaded"):
        await models.run(bundle, frame(1))
    await models.load(bundle)
    assert (await models.run(bundle, frame(1)))["y"].tolist() == [1.0]


async def test_a_model_that_does_not_return_is_replaced_and_its_neighbours_are_answered(fleet: Make) -> None:
    """Of the calls in its batch and behind it, one alone is at fault."""
    # The time counts for whoever waits for the replacement as well, which a busy machine starts late.
    models, bundle = fleet(timeout_s=3.0), threaded("m", does="hang", delay_s=0.05)
    await models.load(bundle)
    values = [0.0, 1.0, 13.0, 2.0, 3.0]
    results = await asyncio.gather(*(models.run(bundle, frame(value)) for value in values), return_exceptions=True)
    hung = results.pop(2)
    assert isinstance(hung, ModelTimeout)
    assert [result["y"].tolist() for result in results if isinstance(result, dict)] == [[0.0], [1.0], [2.0], [3.0]]
    assert models.replaced >= 1
    assert models.places()[0].process  # what hung in a thread once runs where it can be ended
    assert (await models.run(bundle, frame(4)))["y"].tolist() == [4.0]


async def test_a_process_that_dies_is_replaced(fleet: Make) -> None:
    """The call that it died of fails, the others go on."""
    models, bundle = fleet(), python("m", does="die", delay_s=0.05)
    await models.load(bundle)
    values = [0.0, 13.0, 1.0, 2.0]
    results = await asyncio.gather(*(models.run(bundle, frame(value)) for value in values), return_exceptions=True)
    assert [isinstance(result, ModelError) for result in results] == [value == 13.0 for value in values]
    assert (await models.run(bundle, frame(4)))["y"].tolist() == [4.0]


async def test_models_that_hold_the_lock_run_in_as_many_processes_as_are_configured(fleet: Make) -> None:
    """Never in the server's own."""
    models, bundle = fleet(processes=2), python("m", does="pid", delay_s=0.01)
    answers = await asyncio.gather(*(models.run(bundle, Frame({"x": np.ones(300)}, 300)) for _ in range(12)))
    pids = {int(answer["y"][0]) for answer in answers}
    assert len(pids) == 2
    assert os.getpid() not in pids
    await models.close()
    assert all(resident(str(pid)) == 0 for pid in pids)


async def test_a_model_that_cannot_be_loaded_says_why_and_is_not_tried_for_each_call(fleet: Make) -> None:
    """In a thread and in a process."""
    models = fleet()
    for bundle in (threaded("m", does="no_load"), python("n", does="no_load")):
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(LoadFailed, match="there is nothing in the file"):
                await models.run(bundle, frame(1))
        assert models.state(bundle) == "unavailable"
        assert time.monotonic() - began < 30


async def test_a_line_that_is_too_long_is_refused(fleet: Make) -> None:
    """Bounded, with a word on when to come back."""
    models, bundle = fleet(waiting=3, rows=1), threaded("m", delay_s=0.2)
    await models.load(bundle)
    results = await asyncio.gather(*(models.run(bundle, frame(i)) for i in range(8)), return_exceptions=True)
    busy = [result for result in results if isinstance(result, InferenceError)]
    assert len(busy) == 5
    assert all(error.status == 503 and error.headers for error in busy)
