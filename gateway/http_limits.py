"""What one client may cost, and what it is told where it wants more."""

from collections.abc import Sequence

import msgspec

from gateway import errors


class HttpLimits(msgspec.Struct, frozen=True):
    """What one client may cost. Bytes and seconds."""

    header_bytes: int = 32 * 1024
    header_count: int = 100
    body_bytes: int = 32 * 1024 * 1024
    upload_bytes: int = 512 * 1024 * 1024
    buffered_bytes: int = 1024 * 1024 * 1024  # request bodies held by all connections together
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 120.0  # a client that does not read its answer
    linger_s: float = 5.0
    linger_bytes: int = 256 * 1024 * 1024
    connections: int = 20_000


def header_size(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Bytes of a request's head."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def headers_too_large(limits: HttpLimits) -> errors.GatewayError:
    return errors.HeadersTooLarge(f"The header may have {limits.header_count} lines and {limits.header_bytes} bytes")


def body_too_large(limit: int) -> errors.GatewayError:
    return errors.BodyTooLarge(f"The body may have {limit} bytes")
