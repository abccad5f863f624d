"""`kill -9` in the middle of a call that is billed by the unit: the next start settles it at what was held."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx

from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour


def test_a_call_of_a_killed_process_is_settled_at_its_worst_case(upstream: Upstream, tmp_path: Path) -> None:
    script = upstream.script(Behaviour(headers_after_s=30))
    place = {"id": "draws", "base_url": script.base_url, "model": "m", "price": {"per_image": 0.04}}
    server = Server({"models": [{"name": "draw", "deployments": [place]}]}, tmp_path).start()

    def draw() -> None:
        with suppress(httpx.TransportError):
            server.post("/v1/images/generations", {"model": "draw", "prompt": "a gate", "n": 3})

    caller = threading.Thread(target=draw)
    caller.start()
    script.wait(bool)
    server.kill()
    caller.join()
    server.start(with_key=False)
    try:
        deadline = time.monotonic() + 20
        while not (found := server.admin.get("/requests").json()["data"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        server.stop()
    assert (found[0]["cost_nanousd"], found[0]["usage_source"], found[0]["error_code"]) == (
        120_000_000,
        "estimated",
        "crashed",
    )
    assert found[0]["units"] == {"images": 3}
