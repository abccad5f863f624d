"""Tells somebody over HTTP, who may be slow, broken or gone: signed, tried again, and never in anybody's way."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Collection
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
DELIVERY = "x-penstock-delivery"  # the same at each try: a receiver that knows it has the message already


Format: TypeAlias = Literal["json", "cloudevents", "cloudevents_binary"]


def enveloped(format_: Format, id_: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a message, which is an object with `event` and `at`. CloudEvents 1.0, HTTP binding 3.1 and 3.2."""
    if format_ == "json":
        return {"content-type": "application/json"}, body
    message = json.loads(body)
    attributes = {
        "specversion": "1.0",
        "id": id_,
        "source": "/penstock",
        "type": f"penstock.{message['event']}",
        "time": message["at"],
    }
    if format_ == "cloudevents_binary":
        return {"content-type": "application/json"} | {f"ce-{name}": value for name, value in attributes.items()}, body
    event = attributes | {"datacontenttype": "application/json", "data": message}
    return {"content-type": "application/cloudevents+json"}, json.dumps(event, separators=(",", ":")).encode()


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

    def offer(self, body: bytes) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(body)
        except asyncio.QueueFull:
            log.error("webhook.dropped", host=self._host, reason="too many messages are waiting")  # noqa: TRY400 — that is all there is to say

    async def run(self) -> None:
        """Until cancelled."""
        body = await self._waiting.get()
        import httpx  # noqa: PLC0415 — for those who have something to tell

        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                try:
                    await self._deliver(client, body)
                except Exception as error:  # a task border: the next message may be better
                    log.exception("webhook.failed", host=self._host, type=type(error).__name__)
                body = await self._waiting.get()

    async def _deliver(self, client: "AsyncClient", body: bytes) -> None:
        delivery = new_id("dlv")
        headers, body = enveloped(self._format, delivery, body)
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
