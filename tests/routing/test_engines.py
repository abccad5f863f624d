"""What engines say in `/metrics` is read as they write it, and steers calls."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.engines import read
from gateway.routing.loads import Engine
from tests.fixtures.deployments import Routes
from tests.fixtures.routing import deployment, loads
from tests.upstream.behaviour import Behaviour

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 7.5e-01
"""
OLD_VLLM = b'vllm:num_requests_running{model_name="m"} 1.0\nvllm:gpu_cache_usage_perc{model_name="m"} 0.93\n'
SGLANG = b'sglang:num_running_reqs{model_name="m"} 4.0\nsglang:num_queue_reqs{model_name="m"} 2.0\nsglang:token_usage{model_name="m"} 0.5\n'


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (VLLM, Engine(5, 1, 0.75)),
        (OLD_VLLM, Engine(1, 0, 0.93)),
        (SGLANG, Engine(4, 2, 0.5)),
        (b"vllm:num_requests_running 1\nvllm:num_requests_waiting NaN\n", Engine(1, 0, 0)),
        (b"process_cpu_seconds_total 1\n", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_pages_are_read(page: bytes, expected: Engine | None) -> None:
    """Several engines behind one address are added up; what is no number counts for nothing."""
    assert read(page) == expected


def test_one_word_of_an_engine_does_not_turn_everything() -> None:
    """What it says is smoothed: two seconds later it is not so any more."""
    load = loads().of(deployment("a"))
    load.observe(Engine(running=2))
    load.observe(Engine(running=2, waiting=10))
    assert load.engine is not None
    assert 0 < load.engine.waiting < 5
    load.observe(None)
    assert (load.others, load.strain) == (0.0, 1.0)


@contextmanager
def busy_engine() -> Iterator[str]:
    """An address whose metrics tell of a long queue; it answers nothing else."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"vllm:num_requests_running 50\nvllm:num_requests_waiting 100\nvllm:kv_cache_usage_perc 0.99\n"
            known = self.path == "/metrics"
            self.send_response(200 if known else 404)
            self.send_header("content-length", str(len(page) if known else 0))
            self.end_headers()
            if known:
                self.wfile.write(page)

        def do_POST(self) -> None:
            body = b'{"error": {"message": "busy"}}'
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_engine_with_a_queue_is_left_alone(routes: Routes) -> None:
    """The record says so: one that is idle here, and full of others' calls, is not the least busy."""
    with busy_engine() as url:
        level = {"order": 1, "provider": "vllm"}
        route = routes(url, Behaviour(text="fine"), strategy="least_busy", deployment=level)
        deadline = time.monotonic() + 20
        reason = ""
        while "< " + route.places[0].id + " " not in reason or float(reason.rsplit(maxsplit=1)[-1]) < 100:
            assert time.monotonic() < deadline, reason
            time.sleep(0.2)
            reason = routes.record(routes.ask(route))["route"]
        firsts = [routes.ask(route).headers["x-penstock-attempts"] for _ in range(10)]
        assert firsts == ["1"] * 10
