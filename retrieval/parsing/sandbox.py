"""Parsing in processes of their own, which a hostile file may hang, fill or kill: it gets a clear error, the next file a fresh process."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final, final

import msgspec
import structlog

from retrieval.parsing import wire
from retrieval.parsing.errors import (
    BY_REASON,
    Crashed,
    ParseError,
    ParserUnavailable,
    TooLarge,
    TooMuchMemory,
    TooSlow,
)
from retrieval.parsing.parsed import Limits, Parsed

log = structlog.stdlib.get_logger(__name__)

_ROOT: Final = Path(__file__).parents[2]  # the flat packages
_PER_CHARACTER: Final = 4  # bytes of UTF-8
_PER_BLOCK: Final = 256


@final
class Sandbox:
    """Up to `workers` files at a time; more wait their turn. Processes start with the first file and stay for the next.

    Use from one event loop; `close` when done.
    """

    def __init__(self, limits: Limits | None = None, *, workers: int = 1) -> None:
        self._limits = limits or Limits()
        self._turns = asyncio.Semaphore(workers)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False

    @property
    def limits(self) -> Limits:
        return self._limits

    async def parse(self, path: Path, *, name: str, declared: str | None = None) -> Parsed:
        """The text of the file at `path`; `name` is what its owner calls it, `declared` a media type. Raises ParseError.

        Leaving early (cancellation) ends the process that is at work.
        """
        job = _job(path, name, declared, self._limits)
        async with self._turns:
            if self._closed:
                raise ParserUnavailable("The server is shutting down.")
            worker = await self._worker()
            self._busy.add(worker)
            try:
                outcome = await self._outcome(worker, job)
            finally:
                self._busy.discard(worker)
                if worker.usable:
                    self._idle.append(worker)
                else:
                    await worker.end()
        if outcome.parsed is None:
            raise BY_REASON.get(outcome.reason, ParseError)(outcome.message)
        return outcome.parsed

    async def close(self) -> None:
        """Ends every process, also one at work."""
        self._closed = True
        for worker in [*self._idle, *self._busy]:
            await worker.end()
        self._idle.clear()

    async def _worker(self) -> "_Worker":
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await worker.end()
        return await _Worker.start(self._limits)

    async def _outcome(self, worker: "_Worker", job: wire.Job) -> wire.Outcome:
        try:
            async with asyncio.timeout(self._limits.wall_s):
                return await worker.run(job)
        except TimeoutError:
            raise TooSlow(f"The file takes longer than {self._limits.wall_s:g} s to read. Split it.") from None


@final
class _Worker:
    """One process. `usable` is False while a job is under way, so that whatever interrupts one costs the process."""

    def __init__(self, process: Process, limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self._files = 0
        self.usable = True

    @classmethod
    async def start(cls, limits: Limits) -> "_Worker":
        """Raises ParserUnavailable."""
        command = [sys.executable, "-P", "-m", "retrieval.parsing.worker", msgspec.json.encode(limits).decode()]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                cwd="/",
                env={
                    "PYTHONPATH": str(_ROOT),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "MALLOC_ARENA_MAX": "2",
                    "LC_ALL": "C.UTF-8",
                },
                start_new_session=True,
            )
        except OSError as error:
            raise ParserUnavailable(f"The parsing process could not be started: {error.strerror}.") from error
        return cls(process, limits)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def run(self, job: wire.Job) -> wire.Outcome:
        """Raises Crashed, TooSlow, TooMuchMemory, TooLarge, ParserUnavailable by the way in which the process ended."""
        self.usable = False
        answers = self._process.stdout
        jobs = self._process.stdin
        assert answers is not None
        assert jobs is not None
        try:
            jobs.write(wire.framed(job))
            await jobs.drain()
            (length,) = wire.LENGTH.unpack(await answers.readexactly(wire.LENGTH.size))
            most = self._limits.characters * _PER_CHARACTER + self._limits.blocks * _PER_BLOCK
            if length > most:
                raise TooLarge(f"The file gives {length:,} bytes of text and anchors; {most:,} are allowed. Split it.")
            outcome = msgspec.msgpack.decode(await answers.readexactly(length), type=wire.Outcome)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._cause_of_death() from None
        except msgspec.MsgspecError:
            raise Crashed("The parser's answer cannot be read.") from None
        self._files += 1
        self.usable = not outcome.worn and self._files < self._limits.files_per_process
        return outcome

    async def end(self) -> None:
        if self.alive:
            self._process.kill()
        await self._process.wait()

    async def _cause_of_death(self) -> ParseError:
        status = await self._process.wait()
        log.warning("parsing.worker.died", status=status, files=self._files)
        if status == -signal.SIGXCPU:
            return TooSlow(f"The file takes more than {self._limits.cpu_s} s of computing to read. Split it.")
        if status == -signal.SIGKILL:
            return TooMuchMemory("The parser was ended by the system, most likely for the memory that this file needs.")
        if status < 0:
            return Crashed(
                f"The parser crashed on this file ({signal.Signals(-status).name}): it is damaged, or needs too much memory."
            )
        return ParserUnavailable(f"The parsing process ended with status {status}.")


def _job(path: Path, name: str, declared: str | None, limits: Limits) -> wire.Job:
    """Raises TooLarge before any process has work with the file."""
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise TooLarge(f"The file has {size:,} bytes; {limits.file_bytes:,} are allowed. Split it into several files.")
    return wire.Job(str(path.absolute()), name, declared)
