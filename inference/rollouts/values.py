"""What gates on drift and bias look at of a call: a value per column of one of its rows, small enough to be kept with every outcome.

Rows of one request often belong together, so one of them counts, drawn by the call's id. Texts are kept as one of 32 marks, which say
that they differ and not what they say.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeAlias

Value: TypeAlias = float | str | None
Values: TypeAlias = Mapping[str, Value]

MARKS: Final = 32
MOST_COLUMNS: Final = 64
MISSING: Final = -1
CUTS: Final = 9  # deciles: where the distributions of numbers are compared


def drawn(id_: str, rows: int) -> int:
    """Which of a call's rows counts; the same whoever asks."""
    if rows <= 1:
        return 0
    return int.from_bytes(blake2b(id_.encode(), digest_size=4).digest(), "big") % rows


def row_of(columns: Mapping[str, Any], row: int, hidden: Collection[str] = ()) -> dict[str, Value]:
    """The values of one row of arrays; of a column that has several of them `name[3]`. Hidden columns are left out."""
    found: dict[str, Value] = {}
    everything = "*" in hidden
    for name, array in columns.items():
        if everything or name in hidden:
            continue
        cell = array[row]
        cells = cell.reshape(-1).tolist() if getattr(cell, "ndim", 0) else [_plain(cell)]
        if len(cells) == 1:
            found[name] = value_of(cells[0])
        else:
            found |= {f"{name}[{number}]": value_of(each) for number, each in enumerate(cells[:MOST_COLUMNS])}
        if len(found) >= MOST_COLUMNS:
            break
    return found


def value_of(raw: Any) -> Value:
    """A number as it is, a text as its mark; None where there is none."""
    if raw is None or raw == "":
        return None
    if isinstance(raw, bool | int | float):
        try:
            number = float(raw)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return mark(str(raw))


def mark(text: str) -> str:
    """The same for the same text; one of so many."""
    return f"#{blake2b(text.encode(errors='surrogatepass'), digest_size=2).digest()[0] % MARKS}"


def written(raw: Any) -> str | None:
    """One spelling for equal values, `1` for 1.0 and true; None for what is missing."""
    if raw is None or raw == "" or raw != raw:  # noqa: PLR0124 — NaN
        return None
    if isinstance(raw, bool | int | float):
        return f"{float(raw):g}"
    return str(raw)


def bucket(value: Value, edges: Sequence[float]) -> int:
    """Of a number, how many edges it has passed; of a text, its mark."""
    if value is None:
        return MISSING
    return int(value[1:]) if isinstance(value, str) else bisect_right(edges, value)


def edges_of(values: Sequence[Value]) -> tuple[float, ...]:
    """Deciles of the numbers among them, or every number where there are few; none for texts."""
    numbers = sorted(each for each in values if isinstance(each, int | float))
    distinct = sorted(set(numbers))
    if len(distinct) <= CUTS + 1:
        return tuple(distinct[1:])
    cuts = {numbers[len(numbers) * part // (CUTS + 1)] for part in range(1, CUTS + 1)}
    return tuple(sorted(cuts))


def _plain(cell: Any) -> Any:
    return cell.item() if hasattr(cell, "item") else cell
