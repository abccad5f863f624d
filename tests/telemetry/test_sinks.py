"""Where records go: each receiver's own protocol, checked as that receiver would, and patience with those that are ill."""

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from admin.telemetry.account import Account, Step
from admin.telemetry.feed import Feed, Refused, Unacceptable
from admin.telemetry.sinks.json_log import JsonLog
from admin.telemetry.sinks.kafka import Kafka, Message
from admin.telemetry.sinks.langfuse import Langfuse
from admin.telemetry.sinks.s3 import S3, Credentials
from admin.telemetry.sinks.webhook import WebhookSink
from admin.webhooks import signature
from tests.fixtures.collector import Collector, collecting

AT = 1_796_000_000.0


def account(number: int = 1, **fields: Any) -> Account:
    about: dict[str, Any] = {
        "id": f"req_{number:032x}",
        "at": AT,
        "ended": AT + 0.5,
        "endpoint": "chat",
        "status": 200,
        "trace": 0xABC,
        "span": number,
        "key_id": "key_1",
        "model": "chat",
        "metric_model": "chat",
        "provider": "openai",
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "cached_tokens": 6,
        "cost_nanousd": 1_500_000,
        "latency_ms": 500.0,
        "first_token_ms": 200.0,
        "user": "ann",
        "tags": ("blue",),
        "steps": (Step(stage="attempt", began=AT + 0.1, ended=AT + 0.5, span=7, deployment="a", provider="openai"),),
        "request_text": '{"messages": "asked"}',
        "answer_text": "answered",
    }
    return Account(**(about | fields))


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_a_line_of_json_per_request(tmp_path: Path) -> None:
    """Names as in the REST API, identifiers as OpenTelemetry writes them, no content."""
    log = JsonLog(tmp_path / "requests.jsonl")
    log.deliver([account(1), account(2, attempt=True)])
    log.deliver([account(3)])
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert [line["span_id"] for line in lines] == [f"{1:016x}", f"{3:016x}"]
    assert lines[0]["cost_usd"] == 0.0015
    assert lines[0]["steps"] == [{"stage": "attempt", "ms": 400.0, "deployment": "a", "provider": "openai"}]
    assert "request_text" not in lines[0]


@pytest.mark.parametrize("content", [False, True])
def test_a_webhook_is_signed_and_says_no_more_than_it_should(receiver: Collector, content: bool) -> None:
    """A receiver checks the bytes, and knows what it has had already."""
    sink = WebhookSink(f"{receiver.url}/hook", "a secret of ours", {"x-own": "1"}, 5, content=content)
    receiver.answers = [503, 200]
    batch = [account(1), account(2)]
    with pytest.raises(Refused):
        sink.deliver(batch)
    sink.deliver(batch)
    sink.close()
    (refused,), (taken,) = receiver.refused, receiver.received
    assert taken.headers["x-penstock-signature"] == signature("a secret of ours", taken.body)
    assert taken.headers["x-penstock-delivery"] == refused.headers["x-penstock-delivery"]
    assert taken.headers["x-own"] == "1"
    records = json.loads(taken.body)["records"]
    assert [record["id"] for record in records] == [account(1).id, account(2).id]
    assert ("answer_text" in records[0]) is content
    assert (b"asked" in receiver.everything) is content


def test_langfuse_gets_a_trace_and_a_generation(receiver: Collector) -> None:
    """The ingestion API's own shapes (recorded from its documentation), and its 207 is read event by event."""
    sink = Langfuse(receiver.url, "pk-lf-1", "sk-lf-2", 5, content=True)
    with pytest.raises(Unacceptable):  # a receiver that is not Langfuse
        sink.deliver([account()])
    (taken,) = receiver.received
    assert taken.path == "/api/public/ingestion"
    assert taken.headers["authorization"] == "Basic cGstbGYtMTpzay1sZi0y"
    trace, generation = json.loads(taken.body)["batch"]
    assert (trace["type"], generation["type"]) == ("trace-create", "generation-create")
    assert generation["body"]["traceId"] == trace["body"]["id"] == f"{0xABC:032x}"
    assert trace["body"]["userId"] == "ann"
    assert trace["body"]["tags"] == ["blue"]
    told = generation["body"]
    assert told["usageDetails"] == {"input": 4, "output": 4, "total": 14, "input_cached_tokens": 6}
    assert told["costDetails"] == {"total": 0.0015}
    assert told["input"] == {"messages": "asked"}
    assert told["startTime"] < told["completionStartTime"] < told["endTime"]
    assert datetime.fromisoformat(told["startTime"]) == datetime.fromtimestamp(AT, UTC)
    sink.close()


