"""What a client may ask of the resilience engine for one request, by headers.

x-penstock-timeout-s: 20          less time for the whole request than the model's total_s
x-penstock-retries: 0             tries after the first, up to 10
x-penstock-fallbacks: a,b | none  instead of the configured ones; the key must be allowed to use each
x-penstock-deployment: id         this deployment alone; for the admin key
"""

from collections.abc import Mapping
from typing import Final

from gateway.errors import BadRequest
from gateway.resilience.wishes import Overrides

MAX_RETRIES: Final = 10
MAX_FALLBACKS: Final = 5


def overrides(headers: Mapping[bytes, bytes]) -> Overrides | None:
    """None for nearly every request. Raises BadRequest, with the header's name as `param`."""
    timeout = headers.get(b"x-penstock-timeout-s")
    retries = headers.get(b"x-penstock-retries")
    fallbacks = headers.get(b"x-penstock-fallbacks")
    deployment = headers.get(b"x-penstock-deployment")
    if timeout is None and retries is None and fallbacks is None and deployment is None:
        return None
    return Overrides(
        None if timeout is None else _seconds(timeout),
        None if retries is None else _retries(retries),
        None if fallbacks is None else _fallbacks(fallbacks),
        None if deployment is None else deployment.decode("latin-1"),
    )


def _seconds(raw: bytes) -> float:
    try:
        seconds = float(raw)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise BadRequest(
            "x-penstock-timeout-s must be a number of seconds above 0",
            param="x-penstock-timeout-s",
            code="invalid_value",
        )
    return seconds


def _retries(raw: bytes) -> int:
    if not raw.isdigit() or int(raw) > MAX_RETRIES:
        raise BadRequest(
            f"x-penstock-retries must be a number from 0 to {MAX_RETRIES}",
            param="x-penstock-retries",
            code="invalid_value",
        )
    return int(raw)


def _fallbacks(raw: bytes) -> tuple[str, ...]:
    names = tuple(name.strip() for name in raw.decode("latin-1").split(","))
    if names == ("none",):
        return ()
    if not all(names) or len(names) > MAX_FALLBACKS:
        raise BadRequest(
            f"x-penstock-fallbacks must be `none` or up to {MAX_FALLBACKS} names of models, separated by commas",
            param="x-penstock-fallbacks",
            code="invalid_value",
        )
    return names
