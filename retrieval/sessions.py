"""Which processes on this machine are alive: each holds a lock for as long as it lives, however it ends."""

import fcntl
from pathlib import Path
from typing import IO, Self, final


@final
class Session:
    """Held until `close`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    @classmethod
    def open(cls, folder: Path, id_: str) -> Self:
        """Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / id_
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        return cls(path, file)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


def dead(folder: Path, id_: str) -> bool:
    """Whether nobody holds the session any more. What is found dead is taken away."""
    path = folder / id_
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
