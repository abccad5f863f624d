"""A bar for people who wait at a terminal, where `rich` is installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def bar(said: str, *, quiet: bool) -> "Iterator[Progress | None]":
    """None where nobody would see it. `said` stands in its place at a terminal without `rich`."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console  # noqa: PLC0415 — for those who have it
        from rich.progress import Progress  # noqa: PLC0415 — as above
    except ImportError:
        print(said, file=sys.stderr)
        yield None
        return
    with Progress(console=Console(stderr=True)) as shown:
        yield shown
