"""Memory in pages of two megabytes instead of four kilobytes, for what is read all over the place: a fifth of a graph's time is spent on
finding out where its pages are. Linux alone, and only where it is allowed (`/sys/kernel/mm/transparent_hugepage/enabled`: `madvise`).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

LEAST: Final = 4 << 20  # bytes
_HUGEPAGE: Final = 14  # madvise(2): from now on
_COLLAPSE: Final = 25  # and what is there already, at once; Linux 6.1

Range = tuple[int, int]


@contextmanager
def large_pages() -> Iterator[None]:
    """What is taken from the system in the block, if it is much. Nothing happens where that cannot be had."""
    before = _anonymous()
    yield
    with suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None, use_errno=True).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in _anonymous() - before:
            if end - start >= LEAST:
                advise(start, end - start, _HUGEPAGE)
                advise(start, end - start, _COLLAPSE)


def _anonymous() -> frozenset[Range]:
    """This process's ranges of memory that are of no file."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = set()
    for line in lines:
        where, rights, _, _, inode, *name = line.split(maxsplit=5)
        if inode == "0" and rights.startswith("rw") and not name:
            start, _, end = where.partition("-")
            found.add((int(start, 16), int(end, 16)))
    return frozenset(found)
