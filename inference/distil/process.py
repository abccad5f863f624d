"""Training in a process of its own, with bounds on memory, time and files. Blocks: for a thread."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from inference.distil.recipe import Learnt, Lesson
from inference.errors import RunFailed, Unavailable
from inference.runtimes.limits import Limits

_ROOT: Final = Path(__file__).parents[2]
LIMITS: Final = Limits(cpu_s=600, wall_s=600.0)


def learnt(lesson: Lesson, folder: Path, limits: Limits = LIMITS) -> Learnt:
    """Raises Unavailable where scikit-learn is missing, RunFailed."""
    command = [sys.executable, "-P", "-m", "inference.distil.worker", msgspec.json.encode(limits).decode()]
    environment = {
        "PYTHONPATH": str(_ROOT),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
    }
    try:
        done = subprocess.run(  # noqa: S603 — our own interpreter and module
            command,
            input=msgspec.json.encode(lesson),
            capture_output=True,
            cwd=folder,
            env=environment,
            timeout=limits.wall_s,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"Training took longer than {limits.wall_s:g} s", code="too_slow") from None
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=Learnt)
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
    if "ModuleNotFoundError" in said:
        raise Unavailable(f"Training needs scikit-learn: install the extra `classic` ({said})")
    raise RunFailed(f"Training failed: {said or f'the process ended with {done.returncode}'}")
