"""Questions, other words for each, and near misses: what a cache by meaning may take for the same, and what it must not.

In question_pairs.txt each block is a question, lines with `=` that ask the same, and lines with `#`, `@`, `!`, `%`, `~` and `?` that do
not: another number, another name, negated, another unit, another language, and anything else. What stands above `---` was looked at while
the rules were written (`gateway/cache/facts.py`); what stands below was written before them and left alone.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

KINDS: Final = {
    "=": "paraphrase",
    "#": "number",
    "@": "name",
    "!": "negated",
    "%": "unit",
    "~": "language",
    "?": "other",
}


class Pair(NamedTuple):
    """Two questions. `kind` is `paraphrase` where one's answer answers the other, else what sets them apart."""

    one: str
    other: str
    kind: str

    @property
    def same(self) -> bool:
        return self.kind == "paraphrase"


def every() -> tuple[Pair, ...]:
    """A question's wordings with each other, and each of them with each of its near misses."""
    return tuple(_pairs(_text().replace("\n---\n", "")))


def held_out() -> tuple[Pair, ...]:
    """Those that the rules were not written by."""
    return tuple(_pairs(_text().partition("\n---\n")[2]))


def _text() -> str:
    return Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")


def _pairs(text: str) -> Iterator[Pair]:
    for block in text.strip().split("\n\n"):
        first, *lines = block.strip().splitlines()
        marked = [(line[0], line[2:]) for line in lines]
        wordings = [first, *(line for mark, line in marked if mark == "=")]
        for one, other in combinations(wordings, 2):
            yield Pair(one, other, "paraphrase")
        for mark, line in marked:
            if mark != "=":
                for wording in wordings:
                    yield Pair(wording, line, KINDS[mark])
