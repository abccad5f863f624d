"""What a client may ask of the cache for one request, by headers.

cache-control: no-cache           asks anew, and keeps the new answer in place of the old one
cache-control: no-store           does not keep this answer
cache-control: max-age=60         takes no answer that is older
x-penstock-cache-ttl-s: 60        keeps the answer for less time than is configured
x-penstock-cache-namespace: a     entries of their own, within what the key may see

`cache-control` is RFC 9111 5.2.1's; what it does not know there is ignored, as the RFC wants it.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.errors import BadRequest

TTL: Final = "x-penstock-cache-ttl-s"
NAMESPACE: Final = "x-penstock-cache-namespace"
MAX_NAMESPACE: Final = 128


class Controls(msgspec.Struct, frozen=True):
    """None where nothing was asked for."""

    no_cache: bool = False
    no_store: bool = False
    max_age_s: float | None = None
    ttl_s: float | None = None
    namespace: str = ""


NONE: Final = Controls()


def controls(headers: Mapping[bytes, bytes]) -> Controls:
    """Raises BadRequest, with the header's name as `param`."""
    control = headers.get(b"cache-control")
    ttl = headers.get(b"x-penstock-cache-ttl-s")
    namespace = headers.get(b"x-penstock-cache-namespace")
    if control is None and ttl is None and namespace is None:
        return NONE
    words = {} if control is None else _directives(control)
    return Controls(
        "no-cache" in words,
        "no-store" in words,
        _age(words.get("max-age")),
        None if ttl is None else _ttl(ttl),
        "" if namespace is None else _namespace(namespace),
    )


def _directives(raw: bytes) -> dict[str, str]:
    pairs = (word.strip().partition("=") for word in raw.decode("latin-1").lower().split(","))
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def _age(raw: str | None) -> float | None:
    """A caller that says something else than seconds wants something fresh: RFC 9111 4.2.1 takes it for stale."""
    if raw is None:
        return None
    return float(raw) if raw.isascii() and raw.isdigit() and len(raw) < 10 else 0.0


def _ttl(raw: bytes) -> float:
    try:
        seconds = float(raw)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise BadRequest(f"{TTL} must be a number of seconds above 0", param=TTL, code="invalid_value")
    return seconds


def _namespace(raw: bytes) -> str:
    if not raw or len(raw) > MAX_NAMESPACE:
        raise BadRequest(
            f"{NAMESPACE} must have 1 to {MAX_NAMESPACE} characters", param=NAMESPACE, code="invalid_value"
        )
    return raw.decode("latin-1")
