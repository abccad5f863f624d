"""Tells somebody over HTTP, who may be slow, broken or gone: signed, tried again, and never in anybody's way."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, final
from urllib.parse import urlsplit

import structlog

from gateway.ids import new_id

if TYPE_CHECKING:
    from httpx import AsyncClient

log = structlog.stdlib.get_logger(__name__)

MAX_WAITING = 1_000
TRIES = 5
TIMEOUT_S = 5.0
SIGNATURE = "x-penstock-signature"
PREDICTION = "prediction.made"
MOST_AT_ONCE = 100  # events of a batch
MOST_BATCH_BYTES = 1 << 20
DELIVERY = "x-penstock-delivery"  # the same at each try: a receiver that knows it has the message already


Format: TypeAlias = Literal["json", "cloudevents", "cloudevents_binary", "cloudevents_batch"]


def enveloped(format_: Format, id_: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a message, which is an object with `event` and `at`. CloudEvents 1.0, HTTP binding 3.1 to 3.3."""
    match format_:
        case "json":
            return {"content-type": "application/json"}, body
        case "cloudevents_binary":
            attributes = _attributes(id_, json.loads(body))
            return {"content-type": "application/json"} | {f"ce-{name}": one for name, one in attributes.items()}, body
        case "cloudevents":
            return {"content-type": "application/cloudevents+json"}, _json(_event(id_, body))
        case "cloudevents_batch":
            return batched([(id_, body)])


def batched(messages: Sequence[tuple[str, bytes]]) -> tuple[dict[str, str], bytes]:
    """Several of them, each with its id."""
    return {"content-type": "application/cloudevents-batch+json"}, _json([_event(*one) for one in messages])


def _event(id_: str, body: bytes) -> dict[str, object]:
    message = json.loads(body)
    return {**_attributes(id_, message), "datacontenttype": "application/json", "data": message}


def _attributes(id_: str, message: dict[str, str]) -> dict[str, str]:
    """What is said of one thing has its id: a receiver that gets it twice has it once. What happens again and again has a new one."""
    return {
        "specversion": "1.0",
        "id": message["id"] if message["event"] == PREDICTION else id_,
        "source": "/penstock",
        "type": f"penstock.{message['event']}",
        "time": message["at"],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def signature(secret: str, body: bytes) -> str:
    """What a receiver compares with, over the bytes as they came."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@final
class Webhook:
    """One receiver, its messages in order. A message that was refused five times, or for which there is no room, is logged and dropped."""

    def __init__(
        self,
        url: str,
        secret: str | None,
        *,
        events: Collection[str] = ("budget", "rollout"),
        format_: Format = "json",
        backoff_s: float = 0.5,
    ) -> None:
        self.events = events
        self._format: Format = format_
        self._url = url
        self._secret = secret
        self._backoff_s = backoff_s
        self._host = urlsplit(url).hostname  # of the address only this is logged: the rest often is a password
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self._full = False

    def offer(self, body: bytes) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(body)
        except asyncio.QueueFull:
            if not self._full:  # once for all that follow, as there may be thousands
                log.error("webhook.dropped", host=self._host, reason="too many messages are waiting")  # noqa: TRY400 — that is all there is to say
            self._full = True
        else:
            self._full = False

    async def run(self) -> None:
        """Until cancelled."""
        body = await self._waiting.get()
        import httpx  # noqa: PLC0415 — for those who have something to tell

        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                try:
                    await self._deliver(client, [body, *self._more(len(body))])
                except Exception as error:  # a task border: the next message may be better
                    log.exception("webhook.failed", host=self._host, type=type(error).__name__)
                body = await self._waiting.get()

    def _more(self, size: int) -> list[bytes]:
        """What else is waiting and goes with it."""
        found: list[bytes] = []
        while (
            self._format == "cloudevents_batch"
            and size < MOST_BATCH_BYTES
            and len(found) < MOST_AT_ONCE - 1
            and not self._waiting.empty()
        ):
            found.append(self._waiting.get_nowait())
            size += len(found[-1])
        return found

    async def _deliver(self, client: "AsyncClient", messages: Sequence[bytes]) -> None:
        delivery = new_id("dlv")
        if self._format == "cloudevents_batch":
            headers, body = batched([(new_id("evt"), one) for one in messages])
        else:
            headers, body = enveloped(self._format, delivery, messages[0])
        headers[DELIVERY] = delivery
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, body)
        reason = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._backoff_s * 2 ** (attempt - 1))
            reason = await self._post(client, body, headers)
            if not reason:
                return
            log.info("webhook.refused", host=self._host, attempt=attempt + 1, reason=reason)
        log.error("webhook.dropped", host=self._host, reason=reason)

    async def _post(self, client: "AsyncClient", body: bytes, headers: dict[str, str]) -> str:
        """Empty if it was taken, else why not."""
        from httpx import HTTPError  # noqa: PLC0415 — see above

        try:
            async with asyncio.timeout(TIMEOUT_S):  # httpx' own is for each step alone
                answer = await client.post(self._url, content=body, headers=headers)
        except (HTTPError, TimeoutError) as error:
            return type(error).__name__
        return "" if answer.is_success else f"status {answer.status_code}"
