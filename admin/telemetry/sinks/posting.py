"""A POST to somebody who may be slow, broken or gone: what every sink over HTTP shares."""

from collections.abc import Mapping
from typing import Final, final

import httpx

from admin.telemetry.feed import Refused, Unacceptable

AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@final
class Poster:
    """Redirects are not followed: what is told is for the address that was named."""

    def __init__(self, timeout_s: float, headers: Mapping[str, str], auth: tuple[str, str] | None = None) -> None:
        self._client = httpx.Client(timeout=timeout_s, headers=headers, auth=auth, trust_env=False)

    def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """An answer that says yes. Raises Refused, Unacceptable."""
        try:
            answer = self._client.request(method, url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Refused(type(error).__name__) from None
        if answer.is_success:
            return answer
        if answer.status_code in AGAIN:
            after = answer.headers.get("retry-after", "")
            raise Refused(f"status {answer.status_code}", float(after) if after.isdecimal() else None)
        raise Unacceptable(f"status {answer.status_code}")

    def close(self) -> None:
        self._client.close()
