"""Scoring on Ray Data: actors with the model in them take blocks of chunks, and what they made comes back in order.

Files and artefacts are read where an actor runs, under the same paths. An actor that dies is started again by Ray, and its block with it;
nothing is written down anywhere but by whoever asked, so nothing is counted twice.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, Final, final

import msgspec

from inference.scoring.cluster import Task
from inference.scoring.errors import Failed
from inference.scoring.parts import Part, chunks, scored
from inference.scoring.rows import plan
from inference.scoring.scorer import Scorer
from inference.scoring.sources import open_source
from inference.scoring.worksheet import Position

BLOCKS: Final = 4  # for each actor: what one that dies has to do again is bounded
_PART: Final = "part"


class _Told(msgspec.Struct, frozen=True):
    part: Part | None = None
    code: str = ""
    message: str = ""


@final
class RayData:
    """`inference.scoring.cluster.Cluster`. `address` of a cluster, or None for one on this machine, with `cpus` of its processors."""

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        self._address = address
        self._cpus = cpus

    @contextmanager
    def parts(self, task: Task) -> Iterator[Iterator[Part]]:
        """Raises Failed."""
        try:
            import ray  # noqa: PLC0415 — for those who have it
            import ray.data  # noqa: PLC0415 — as above
        except ImportError as error:
            raise Failed("runtime_unavailable", f"Ray Data needs {error.name}: install the extra `ray`") from error
        try:
            if self._address is None:
                ray.init(num_cpus=self._cpus, include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address=self._address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Failed("ray_unavailable", f"Ray is not there: {error}") from error
        try:
            yield _parts(ray, task)
        finally:
            ray.shutdown()


def _parts(ray: Any, task: Task) -> Iterator[Part]:
    cpus = int(ray.cluster_resources().get("CPU", 1))
    actors = max(1, cpus - 1)  # one is left for what hands out the blocks
    count = task.last - task.first
    blocks = min(count, actors * BLOCKS)
    edges = [task.first + count * number // blocks for number in range(blocks + 1)]
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    made = ray.data.range(blocks, override_num_blocks=blocks).map_batches(
        Blocks, batch_size=1, concurrency=min(actors, blocks), fn_constructor_args=(task, edges)
    )
    try:
        for row in made.iter_rows():
            told = msgspec.msgpack.decode(row[_PART], type=_Told)
            if told.part is None:
                raise Failed(told.code, told.message)
            yield told.part
    except ray.exceptions.RayError as error:
        raise Failed("ray_failed", str(error).strip().splitlines()[-1]) from error


@final
class Blocks:
    """An actor: the model, and the table that it reads its blocks from. Block n is from chunk `edges[n]` to before the next edge."""

    def __init__(self, task: Task, edges: list[int]) -> None:
        self._task = task
        self._edges = edges
        self._failure: Failed | None = None
        try:
            self._source = open_source(task.spec, {})
            self._planned = plan(
                task.bundle.signature,
                self._source.names,
                task.spec.key,
                task.spec.features,
                textual=self._source.textual,
            )
            self._scorer = Scorer(task.bundle, task.loader, task.timeout_s)
        except Failed as failure:
            self._failure = failure

    def __call__(self, batch: Mapping[str, Any]) -> Generator[dict[str, list[bytes]]]:
        for number in batch["id"]:
            try:
                for part in self._block(int(number)):
                    yield {_PART: [msgspec.msgpack.encode(_Told(part))]}
            except Failed as failure:
                yield {_PART: [msgspec.msgpack.encode(_Told(None, failure.code, failure.message))]}
                return

    def _block(self, number: int) -> Iterator[Part]:
        """Raises Failed."""
        if self._failure is not None:
            raise self._failure
        first, last = self._edges[number], self._edges[number + 1]
        size = self._task.spec.chunk_rows
        position, known = Position(rows=first * size, chunks=first), set[str]()
        with closing(chunks(self._source, position, size)) as found:
            for rows in islice(found, last - first):
                part = scored(self._planned, self._scorer, position, rows, known.__contains__)
                known.update(part.seen)
                position = part.after
                yield part
