"""What one client may cost: time, header, body, memory."""

import hashlib
import json
import socket
import time

import pytest

from tests.fixtures.patience import quickest
from tests.fixtures.raw import Raw, chat, chunked, head, said, whole
from tests.fixtures.server import Scripted, Scripts, Server
from tests.upstream.behaviour import Behaviour

MEBI = 2**20


def test_a_header_that_does_not_end_times_out(strict_server: Server) -> None:
    """408 and closed, however steadily it drips."""
    began = time.monotonic()
    with Raw(strict_server) as raw:
        raw.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
        raw.socket.settimeout(0.1)
        while time.monotonic() - began < 5:
            try:
                raw.send(b"x-drip: 1\r\n")
                raw.buffer += raw.more()
                break
            except TimeoutError:
                continue
        raw.socket.settimeout(5)
        reply = raw.reply()
        assert (reply.status, reply.code) == (408, "request_timeout")
        assert raw.closed()
    assert 0.5 < time.monotonic() - began < 8


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/v1/keys"])
def test_a_body_that_does_not_come_times_out(strict_server: Server, path: str) -> None:
    """408 and closed, on the hot path and off it."""
    began = time.monotonic()
    with Raw(strict_server) as raw:
        raw.send(head(strict_server, "content-length: 50", path=path, key="sk-admin-of-the-tests-0123456789"), b"{")
        reply = raw.reply()
        assert (reply.status, reply.code) == (408, "request_timeout")
        assert raw.closed()
    assert time.monotonic() - began < 8


def test_an_idle_connection_is_closed_without_a_word(strict_server: Server) -> None:
    """After its time, and not before; a fresh one has the header's time."""
    with Raw(strict_server) as used:
        asked = time.monotonic()
        assert used.send(whole(strict_server, chat(strict_server))).reply().status == 200
        began = time.monotonic()
        with Raw(strict_server) as fresh:
            assert fresh.closed()
            assert 0.3 < time.monotonic() - began < 8
        assert used.closed()
        assert 1.0 < time.monotonic() - asked < 8


def test_a_client_that_does_not_read_is_let_go(strict_server: Server, scripts: Scripts) -> None:
    """After the write timeout, and the upstream is cancelled with it."""
    scripted = scripts(Behaviour(chunks=20_000, chunk_bytes=8192))
    with Raw(strict_server) as raw:
        raw.send(whole(strict_server, chat(strict_server, scripted.model, stream=True)))
        assert scripted.upstream.ended(timeout_s=20).outcome == "client_left"


@pytest.mark.parametrize("lines", [("x-long: " + "a" * 5000,), tuple(f"x-{n}: 1" for n in range(30))])
def test_a_header_over_the_limit_is_a_431(narrow_server: Server, lines: tuple[str, ...]) -> None:
    """By size and by count."""
    with Raw(narrow_server) as raw:
        reply = raw.send(head(narrow_server, "content-length: 0", *lines)).reply()
        assert (reply.status, reply.code) == (431, "headers_too_large")
        assert raw.closed()


def test_a_header_without_an_end_is_refused_at_the_limit(narrow_server: Server) -> None:
    """Long before a megabyte of one header line has been kept."""
    with Raw(narrow_server) as raw:
        raw.send(b"GET /v1/models HTTP/1.1\r\nx-endless: ")
        try:
            for _ in range(256):
                raw.send(b"a" * 4096)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert raw.reply().status == 431


def test_a_long_target_is_refused(narrow_server: Server) -> None:
    """The request line counts as header."""
    with Raw(narrow_server) as raw:
        assert raw.send(head(narrow_server, method="GET", path="/v1/models?" + "a" * 5000)).reply().status == 431


def test_headers_under_the_limit_pass(narrow_server: Server) -> None:
    """A limit that refuses what is allowed is no limit but a fault."""
    with Raw(narrow_server) as raw:
        body = chat(narrow_server)
        raw.send(head(narrow_server, f"content-length: {len(body)}", "x-long: " + "a" * 3500), body)
        assert raw.reply().status == 200


