"""`penstock replay`: what was recorded is asked again, paid by who runs it, and compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from admin import cli
from admin.replay.difference import difference, summary
from admin.replay.judge import verdict
from admin.replay.recording import Recording, Reply, asked
from admin.replay.shape import shape
from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import ADMIN_KEY, Json, Server
from tests.telemetry.until import until
from tests.upstream.behaviour import Behaviour, ToolCall

OLD = Behaviour(text='{"height_m": 12}', prompt_tokens=10, completion_tokens=10)
NEW = Behaviour(text='{"height_m": 15}', prompt_tokens=10, completion_tokens=4)
CHATTY = Behaviour(text="It is about twelve metres high, I would say.", prompt_tokens=10, completion_tokens=20)


class Recorded:
    """A server that has recorded a window of traffic of one key."""

    def __init__(self, server: Server, routes: Routes, route: Route, key: str, key_id: str) -> None:
        self.server = server
        self.routes = routes
        self.route = route
        self.key = key
        self.key_id = key_id

    def spent(self) -> Json:
        """What the key has spent, once all of its calls are in the books."""

        def found() -> Json | None:
            rows: list[Json] = self.server.admin.get("/spend", params={"group_by": "key"}).json()["data"]
            return next((row for row in rows if row["group"] == self.key_id and row["requests"] >= 3), None)

        row = until(found)
        assert row is not None
        return row

    def replay(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
        place = ["--data-dir", str(self.server.data), "--url", self.server.url, "--key", ADMIN_KEY, "--json"]
        assert cli.main(["replay", *arguments, *place]) == 0
        return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def recorded(routes: Routes) -> Recorded:
    server, route = routes.server, routes(OLD)
    made = server.admin.post("/keys", json={"name": "first", "metadata": {"record_content": True}}).json()
    server.await_key(made["key"], known=True)
    for number in range(3):
        answer = routes.ask(route, key=made["key"], text=f"How high is dam {number}?", stream=number == 0)
        assert answer.status_code == 200
    own = {"text": "how high is dam", "key_id": made["id"]}  # the server has others', where this is made a second time
    until(lambda: len(server.admin.get("/requests", params=own).json()["data"]) == 3)
    return Recorded(server, routes, route, made["key"], made["id"])


def test_another_model_is_asked_the_same(
    recorded: Recorded, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Cost, length, structure and words are compared; the first key pays nothing; what is saved can be compared offline."""
    other = recorded.routes(NEW)
    before, file = recorded.spent(), tmp_path / "answers.jsonl"
    told = recorded.replay(capsys, "--against", other.name, "--model", recorded.route.name, "--save", str(file))
    total = told["summary"]
    assert (total["requests"], total["skipped"], total["now"]["answered"]) == (3, 0, 3)
    assert total["then"]["cost_usd"] == pytest.approx(3 * (10 * 1e-3 + 10 * 2e-3))
    assert total["now"]["cost_usd"] == pytest.approx(3 * (10 * 1e-3 + 4 * 2e-3))
    assert (total["same_text"], total["same_structure"]) == (0, 1)
    assert total["now"]["completion_tokens"] == 4
    assert all(one["completion_tokens"] == -6 for one in told["requests"])
    bodies = [json.loads(entry.body) for entry in other.places[0].handle.entries()]
    assert sorted(body["messages"][0]["content"] for body in bodies) == [
        f"How high is dam {number}?" for number in range(3)
    ]
    assert recorded.spent() == before
    assert recorded.replay(capsys, "--answers", str(file)) == told
    assert len(other.places[0].handle.entries()) == 3


