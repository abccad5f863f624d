"""Loads and unloads a model of 30 MB in a process of its own, and prints what stays behind: `python tests/serving/cycles.py COUNT`."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from admin import allocator
from inference.serving.fleet import Fleet, Terms, resident
from tests.serving import runtime
from tests.serving.library import python


async def cycles(count: int) -> int:
    """Bytes that the process has more than after the first cycle."""
    allocator.few_arenas()
    models = Fleet(runtime.load, "tests.serving.runtime:load", Terms(), allocator.trim)
    bundle, before = python("m", runtime="onnx", megabytes=30), 0
    for number in range(count + 1):
        await models.load(bundle)
        await models.unload("m", (1,))
        if not number:
            before = resident("self")
    await models.close()
    return resident("self") - before


if __name__ == "__main__":
    print(asyncio.run(cycles(int(sys.argv[1]))))
