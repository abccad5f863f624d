"""The port of many machines that score parts of one table."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from inference.ports import Bundle
from inference.scoring.job import Spec
from inference.scoring.parts import Part


class Task(msgspec.Struct, frozen=True):
    """Chunks `first` to before `last` of a table in files, and how they are scored: as `inference.scoring.scorer.Scorer` has it."""

    bundle: Bundle
    spec: Spec
    loader: str
    timeout_s: float
    first: int
    last: int


class Cluster(Protocol):
    def parts(self, task: Task) -> AbstractContextManager[Iterator[Part]]:
        """In order, one for each chunk. What is behind the first is not known where they are made: `after` counts refused rows from there,
        and keys that came before are not among those that are known. Raises Failed."""
        ...
