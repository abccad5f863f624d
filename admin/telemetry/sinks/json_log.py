"""A line of JSON for each request, in a file or on standard output."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import final

import msgspec

from admin.telemetry.account import Account
from admin.telemetry.feed import Refused


@final
class JsonLog:
    """The file is opened for each batch, so that whoever rotates logs may take it away."""

    name = "json_log"

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def deliver(self, batch: Sequence[Account]) -> None:
        lines = b"".join(msgspec.json.encode(account.facts()) + b"\n" for account in batch if account.recorded)
        try:
            if self._path is None:
                sys.stdout.buffer.write(lines)
                sys.stdout.buffer.flush()
                return
            with self._path.open("ab") as file:
                file.write(lines)
        except OSError as error:
            raise Refused(type(error).__name__) from None

    def tick(self) -> None: ...

    def close(self) -> None: ...
