"""Sentences per CPU-second of the embedding engine, and what it costs in memory.

    python -m benchmarks.embeddings [--threads N] [--rounds N]

CPU time is the process's own (user + system, all threads), so a busy machine spoils the wall times only. Every figure is
the median over the rounds. The engine is measured whole: tokenising, queue, threads and gathering are in the numbers.
Not called embedding.py: beside the scripts of this folder it would hide the package.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from embedding import bundled
from embedding.engine import Engine

TEXT = (
    "the gate regulates a flow of water into every turbine and when it opens slowly pressure falls while engineers "
    "measure temperature current voltage before they decide which model answers that question about contracts "
    "invoices medicine history or software because users want an honest citation from their own documents"
)


def sentence(words: int, seed: int) -> str:
    """English words at random: the same for everybody who runs this."""
    return " ".join(random.Random(seed).choices(TEXT.split(), k=words))


def resident() -> str:
    """Resident memory in MB, and the part of it that is private."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    total, private = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))
    return f"{total:.0f} MB ({private:.0f} private)"


async def rate(work: Callable[[], Awaitable[object]], sentences: int, rounds: int) -> tuple[float, float]:
    """Sentences per CPU-second and per second."""
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        await work()
        cpu.append(sentences / (time.process_time() - cpu_before))
        wall.append(sentences / (time.perf_counter() - wall_before))
    return statistics.median(cpu), statistics.median(wall)


async def measure(engine: Engine, rounds: int) -> None:
    async def one_by_one(texts: list[str]) -> None:
        for text in texts:
            await engine.embed([text])

    async def at_once(texts: list[str]) -> None:
        await asyncio.gather(*(engine.embed([text]) for text in texts))

    print(f"\n{'workload':44}{'per CPU-second':>16}{'per second':>12}")
    for words in (20, 150):
        texts = [sentence(words, seed) for seed in range(32)]
        for name, work in (("batch 1", one_by_one), ("batch 32", engine.embed)):
            cpu, wall = await rate(partial(work, texts), 32, rounds)
            print(f"{f'{words} words, {name}':44}{cpu:16.0f}{wall:12.0f}")
    for words in (5, 20):
        texts = [sentence(words, seed) for seed in range(256)]
        for name, work in (("1 client, one text at a time", one_by_one), ("256 clients, one text each", at_once)):
            cpu, wall = await rate(partial(work, texts), 256, rounds)
            print(f"{f'{words} words, {name}':44}{cpu:16.0f}{wall:12.0f}")


async def main() -> None:
    options = argparse.ArgumentParser(description="Measures the embedded embedding model.")
    options.add_argument("--threads", type=int, default=None, help="threads of the runtime (default: 2, or 1 core)")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    print(f"before the model is opened: {resident()}")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        for visit in ("built", "from cache"):
            engine = Engine(bundled.MINILM, bundled.opener(Path(folder), threads=given.threads))
            started = time.perf_counter()
            await engine.warm()
            print(f"opened ({visit}) in {time.perf_counter() - started:.2f} s: {resident()}")
            if visit == "from cache":
                await measure(engine, given.rounds)
                await engine.embed([sentence(400, seed) for seed in range(256)])
                print(f"\nafter 256 texts of full length: {resident()}")
            await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
