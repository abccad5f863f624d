"""CSV and its relatives: each row a block, each value with its column's name."""

import csv
import io
from collections.abc import Iterator, Sequence

from retrieval.parsing import charset, media
from retrieval.parsing.errors import InvalidFile
from retrieval.parsing.formats.table import rendered
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_SAMPLE = 16 * 1024
_DELIMITERS = ",;\t|"


def parse(source: Source, out: Writer) -> None:
    text, out.encoding = charset.decode(source.read(), source.charset)
    csv.field_size_limit(source.limits.characters)
    tabbed = source.suffix in {".tsv", ".tab"} or source.declared == media.TSV
    for line, row in rendered(_rows(text, "\t" if tabbed else _delimiter(text))):
        out.add("row", row, line=line, tight=True)


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Each row with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidFile(f"Line {reader.line_num} is not CSV: {error}.") from None


def _delimiter(text: str) -> str:
    """The one that cuts the first lines most evenly: the sniffer of the library takes letters for delimiters."""
    lines = [line for line in text[:_SAMPLE].split("\n")[:50] if line.strip()]

    def evenness(delimiter: str) -> tuple[int, int]:
        counts = [line.count(delimiter) for line in lines]
        return (sum(count == counts[0] for count in counts) if counts and counts[0] else 0, counts[0] if counts else 0)

    return max(_DELIMITERS, key=evenness)
