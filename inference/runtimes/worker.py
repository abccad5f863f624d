"""The process that looks at one artefact: `python -m inference.runtimes.worker`, the job on its input, the outcome on its output.

It binds itself before it opens anything: address space, CPU time, size of files, no core. It gets no environment and no secret, and dies
with the server.
"""

import ctypes
import os
import resource
import signal
import sys

import msgspec

from inference.errors import InferenceError, RunFailed
from inference.runtimes.job import Job, Outcome, Refusal
from inference.runtimes.limits import Limits

_SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h


def main() -> None:
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not be taken for an answer
    bind(limits)
    outcome = _outcome(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))
    answers.write(msgspec.json.encode(outcome))
    answers.flush()
    os._exit(0)  # threads and finalisers of what was loaded have no say in when this ends


def _outcome(job: Job) -> Outcome:
    from inference.runtimes.examination import examine  # noqa: PLC0415 — after the limits stand

    try:
        return Outcome(examined=examine(job))
    except InferenceError as error:
        return Outcome(refusal=Refusal(type(error).__name__, error.message, error.param, error.code))
    except MemoryError:
        return Outcome(
            refusal=Refusal(RunFailed.__name__, "It needs more memory than a model may.", None, "too_much_memory")
        )


def bind(limits: Limits) -> None:
    os.nice(5)
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
