"""Many requests at once: batches form, bounds hold, nobody waits for a stranger's bulk, and leaving is clean."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedding import bundled
from embedding.backends.hashing import HashingBackend
from embedding.engine import Engine, Limits
from embedding.errors import (
    Closed,
    DimensionsUnsupported,
    InferenceFailed,
    InvalidInput,
    Overloaded,
    RequestTooLarge,
    Unavailable,
)
from embedding.model import Model
from embedding.ports import ModelSpec
from embedding.tokens import Tokenizer

SPEC = ModelSpec("hashing", dimensions=64, max_tokens=256)
SENTENCE = "one two three four five six seven"  # 9 tokens with [CLS] and [SEP]


class Gate:
    """A backend that waits before each batch until it is let through, and fails on demand."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []
        self.broken = False
        self.closed = False
        self._inner = HashingBackend(SPEC.dimensions)

    def run(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([len(sequence) for sequence in sequences])
        assert self.open.wait(20)
        if self.broken:
            raise RuntimeError("out of memory")
        return self._inner.run(sequences)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(bundled._source() / "tokenizer.json", SPEC.max_tokens)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
async def make_engine(gate: Gate, tokenizer: Tokenizer) -> AsyncIterator[Callable[..., Engine]]:
    """Makes engines on the gate; all are closed at the end."""
    made: list[Engine] = []

    def make(spec: ModelSpec = SPEC, **limits: int) -> Engine:
        made.append(Engine(spec, lambda: Model(spec, tokenizer, gate), limits=Limits(**limits)))
        return made[-1]

    yield make
    gate.open.set()
    for engine in made:
        await engine.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is watched sets no event
            await asyncio.sleep(0.002)


async def test_single_texts_share_batches(embedding_engine: Engine) -> None:
    """64 clients with one text each are served in few runs of the model, and each gets its own vector."""
    await embedding_engine.warm()
    texts = [f"{SENTENCE} and number {index}" for index in range(64)]
    answers = await asyncio.gather(*(embedding_engine.embed([text]) for text in texts))
    assert embedding_engine.status.sequences == 64
    assert embedding_engine.status.batches <= 16
    alone = (await embedding_engine.embed([texts[40]])).vectors[0]
    assert alone @ answers[40].vectors[0] > 0.99999
    assert int(np.argmax([alone @ answer.vectors[0] for answer in answers])) == 40


async def test_a_sentence_does_not_wait_for_the_bulk_before_it(make_engine: Callable[..., Engine], gate: Gate) -> None:
    """A thousand texts are waiting; one that comes later is in the next batch."""
    engine = make_engine()
    async with asyncio.TaskGroup() as group:
        bulk = group.create_task(engine.embed([SENTENCE] * 1000))
        await until(lambda: len(gate.batches) == 1)
        small = group.create_task(engine.embed([SENTENCE]))
        await until(lambda: engine.status.queued_tokens == 9 * 1001 - sum(gate.batches[0]))  # both are in line
        gate.open.set()
        await small
        assert len(gate.batches) <= 4
        assert not bulk.done()
    assert bulk.result().vectors.shape == (1000, 64)


async def test_a_batch_keeps_to_its_budget_of_tokens(make_engine: Callable[..., Engine], gate: Gate) -> None:
    """Memory and latency follow from it: padded tokens, not texts, are counted."""
    engine = make_engine(batch_tokens=512)
    gate.open.set()
    await engine.embed([f"{SENTENCE} " * (1 + index % 30) for index in range(200)])
    assert all(len(batch) * max(batch) <= 512 for batch in gate.batches)
    assert sum(map(len, gate.batches)) == 200


async def test_a_full_queue_refuses_at_once(make_engine: Callable[..., Engine], gate: Gate) -> None:
    """The one too many gets 503 and a time to come back; those that wait are served."""
    engine = make_engine(queued_tokens=40, batch_tokens=9)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(engine.embed([SENTENCE]))
        await until(lambda: bool(gate.batches))
        waiting = [group.create_task(engine.embed([SENTENCE])) for _ in range(4)]
        await until(lambda: engine.status.queued_tokens == 36)
        with pytest.raises(Overloaded, match="queue is full") as refused:
            await engine.embed([SENTENCE])
        assert (refused.value.status, refused.value.retry_after_s) == (503, 1.0)
        gate.open.set()
    assert all(task.result().prompt_tokens == 9 for task in (first, *waiting))


async def test_requests_and_characters_are_bounded_before_any_work(
    make_engine: Callable[..., Engine], gate: Gate
) -> None:
    """What is not tokenised yet takes memory too."""
    engine = make_engine(requests=1, characters=100)
    with pytest.raises(Overloaded):
        await engine.embed(["x" * 101])
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.embed([SENTENCE]))
        await until(lambda: bool(gate.batches))
        with pytest.raises(Overloaded):
            await engine.embed([SENTENCE])
        gate.open.set()
    await engine.embed([SENTENCE])


async def test_a_request_beyond_the_token_limit_is_a_bad_request(
    make_engine: Callable[..., Engine], gate: Gate
) -> None:
    """Trying again would not help, so it is not an overload."""
    gate.open.set()
    with pytest.raises(RequestTooLarge, match="Send them in several requests") as refused:
        await make_engine(tokens_per_request=80).embed([SENTENCE] * 9)
    assert refused.value.status == 400


