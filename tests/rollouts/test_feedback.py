"""What is said of answers: whose they are, what may be said, in which forms, and that saying it twice is saying it once."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from admin.feedback import Feedback, SearchIds
from admin.migrate import prepare
from gateway.database import connect
from gateway.errors import GatewayError
from gateway.keys import Key
from inference.feedback.word import Word
from tests.fixtures.rollouts import Traffic
from tests.fixtures.server import Json, Server

Arms = Callable[..., str]


@pytest.fixture(scope="module")
def answers(rolling_server: Server, upstream: Any) -> list[str]:
    """The ids of some answers."""
    from tests.upstream.behaviour import Behaviour  # noqa: PLC0415

    traffic = Traffic(rolling_server, f"s/{upstream.script(Behaviour()).id}")
    return [traffic.ask(number).headers["x-request-id"] for number in range(12)]


def say(server: Server, key: str | None = None, **body: Any) -> httpx.Response:
    return server.post("/v1/feedback", body, key=key)


def bulk(server: Server, media: str, body: bytes | str) -> Json:
    headers = {"authorization": f"Bearer {server.key}", "content-type": media}
    answer = server.http.post("/v1/feedback/bulk", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    taken: Json = answer.json()
    return taken


def kept(server: Server, id_: str) -> list[Json]:
    found: list[Json] = server.admin.get("/feedback", params={"id": id_}).json()["data"]
    return found


def test_an_answer_is_judged_at_once(rolling_server: Server, arm: Arms) -> None:
    """Its record may not be in the database yet; feedback waits for that."""
    id_ = Traffic(rolling_server, arm()).ask().headers["x-request-id"]

    answer = say(rolling_server, id=id_, score=0.5, label="spam", comment="so so")

    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert {"id": id_, "kind": "request", "source": "user", "score": 0.5, "label": "spam"}.items() <= said.items()
    assert [one["comment"] for one in kept(rolling_server, id_)] == ["so so"]


def test_the_last_word_of_a_source_counts(rolling_server: Server, answers: list[str]) -> None:
    """Said again it changes nothing; said otherwise it replaces; another source says its own."""
    id_ = answers[0]
    first = say(rolling_server, id=id_, score=1).json()
    assert say(rolling_server, id=id_, score=1).json() == first
    say(rolling_server, id=id_, score=0)
    say(rolling_server, id=id_, score=1, source="reviewer")

    assert {one["source"]: one["score"] for one in kept(rolling_server, id_)} == {"user": 0, "reviewer": 1}


def test_what_is_not_said_again_stays(rolling_server: Server, arm: Arms) -> None:
    """Thumbs first, a comment later, the truth at last: one word, with all of them."""
    id_ = Traffic(rolling_server, arm()).ask().headers["x-request-id"]
    for said in ({"score": 0.25}, {"comment": "too long"}, {"label": False}, {"comment": "too long"}):
        assert say(rolling_server, id=id_, **said).status_code == 200
    (one,) = kept(rolling_server, id_)
    assert (one["score"], one["comment"], one["label"]) == (0.25, "too long", False)


def test_an_answer_has_room_for_a_hundred_sources(rolling_server: Server, arm: Arms) -> None:
    """The next one is refused, and those who have spoken may go on."""
    id_ = Traffic(rolling_server, arm()).ask().headers["x-request-id"]
    rows = [{"id": id_, "score": 1, "source": f"source-{number}"} for number in range(101)]
    taken = bulk(rolling_server, "application/json", json.dumps(rows))
    assert (taken["accepted"], taken["rejected"], taken["errors"][0]["param"]) == (100, 1, "source")
    refused = say(rolling_server, id=id_, score=1, source="late")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_sources")
    assert say(rolling_server, id=id_, score=0, source="source-0").status_code == 200


async def test_a_key_may_say_so_much_in_a_second(tmp_path: Path) -> None:
    """A burst, then fifty a second; another key is none the worse."""
    engine, now = connect(f"sqlite:///{tmp_path / 'penstock.db'}"), [0.0]
    prepare(engine)
    feedback = Feedback(engine, SearchIds(b"secret"), lambda _: None, lambda: now[0])

    async def allowed(key: Key) -> bool:
        with pytest.raises(GatewayError) as refused:
            await feedback.say(key, Word("req_nothing", score=1))
        return refused.value.status == 404

    one, other = Key("key_1", "one"), Key("key_2", "other")
    assert [await allowed(one) for _ in range(201)] == [True] * 200 + [False]
    assert await allowed(other)
    now[0] += 0.1
    assert [await allowed(one) for _ in range(6)] == [True] * 5 + [False]
    engine.dispose()


def test_of_anothers_answers_nobody_speaks(rolling_server: Server, answers: list[str]) -> None:
    """They are not there, as nothing is that never was."""
    other = rolling_server.new_key()
    for id_ in (answers[0], "req_0190000000007000000000000000aaaa", "srch_" + "0" * 56):
        refused = say(rolling_server, key=other, id=id_, score=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "subject_not_found")
    assert rolling_server.http.post("/v1/feedback", json={"id": answers[0], "score": 1}).status_code == 401


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"score": 1}, "id"),
        ({"id": 7, "score": 1}, "id"),
        ({"id": "a b", "score": 1}, "id"),
        ({"id": "x"}, "label"),
        ({"id": "x", "score": "good"}, "score"),
        ({"id": "x", "score": 10**400}, "score"),
        ({"id": "x", "label": {"a": 1}}, "label"),
        ({"id": "x", "label": "y" * 20_000}, "label"),
        ({"id": "x", "comment": "\x00"}, "comment"),
        ({"id": "x", "comment": 1}, "comment"),
        ({"id": "x", "score": 1, "rating": 5}, "rating"),
        ([1], None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"id": "x", "score": NaN}', None),
    ],
)
def test_what_is_no_feedback_is_said_so(rolling_server: Server, body: Any, param: str | None) -> None:
    """With the field, in the shape of every error."""
    refused = rolling_server.post("/v1/feedback", body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param


def test_tables_are_taken_row_by_row(rolling_server: Server, answers: list[str]) -> None:
    """As CSV, JSON lines and JSON; a row that is wrong is named and stops no other."""
    a, b, c, d = answers[1:5]
    text = f'id,label,score,comment\n{a},1,0.25,"a, b"\n{b},true,,\nnobody,,1,\n{c},,good,\n'
    taken = bulk(rolling_server, "text/csv; charset=utf-8", text)
    assert (taken["accepted"], taken["unchanged"], taken["rejected"]) == (2, 0, 2)
    assert [(one["row"], one["param"]) for one in taken["errors"]] == [(4, "id"), (5, "score")]
    assert [(one["label"], one["score"], one["comment"]) for one in kept(rolling_server, a)] == [(1, 0.25, "a, b")]
    assert kept(rolling_server, b)[0]["label"] is True

    lines = f'{{"id": "{c}", "score": 1}}\n\nnonsense\n{{"id": "{a}", "score": 0.25, "label": 1, "comment": "a, b"}}\n'
    taken = bulk(rolling_server, "application/jsonl", lines)
    assert (taken["accepted"], taken["unchanged"], taken["rejected"]) == (1, 1, 1)

    taken = bulk(rolling_server, "application/json", json.dumps({"data": [{"id": d, "label": ["x", "y"]}]}))
    assert (taken["accepted"], kept(rolling_server, d)[0]["label"]) == (1, ["x", "y"])


def test_parquet_is_a_table_as_well(rolling_server: Server, answers: list[str]) -> None:
    """With columns by the same names."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": [answers[5], "nobody"], "label": [3, 4]}), file)

    taken = bulk(rolling_server, "application/vnd.apache.parquet", file.getvalue())

    assert (taken["accepted"], taken["rejected"]) == (1, 1)
    assert kept(rolling_server, answers[5])[0]["label"] == 3
    broken = rolling_server.http.post(
        "/v1/feedback/bulk",
        content=b"PAR1 or not",
        headers={"authorization": f"Bearer {rolling_server.key}", "content-type": "application/parquet"},
    )
    assert broken.status_code == 400, broken.text


