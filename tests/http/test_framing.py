"""How requests may be framed: what RFC 9112 allows works, byte for byte, in order."""

import time
from itertools import pairwise

import pytest

from tests.fixtures.patience import quickest
from tests.fixtures.raw import Raw, chat, chunked, head, said, whole
from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize("extension", [b"", b";name=value", b';a="q;q"'])
def test_a_chunked_body_arrives_whole_whatever_its_chunks(server: Server, size: int, extension: bytes) -> None:
    """Odd sizes, extensions and trailers; none of them changes the request."""
    body = chunked(chat(server, text="in chunks"), size, extension=extension, trailers=b"x-late: 1\r\n")
    with Raw(server) as raw:
        raw.send(head(server, "transfer-encoding: chunked"), body)
        assert said(raw.reply()) == "ann|in chunks"
        assert said(raw.send(whole(server, chat(server, text="again"))).reply()) == "ann|again"


def test_a_request_may_arrive_byte_by_byte(server: Server) -> None:
    """Each byte in a segment of its own."""
    data = whole(server, chat(server, text="slowly"))
    with Raw(server) as raw:
        raw.send(*(data[index : index + 1] for index in range(len(data))))
        assert said(raw.reply()) == "ann|slowly"


def test_a_trailer_cannot_pass_for_a_header(server: Server) -> None:
    """A key in a trailer authenticates nobody."""
    lines = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    trailers = f"authorization: Bearer {server.key}\r\n".encode()
    with Raw(server) as raw:
        reply = raw.send(lines, chunked(chat(server), 50, trailers=trailers)).reply()
    assert (reply.status, reply.code) == (401, "invalid_api_key")


def test_pipelined_requests_are_answered_in_their_order(server: Server, scripts: Scripts) -> None:
    """Eight in one segment, the first of them slow; a listing and a stream between them."""
    slow = scripts(Behaviour(headers_after_s=0.3))
    requests = [whole(server, chat(server, slow.model, "q0"))]
    requests += [whole(server, chat(server, text=f"q{n}")) for n in range(1, 6)]
    requests += [head(server, method="GET", path="/v1/models"), whole(server, chat(server, text="q7", stream=True))]
    with Raw(server) as raw:
        raw.send(b"".join(requests))
        assert [said(raw.reply()) for _ in range(6)] == [f"ann|q{n}" for n in range(6)]
        assert raw.reply().json["object"] == "list"
        assert b"[DONE]" in raw.reply().body


def test_pipelined_requests_to_both_sides_keep_their_order(server: Server) -> None:
    """The hot path answers at once, the admin side from a task; the order is the client's."""
    requests = [
        head(server, method="GET", path="/nowhere"),
        whole(server, chat(server, text="one")),
        head(server, method="GET", path="/openapi.json"),
        whole(server, chat(server, text="two")),
    ]
    with Raw(server) as raw:
        raw.send(b"".join(requests))
        assert raw.reply().status == 404
        assert said(raw.reply()) == "ann|one"
        assert raw.reply().json["openapi"]
        assert said(raw.reply()) == "ann|two"


def test_a_deep_pipeline_is_answered_whole(server: Server) -> None:
    """Two hundred requests at once, the last of which closes."""
    with Raw(server) as raw:
        raw.send(*(whole(server, chat(server, text=f"p{n}")) for n in range(200)))
        assert [said(raw.reply()) for _ in range(200)] == [f"ann|p{n}" for n in range(200)]


def test_expect_continue_gets_its_interim_answer_first(server: Server) -> None:
    """The body is sent only after the 100, as curl does it for large bodies."""
    body = chat(server, text="may I")
    with Raw(server) as raw:
        raw.send(head(server, f"content-length: {len(body)}", "expect: 100-continue"))
        assert raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert said(raw.send(body).reply()) == "ann|may I"


