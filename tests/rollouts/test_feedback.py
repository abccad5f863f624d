"""What is said of answers: whose they are, what may be said, in which forms, and that saying it twice is saying it once."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

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


def test_of_anothers_answers_nobody_speaks(rolling_server: Server, answers: list[str]) -> None:
    """They are not there, as nothing is that never was."""
    other = rolling_server.new_key()
    for id_ in (answers[0], "req_0190000000007000000000000000aaaa", "chatcmpl-1", "srch_" + "0" * 56):
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
    """In structured, binary and batch mode; who sends the event says it."""
    event = {"specversion": "1.0", "type": "review", "source": "/crm", "id": "1"}
    bearer = {"authorization": f"Bearer {rolling_server.key}"}
    structured = rolling_server.http.post(
        "/v1/feedback",
        content=json.dumps({**event, "data": {"id": answers[6], "score": 1}}),
        headers={**bearer, "content-type": "application/cloudevents+json"},
    )
    binary = rolling_server.http.post(
        "/v1/feedback",
        json={"id": answers[7], "score": 0},
        headers={**bearer, **{f"ce-{name}": value for name, value in event.items()}},
    )
    assert (structured.status_code, binary.status_code) == (200, 200), (structured.text, binary.text)
    assert [one.json()["source"] for one in (structured, binary)] == ["/crm", "/crm"]

    batch = [{**event, "data": {"id": answers[8], "score": 1}}, {**event, "specversion": "0.3", "data": {}}]
    taken = bulk(rolling_server, "application/cloudevents-batch+json", json.dumps(batch))
    assert (taken["accepted"], taken["rejected"], taken["errors"][0]["param"]) == (1, 1, "specversion")


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
