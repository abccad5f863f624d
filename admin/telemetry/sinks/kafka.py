"""Kafka: a message of JSON for each request, in the order of each key."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

import msgspec

from admin.telemetry.account import Account
from admin.telemetry.feed import Refused

if TYPE_CHECKING:  # an extra of its own
    from aiokafka import AIOKafkaProducer

Message = tuple[bytes | None, bytes]


class Broker(Protocol):
    """What takes messages. `send` returns when all of them are safe there, and raises Refused if they are not."""

    def send(self, topic: str, messages: Sequence[Message]) -> None: ...

    def close(self) -> None: ...


@final
class Kafka:
    """The message's key is the id of the virtual key: what one client did stays in order."""

    name = "kafka"

    def __init__(self, broker: Broker, topic: str, *, content: bool) -> None:
        self._broker = broker
        self._topic = topic
        self._content = content

    def deliver(self, batch: Sequence[Account]) -> None:
        messages = [
            (
                None if account.key_id is None else account.key_id.encode(),
                msgspec.json.encode(account.facts(content=self._content)),
            )
            for account in batch
            if account.recorded
        ]
        if messages:
            self._broker.send(self._topic, messages)

    def tick(self) -> None: ...

    def close(self) -> None:
        self._broker.close()


@final
class AioKafka:
    """aiokafka (extra `kafka`) on an event loop of its own, in the thread of whoever calls. Idempotent, acknowledged by all replicas."""

    def __init__(
        self,
        servers: Sequence[str],
        timeout_s: float,
        security: str = "PLAINTEXT",
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        """Raises ImportError, with the extra's name."""
        try:
            import aiokafka  # noqa: PLC0415 — an extra, for those who name brokers
        except ImportError:
            raise ImportError("telemetry.kafka needs the extra: pip install 'penstock[kafka]'") from None
        self._library: Any = aiokafka
        self._options: dict[str, Any] = {"bootstrap_servers": list(servers), "security_protocol": security}
        if security.endswith("SSL"):
            self._options["ssl_context"] = ssl.create_default_context()
        if security.startswith("SASL"):
            self._options |= {"sasl_plain_username": username, "sasl_plain_password": password}
        self._timeout_s = timeout_s
        self._runner: asyncio.Runner | None = None
        self._producer: AIOKafkaProducer | None = None

    def send(self, topic: str, messages: Sequence[Message]) -> None:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            self._runner.run(asyncio.wait_for(self._send(topic, messages), self._timeout_s))
        except (self._library.errors.KafkaError, OSError, TimeoutError) as error:
            raise Refused(type(error).__name__) from None

    def close(self) -> None:
        if self._runner is not None:
            if self._producer is not None:
                self._runner.run(self._producer.stop())
            self._runner.close()

    async def _send(self, topic: str, messages: Sequence[Message]) -> None:
        if self._producer is None:
            producer = self._library.AIOKafkaProducer(acks="all", enable_idempotence=True, **self._options)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        pending = [await self._producer.send(topic, value, key=key) for key, value in messages]
        await asyncio.gather(*pending)
