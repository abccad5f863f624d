"""SIGTERM ends the process without ending anybody's answer."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures.raw import Raw, chat, head, said, whole
from tests.fixtures.server import Scripts, Server, models
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour


def test_what_runs_completes_and_nothing_new_begins(own_server: Server, scripts: Scripts) -> None:
    """Streams and plain answers go on to their end, new connections are refused, then the process ends with 0."""
    server = own_server
    streaming = scripts(Behaviour(chunks=6, held_after=3))
    plain = scripts(Behaviour(held_after=-1))
    with Raw(server) as first, Raw(server) as second, Raw(server) as idle:
        assert idle.send(whole(server, chat(server))).reply().status == 200
        first.send(whole(server, chat(server, streaming.model, stream=True)))
        second.send(whole(server, chat(server, plain.model)))
        first.until(b"hello")
        plain.upstream.wait(bool)
        server.terminate()
        assert idle.closed(), "an idle connection was kept"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)
        streaming.upstream.let_go()
        plain.upstream.let_go()
        first.until(b"[DONE]")
        assert said(second.reply()) == "ann|hello"
    assert server.wait() == 0
    assert streaming.upstream.ended().outcome == "finished"


def test_readiness_goes_while_liveness_stays(own_server: Server, scripts: Scripts) -> None:
    """A balancer that still has a connection is told 503; who runs the process is told that it lives."""
    server = own_server
    slow = scripts(Behaviour(held_after=-1))
    probe = head(server, method="GET", path="/health/ready")
    alive = head(server, method="GET", path="/health/live")
    with Raw(server) as working, Raw(server) as prober:
        prober.send(probe[:-2])  # a request that has begun is still answered
        working.send(whole(server, chat(server, slow.model)))
        slow.upstream.wait(bool)
        server.terminate()
        no_longer_listening(server)
        prober.send(b"\r\n")
        reply = prober.reply()
        assert reply.status == 503
        slow.upstream.let_go()
        assert said(working.reply()) == "ann|hello"
    assert alive
    assert server.wait() == 0


def test_a_stream_longer_than_the_drain_is_cut_and_the_process_ends(
    upstream: Upstream, tmp_path: Path, scripts: Scripts
) -> None:
    """`drain_s` is a promise to whoever waits for the process."""
    config = {"server": {"limits": {"drain_s": 1.5}}, "models": models(upstream)}
    endless = scripts(Behaviour(chunks=10_000, gap_s=0.05))
    server = Server(config, tmp_path).start()
    try:
        with Raw(server) as raw:
            raw.send(whole(server, chat(server, endless.model, stream=True)))
            raw.until(b"hello")
            began = time.monotonic()
            server.terminate()
            assert server.wait() == 0
            assert 1.4 < time.monotonic() - began < 15
            received = rest(raw)
            assert b"[DONE]" not in received
            assert not received.endswith(b"0\r\n\r\n"), "a cut stream looked complete"
        assert endless.upstream.ended().outcome == "client_left"
    finally:
        server.stop()


def test_a_restart_finds_the_same_keys(own_server: Server) -> None:
    """The data directory is what a process leaves behind."""
    key = own_server.key
    own_server.restart()
    with Raw(own_server) as raw:
        assert raw.send(head(own_server, method="GET", path="/v1/models", key=key)).reply().status == 200


def test_the_process_is_ready_soon_and_small(tmp_path: Path) -> None:
    """1.5 s and 80 MB are the promise on an idle machine; this one shares its cores with other tests, so it is the processor's time.

    What only developers have installed is hidden: structlog loads it where it is there.
    """
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("rich", "greenlet"):
        (hidden / f"{name}.py").write_text("raise ImportError")
    local = {"id": "local", "base_url": "http://127.0.0.1:9/v1", "model": "x"}
    config = {"models": [{"name": "chat", "deployments": [local]}]}
    server = Server(config, tmp_path, environ={"PYTHONPATH": str(hidden)}, executed=True)
    server.start(with_key=False)
    try:
        time.sleep(1.5)  # until everything that loads in the background has loaded
        assert server.rss_mb() < 80
        assert cpu_s(server) < 3  # 0.6 s on an idle machine
    finally:
        server.stop()


def cpu_s(server: Server) -> float:
    """What a process has had of its processors so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def no_longer_listening(server: Server) -> None:
    with suppress(ConnectionRefusedError):
        while True:
            server.connect().close()
            time.sleep(0.02)


def rest(raw: Raw) -> bytes:
    """What is left to read; a reset is an end too."""
    received = b""
    with suppress(ConnectionResetError):
        while part := raw.more():
            received += part
    return received
