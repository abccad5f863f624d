"""One chunk of a table, from its rows to what is written down of it: the same wherever that is done."""

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from typing import Any

import msgspec

from inference.scoring.rows import Bad, Plan, read
from inference.scoring.scorer import Scored, Scorer
from inference.scoring.sources import Row, Source
from inference.scoring.worksheet import Position, Refusal


class Part(msgspec.Struct, frozen=True):
    """`keys` are those of the rows that have an answer, in order; `seen` all that came for the first time. `after` is where the next
    chunk begins.
    """

    after: Position
    keys: list[Any]
    seen: list[str]
    outputs: dict[str, list[Any]]
    refusals: list[Refusal]


def chunks(source: Source, after: Position, size: int) -> Generator[list[Row]]:
    """Closed, it lets go of the database at once."""
    with closing(source.rows(after)) as rows:
        while chunk := list(islice(rows, size)):
            yield chunk


def scored(planned: Plan, scorer: Scorer, position: Position, rows: list[Row], known: Callable[[str], bool]) -> Part:
    """`known` says whether a row with this key came before, and remembers it. Raises Failed."""
    bad: dict[int, Bad] = {}
    seen: list[str] = []

    def repeated(key: str) -> bool:
        if known(key):
            return True
        seen.append(key)
        return False

    keys = _keys(planned, repeated, position, rows, bad)
    left = [number for number in range(len(rows)) if number not in bad]
    frame, unread = read(planned, [rows[number].values for number in left])
    bad.update((left[number], why) for number, why in unread.items())
    left = [number for number in left if number not in bad]
    found = Scored({}, {}) if frame is None else scorer.score(frame)
    bad.update((left[number], why) for number, why in found.bad.items())
    left = [number for number in left if number not in bad]
    return Part(
        _behind(planned, position, rows, len(bad)),
        [keys[number] for number in left],
        seen,
        {name: array.tolist() for name, array in found.outputs.items()},
        [Refusal(position.rows + number + 1, keys[number], *bad[number]) for number in sorted(bad)],
    )


def _keys(
    planned: Plan, repeated: Callable[[str], bool], position: Position, rows: list[Row], bad: dict[int, Bad]
) -> list[Any]:
    """Of each row; `bad` learns of rows that are broken, have no key, or the key of another."""
    keys: list[Any] = []
    for number, row in enumerate(rows):
        key: Any = position.rows + number + 1
        if row.fault is not None:
            bad[number] = Bad("invalid_shape", None, row.fault)
            key = key if planned.key is None else None
        elif planned.key is not None:
            key = _key(row.values[planned.key])
            if key is None:
                bad[number] = Bad("missing_key", None, "The row has no key")
            elif repeated(str(key)):
                bad[number] = Bad("duplicate_key", None, "An earlier row has the same key")
        keys.append(key)
    return keys


def _key(value: Any) -> int | str | None:
    if value is None or value == "":
        return None
    return value if type(value) is int and abs(value) < 1 << 63 else str(value)


def _behind(planned: Plan, position: Position, rows: list[Row], refused: int) -> Position:
    """With the last key and its ties, by which a query goes on."""
    last, ties = position.last, position.ties
    if planned.key is not None and not planned.textual:
        for row in rows:
            value = row.values[planned.key]
            value = value if isinstance(value, int | float | str) else str(value)
            last, ties = value, ties + 1 if ties and value == last else 1
    return Position(position.rows + len(rows), position.refused + refused, position.chunks + 1, last, ties)
