"""Whether anybody has written to an SQLite file since it was last asked, without a statement, which takes several calls of the system.

In WAL mode a transaction is committed by a new header of the index that all processes have in their memory
(https://www.sqlite.org/walformat.html, 2.1): 48 bytes, twice, with a count of changes and checksums. SQLite's own readers look there,
and nowhere else, for what is new, and it stays mapped for as long as a connection of this process is open that has read. It is found by
way of `/proc` and not opened once more: to close another handle of that file would drop all locks that this process has on it.
"""

import ctypes
from pathlib import Path
from typing import Final, final

HEADER: Final = 48
_VERSION: Final = (3_007_000).to_bytes(4, "little")


@final
class Watch:
    """Of a file that a connection of this process has read from, and keeps open for longer than this is used."""

    def __init__(self, address: int) -> None:
        self._header = (ctypes.c_char * (2 * HEADER)).from_address(address)

    @classmethod
    def of(cls, file: str) -> "Watch | None":
        """None where it cannot be had: another system, another journal, another byte order."""
        shared = Path(f"{file}-shm")
        try:
            inode = shared.stat().st_ino
            lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        for line in lines:
            where, _, offset, _, number, *name = line.split(maxsplit=5)
            if number == str(inode) and name and name[0] == str(shared.resolve()) and not int(offset, 16):
                made = cls(int(where.partition("-")[0], 16))
                return made if made.seen() is not None else None
        return None

    def seen(self) -> bytes | None:
        """What is other than before as soon as something is committed. None while somebody is at it."""
        header: bytes = self._header.raw
        one = header[:HEADER]
        return one if one == header[HEADER:] and one[:4] == _VERSION else None
