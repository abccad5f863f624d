"""Penstock beside other gateways: what counts as the upstream's answer, the arithmetic and the table, and a system that cannot stream."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks import comparison, dialogue, peer_answers, peers
from benchmarks.comparison import Comparison, Peer
from benchmarks.peer_systems import System, Targets
from benchmarks.process import Server, free_port
from benchmarks.report import Machine, Measurement
from benchmarks.targets import Target, Upstreams
from benchmarks.timing import WrongAnswer

MACHINE = Machine("2026-01-01", "abc", "a cpu", 2, "6.1", "3.11.7", 0.5)
NGINX = Measurement(1, "nginx", "plain", 32, 1000, 0, 20.0, 40_000.0, 0.5, 2.0)
OTHER = replace(NGINX, target="other", cpu_us=400.0, per_second=2_000.0, errors=1)
PEER = Peer("other", "1.2", (3.0, 1.0, 2.0), 200, 60.4, 70.6)

ANSWERS_ONLY = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, body = (500, b"no streams") if asked.get("stream") else (200, sys.argv[2].encode())
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def stream(events: Sequence[bytes]) -> bytes:
    return b"".join(events)


def result(*measurements: Measurement) -> Comparison:
    return Comparison("make bench-peers", MACHINE, 32, (PEER,), measurements, {"gone": ["it is not installed"]})


def test_a_ratio_is_taken_within_its_round_and_only_where_both_were_measured() -> None:
    """400 by 20, 300 by 30; in the third round nginx is missing, and the median cost still counts it."""
    measured = (
        NGINX,
        OTHER,
        replace(NGINX, round=2, cpu_us=30.0),
        replace(OTHER, round=2, cpu_us=300.0),
        replace(OTHER, round=3),
    )
    found = comparison.figures(measured, "other", "plain")
    assert found is not None
    assert found.ratios == (20.0, 10.0)
    assert found.ratio == 15.0
    assert found.cpu_us == 400.0
    assert found.errors == 3


def test_what_was_not_measured_has_no_figures() -> None:
    """A system whose streams failed, and one without nginx beside it."""
    assert comparison.figures((NGINX, OTHER), "other", "paced") is None
    alone = comparison.figures((OTHER,), "other", "plain")
    assert alone is not None
    assert alone.ratio is None


def test_chunks_that_a_gateway_merges_are_charged_one_by_one() -> None:
    """17 events for the 51 that it was sent: each of those cost a third of what each of its own did."""
    measured = comparison.per_chunk(replace(OTHER, load="paced", count=170, cpu_us=30.0, per_second=100.0), 17)
    assert measured.count == 510
    assert measured.cpu_us == pytest.approx(10.0)
    assert measured.per_second == pytest.approx(300.0)


def test_the_table_has_a_row_for_each_system_and_says_what_is_missing() -> None:
    """Medians, ratios and memory in the row; dashes for streams; the absent by name."""
    page = comparison.render(result(NGINX, OTHER))
    (row,) = [line for line in page.splitlines() if line.startswith("| other ")]
    assert "| 1.2 | 400.0 | **20.00** |" in row
    assert "| 2,000 |" in row
    assert "| – | – | – |" in row
    assert "| 60 / 71 | 2.00 s | let in | 1 |" in row
    assert "- gone: it is not installed" in page


def test_measurements_and_systems_are_lines_of_json(tmp_path: Path) -> None:
    """Two measurements and one system, each with the machine."""
    out = tmp_path / "out" / "peers.jsonl"
    comparison.append_lines(out, result(NGINX, OTHER))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line.get("target", line.get("name")) for line in lines] == ["nginx", "other", "other"]
    assert all(line["machine"]["commit"] == "abc" for line in lines)


def test_an_answer_written_anew_passes_if_it_says_the_same() -> None:
    """Gateways have names, ids and fields of their own."""
    answer = json.loads(dialogue.answer())
    answer |= {"id": "other", "model": "plain", "cost": 1}
    del answer["system_fingerprint"]
    peer_answers.check_answer(200, json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("status", "old", "new"),
    [(200, "Paris", "Lyon"), (200, '"stop"', '"length"'), (200, "133", "134"), (500, "", ""), (200, "{", "<")],
)
def test_an_answer_that_says_something_else_does_not_pass(status: int, old: str, new: str) -> None:
    """Other words, another end, other usage, a failure, no JSON."""
    with pytest.raises(WrongAnswer):
        peer_answers.check_answer(status, dialogue.answer().decode().replace(old, new).encode())


def test_a_stream_says_how_many_events_it_has() -> None:
    """As many as the upstream's, or one less where the usage has moved into the last chunk."""
    *chunks, usage, end = dialogue.events()
    assert peer_answers.check_stream(200, stream([*chunks, usage, end])) == dialogue.EVENTS
    used = json.loads(usage.removeprefix(b"data: "))["usage"]
    last = json.loads(chunks[-1].removeprefix(b"data: ")) | {"usage": used}
    merged = b"data: " + json.dumps(last).encode() + b"\n\n"
    assert peer_answers.check_stream(200, stream([*chunks[:-1], merged, end])) == dialogue.EVENTS - 1


@pytest.mark.parametrize(
    "events",
    [dialogue.events()[:-1], (*dialogue.events()[:9], *dialogue.events()[10:]), (b"data: [DONE]\n\n",), ()],
    ids=["no end", "a chunk lacks", "nothing said", "empty"],
)
def test_a_stream_that_lacks_something_does_not_pass(events: tuple[bytes, ...]) -> None:
    """Each of these would be counted as cheap streaming."""
    with pytest.raises(WrongAnswer):
        peer_answers.check_stream(200, stream(events))


@contextmanager
def answers_only(answer: str, folder: Path, _ports: Upstreams) -> Iterator[Targets]:
    port, script = free_port(), folder / "server.py"
    script.write_text(ANSWERS_ONLY)
    with Server([sys.executable, script, str(port), answer], log=folder / "log") as server:
        target = Target("other", server, port, "sk-any")
        yield {"plain": target, "paced": target}


def test_a_system_that_cannot_stream_is_measured_without_and_named(tmp_path: Path) -> None:
    """A real process: its answers are right, its streams 500, and it lets any key in."""
    system = System("other", lambda: "1.2", partial(answers_only, dialogue.answer().decode()))
    faults = peers.Faults()
    with ExitStack() as stack:
        running = peers.start(system, tmp_path, Upstreams(1, 2), 2, stack, faults)
        assert running.idle_mib > 1
    assert list(running.targets) == ["plain"]
    assert len(running.ready_s) == 2
    assert all(seconds > 0 for seconds in running.ready_s)
    assert running.refusal == 200
    assert faults.by_system == {"other": ['it does not stream: 500 "no streams"']}


def test_a_system_that_answers_wrongly_is_not_measured_at_all(tmp_path: Path) -> None:
    """Its speed would say nothing."""
    system = System("other", lambda: "1.2", partial(answers_only, "{}"))
    with ExitStack() as stack, pytest.raises(WrongAnswer, match="not the upstream's"):
        peers.start(system, tmp_path, Upstreams(1, 2), 1, stack, peers.Faults())
