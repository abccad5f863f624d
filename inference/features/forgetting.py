"""The history of features is kept for as long as the configuration says."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from inference.features import row_store, view_store
from inference.features.view import MICRO


def forget(writing: Callable[[], AbstractContextManager[Connection]], before: float) -> None:
    """What is older than that, in Unix seconds, by view and some entities at a time. Blocks."""
    with writing() as tx:
        numbers = [view.number for view in view_store.every(tx)]
    for number in numbers:
        last: str | None = ""
        while last is not None:
            with writing() as tx:
                last = row_store.forget(tx, number, int(before * MICRO), last)
