"""Excel: sheet by sheet, row by row, values as last calculated. A sheet is a page and a heading; `line` is its row."""

import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any

import openpyxl

from retrieval.parsing import archive
from retrieval.parsing.formats.table import rendered
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_MAX_COLUMNS = 1000
_MAX_EMPTY_ROWS = 10_000  # a format that was given to a whole column makes a million rows


def parse(source: Source, out: Writer) -> None:
    with archive.opened(source) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and extensions, which have no text
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        try:
            for number, sheet in enumerate(book.worksheets, start=1):
                if sheet.sheet_state == "visible":
                    _sheet(number, sheet, out)
        finally:
            book.close()


def _sheet(number: int, sheet: Any, out: Writer) -> None:
    out.enter(1, sheet.title)
    for line, row in rendered(_rows(sheet)):
        out.add("row", row, page=number, line=line, tight=True)
    out.leave(1)


def _rows(sheet: Any) -> Iterator[tuple[int, Sequence[str]]]:
    sheet.reset_dimensions()  # what the file says about its size may be wrong or huge
    empty = 0
    for line, row in enumerate(sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS), start=1):
        cells = [_value(value) for value in row]
        empty = 0 if any(cells) else empty + 1
        if empty > _MAX_EMPTY_ROWS:
            return
        yield line, cells


def _value(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value)
