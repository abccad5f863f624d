"""The part of the data directory that scoring jobs live in.

<data>/scoring/home       an id: jobs belong to the folder that has their worksheets, wherever it is mounted
<data>/scoring/score_…/   the worksheet of a job that is not over
<data>/scoring/files/     inputs and outputs that REST may always name
"""

import fcntl
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final, final

HOME: Final = "home"


@final
class Home:
    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve() / "scoring"
        self.files = self.folder / "files"

    @property
    def known(self) -> str | None:
        """Its id, if there ever was a job. Raises OSError."""
        try:
            return (self.folder / HOME).read_text(encoding="ascii") or None
        except FileNotFoundError:
            return None

    def id(self) -> str:
        """Made if need be, once for all processes. Raises OSError."""
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / HOME).open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = file.read()
            if not found:
                found = secrets.token_hex(8)
                file.write(found)
            return found

    def busy(self, job: str) -> bool:
        """Whether a process of this machine works on it."""
        with suppress(FileNotFoundError), (self.folder / job / "lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
