"""Rows of a table as lines that stand on their own: each value with the name of its column."""

import re
from collections.abc import Iterable, Iterator, Sequence

_NUMBER = re.compile(r"[-+]?[\d.,\s%$€]*\d[\d.,\s%$€]*")
_MAX_NAME = 80


def rendered(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, str]]:
    """`(line, "name: value | name: value")` for each row below the header. Empty cells are left out.

    The first row is the header if it looks like one: several different names, no number. A single row is itself.
    """
    names: Sequence[str] | None = None
    first: tuple[int, Sequence[str]] | None = None
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if first is None:
            first = (line, cells)
            names = cells if _is_header(cells) else ()
            if names:
                continue
        elif names:
            first = (0, ())
        yield line, _row(cells, names or ())
    if first is not None and first[0] and names:  # a header and nothing below it
        yield first[0], _row(first[1], ())


def _is_header(cells: Sequence[str]) -> bool:
    names = [cell.strip() for cell in cells if cell.strip()]
    return (
        len(names) > 1
        and len(set(names)) == len(names)
        and not any(_NUMBER.fullmatch(name) or len(name) > _MAX_NAME for name in names)
    )


def _row(cells: Sequence[str], names: Sequence[str]) -> str:
    parts = []
    for place, cell in enumerate(cells):
        value = " ".join(cell.split())
        if not value:
            continue
        name = " ".join(names[place].split()) if place < len(names) else ""
        parts.append(f"{name}: {value}" if name else value)
    return " | ".join(parts)
