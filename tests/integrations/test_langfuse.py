"""What goes to Langfuse, read by the models of its own client: every field is one that it knows, and nothing is lost on the way."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from admin.telemetry.account import Account, Step
from admin.telemetry.sinks.langfuse import Langfuse
from tests.fixtures.collector import Collector, collecting

MISSING = "Langfuse's client is not installed: make test-integrations"
ingestion = pytest.importorskip("langfuse.api.ingestion", reason=MISSING)
reading = pytest.importorskip("langfuse.api.core.pydantic_utilities", reason=MISSING)

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(120)]

AT = 1_796_000_000.0


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collecting() as made:
        made.answers = [207]
        made.answer_body = json.dumps({"successes": [{"id": "a", "status": 201}], "errors": []}).encode()
        yield made


def account(**fields: Any) -> Account:
    about: dict[str, Any] = {
        "id": f"req_{1:032x}",
        "at": AT,
        "ended": AT + 0.5,
        "endpoint": "chat",
        "status": 200,
        "trace": 0xABC,
        "span": 7,
        "key_id": "key_1",
        "team_id": "team_1",
        "model": "chat",
        "provider": "openai",
        "deployment": "a",
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "cached_tokens": 6,
        "cost_nanousd": 1_500_000,
        "first_token_ms": 200.0,
        "user": "ann",
        "session": "talk",
        "tags": ("blue",),
        "steps": (Step(stage="attempt", began=AT + 0.1, ended=AT + 0.5, span=8, deployment="a", provider="openai"),),
        "request_text": '{"messages": [{"role": "user", "content": "asked"}]}',
        "answer_text": "answered",
    }
    return Account(**(about | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": 500, "error_code": "server_error", "completion_tokens": None, "prompt_tokens": None},
        {"endpoint": "embeddings", "model": None, "user": None, "session": None, "tags": (), "first_token_ms": None},
        {"request_text": None, "answer_text": None, "cost_nanousd": None},
    ],
)
def test_each_event_is_one_of_langfuses(receiver: Collector, fields: dict[str, Any]) -> None:
    sink = Langfuse(receiver.url, "pk-lf-1", "sk-lf-2", 5, content=True)
    sink.deliver([account(**fields)])
    sink.close()
    body = json.loads(receiver.received[0].body)
    read = [reading.parse_obj_as(ingestion.IngestionEvent, one) for one in body["batch"]]
    assert [event.type for event in read] == ["trace-create", "generation-create"]
    for event, sent in zip(read, body["batch"], strict=True):
        assert not event.body.model_extra, "fields that Langfuse does not know"
        again = json.loads(event.json())["body"]
        told = {name: value for name, value in sent["body"].items() if value is not None}
        assert {name for name, value in again.items() if value is not None} == set(told)
        for name in told.keys() - {"timestamp", "startTime", "endTime", "completionStartTime"}:
            assert again[name] == told[name], name


def test_its_answer_is_read_as_it_is_meant(receiver: Collector) -> None:
    """An answer that its client's model makes, with an event that was not taken."""
    made = ingestion.IngestionResponse(
        successes=[ingestion.IngestionSuccess(id="a", status=201)],
        errors=[ingestion.IngestionError(id="b", status=400, message="no", error="no")],
    )
    receiver.answer_body = made.json().encode()
    sink = Langfuse(receiver.url, "pk-lf-1", "sk-lf-2", 5, content=False)
    with pytest.raises(Exception, match="1 events were refused with 400"):
        sink.deliver([account()])
    sink.close()
