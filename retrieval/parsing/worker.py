"""The parsing process: `python -m retrieval.parsing.worker LIMITS`. Takes jobs from its input, one at a time.

It binds itself before it opens any file: address space, CPU time per file, no file to write, few to open, no core. It needs no
network, gets no environment and no secret, and ends with its input.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from retrieval.parsing import registry, wire
from retrieval.parsing.errors import InvalidFile, ParseError, TooMuchMemory
from retrieval.parsing.parsed import Limits
from retrieval.parsing.source import Source

_OPEN_FILES: Final = 64
_NICE: Final = 10
_WORN: Final = 0.5  # of its memory


def main() -> None:
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not be taken for an answer
    _bind(limits)
    _outlive_signals()
    while (frame := wire.take(sys.stdin.buffer)) is not None:
        job = msgspec.msgpack.decode(frame, type=wire.Job)
        _grant_cpu(limits.cpu_s)
        answers.write(wire.framed(_outcome(job, limits)))
        answers.flush()


def _outcome(job: wire.Job, limits: Limits) -> wire.Outcome:
    try:
        parsed = registry.read(Source(job.name, Path(job.path), limits, job.declared))
    except ParseError as error:
        return wire.Outcome(reason=error.reason, message=error.message, worn=_is_worn(limits))
    except MemoryError:
        return wire.Outcome(
            reason=TooMuchMemory.reason, message="The file needs more memory than a file may.", worn=True
        )
    except Exception as error:  # noqa: BLE001 — whatever a library makes of a hostile file, the next file must not feel it
        message = f"The file is damaged in a way that its parser did not expect ({type(error).__name__})."
        return wire.Outcome(reason=InvalidFile.reason, message=message, worn=True)
    return wire.Outcome(parsed, worn=_is_worn(limits))


def _bind(limits: Limits) -> None:
    os.nice(_NICE)
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _outlive_signals() -> None:
    """Who ends the server may tell its whole group of processes: that is no fault of the file, and the server ends its parsers itself."""
    for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)


def _grant_cpu(seconds: int) -> None:
    """The limit counts over a process's whole life, so each file moves it on. Beyond it the kernel ends the process (SIGXCPU)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, most))


def _is_worn(limits: Limits) -> bool:
    """By what is resident now: `ru_maxrss` begins with what the server had when it started this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resident > _WORN * limits.memory_bytes


if __name__ == "__main__":
    main()
