"""Who supervises: one process of several, and the next one after its death."""

import time
from pathlib import Path

import pytest

from inference.fleet import process
from tests.fixtures.server import Server
from tests.fleet.conftest import PATIENCE_S, Fleet, engine


def alive(pid: int) -> bool:
    found = process.stat(pid)
    return found is not None and found.state not in "ZX"


@pytest.mark.parametrize("declared", [True, False])
def test_engines_outlive_a_killed_server_and_are_adopted_or_ended(tmp_path: Path, *, declared: bool) -> None:
    """kill -9: the process goes on. The next server takes it over as it is, or ends it if nobody declares it any more."""
    server = Server({"engines": [engine("kept"), engine("other")]}, tmp_path).start()
    fleet = Fleet(server)
    pid = fleet.ready("kept")["replicas"][0]["pid"]
    server.kill()
    assert alive(pid)
    again = Server({"engines": [engine("kept")] if declared else [engine("other")]}, tmp_path).start()
    try:
        fleet = Fleet(again)
        if declared:
            state = fleet.ready("kept")
            assert (state["replicas"][0]["pid"], state["replicas"][0]["adopted"]) == (pid, True)
            assert fleet.said("kept")[2] == str(pid)
        else:
            deadline = time.monotonic() + PATIENCE_S
            while alive(pid):
                assert time.monotonic() < deadline, again.output
                time.sleep(0.1)
            fleet.gone("kept")
    finally:
        again.stop()
    assert not alive(pid), "a server that ends takes its engines with it"


def test_one_of_several_workers_supervises(tmp_path: Path) -> None:
    """Each engine has one process, whichever worker answers; and all of them serve it."""
    server = Server({"server": {"workers": 2}, "engines": [engine("shared")]}, tmp_path).start()
    try:
        fleet = Fleet(server)
        pid = str(fleet.ready("shared")["replicas"][0]["pid"])
        assert {fleet.said("shared")[2] for _ in range(6)} == {pid}
        assert len(list((server.data / "engines" / "shared").glob("*.json"))) == 1
    finally:
        server.stop()
    assert not alive(int(pid))
