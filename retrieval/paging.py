"""A page of a list: the objects, and whether there are more behind the last of them."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """What was asked for, in its order."""

    data: tuple[T, ...]
    has_more: bool = False


def page(found: Sequence[T], limit: int, *, backwards: bool = False) -> Page[T]:
    """Cuts a result of up to `limit` + 1 objects. `backwards`: it was read from its end."""
    more = len(found) > limit
    kept = tuple(found[:limit])
    return Page(kept[::-1] if backwards else kept, more)