def test_a_body_over_the_limit_is_refused_by_its_length_at_once(server: Server) -> None:
    """100 MB announced, not one byte of it awaited."""
    with Raw(server) as raw:
        reply = raw.send(head(server, "content-length: 104857600")).reply()
        assert (reply.status, reply.code) == (413, "request_too_large")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_over_the_limit_is_not_held_in_memory(narrow_server: Server, framing: str) -> None:
    """100 MB are sent all the same; the answer is a 413 that the client can read, and the memory stays."""
    before = narrow_server.rss_mb()
    part = b"x" * MEBI
    highest = before
    with Raw(narrow_server) as raw:
        if framing == "length":
            raw.send(head(narrow_server, "content-length: 104857600"))
        else:
            raw.send(head(narrow_server, "transfer-encoding: chunked"))
        for _ in range(100):
            try:
                raw.send(part if framing == "length" else b"%x\r\n%b\r\n" % (MEBI, part))
            except (BrokenPipeError, ConnectionResetError):
                break
            highest = max(highest, narrow_server.rss_mb())
        reply = raw.reply()
    assert (reply.status, reply.code) == (413, "request_too_large")
    assert highest - before < 20


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_ten_megabytes_pass_unchanged(server: Server, scripts: Scripts, framing: str) -> None:
    """Up as they came, but for the model's name; the answer knows them."""
    scripted = scripts(Behaviour(text="short"))
    messages = json.dumps([{"role": "user", "content": "ü" * (5 * MEBI)}], ensure_ascii=False)
    body = f'{{"model":"{scripted.model}","messages":{messages}}}'.encode()
    with Raw(server) as raw:
        if framing == "length":
            raw.send(whole(server, body))
        else:
            raw.send(head(server, "transfer-encoding: chunked"), chunked(body, 50_000))
        assert said(raw.reply()) == "short"
    entry = scripted.upstream.ended()
    sent = body.replace(scripted.model.encode(), scripted.upstream.id.encode(), 1)
    assert entry.body_bytes == len(sent)
    assert entry.body_sha256 == hashlib.sha256(sent).hexdigest()


def test_a_ten_megabyte_answer_comes_back_whole(server: Server, scripts: Scripts) -> None:
    """Down as it came."""
    scripted = scripts(Behaviour(pad_bytes=10 * MEBI))
    with Raw(server) as raw:
        content = said(raw.send(whole(server, chat(server, scripted.model))).reply())
    assert content == "ann|hello" + "x" * 10 * MEBI


def test_a_client_that_reads_slowly_slows_its_upstream_and_nothing_fills_up(server: Server, scripts: Scripts) -> None:
    """200 MB of stream against a client that stands still: memory stays flat, the upstream waits, and all of it arrives in the end."""
    chunks, size = 25_000, 8192
    scripted = scripts(Behaviour(chunks=chunks, chunk_bytes=size))
    before = server.rss_mb()
    with Raw(server) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw.send(whole(server, chat(server, scripted.model, stream=True)))
        raw.until(b"\r\n\r\n")
        paused_at = standstill(scripted)
        assert server.rss_mb() - before < 12
        assert paused_at < 100 * MEBI  # what two sockets of the kernel may hold
        with Raw(server) as other:
            assert said(other.send(whole(server, chat(server))).reply()) == "ann|hello"
        received, tail = 0, b""
        while not tail.endswith(b"0\r\n\r\n"):
            part = raw.more()
            assert part
            received += len(part)
            tail = (tail + part)[-64:]
        assert server.rss_mb() - before < 12
    assert received > chunks * size
    assert b"[DONE]" in tail


def standstill(scripted: Scripted) -> int:
    """How much the upstream has sent, once that is as much as 0.4 s before."""
    deadline = time.monotonic() + 20
    sent = 0
    while (sent_by_now := scripted.upstream.entries()[0].bytes_sent) != sent or not sent:
        assert time.monotonic() < deadline, "the upstream was not paused"
        sent = sent_by_now
        time.sleep(0.4)
    return sent


def test_slow_clients_do_not_hold_up_others(server: Server) -> None:
    """Fifty half-sent requests, and the next one is answered at once."""
    body = chat(server)
    waiting = [Raw(server).send(whole(server, body)[:-5]) for _ in range(50)]

    def answered() -> float:
        began = time.monotonic()
        with Raw(server) as raw:
            assert said(raw.send(whole(server, body)).reply()) == "ann|hello"
        return time.monotonic() - began

    assert quickest(answered, 0.5) < 0.5
    for raw in waiting:
        assert said(raw.send(body[-5:]).reply()) == "ann|hello"
        raw.socket.close()
