"""Artefacts are looked at in processes of their own, which a hostile one may hang, fill or kill: the server only hears of it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, final

import msgspec
import structlog

from inference import errors
from inference.errors import ArtefactRefused, InferenceError, Unavailable
from inference.runtimes.job import Examined, Job, Outcome, Refusal
from inference.runtimes.limits import Limits

log = structlog.stdlib.get_logger(__name__)

_ROOT: Final = Path(__file__).parents[2]  # the flat packages
_MOST_ANSWER: Final = 64 << 20


@final
class Sandbox:
    """Up to `at_once` artefacts at a time; more wait their turn. Blocks: for threads."""

    def __init__(self, limits: Limits, *, at_once: int = 2) -> None:
        self._limits = limits
        self._turns = threading.BoundedSemaphore(at_once)

    def examine(self, job: Job) -> Examined:
        """Raises InferenceError: the process's own, or ArtefactRefused by the way in which it ended."""
        with self._turns:
            answer = self._answer(job)
        try:
            outcome = msgspec.json.decode(answer, type=Outcome)
        except msgspec.MsgspecError:
            raise ArtefactRefused("The model broke the process that looked at it", code="artefact_crashed") from None
        if outcome.refusal is not None:
            raise _error(outcome.refusal)
        assert outcome.examined is not None
        return outcome.examined

    def _answer(self, job: Job) -> bytes:
        command = [sys.executable, "-P", "-m", "inference.runtimes.worker", msgspec.json.encode(self._limits).decode()]
        environment = {
            "PYTHONPATH": str(_ROOT),
            "HOME": job.folder,
            "TMPDIR": job.folder,
            "LC_ALL": "C.UTF-8",
            "MALLOC_ARENA_MAX": "2",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
        }
        try:
            process = subprocess.Popen(  # noqa: S603 — our own interpreter and module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=job.folder,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"The process that looks at models could not be started: {error.strerror}") from error
        try:
            answer, _ = process.communicate(msgspec.json.encode(job), self._limits.wall_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise ArtefactRefused(
                f"The model takes longer than {self._limits.wall_s:g} s to be read and checked", code="too_slow"
            ) from None
        if process.returncode != 0 or len(answer) > _MOST_ANSWER:
            log.warning("registry.worker.died", status=process.returncode, runtime=job.runtime)
            raise _cause_of_death(process.returncode, self._limits)
        return answer


def _cause_of_death(status: int, limits: Limits) -> InferenceError:
    match -status:
        case signal.SIGXCPU:
            return ArtefactRefused(
                f"The model takes more than {limits.cpu_s} s of computing to be read", code="too_slow"
            )
        case signal.SIGXFSZ:
            return ArtefactRefused("The model writes more than it may", code="artefact_too_large")
        case signal.SIGKILL:
            return ArtefactRefused("The system ended the process, most likely for its memory", code="too_much_memory")
        case _:
            return ArtefactRefused(
                "The model broke the process that looked at it: it is damaged, or needs too much memory",
                code="artefact_crashed",
            )


def _error(refusal: Refusal) -> InferenceError:
    kind = getattr(errors, refusal.kind, InferenceError)
    made: InferenceError = kind(refusal.message, param=refusal.param, code=refusal.code)
    return made
