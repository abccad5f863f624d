"""How much of documents a key may keep, as an admin has written it into its metadata: `quota_passages`, `quota_mb`."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.snapshot import Current
from retrieval.quotas import UNBOUND, Quota

PASSAGES: Final = "quota_passages"
MB: Final = "quota_mb"
MEBI: Final = 1024 * 1024
MOST_PASSAGES: Final = 2**62
MOST_MB: Final = 1 << 30


def of_key(current: Current, key_id: str) -> Quota:
    """As it is in force now."""
    found = next((key for key in current.snapshot.keys.values() if key.id == key_id), None)
    return UNBOUND if found is None else quota_of(found.metadata)


def quota_of(metadata: Mapping[str, Any]) -> Quota:
    passages, size = metadata.get(PASSAGES), metadata.get(MB)
    return Quota(
        passages if isinstance(passages, int) and _is_number(passages, MOST_PASSAGES) else None,
        int(size * MEBI) if size is not None and _is_number(size, MOST_MB) else None,
    )


def complaint(metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with declarations, for who makes them."""
    if PASSAGES in metadata and not (
        _is_number(metadata[PASSAGES], MOST_PASSAGES) and isinstance(metadata[PASSAGES], int)
    ):
        return f"{PASSAGES} must be a whole number of 0 or more"
    if MB in metadata and not _is_number(metadata[MB], MOST_MB):
        return f"{MB} must be a number from 0 to {MOST_MB}"
    return None


def _is_number(value: Any, most: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
