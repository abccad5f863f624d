"""A page of a list: the objects, and where the next page starts."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """`next` is the cursor for the page after this one; None on the last."""

    data: tuple[T, ...]
    next: str | None = None


def page(found: Sequence[T], limit: int, cursors: Sequence[str]) -> Page[T]:
    """Cuts a result of up to `limit` + 1 objects: the one too many only says that there is more."""
    if len(found) <= limit:
        return Page(tuple(found))
    return Page(tuple(found[:limit]), cursors[limit - 1])
