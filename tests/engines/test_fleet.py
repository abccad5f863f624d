"""Penstock runs vLLM itself: started, killed and replaced under load, stopped when idle and brought back by a request."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.vllm import CONTEXT, ENVIRONMENT, HERE, MODEL, START_S
from tests.fixtures.server import Json, Server
from tests.fleet.conftest import Fleet, Load

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]


def declaration(folder: Path) -> Json:
    """The tiny model, as `tests.engines.vllm` starts it by hand."""
    return {
        "name": MODEL,
        "kind": "vllm",
        "program": [str(ENVIRONMENT / "bin" / "vllm"), "serve"],
        "model": str(folder / "model"),
        "args": ["--dtype", "float32", "--max-model-len", str(CONTEXT), "--max-num-seqs", "8", "--enforce-eager"],
        "env": {
            "PATH": f"{ENVIRONMENT / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        },
        "ready": {"within_s": START_S},
        "restart": {"base_s": 0.5},
        "wake": {"wait_s": START_S},
        "stop_s": 30,
    }


class Patient(Fleet):
    """An engine takes minutes where the scripted one takes a moment."""

    def until(self, name: str, wanted: Any) -> Json:
        deadline = time.monotonic() + START_S
        while not wanted(state := self.state(name)):
            assert time.monotonic() < deadline, f"{state}\n{self.server.output[-3000:]}"
            time.sleep(0.5)
        return state


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    subprocess.run([HERE / "setup.sh", sys.executable], check=True)
    subprocess.run(
        [ENVIRONMENT / "bin" / "python", HERE / "tiny_model.py", tmp_path / "model"], check=True, timeout=300
    )
    patient = {"timeouts": {"first_token_s": START_S, "total_s": 2 * START_S, "connect_s": 30}}
    model = {"name": MODEL, **patient, "deployments": []}
    server = Server({"engines": [declaration(tmp_path)], "models": [model]}, tmp_path).start()
    server.http.timeout = START_S
    yield Patient(server)
    server.stop()


def test_vllm_lives_dies_and_is_replaced_under_load(fleet: Fleet) -> None:
    """One engine after the other: ready by a generation, back after kill -9, a rolling replacement without a failed request."""
    began = time.monotonic()
    state = fleet.ready(MODEL)
    print(f"\nready after {time.monotonic() - began:.0f} s, {state['rss_mb']:.0f} MB")
    assert fleet.ask(MODEL).status_code == 200
    os.killpg(state["replicas"][0]["pid"], signal.SIGKILL)
    began = time.monotonic()
    after = fleet.until(MODEL, lambda state: state["restarts"] == 1 and state["ready"] == 1)
    print(f"back {time.monotonic() - began:.0f} s after kill -9")
    pid = after["replicas"][0]["pid"]
    with Load(fleet, MODEL, clients=2, patience_s=START_S, max_tokens=64) as load:
        load.await_answers(3)
        assert fleet.act(MODEL, "restart").status_code == 200
        began = time.monotonic()
        fleet.until(
            MODEL,
            lambda state: [one["pid"] for one in state["replicas"]] not in ([pid], []) and len(state["replicas"]) == 1,
        )
        load.await_answers(3)
    assert load.failures == []
    print(f"replaced in {time.monotonic() - began:.0f} s, {len(load.answers)} answers, none failed")
    fleet.patch(MODEL, idle={"after_s": 2})
    fleet.until(MODEL, lambda state: state["state"] == "asleep" and not state["replicas"])
    began = time.monotonic()
    assert fleet.ask(MODEL).status_code == 200
    print(f"woken by a request in {time.monotonic() - began:.0f} s")
