"""Batches of requests to an address of somebody's own, signed like every webhook here."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import final
from urllib.parse import urlsplit

import msgspec

from admin.telemetry.account import Account
from admin.telemetry.sinks.posting import Poster
from admin.webhooks import DELIVERY, SIGNATURE, signature


@final
class WebhookSink:
    """`{"records": […]}`. The delivery's id is the same at each try, as it is the body's."""

    def __init__(
        self, url: str, secret: str | None, headers: Mapping[str, str], timeout_s: float, *, content: bool
    ) -> None:
        self.name = f"webhook_{urlsplit(url).hostname}"
        self._url = url
        self._secret = secret
        self._content = content
        self._poster = Poster(timeout_s, {**headers, "content-type": "application/json"})

    def deliver(self, batch: Sequence[Account]) -> None:
        records = [account.facts(content=self._content) for account in batch if account.recorded]
        if not records:
            return
        body = msgspec.json.encode({"records": records})
        headers = {DELIVERY: f"dlv_{hashlib.sha256(body).hexdigest()[:32]}"}
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, body)
        self._poster.send("POST", self._url, body, headers)

    def tick(self) -> None: ...

    def close(self) -> None:
        self._poster.close()
