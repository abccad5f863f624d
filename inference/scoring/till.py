"""The port of whoever keeps the account that a job is on."""

from typing import Protocol


class Till(Protocol):
    """A chunk is held before it is scored and settled after it is kept, under an id that was written down before either.

    Raises Paused where the account says no, Stopped where this process is to end.
    """

    def new_id(self) -> str: ...

    def paid(self, id_: str) -> bool:
        """Whether a chunk that nobody came to keep was charged all the same, at its worst, as whoever holds the accounts died as well."""
        ...

    def hold(self, id_: str, chunk: int, rows: int, refused: int) -> None:
        """For so many rows. `chunk` is its number from 0, `refused` what was refused before it."""
        ...

    def settle(self, id_: str, rows: int) -> None:
        """So many have an answer."""
        ...