def test_a_request_is_changed_before_it_is_asked(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """Any field, by its path: a temperature, the version of a prompt, the collection that is searched."""
    other = recorded.routes(CHATTY)
    told = recorded.replay(
        capsys, "--against", other.name, "--set", "temperature=0.25", "--set", "metadata.kind=again", "--limit", "1",
        "--model", recorded.route.name,
    )  # fmt: skip
    assert told["summary"]["requests"] == 1
    assert told["summary"]["same_structure"] == 0
    (entry,) = other.places[0].handle.entries()
    body = json.loads(entry.body)
    assert (body["temperature"], body["metadata"]) == (0.25, {"kind": "again"})
    assert "user" not in body


def test_a_judge_is_asked_in_both_orders(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """One that always prefers what it reads first has said nothing."""
    other, judge = recorded.routes(NEW), recorded.routes(Behaviour(text='{"better": "A"}'))
    told = recorded.replay(
        capsys, "--against", other.name, "--judge", judge.name, "--limit", "2", "--model", recorded.route.name
    )
    assert told["summary"]["judged"] == {"better": 0, "same": 2, "worse": 0}
    assert len(judge.places[0].handle.entries()) == 4


def test_a_table_for_people(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """Then and now, side by side."""
    other = recorded.routes(NEW)
    place = ["--data-dir", str(recorded.server.data), "--url", recorded.server.url, "--key", ADMIN_KEY]
    assert cli.main(["replay", "--against", other.name, "--limit", "1", "--model", recorded.route.name, *place]) == 0
    out = capsys.readouterr().out
    assert "same structure" in out
    assert "most different:" in out


def test_nothing_to_replay_is_said(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """With the way out."""
    place = ["--data-dir", str(recorded.server.data), "--url", recorded.server.url, "--key", ADMIN_KEY]
    assert cli.main(["replay", "--against", "x", "--text", "nobody ever said this", *place]) == 1
    assert "records.content.enabled" in capsys.readouterr().err
    assert cli.main(["replay", *place]) == 1
    assert "--against" in capsys.readouterr().err


def reply(text: str) -> Reply:
    return Reply(status=200, text=text, latency_ms=10.0)


def chat(content: str | None, *, finish: str = "stop", tools: tuple[ToolCall, ...] = ()) -> str:
    calls = [{"type": "function", "function": {"name": tool.name, "arguments": tool.arguments}} for tool in tools]
    message = {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (chat("a"), chat("b"), True),
        (chat("a"), chat("a", finish="length"), False),
        (chat('{"a": 1, "b": [{"c": "x"}]}'), chat('{"a": 2, "b": [{"c": "y"}, {"c": "z"}]}'), True),
        (chat('{"a": 1}'), chat('{"a": "1"}'), False),
        (chat(None, tools=(ToolCall("look", "{}"),)), chat(None, tools=(ToolCall("seek", "{}"),)), False),
        (chat("a"), "not JSON", False),
    ],
)
def test_structure_is_what_a_program_reads(one: str, other: str, same: bool) -> None:
    """Endings, tools and the form of JSON; not the words."""
    assert shape("chat", one).same(shape("chat", other)) is same


def test_each_api_has_its_shape() -> None:
    """The words and tools of a Messages answer and of a Responses answer."""
    message = {
        "content": [{"type": "text", "text": "hi"}, {"type": "tool_use", "name": "look"}],
        "stop_reason": "tool_use",
    }
    told = shape("messages", json.dumps(message))
    assert (told.words, told.tools, told.ending) == ("hi", ("look",), "tool_use")
    items = [
        {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
        {"type": "function_call", "name": "look"},
    ]
    told = shape("responses", json.dumps({"output": items, "status": "completed"}))
    assert (told.words, told.tools, told.ending) == ("hi", ("look",), "completed")


@pytest.mark.parametrize("request_text", ["cut off {", "[]", '{"prompt": "text"}'])
def test_what_cannot_be_asked_again_is_skipped(request_text: str) -> None:
    """A request that was cut, is no object, or has no place for a change."""
    recording = Recording("req_1", "chat", request_text, reply(chat("a")))
    with pytest.raises((ValueError, TypeError)):
        asked(recording, "x", {"prompt.version": 2})
    assert summary([recording], []).skipped == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (('{"better": "B"}', '{"better": "A"}'), "better"),
        (('A: {"better": "A"}', '{"better": "B"}'), "worse"),
        (("?", "?"), None),
    ],
)
def test_a_verdict_needs_both_orders(words: tuple[str, str], expected: str | None) -> None:
    """The same answer has to win from either place."""
    recording = Recording("req_1", "chat", "{}", reply(chat("a")), again=reply(chat("b")))
    said = iter(words)
    assert verdict(recording, lambda _: next(said)) == expected
    assert difference(recording).likeness == 0
