"""Clients that leave, clients that only stop talking, and what the upstream sees of both."""

import socket
import struct
import time

import pytest

from tests.fixtures.patience import quickest
from tests.fixtures.raw import Raw, chat, head, said, whole
from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry

AT_ONCE_S = 0.1
RESET = struct.pack("ii", 1, 0)


def since(entry: Entry, moment: float) -> float:
    """Seconds until the upstream saw that its client was gone."""
    assert entry.outcome == "client_left"
    assert entry.ended_at is not None
    return entry.ended_at - moment


def leave(raw: Raw, how: str) -> float:
    if how == "reset":
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    raw.socket.close()
    return time.monotonic()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the headers", "before the first token", "in the stream", "in a plain answer"])
def test_a_client_that_leaves_cancels_its_upstream_at_once(
    server: Server, scripts: Scripts, how: str, when: str
) -> None:
    """Within 100 ms, whichever stage the call is in."""
    behaviours = {
        "before the headers": Behaviour(headers_after_s=20),
        "before the first token": Behaviour(first_token_after_s=20),
        "in the stream": Behaviour(chunks=500, gap_s=0.05),
        "in a plain answer": Behaviour(headers_after_s=20),
    }

    def departure() -> float:
        scripted = scripts(behaviours[when])
        with Raw(server) as raw:
            raw.send(whole(server, chat(server, scripted.model, stream=when != "in a plain answer")))
            scripted.upstream.wait(bool)
            if when == "in the stream":
                raw.until(b"hello")
            left_at = leave(raw, how)
        return since(scripted.upstream.ended(), left_at)

    assert quickest(departure, AT_ONCE_S) < AT_ONCE_S


def test_a_client_that_leaves_with_an_unread_answer_cancels_too(server: Server, scripts: Scripts) -> None:
    """Its kernel answers with a reset, since data was left unread."""

    def departure() -> float:
        scripted = scripts(Behaviour(chunks=100_000, chunk_bytes=4096))
        with Raw(server) as raw:
            raw.send(whole(server, chat(server, scripted.model, stream=True)))
            raw.until(b"hello")
            time.sleep(0.3)
            left_at = leave(raw, "close")
        return since(scripted.upstream.ended(), left_at)

    assert quickest(departure, AT_ONCE_S) < AT_ONCE_S


@pytest.mark.parametrize("stream", [False, True])
def test_a_half_closed_client_still_gets_its_answer(server: Server, scripts: Scripts, stream: bool) -> None:
    """`shutdown(SHUT_WR)` after the request means: no more from me. Netcat and old clients do it."""
    scripted = scripts(Behaviour(chunks=4, held_after=2 if stream else -1))
    with Raw(server) as raw:
        raw.send(whole(server, chat(server, scripted.model, stream=stream)))
        scripted.upstream.wait(bool)
        raw.socket.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        scripted.upstream.let_go()
        reply = raw.reply()
        assert raw.closed()
    assert reply.status == 200
    if stream:
        assert reply.body.endswith(b"data: [DONE]\n\n")
    else:
        assert said(reply) == "ann|hello w1 w2 w3"
    assert scripted.upstream.ended().outcome == "finished"


def test_a_client_that_half_closes_inside_its_request_gets_nothing(server: Server) -> None:
    """The rest of the body cannot come any more."""
    with Raw(server) as raw:
        raw.send(head(server, "content-length: 100"), b"{")
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.closed()


def test_pipelined_requests_behind_a_departure_are_not_started(server: Server, scripts: Scripts) -> None:
    """The first is cancelled, the second never reaches an upstream."""
    slow, second = scripts(Behaviour(headers_after_s=20)), scripts(Behaviour())
    with Raw(server) as raw:
        raw.send(whole(server, chat(server, slow.model)) + whole(server, chat(server, second.model)))
        slow.upstream.wait(bool)
        leave(raw, "close")
    assert slow.upstream.ended().outcome == "client_left"
    time.sleep(0.1)
    assert second.upstream.entries() == []


def test_a_departure_leaves_the_rest_alone(server: Server, scripts: Scripts) -> None:
    """Twenty streams at once, every other client leaves; the others complete."""
    scripted = scripts(Behaviour(chunks=10, held_after=5))
    clients = [Raw(server).send(whole(server, chat(server, scripted.model, f"q{n}", stream=True))) for n in range(20)]
    for raw in clients[::2]:
        raw.until(b"|q")
        raw.socket.close()
    scripted.upstream.wait(lambda entries: sum(entry.outcome == "client_left" for entry in entries) == 10)
    scripted.upstream.let_go()
    for number, raw in enumerate(clients):
        if number % 2:
            body = raw.reply().body
            assert b"|q%d" % number in body
            assert body.endswith(b"data: [DONE]\n\n")
            raw.socket.close()
    entries = scripted.upstream.wait(lambda entries: all(entry.ended_at for entry in entries))
    outcomes = [entry.outcome for entry in entries]
    assert (outcomes.count("client_left"), outcomes.count("finished")) == (10, 10)