async def test_a_cancelled_request_leaves_the_queue(make_engine: Callable[..., Engine], gate: Gate) -> None:
    """Nobody waits for it, so it is not run; its neighbours are."""
    engine = make_engine(batch_tokens=9)
    first = asyncio.ensure_future(engine.embed([SENTENCE]))
    await until(lambda: bool(gate.batches))
    leaving = asyncio.ensure_future(engine.embed([SENTENCE] * 50))
    staying = asyncio.ensure_future(engine.embed([SENTENCE]))
    await until(lambda: engine.status.queued_tokens == 51 * 9)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert engine.status.queued_tokens == 9
    gate.open.set()
    await asyncio.gather(first, staying)
    assert len(gate.batches) == 2
    assert engine.status.requests == engine.status.queued_tokens == 0


async def test_a_request_cancelled_while_it_runs_hurts_nobody_in_its_batch(
    make_engine: Callable[..., Engine], gate: Gate
) -> None:
    """The batch goes on for the others."""
    engine = make_engine()
    first = asyncio.ensure_future(engine.embed([SENTENCE]))
    await until(lambda: bool(gate.batches))
    pair = [asyncio.ensure_future(engine.embed([f"{SENTENCE} {n}"])) for n in range(2)]
    await until(lambda: engine.status.queued_tokens == 20)
    first.cancel()
    gate.open.set()
    await asyncio.sleep(0)
    pair[0].cancel()
    assert (await pair[1]).vectors.shape == (1, 64)


async def test_a_failing_batch_fails_its_requests_only(make_engine: Callable[..., Engine], gate: Gate) -> None:
    """The error is ours and says so without the runtime's words; the next request is served."""
    engine = make_engine()
    gate.open.set()
    gate.broken = True
    with pytest.raises(InferenceFailed) as failed:
        await engine.embed([SENTENCE] * 300)
    assert failed.value.status == 500
    assert "memory" not in failed.value.message
    gate.broken = False
    assert (await engine.embed([SENTENCE])).prompt_tokens == 9


async def test_a_model_is_opened_once_and_tried_again_after_a_failure(gate: Gate, tokenizer: Tokenizer) -> None:
    """Ten first requests open one model; an attempt that failed does not stick."""
    opened: list[float] = []

    def open_model() -> Model:
        opened.append(time.monotonic())
        if len(opened) == 1:
            raise Unavailable("no room on the disk")
        return Model(SPEC, tokenizer, gate)

    gate.open.set()
    engine = Engine(SPEC, open_model)
    before = engine.status
    assert before.state == "cold"
    outcomes = await asyncio.gather(*(engine.embed([SENTENCE]) for _ in range(10)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    await asyncio.gather(*(engine.embed([SENTENCE]) for _ in range(10)))
    assert len(opened) == 2
    after = engine.status
    assert after.state == "ready"
    await engine.close()
    assert gate.closed


async def test_what_a_runtime_throws_while_opening_becomes_a_503() -> None:
    """A client is told that the model is not available, not given a traceback."""

    def open_model() -> Model:
        raise ValueError("protobuf parsing failed")

    engine = Engine(SPEC, open_model)
    with pytest.raises(Unavailable, match="protobuf"):
        await engine.embed([SENTENCE])
    await engine.close()


async def test_closing_refuses_what_waits_and_finishes_what_runs(
    make_engine: Callable[..., Engine], gate: Gate
) -> None:
    """Shutdown neither hangs nor leaves a thread behind."""
    engine = make_engine(batch_tokens=9)
    running = asyncio.ensure_future(engine.embed([SENTENCE]))
    await until(lambda: bool(gate.batches))
    waiting = asyncio.ensure_future(engine.embed([SENTENCE]))
    await until(lambda: engine.status.queued_tokens == 9)
    closing = asyncio.ensure_future(engine.close())
    with pytest.raises(Closed):
        await waiting
    gate.open.set()
    await closing
    with pytest.raises(Closed):
        await running
    assert gate.closed
    assert engine.status.state == "closed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embedding")]
    with pytest.raises(Closed):
        await engine.embed([SENTENCE])
    await engine.close()


async def test_dimensions_are_cut_only_where_the_model_allows_it(
    make_engine: Callable[..., Engine], gate: Gate
) -> None:
    """A cut vector of another model is noise that looks like an answer."""
    gate.open.set()
    plain = make_engine()
    assert (await plain.embed([SENTENCE], dimensions=64)).vectors.shape == (1, 64)
    with pytest.raises(DimensionsUnsupported):
        await plain.embed([SENTENCE], dimensions=32)
    nested = make_engine(ModelSpec("nested", dimensions=64, max_tokens=256, matryoshka=True))
    cut = (await nested.embed([SENTENCE], dimensions=32)).vectors
    assert cut.shape == (1, 32)
    assert abs(float(np.linalg.norm(cut)) - 1) < 1e-6
    for wrong in (0, -1, 65):
        with pytest.raises(DimensionsUnsupported):
            await nested.embed([SENTENCE], dimensions=wrong)


@pytest.mark.parametrize("texts", [[], "a bare string"])
async def test_a_list_of_texts_is_required(make_engine: Callable[..., Engine], texts: Sequence[str]) -> None:
    """A bare string would be embedded letter by letter."""
    with pytest.raises(InvalidInput):
        await make_engine().embed(texts)


def test_importing_the_engine_loads_nothing_heavy() -> None:
    """The server imports it at start and must stay small until somebody wants an embedding."""
    script = (
        "import sys; import embedding.openai, embedding.bundled; from embedding.engine import Engine;"
        "embedding.bundled.installed();"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'tokenizers', 'torch', 'tiktoken') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
