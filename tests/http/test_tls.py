"""TLS on both sides: certificates are checked upwards and shown downwards."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import openai
import pytest

from tests.fixtures.raw import Raw, chat, said, whole
from tests.fixtures.server import Scripts, Server, secure_server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour


def ask(server: Server, model: str) -> str | None:
    with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=0) as client:
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], user="ann")
    return answer.choices[0].message.content


def test_a_trusted_upstream_is_reached_over_tls(server: Server) -> None:
    """With the deployment's own CA file."""
    assert ask(server, "tls-good") == "ann|hi"


@pytest.mark.parametrize("model", ["tls-expired", "tls-stranger", "tls-unknown"])
def test_an_upstream_with_a_bad_certificate_is_not_talked_to(server: Server, model: str) -> None:
    """Expired, for another host, or from an authority that nobody trusts: 502, and no request was sent."""
    with pytest.raises(openai.InternalServerError) as caught:
        ask(server, model)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_certificate")


def test_checking_can_be_turned_off_for_one_deployment(server: Server) -> None:
    """For the self-signed box under the desk."""
    assert ask(server, "tls-unchecked") == "ann|hi"


def test_clients_are_served_over_tls(tls_server: Server, scripts: Scripts) -> None:
    """Plain, streamed, and many on one connection."""
    scripted = scripts(Behaviour(chunks=50))
    with Raw(tls_server) as raw:
        for _ in range(3):
            assert said(raw.send(whole(tls_server, chat(tls_server))).reply()) == "ann|hello"
            stream = raw.send(whole(tls_server, chat(tls_server, scripted.model, stream=True))).reply()
            assert stream.body.endswith(b"data: [DONE]\n\n")


def test_large_bodies_pass_over_tls(tls_server: Server, scripts: Scripts) -> None:
    """Records and back-pressure, both ways."""
    scripted = scripts(Behaviour(pad_bytes=4 * 2**20))
    with Raw(tls_server) as raw:
        content = said(raw.send(whole(tls_server, chat(tls_server, scripted.model, "y" * 2**21))).reply())
    assert len(content) == len("ann|") + 2**21 + 2**22


def test_plain_http_on_the_tls_port_is_refused(tls_server: Server) -> None:
    """And takes nothing down with it."""
    with socket.create_connection(("127.0.0.1", tls_server.port), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            assert not sock.recv(100).startswith(b"HTTP/1.1 2")
    with Raw(tls_server) as raw:
        assert said(raw.send(whole(tls_server, chat(tls_server))).reply()) == "ann|hello"


def test_a_client_that_does_not_trust_the_certificate_stops(tls_server: Server) -> None:
    """The certificate shown is the one that was configured, not a made-up one."""
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", tls_server.port), timeout=5) as sock,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(sock, server_hostname="localhost")


def test_a_handshake_that_does_not_come_does_not_block_others(tls_server: Server) -> None:
    """Ten silent connections, and the next client is served."""
    silent = [socket.create_connection(("127.0.0.1", tls_server.port), timeout=5) for _ in range(10)]
    with Raw(tls_server) as raw:
        assert said(raw.send(whole(tls_server, chat(tls_server))).reply()) == "ann|hello"
    for sock in silent:
        sock.close()


def test_clients_that_keep_silent_do_not_hold_up_the_end(upstream: Upstream, tmp_path: Path) -> None:
    """They are told of it, and need not answer; `drain_s` is for those that are being served."""
    server = secure_server(upstream, tmp_path).start()
    try:
        with Raw(server) as raw:
            assert said(raw.send(whole(server, chat(server))).reply()) == "ann|hello"
            server.terminate()
            assert server.wait(20) == 0  # 30 s are the time for draining, and for a goodbye under TLS
            assert raw.more() == b""  # no reset, and nothing cut off
    finally:
        server.stop()


def test_a_client_that_leaves_over_tls_cancels_the_upstream(tls_server: Server, scripts: Scripts) -> None:
    """With or without a closing alert."""
    scripted = scripts(Behaviour(chunks=500, gap_s=0.05))
    with Raw(tls_server) as raw:
        raw.send(whole(tls_server, chat(tls_server, scripted.model, stream=True)))
        raw.until(b"hello")
    assert scripted.upstream.ended().outcome == "client_left"
