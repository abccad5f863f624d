"""The C library's allocator, told what this server is like: few threads, of which one works, and a start that leaves holes."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_M_ARENA_MAX: Final = -8  # mallopt(3)


def few_arenas() -> None:
    """Before there are threads: the event loop keeps a heap for itself, and the others share one, which they do not fill together."""
    _call("mallopt", _M_ARENA_MAX, 2)


def trim() -> None:
    """Gives back what the start does not need any more: half a megabyte."""
    _call("malloc_trim", 0)


@contextmanager
def lasting() -> Iterator[None]:
    """For what is made late and lives as long as the process: the collector does not walk through it while it grows, which takes
    a tenth of a second each time, nor ever again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _call(name: str, *numbers: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*numbers)
