"""The real engine: `vllm serve` on the CPU, in an environment and with a model that are made here."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parents[1] / ".tools" / "vllm"
MODEL = "tiny"
CONTEXT = 4096  # tokens; an answer this long takes the engine about ten seconds: time enough to leave in the middle
PARALLEL = 16
START_S = 900.0  # half a minute on an idle machine, ten minutes were seen on a busy one

OPTIONS = [
    *("--served-model-name", MODEL),
    *("--dtype", "float32"),
    *("--max-model-len", str(CONTEXT)),
    *("--max-num-seqs", str(PARALLEL)),
    "--enforce-eager",  # compiling would take longer than everything that is asked here
    # A model that knows nothing would fill the whitespace that JSON permits with more of it until its tokens are spent.
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    *("--host", "127.0.0.1"),
]


class Vllm:
    """One `vllm serve`. `output` is what it printed, so that a failed start can be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "vllm.log"
        self.url = ""
        self.started_in_s = 0.0
        self.http = httpx.Client(timeout=60, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Vllm":
        """Returns once the engine is healthy. Installs it first if this is the first time."""
        subprocess.run([HERE / "setup.sh", sys.executable], check=True)
        model = self._folder / "model"
        subprocess.run(
            [ENVIRONMENT / "bin" / "python", HERE / "tiny_model.py", model], env=self._environment, check=True
        )
        began = time.monotonic()
        with reserved_port() as port, self._log.open("wb") as log:
            command: list[str | Path] = [ENVIRONMENT / "bin" / "vllm", "serve", model, *OPTIONS, "--port", str(port)]
            # A group of its own: the engine is three processes, and a signal has to reach what the first one leaves behind.
            process = self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            self.url = f"http://127.0.0.1:{port}"
            while not self._healthy():
                assert process.poll() is None, f"vLLM ended with {process.returncode}:\n{self.output}"
                assert time.monotonic() < began + START_S, f"vLLM did not start in {START_S} s:\n{self.output}"
                time.sleep(0.5)
        self.started_in_s = time.monotonic() - began
        return self

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")[-20_000:]

    def version(self) -> str:
        version: str = self.http.get(f"{self.url}/version").json()["version"]
        return version

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels, 0 while it has none."""
        text = self.http.get(f"{self.url}/metrics").text
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))

    def running(self) -> float:
        """How many requests the engine is generating for."""
        return self.metric("vllm:num_requests_running")

    def generated(self) -> float:
        """How many tokens it has made since it started."""
        return self.metric("vllm:generation_tokens_total")

    def await_running(self, wanted: int, timeout_s: float) -> float:
        """Waits until that many requests run; returns the seconds that it took.

        On a busy machine one look may take longer than the timeout: what fails is a look that was begun after it.
        """
        began = time.monotonic()
        while True:
            looked = time.monotonic() - began
            if (now := self.running()) == wanted:
                return time.monotonic() - began
            assert looked < timeout_s, f"{now:.0f} requests run {looked:.1f} s later, wanted {wanted}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends all three processes, also after a start that failed halfway."""
        self.http.close()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # all of the group has ended, as it should
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def _environment(self) -> dict[str, str]:
        """Nothing of ours but the paths: no telemetry, no look at a model hub, caches in the test's own folder."""
        return {
            "PATH": f"{ENVIRONMENT / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        }

    def _healthy(self) -> bool:
        try:
            return self.http.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given while the block lasts. vLLM still can, as both sockets say so."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port
