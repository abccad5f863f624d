"""The input file of a batch, read in threads: checked once as a whole, then line by line as lines are wanted."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

from gateway.batches.lines import Checker, Line, Problem, blank, parse
from gateway.batches.pace import Pace

READ_AT_ONCE: Final = 1 << 18  # bytes; more only for a line that is longer


def check(path: Path, endpoint: str, max_lines: int) -> Checker:
    """Blocks. What is wrong with the file is in `problems`, also that it is not there."""
    checker, pace = Checker(endpoint, max_lines), Pace()
    try:
        with path.open("rb") as file:
            for raw in file:
                checker.take(raw)
                if checker.full:
                    break
                pace.keep()
    except FileNotFoundError:
        checker.problems.append(Problem("input_file_gone", "The input file is not there any more.", "input_file_id"))
        return checker
    checker.end()
    return checker


def left_over(path: Path, done: bytearray, endpoint: str) -> Iterator[Line]:
    """Blocks. Every line without a result."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not done[number] and not blank(raw):
                yield parse(raw, number, endpoint)


@final
class Source:
    """The lines that are not done, in order, for whoever asks next."""

    def __init__(self, path: Path, done: bytearray, endpoint: str) -> None:
        self._done = done
        self._endpoint = endpoint
        self._file = path.open("rb")
        self._turn = asyncio.Lock()
        self._number = 0
        self._ready: list[tuple[int, bytes]] = []
        self._through = False

    async def next(self) -> Line | None:
        """None after the last one."""
        async with self._turn:
            while not self._ready:
                if self._through:
                    return None
                self._ready = await asyncio.to_thread(self._read)
            number, raw = self._ready.pop()
        return parse(raw, number, self._endpoint)

    def close(self) -> None:
        self._file.close()

    def _read(self) -> list[tuple[int, bytes]]:
        """Some more, the next one last."""
        found, size = [], 0
        while size < READ_AT_ONCE:
            raw = self._file.readline()
            if not raw:
                self._through = True
                break
            self._number += 1
            size += len(raw)
            if not self._done[self._number] and not blank(raw):
                found.append((self._number, raw))
        found.reverse()
        return found