@pytest.mark.parametrize("media", ["application/pdf", "multipart/form-data", "text/html"])
def test_other_forms_are_refused(rolling_server: Server, media: str) -> None:
    """With those that are read."""
    headers = {"authorization": f"Bearer {rolling_server.key}", "content-type": media}
    refused = rolling_server.http.post("/v1/feedback/bulk", content=b"x", headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_cloud_events_carry_feedback(rolling_server: Server, answers: list[str]) -> None:
    """As the official SDK writes them: structured, binary and in batch mode, at either path; who sends the event says it."""
    bearer = {"authorization": f"Bearer {rolling_server.key}"}

    def event(id_: str, score: int, source: str = "/crm?team=a b&naïve") -> CloudEvent:
        attributes = {"type": "review", "source": source, "id": "1", "specversion": "1.0"}
        return CloudEvent({**attributes, "datacontenttype": "application/json"}, {"id": id_, "score": score})

    for id_, written in ((answers[6], to_structured_event), (answers[7], to_binary_event)):
        message = written(event(id_, 1))
        told = rolling_server.http.post("/v1/feedback", content=message.body, headers={**bearer, **message.headers})
        assert told.status_code == 200, told.text
        assert told.json()["source"] == "/crm?team=a b&naïve"

    good = json.loads(to_structured_event(event(answers[8], 1)).body)
    batch = json.dumps([good, {**good, "specversion": "0.3"}])
    taken = bulk(rolling_server, "application/cloudevents-batch+json", batch)
    assert (taken["accepted"], taken["rejected"], taken["errors"][0]["param"]) == (1, 1, "specversion")
    media = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
    again = rolling_server.http.post("/v1/feedback", content=batch, headers={**bearer, **media}).json()
    assert (again["accepted"], again["unchanged"], again["rejected"]) == (0, 1, 1)


def test_feedback_is_listed_in_pages(rolling_server: Server, answers: list[str]) -> None:
    """Newest first, each once."""
    for number in range(3):
        say(rolling_server, id=answers[9], score=number, source=f"judge-{number}")
    seen, after = [], None
    while True:
        params: dict[str, Any] = {"limit": 2, "id": answers[9], **({} if after is None else {"after": after})}
        page = rolling_server.admin.get("/feedback", params=params).json()
        seen += [one["source"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = page["next"]
    assert seen == ["judge-2", "judge-1", "judge-0"]
