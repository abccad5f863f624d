"""However a conversation ends, both sides are let go, and each answer is settled once."""

import contextlib
import socket as sockets
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.realtime.conftest import NEVER_LONG, Talks
from tests.upstream.behaviour import Behaviour, Fault

LONG = Behaviour(chunks=500, gap_s=0.05)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_leaves_stops_the_upstream_and_pays_for_what_came(talks: Talks, how: str) -> None:
    route = talks(LONG, deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.say("response.create")
        for _ in range(3):
            talk.hear("response.output_text.delta")
        if how == "reset":
            talk.socket.socket.shutdown(sockets.SHUT_RDWR)
        else:
            talk.socket.close()
    entry = route.places[0].handle.ended()
    (record,) = talks.of(route, 1)
    assert (record["error_code"], record["usage_source"]) == ("client_disconnected", "estimated")
    assert 3 <= record["completion_tokens"] < 500
    assert entry.bytes_sent < 500 * 100


@pytest.mark.parametrize("fault", ["fin", "rst", "bad_framing"])
def test_an_upstream_that_is_gone_is_told(talks: Talks, fault: Fault) -> None:
    """In an event and in the closing frame; what came of the answer is billed."""
    route = talks(Behaviour(chunks=10, fault=fault, fault_after=3), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.say("response.create")
        assert talk.end() == (1011, "upstream_closed")
        assert talk.heard[-1]["error"]["type"] == "upstream_error"
    (record,) = talks.of(route, 1)
    assert (record["completion_tokens"], record["usage_source"], record["status"]) == (3, "estimated", 502)


def test_an_answer_without_a_bill_is_estimated(talks: Talks) -> None:
    route = talks(Behaviour(chunks=6, usage="absent"), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.answer()
    (record,) = talks.of(route, 1)
    assert (record["completion_tokens"], record["usage_source"]) == (6, "estimated")


def test_what_is_no_json_goes_on_unread(talks: Talks) -> None:
    """It is the client's to judge; the bill is made of the events that can be read."""
    route = talks(Behaviour(fault="bad_json_event", fault_after=1), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.say("response.create")
        with contextlib.suppress(ValueError):
            talk.hear("response.done")
        talk.hear("response.done")
    assert talks.of(route, 1)[0]["usage_source"] == "provider"


def test_silence_ends_it(strict_talks: Talks) -> None:
    route = strict_talks(Behaviour(), deployment=NEVER_LONG)
    with strict_talks.talk(route) as talk:
        assert talk.end() == (1000, "idle_timeout")
        assert talk.heard[-1]["error"]["code"] == "idle_timeout"


def test_pings_are_sent_and_answered(strict_talks: Talks) -> None:
    """A client that answers them stays; an upstream that does not is gone."""
    route = strict_talks(Behaviour(deaf=True), deployment=NEVER_LONG)
    with strict_talks.talk(route) as talk:
        assert talk.socket.ping().wait(10)
        assert talk.end() in {(1011, "upstream_silent"), (1000, "idle_timeout")}


def test_a_message_may_only_be_so_long(strict_talks: Talks) -> None:
    route = strict_talks(Behaviour(), deployment=NEVER_LONG)
    with strict_talks.talk(route) as talk:
        talk.say("conversation.item.create", item={"text": "x" * 20_000})
        assert talk.end()[0] == 1009
    assert "xxxx" not in route.places[0].handle.ended().body


def test_who_does_not_listen_slows_the_upstream(talks: Talks) -> None:
    """Fifty megabytes are on their way to a client that reads nothing: most of them stay where they come from."""
    route = talks(Behaviour(chunks=500, chunk_bytes=100_000, completion_tokens=300), deployment=NEVER_LONG)
    rss = talks.server.rss_mb()
    with talks.talk(route, max_size=None, max_queue=1) as talk:
        talk.say("response.create")
        time.sleep(1.5)
        assert talks.server.rss_mb() - rss < 25
        assert route.places[0].handle.entries()[0].bytes_sent < 40_000_000
        talk.hear("response.done")
    assert talks.of(route, 1)[0]["completion_tokens"] == 300


def test_a_server_that_ends_says_goodbye(upstream: Upstream, tmp_path: Path) -> None:
    script = upstream.script(LONG)
    server = _server(script.base_url, tmp_path).start()
    talks = Talks(server, upstream)
    with talks.talk("talk") as talk:
        talk.say("response.create")
        talk.hear("response.output_text.delta")
        server.terminate()
        assert talk.end() == (1001, "server_shutdown")
    server.wait()
    server.stop()
    server.start(with_key=False)
    try:
        (record,) = _records(server)
        assert record["completion_tokens"] == script.ended().completion_tokens
    finally:
        server.stop()


def test_a_killed_server_leaves_one_settlement_for_each_answer(upstream: Upstream, tmp_path: Path) -> None:
    """Two answers ended, one was being made: it is settled at its worst case, and nothing twice."""
    script = upstream.script(Behaviour(chunks=500, gap_s=0.02))
    server = _server(script.base_url, tmp_path).start()
    talks = Talks(server, upstream)
    with contextlib.suppress(ConnectionClosed), talks.talk("talk") as talk:
        for _ in range(2):
            talk.say("response.create")
            talk.hear("response.output_text.delta")
            talk.say("response.cancel")
            talk.hear("response.done")
        talk.say("response.create")
        talk.hear("response.output_text.delta")
        server.kill()
    server.start(with_key=False)
    try:
        records = _records(server, 3)
        assert sorted(str(one["usage_source"]) for one in records) == ["estimated", "provider", "provider"]
        crashed = next(one for one in records if one["usage_source"] == "estimated")
        assert (crashed["error_code"], crashed["completion_tokens"]) == ("crashed", 100)
        assert len({one["id"] for one in records}) == 3
    finally:
        server.stop()


def _server(base_url: str, folder: Path) -> Server:
    place = {"id": "talk", "base_url": base_url, "model": "m", **NEVER_LONG}
    return Server({"models": [{"name": "talk", "deployments": [place]}]}, folder)


def _records(server: Server, count: int = 1) -> list[dict[str, object]]:
    deadline = time.monotonic() + 20
    while len(found := server.admin.get("/requests").json()["data"]) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert len(found) == count, found
    return list(found)
