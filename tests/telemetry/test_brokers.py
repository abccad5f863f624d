"""Kafka as brokers speak it: the cluster that librdkafka carries for tests, over TCP, written by us and read by Confluent's client."""

import json
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import Consumer, Producer

from admin.telemetry.feed import Feed, Refused
from admin.telemetry.sinks.kafka import AioKafka, Kafka
from tests.telemetry.test_sinks import account, until

TOPIC = "penstock.requests"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Of three brokers, which live as long as the client that made them."""
    cluster = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "none", "log_level": 2})
    brokers = cluster.list_topics(timeout=30).brokers.values()
    yield [f"{one.host}:{one.port}" for one in brokers]
    cluster.purge()


def read(servers: Sequence[str], count: int, topic: str) -> list[tuple[bytes | None, bytes]]:
    """So many messages of a topic, in the order of their partitions."""
    consumer = Consumer({
        "bootstrap.servers": ",".join(servers), "group.id": f"reads-{topic}", "auto.offset.reset": "earliest", "log_level": 2,
    })  # fmt: skip
    consumer.subscribe([topic])
    found: list[tuple[bytes | None, bytes]] = []

    def there() -> bool:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            key, value = message.key(), message.value()
            assert not isinstance(key, str)
            assert isinstance(value, bytes)
            found.append((key, value))
        return len(found) >= count

    try:
        until(there)
    finally:
        consumer.close()
    return found


def test_what_is_delivered_can_be_read(servers: list[str]) -> None:
    """Each request once, with its key, in order; none of what was said."""
    sink = Kafka(AioKafka(servers[:1], 30), TOPIC, content=False)
    feed = Feed(sink, batch=4, interval_s=0.05)
    feed.start()
    feed.offer([account(number, key_id=f"key_{number % 2}") for number in range(10)])
    until(lambda: feed.waiting == 0)
    feed.close(30)
    assert (feed.delivered, feed.dropped, feed.failures) == (10, 0, 0)
    messages = read(servers, 10, TOPIC)
    by_key: dict[bytes | None, list[str]] = {}
    for key, value in messages:
        by_key.setdefault(key, []).append(json.loads(value)["id"])
        assert b"asked" not in value
    assert by_key == {
        b"key_0": [account(number).id for number in (0, 2, 4, 6, 8)],
        b"key_1": [account(number).id for number in (1, 3, 5, 7, 9)],
    }


def test_a_cluster_that_is_not_there_is_asked_again_later(servers: list[str]) -> None:
    """Nothing hangs, and the same sink delivers once somebody listens."""
    broker = AioKafka(["127.0.0.1:1"], 5)
    sink = Kafka(broker, "later", content=True)
    with pytest.raises(Refused):
        sink.deliver([account(1)])
    sink.close()
    there = Kafka(AioKafka(servers, 30), "later", content=True)
    there.deliver([account(1)])
    there.close()
    ((_, value),) = read(servers, 1, "later")
    assert b"asked" in value
