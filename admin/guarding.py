"""How guards ask servers of somebody's own: a bounded answer, within its time, on connections that stay open."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from httpx import AsyncClient

MOST_ANSWER_BYTES: Final = 4 * 1024 * 1024


@final
class Poster:
    """`gateway.guards.judges.Post`. The client is made with the first question."""

    def __init__(self, user_agent: str) -> None:
        self._user_agent = user_agent
        self._client: AsyncClient | None = None

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
        """Raises OSError where there is no answer, or one that is too long."""
        import httpx  # noqa: PLC0415 — for those who have such guards

        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, headers={"user-agent": self._user_agent})
        try:
            async with self._client.stream(
                "POST", url, content=body, headers=dict(headers), timeout=timeout_s
            ) as answer:
                parts, size = [], 0
                async for part in answer.aiter_bytes():
                    size += len(part)
                    if size > MOST_ANSWER_BYTES:
                        raise OSError(f"its answer has more than {MOST_ANSWER_BYTES} bytes")
                    parts.append(part)
                return answer.status_code, b"".join(parts)
        except httpx.HTTPError as error:
            raise OSError(type(error).__name__) from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
