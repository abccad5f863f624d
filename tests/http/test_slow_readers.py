"""Answers are whole and in order for clients that read slowly, leave at any moment, or share their file number with one that left."""

import socket
import struct
import threading
import time

import pytest

from tests.fixtures.raw import Raw, chat, said, whole
from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour

RESET = struct.pack("ii", 1, 0)


class Sipping(Raw):
    """Reads little at a time, through a small window."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)

    def more(self) -> bytes:
        return self.socket.recv(9000)


@pytest.mark.parametrize("which", ["server", "tls_server"])
def test_pipelined_answers_of_all_sizes_arrive_in_order(
    which: str, scripts: Scripts, request: pytest.FixtureRequest
) -> None:
    """Some fit into the socket, some are larger than all buffers, and streams stand between them."""
    server: Server = request.getfixturevalue(which)
    sizes = [0, 300_000, 10, 70_000, 0, 65_536, 400_000, 1]
    plain = [scripts(Behaviour(pad_bytes=size)) for size in sizes]
    stream = scripts(Behaviour(chunks=1000, chunk_bytes=100))
    requests = []
    for number, scripted in enumerate(plain):
        requests += [whole(server, chat(server, scripted.model, f"q{number}"))]
        requests += [whole(server, chat(server, stream.model, f"s{number}", stream=True))] if number % 4 == 1 else []
    with Sipping(server) as raw:
        raw.send(*requests)
        for number, size in enumerate(sizes):
            content = said(raw.reply())
            assert content.startswith(f"ann|q{number}")
            assert len(content) >= size
            if number % 4 == 1:
                body = raw.reply().body
                assert body.endswith(b"data: [DONE]\n\n")
                assert f"ann|s{number}".encode() in body
                words = [body.find(b" w%d" % word) for word in range(1, 1000)]
                assert words == sorted(words)
                assert words[0] > 0


def test_connections_that_take_over_a_file_number_get_nothing_of_the_last_owner(
    server: Server, scripts: Scripts
) -> None:
    """Clients that reset in the turn of their answer, while others connect: the kernel gives them the numbers that got free."""
    behaviour = scripts(Behaviour())
    wrong: list[str] = []
    stop = time.monotonic() + 2

    def leave(name: str) -> None:
        number = 0
        while time.monotonic() < stop:
            number += 1
            with Raw(server) as raw:
                asked = whole(server, chat(server, behaviour.model, f"{name}{number}", stream=bool(number % 2)))
                raw.send(asked * (1 + number % 3))
                if number % 5 == 0:
                    raw.socket.recv(1)
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def stay(name: str) -> None:
        number = 0
        while time.monotonic() < stop:
            number += 1
            with Raw(server) as raw:
                for part in "ab":
                    mine = f"{name}{number}{part}"
                    found = said(raw.send(whole(server, chat(server, behaviour.model, mine))).reply())
                    if found != f"ann|{mine}":
                        wrong.append(f"{mine} got {found}")
                if raw.buffer:
                    wrong.append(f"{name}{number} got {raw.buffer!r} beside its answers")

    threads = [
        threading.Thread(target=work, args=(f"{work.__name__}{n}-",)) for n in range(3) for work in (leave, stay)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_client_that_never_reads_costs_little_and_is_cut(strict_server: Server, scripts: Scripts) -> None:
    """Megabytes of small pieces: the upstream is slowed down, then the write timeout ends the connection."""
    endless = scripts(Behaviour(chunks=200_000, chunk_bytes=2000))
    before = strict_server.rss_mb()
    with Sipping(strict_server) as raw:
        raw.send(whole(strict_server, chat(strict_server, endless.model, stream=True)))
        assert endless.upstream.ended().outcome == "client_left"
        assert strict_server.rss_mb() < before + 40


def test_a_keep_alive_client_of_http_1_0_gets_no_chunks_the_second_time_either(
    server: Server, scripts: Scripts
) -> None:
    """It knows none: the end of the connection is the end of its stream, also where its head is known already."""
    plain, stream = scripts(Behaviour()), scripts(Behaviour(chunks=3))
    with Raw(server) as raw:
        asked = whole(server, chat(server, plain.model), "connection: keep-alive", version="1.0")
        assert said(raw.send(asked).reply()) == "ann|hello"
        asked = whole(server, chat(server, stream.model, stream=True), "connection: keep-alive", version="1.0")
        reply = raw.send(asked).reply()
        assert "transfer-encoding" not in reply.headers
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert raw.closed()
