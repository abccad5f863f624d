"""What `nvidia-smi` says of this machine's GPUs, where there is one."""

import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from inference.fleet.states import Gpu

QUERY: Final = "index,uuid,name,memory.used,memory.total,utilization.gpu"
PATIENCE_S: Final = 5.0


def look(environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Blocks for up to seconds. Empty where there is no such program, or it fails."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return ()
    command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)  # noqa: S603 — no input of anybody's
    except (OSError, subprocess.SubprocessError):
        return ()
    return read(said.stdout)


def read(text: str) -> tuple[Gpu, ...]:
    """One line per GPU; what it cannot tell reads `[N/A]` and is 0 here."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == len(QUERY.split(",")):
            index, uuid, name, used, total, busy = parts
            found.append(Gpu(index, uuid, name, _number(used), _number(total), _number(busy)))
    return tuple(found)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
