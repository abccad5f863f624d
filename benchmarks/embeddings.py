"""Sentences per CPU-second of the embedding engine, and what it costs in memory.

    python -m benchmarks.embeddings [--threads N] [--rounds N] [--known]

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
from embedding.cache import WRITE_DELAY_S, Vector, VectorCache
from embedding.engine import Engine
from embedding.vector_file import VectorFile

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


async def measure_known(plain: Engine, folder: Path, threads: int | None, rounds: int) -> None:
    """One question of ten words: without a cache, new to one, known in memory, known on the disk. In turn, some rounds of 50."""
    cache = VectorCache(32 << 20, lambda: VectorFile(folder / "vectors", 1 << 30, time.time), 1e7, time.time)
    engine = Engine(bundled.MINILM, bundled.opener(folder, threads=threads), known=cache.of(b"benchmark"))
    await engine.warm()
    stored = {seed.to_bytes(32, "big"): Vector(random.Random(seed).randbytes(1536)) for seed in range(5000)}
    cache.add(stored)  # a file is slower when there is something in it
    times: dict[str, list[float]] = {"without a cache": [], "new": [], "known, in memory": [], "known, on the disk": []}
    for round_ in range(rounds):
        texts = [sentence(10, 50 * round_ + number) for number in range(50)]
        small = VectorCache(1, lambda: VectorFile(folder / "vectors", 1 << 30, time.time), 1e7, time.time)
        again = Engine(bundled.MINILM, bundled.opener(folder, threads=threads), known=small.of(b"benchmark"))
        for text in texts:
            for name, one in (("without a cache", plain), ("new", engine), ("known, in memory", engine)):
                times[name].append(await seconds(one, text))
        await asyncio.sleep(4 * WRITE_DELAY_S)
        await again.embed([texts[0]], tenant="t")  # opens the file
        for text in texts[1:]:
            times["known, on the disk"].append(await seconds(again, text))
        assert small.counts.store == len(texts)
        await again.close()
        await small.close()
    print(f"\n{'one question':44}{'median, µs':>16}{'least':>12}")
    for name, measured in times.items():
        print(f"{name:44}{statistics.median(measured) * 1e6:16.0f}{min(measured) * 1e6:12.0f}")
    known, found = cache.of(b"benchmark"), sentence(10, 0)
    for name, work in (
        ("  its key", lambda: known.keys("t", [found], "truncate")),
        ("  a look into memory", lambda: known.near([b"x" * 32])),
        ("  a look onto the disk, in vain", lambda: known.far([random.randbytes(32)])),
        ("  keeping it", lambda: known.add({b"x" * 32: Vector(bytes(1536))})),
    ):
        parts = [timed(work) for _ in range(2000)]
        print(f"{name:44}{statistics.median(parts) * 1e6:16.1f}{min(parts) * 1e6:12.1f}")
    await engine.close()
    await cache.close()


async def seconds(engine: Engine, text: str) -> float:
    began = time.perf_counter()
    await engine.embed([text], tenant="t")
    return time.perf_counter() - began


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def main() -> None:
    options = argparse.ArgumentParser(description="Measures the embedded embedding model.")
    options.add_argument("--threads", type=int, default=None, help="threads of the runtime (default: 2, or 1 core)")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--known", action="store_true", help="only what the cache of vectors costs and saves")
    given = options.parse_args()
    print(f"before the model is opened: {resident()}")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        for visit in ("built", "from cache"):
            engine = Engine(bundled.MINILM, bundled.opener(Path(folder), threads=given.threads))
            started = time.perf_counter()
            await engine.warm()
            print(f"opened ({visit}) in {time.perf_counter() - started:.2f} s: {resident()}")
            if visit == "from cache":
                await measure_known(engine, Path(folder), given.threads, 4 * given.rounds)
                if given.known:
                    await engine.close()
                    break
                await measure(engine, given.rounds)
                await engine.embed([sentence(400, seed) for seed in range(256)])
                print(f"\nafter 256 texts of full length: {resident()}")
            await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