@pytest.mark.parametrize(
    ("errors", "raised"),
    [([], None), ([{"id": "a", "status": 400}], Unacceptable), ([{"id": "a", "status": 500}], Refused)],
)
def test_langfuse_says_what_it_did_not_take(errors: list[Any], raised: type[Exception] | None) -> None:
    """What it could not take now is sent again; what it will never take is not."""
    answer = json.dumps({"successes": [], "errors": errors}).encode()
    with collecting() as receiver:
        receiver.answers, receiver.answer_body = [207], answer
        sink = Langfuse(receiver.url, "pk", "sk", 5, content=False)
        if raised is None:
            sink.deliver([account()])
        else:
            with pytest.raises(raised):
                sink.deliver([account()])
        sink.close()
        assert b"asked" not in receiver.everything


@pytest.mark.parametrize("token", [None, "session-token"])
def test_s3_takes_the_signature(receiver: Collector, token: str | None) -> None:
    """botocore, which AWS' own tools sign with, comes to the same one over the request as it arrived."""
    at = datetime(2026, 11, 28, 18, 30, tzinfo=UTC)
    sink = S3(
        bucket="records",
        prefix="pen stock/",
        region="eu-central-1",
        endpoint=receiver.url,
        credentials=Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token),
        timeout_s=5,
        content=False,
        now=lambda: at,
    )
    sink.deliver([account(1), account(2)])
    sink.deliver([account(1), account(2)])
    sink.close()
    taken, again = receiver.received
    assert taken.path == again.path
    assert taken.path.startswith("/records/pen%20stock/")
    assert taken.path.endswith(".jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(taken.body).splitlines()]
    assert [line["id"] for line in lines] == [account(1).id, account(2).id]
    assert taken.headers["x-amz-content-sha256"] == hashlib.sha256(taken.body).hexdigest()
    assert taken.headers.get("x-amz-security-token") == token
    sent = {name: taken.headers[name] for name in ("content-type", "host", "x-amz-content-sha256", "x-amz-date")}
    if token is not None:
        sent["x-amz-security-token"] = token
    request = AWSRequest("PUT", f"{receiver.url}{taken.path}", headers=sent, data=taken.body)
    request.context["timestamp"] = sent["x-amz-date"]
    signer = S3SigV4Auth(BotoCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token), "s3", "eu-central-1")
    proof = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert taken.headers["authorization"].endswith(f"Signature={proof}")


def test_kafka_keeps_the_order_of_a_key() -> None:
    """One message per request, keyed by who asked."""
    sent: list[tuple[str, Sequence[Message]]] = []

    class Broker:
        def send(self, topic: str, messages: Sequence[Message]) -> None:
            sent.append((topic, messages))

        def close(self) -> None: ...

    sink = Kafka(Broker(), "requests", content=False)
    sink.deliver([account(1), account(2, key_id=None), account(3, attempt=True)])
    ((topic, messages),) = sent
    assert topic == "requests"
    assert [key for key, _ in messages] == [b"key_1", None]
    assert json.loads(messages[0][1])["id"] == account(1).id
    assert b"asked" not in messages[0][1]


class Scripted:
    """A sink that does as it is told, one thing after another; the last one stays."""

    name = "scripted"

    def __init__(self, *steps: Callable[[], None]) -> None:
        self._steps = list(steps)
        self.batches: list[list[str]] = []
        self.ticks = 0

    def deliver(self, batch: Sequence[Account]) -> None:
        self.batches.append([each.id for each in batch])
        (self._steps.pop(0) if len(self._steps) > 1 else self._steps[0])()

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None: ...


def well() -> None: ...


def busy() -> None:
    raise Refused("busy")


def never() -> None:
    raise Unacceptable("never")


def bug() -> None:
    raise KeyError("bug")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_batch_that_is_refused_comes_again() -> None:
    """The same one, in order, until it is taken; what will never be taken is dropped at once, and what follows is not."""
    sink = Scripted(busy, busy, well, never, bug, well)
    feed = Feed(sink, batch=2, interval_s=0.01, first_pause_s=0.01)
    feed.start()
    for pair in ([1, 2], [3, 4], [5, 6], [7, 8]):
        feed.offer([account(number) for number in pair])
        until(lambda: feed.waiting == 0)
    feed.close(5)
    assert sink.batches[0] == sink.batches[1] == sink.batches[2]
    assert len(sink.batches) == 6
    assert (feed.delivered, feed.dropped, feed.failures) == (4, 4, 4)
    assert feed.lag_s == 0


def test_who_is_dead_harms_nobody() -> None:
    """The queue has an end, what does not fit is counted, and closing takes no longer than it may."""
    held = threading.Event()

    def hang() -> None:
        held.wait(60)

    sink = Scripted(hang)
    feed = Feed(sink, room=10, batch=5, interval_s=0.01)
    feed.start()
    began = time.monotonic()
    for number in range(1000):
        feed.offer([account(number)])
    assert feed.waiting == 10
    assert feed.dropped == 990
    assert feed.lag_s >= 0
    feed.close(0.2)
    assert time.monotonic() - began < 20
    assert feed.dropped == 1000
    held.set()
    feed._thread.join(20)
