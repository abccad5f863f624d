"""What a server costs that nobody asks anything: `python -m benchmarks.idle [SECONDS]`.

Processor time of all threads, how often any of them wakes, and memory, with nothing configured and as in the other benchmarks.
"""

import secrets
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import targets
from benchmarks.process import Server, cpu_ns, free_port

SETTLED_S = 5.0


def main(seconds: float) -> None:
    python = Path(".tools/lean/bin/python").absolute()
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        for what, configured in (("nothing configured", False), ("as benchmarked", True)):
            folder = Path(name) / what
            folder.mkdir()
            port = free_port()
            with _server(folder, python, port, configured=configured) as server:
                server.wait_ready(port, "/health/ready")
                time.sleep(SETTLED_S)
                _measure(what, server, seconds)


def _server(folder: Path, python: Path, port: int, *, configured: bool) -> Server:
    key = secrets.token_urlsafe(32)
    if configured:
        return targets.penstock_server(folder, targets.Upstreams(9, 9), python, port, key)
    command: list[str | Path] = [python, "-m", "admin", "serve", "--port", str(port), "--data-dir", folder / "data"]
    return Server(command, environment={"PENSTOCK_ADMIN_KEY": key}, log=folder / "penstock.log")


def _measure(what: str, server: Server, seconds: float) -> None:
    family = server.family()
    spent, woken = cpu_ns(family), _wakes(family)
    time.sleep(seconds)
    cpu_ms = (cpu_ns(family) - spent) / 1e6 / seconds
    wakes = (_wakes(family) - woken) / seconds
    print(f"{what}: {cpu_ms:.2f} ms of CPU per second, {wakes:.0f} wakes, {server.rss_mib():.1f} MiB")


def _wakes(family: tuple[int, ...]) -> int:
    threads = [thread for pid in family for thread in Path(f"/proc/{pid}/task").iterdir()]
    lines = [line for thread in threads for line in (thread / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