def test_expect_continue_is_refused_before_the_body_if_it_is_too_long(server: Server) -> None:
    """The point of the header: no 100, and nothing is uploaded in vain."""
    with Raw(server) as raw:
        reply = raw.send(head(server, "content-length: 104857600", "expect: 100-continue")).reply()
    assert (reply.status, reply.interim) == (413, ())


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    """Without a wish for keep-alive the end of the connection follows."""
    with Raw(server) as raw:
        reply = raw.send(whole(server, chat(server), version="1.0")).reply()
        assert said(reply) == "ann|hello"
        assert raw.closed()


def test_http_1_0_streams_without_chunks(server: Server) -> None:
    """That version has no chunked coding: the body ends with the connection."""
    with Raw(server) as raw:
        reply = raw.send(whole(server, chat(server, stream=True), version="1.0")).reply()
    assert "transfer-encoding" not in reply.headers
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_connection_close_is_honoured(server: Server) -> None:
    """And said in the answer."""
    with Raw(server) as raw:
        reply = raw.send(whole(server, chat(server), "connection: close")).reply()
        assert reply.headers["connection"] == "close"
        assert raw.closed()


def test_a_connection_is_kept_alive_otherwise(server: Server) -> None:
    """Answers of every kind leave it open: plain, streamed, refused."""
    with Raw(server) as raw:
        for _ in range(3):
            assert raw.send(whole(server, chat(server))).reply().status == 200
            assert raw.send(whole(server, chat(server, stream=True))).reply().status == 200
            assert raw.send(whole(server, chat(server, "unknown"))).reply().status == 404
            assert raw.send(whole(server, b"{")).reply().status == 400


def test_empty_lines_before_a_request_are_forgiven(server: Server) -> None:
    """RFC 9112 2.2: old clients send one after a body."""
    with Raw(server) as raw:
        assert said(raw.send(b"\r\n\r\n" + whole(server, chat(server))).reply()) == "ann|hello"


def test_a_query_does_not_hide_a_route(server: Server) -> None:
    """Azure's clients add `?api-version=…` to every path."""
    body = chat(server)
    with Raw(server) as raw:
        raw.send(head(server, f"content-length: {len(body)}", path="/v1/chat/completions?api-version=1"), body)
        assert said(raw.reply()) == "ann|hello"


def test_a_stream_is_passed_on_as_it_comes(server: Server, scripts: Scripts) -> None:
    """Each event leaves when it arrives, not when the next one does."""

    def unevenness() -> float:
        scripted = scripts(Behaviour(chunks=4, gap_s=0.3))
        with Raw(server) as raw:
            raw.send(whole(server, chat(server, scripted.model, stream=True)))
            raw.until(b'"content":"ann|hello"')
            moments = []
            for word in (b" w1", b" w2", b" w3"):
                raw.until(word)
                moments.append(time.monotonic())
        return max(abs(later - earlier - 0.3) for earlier, later in pairwise(moments))

    assert quickest(unevenness, 0.1) < 0.1


def test_what_differs_in_a_repeated_head_counts(server: Server) -> None:
    """The connection knows the head by now; another key, path, framing or end of the connection is read anew each time."""
    one = whole(server, chat(server, text="one"))
    with Raw(server) as raw:
        for text in ("one", "two", "and a longer three"):
            assert said(raw.send(whole(server, chat(server, text=text))).reply()) == f"ann|{text}"
        assert raw.send(one.replace(server.key.encode(), b"sk-ps-nobody")).reply().code == "invalid_api_key"
        assert raw.send(one.replace(b"/chat/completions", b"/chat/completionz")).reply().status == 404
        assert raw.send(whole(server, b"{")).reply().code == "invalid_json"
        assert said(raw.send(one[:-5], one[-5:]).reply()) == "ann|one"
        assert [said(raw.send(one + one).reply()), said(raw.reply())] == ["ann|one", "ann|one"]
        assert said(raw.send(one).reply()) == "ann|one"
        last = raw.send(one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")).reply()
        assert (said(last), last.headers["connection"]) == ("ann|one", "close")
        assert raw.closed()
