"""Upstreams differ: what is odd but right works, what is wrong becomes a 502, and nothing passes for a whole answer that is not."""

import json
import time

import pytest

from tests.fixtures.deployments import Routes
from tests.fixtures.raw import Raw, Reply, chat, said, whole
from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour

ODD = {
    "lower-case headers": Behaviour(casing="lower"),
    "upper-case headers": Behaviour(casing="upper"),
    "odd headers": Behaviour(casing="odd"),
    "a body that ends with the connection": Behaviour(framing="close"),
    "a chunked body": Behaviour(framing="chunked"),
    "a length": Behaviour(framing="length"),
    "a closed connection after each answer": Behaviour(keep_alive=False),
    "gzip unasked": Behaviour(gzip="always"),
    "gzip in chunks": Behaviour(gzip="always", framing="chunked"),
    "an interim answer": Behaviour(interim=(103,)),
    "several interim answers": Behaviour(interim=(100, 102, 103)),
    "trailers": Behaviour(framing="chunked", trailers=(("x-sum", "1"), ("x-late", "2"))),
    "one byte per segment": Behaviour(segment_bytes=1),
    "a long header": Behaviour(headers=(("x-long", "a" * 30_000),)),
    "many headers": Behaviour(headers=tuple((f"x-{number}", "1") for number in range(200))),
    "another content type": Behaviour(content_type="application/json; charset=UTF-8"),
    "a slow start": Behaviour(headers_after_s=0.2),
}
ODD_STREAMS = {
    "CRLF lines": Behaviour(crlf=True),
    "CRLF lines in small segments": Behaviour(crlf=True, segment_bytes=3),
    "heartbeats": Behaviour(heartbeats=5),
    "several events per write": Behaviour(chunks=9, join=4),
    "events cut anywhere": Behaviour(chunks=5, splits=tuple(range(1, 2000, 7)), framing="chunked"),
    "cut between the two line ends": Behaviour(splits=(179, 180, 181, 182, 183, 184)),
    "gzip": Behaviour(gzip="always"),
    "no content type parameter": Behaviour(content_type="text/event-stream"),
    "usage unasked": Behaviour(usage="always"),
    "no usage": Behaviour(usage="absent"),
    "no closing line": Behaviour(done=False),
}
BROKEN = {
    "nothing": Behaviour(fault="fin"),
    "a reset": Behaviour(fault="rst"),
    "an empty 200": Behaviour(body=""),
    "JSON cut off": Behaviour(body='{"id": "x", "choices": ['),
    "not JSON": Behaviour(body="<html>Bad gateway</html>", content_type="text/html"),
    "a JSON list": Behaviour(body="[]"),
    "an error inside a 200": Behaviour(body='{"error": {"message": "overheated", "type": "server_error"}}'),
    "less than its length": Behaviour(framing="length", length_excess=100),
    "chunks without an end": Behaviour(framing="chunked", fault="fin", fault_after=1),
    "a chunk that is none": Behaviour(framing="chunked", fault="bad_framing", fault_after=1),
    "no HTTP": Behaviour(raw="hello\r\n", keep_alive=False),
    "SSH": Behaviour(raw="SSH-2.0-OpenSSH_9.2\r\n", keep_alive=False),
    "half a header": Behaviour(raw="HTTP/1.1 200 OK\r\ncontent-type: appl", keep_alive=False),
    "a header of a megabyte": Behaviour(headers=(("x-long", "a" * 2**20),)),
    "a 204": Behaviour(status=204),
    "a redirect": Behaviour(status=302, headers=(("location", "http://169.254.169.254/"),)),
    "a 304": Behaviour(status=304),
    "a switch of protocols": Behaviour(raw="HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
    "two lengths": Behaviour(headers=(("content-length", "3"),), framing="length"),
    "length and chunks": Behaviour(headers=(("content-length", "3"),), framing="chunked"),
    "gzip that is none": Behaviour(headers=(("content-encoding", "gzip"),)),
    "500 without a body": Behaviour(status=500, body=""),
    "500 with a page": Behaviour(status=500, body="<html>oops</html>", content_type="text/html"),
}
ENDED = ("a JSON list", "less than its length")  # as a stream, these say [DONE] in time: the answer is whole
BROKEN_STREAMS = {
    "an empty stream": Behaviour(body=""),
    "only DONE": Behaviour(body="data: [DONE]\n\n"),
    "JSON instead of events": Behaviour(content_type="application/json", body='{"choices": []}'),
    "a page": Behaviour(content_type="text/html", body="<html></html>"),
    "no content type": Behaviour(content_type=""),
    "an error event at once": Behaviour(fault="error_event", fault_after=0),
    "a cut before the first token": Behaviour(fault="fin", fault_after=1),
    "a 204": Behaviour(status=204),
}


def ask(server: Server, model: str, *, stream: bool = False) -> Reply:
    with Raw(server) as raw:
        return raw.send(whole(server, chat(server, model, stream=stream))).reply()


@pytest.mark.parametrize("shape", ODD)
def test_an_odd_answer_comes_through(server: Server, scripts: Scripts, shape: str) -> None:
    """Three times, so that what one leaves behind on the connection would show in the next."""
    scripted = scripts(ODD[shape])
    for _ in range(3):
        reply = ask(server, scripted.model)
        assert said(reply) == "ann|hello"
        assert "content-encoding" not in reply.headers
        assert "x-sum" not in reply.headers


@pytest.mark.parametrize("shape", [*ODD_STREAMS, *(name for name in ODD if name != "another content type")])
def test_an_odd_stream_comes_through(server: Server, scripts: Scripts, shape: str) -> None:
    """The client sees one clean form of it: LF lines, no usage unasked, `[DONE]` at the end."""
    scripted = scripts(ODD_STREAMS.get(shape) or ODD[shape])
    for _ in range(2):
        reply = ask(server, scripted.model, stream=True)
        assert reply.status == 200, reply
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert b"\r" not in reply.body
        events = [line[6:] for line in reply.body.split(b"\n") if line.startswith(b"data: ")]
        assert events[-1] == b"[DONE]"
        chunks = [json.loads(event) for event in events[:-1]]
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert text.startswith("ann|hello")
        assert not any(chunk.get("usage") for chunk in chunks)


@pytest.mark.parametrize("shape", BROKEN)
def test_a_broken_answer_is_an_upstream_error(server: Server, scripts: Scripts, shape: str) -> None:
    """502 in the usual shape, and the next call to the same upstream is right."""
    scripted = scripts(BROKEN[shape])
    reply = ask(server, scripted.model)
    assert reply.status == 502, reply
    assert reply.json["error"]["type"] == "upstream_error"
    assert shape != "an error inside a 200" or "overheated" in reply.json["error"]["message"]
    assert reply.code
    assert said(ask(server, "chat")) == "ann|hello"


@pytest.mark.parametrize("shape", [*BROKEN_STREAMS, *(name for name in BROKEN if name not in ENDED)])
def test_a_broken_stream_is_never_a_whole_answer(server: Server, scripts: Scripts, shape: str) -> None:
    """Before the first content a 502; after it an error in the stream and no `[DONE]`."""
    scripted = scripts(BROKEN_STREAMS.get(shape) or BROKEN[shape])
    reply = ask(server, scripted.model, stream=True)
    assert b"[DONE]" not in reply.body
    if reply.status == 200:
        last = reply.body.rstrip().split(b"\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "upstream_error"
    else:
        assert reply.status == 502, reply
        assert reply.code
    assert said(ask(server, "chat")) == "ann|hello"


def test_a_connection_that_the_upstream_closed_while_it_was_idle_costs_no_request(
    server: Server, scripts: Scripts
) -> None:
    """Its end is noticed when it comes, and the next request takes a new one."""
    scripted = scripts(Behaviour(idle_close_s=0.01))
    with Raw(server) as raw:
        for number in range(10):
            raw.send(whole(server, chat(server, scripted.model, f"q{number}")))
            assert said(raw.reply()) == f"ann|q{number}"
            time.sleep(0.05)
            for _ in range(3):  # by then the upstream's timer has run, however late, and the connection is closed
                assert len(scripted.upstream.entries()) == number + 1
            assert server.http.get("/health/live").status_code == 200  # and its end, which came before, was read


def test_without_retries_what_was_sent_is_not_sent_again(server: Server, scripts: Scripts) -> None:
    """A kept connection that breaks under a request may have been billed for it: the client is told, the upstream asked once."""
    scripted = scripts(Behaviour(), Behaviour(fault="fin"), Behaviour())
    assert said(ask(server, scripted.model)) == "ann|hello"
    assert ask(server, scripted.model).status == 502
    assert len(scripted.upstream.entries()) == 2


def test_connections_to_an_upstream_are_reused(server: Server, scripts: Scripts) -> None:
    """Twenty calls one after the other need one connection."""
    scripted = scripts(Behaviour())
    for _ in range(20):
        assert said(ask(server, scripted.model)) == "ann|hello"
    assert len({entry.connection for entry in scripted.upstream.entries()}) == 1


def test_a_connection_is_not_reused_after_a_fault(server: Server, scripts: Scripts) -> None:
    """What an upstream sends behind an answer never reaches the next client."""
    answer = '{"choices":[{"message":{"content":"%s"},"finish_reason":"stop","index":0}]}'
    extra = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    first = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n{answer}{extra}"
    scripted = scripts(Behaviour(raw=first), Behaviour())
    assert ask(server, scripted.model).status in (200, 502)
    assert said(ask(server, scripted.model)) == "ann|hello"
    assert said(ask(server, "chat")) == "ann|hello"


def test_the_upstream_sees_its_own_key_and_not_the_clients(server: Server, scripts: Scripts) -> None:
    """And the request id that the client was told, for both sides' logs."""
    scripted = scripts(Behaviour())
    reply = ask(server, scripted.model)
    entry = scripted.upstream.ended()
    assert entry.header("authorization") == "Bearer sk-up"
    assert server.key not in str(entry.headers)
    assert entry.header("x-request-id") == reply.headers["x-request-id"]
    assert entry.header("content-type") == "application/json"
    assert "cookie" not in dict(entry.headers)


@pytest.mark.parametrize("status", [400, 200])
def test_a_long_fault_instead_of_a_stream_is_read_to_its_end(routes: Routes, status: int) -> None:
    """Its first segment unpacks to more than is read ahead of a stream, so that reading has stopped before it is known to be none."""
    long = Behaviour(
        status=status,
        body=json.dumps({"error": {"message": "A" * 600_000}}),
        content_type="application/json",
        gzip="always",
        framing="chunked",
        splits=(500_000,),
        gap_s=0.1,
    )
    route = routes(long, timeouts={"first_token_s": 5}, retries={"attempts": 0})
    answer = routes.ask(route, stream=True)
    error = answer.json()["error"]
    assert error["code"] != "upstream_timeout"
    assert "AAA" in error["message"]
