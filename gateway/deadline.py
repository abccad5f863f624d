"""A deadline that a process which is late itself does not hold against others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError; later if this process comes late to it: then the answer may be here, and nobody has read it."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def expire() -> None:
            now = loop.time()
            limit.reschedule(now + min(now - due, seconds))

        expiry = loop.call_at(due, expire)
        try:
            yield
        finally:
            expiry.cancel()
