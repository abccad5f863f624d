"""What a question and each of some texts have in common, as numbers. Pure.

The texts are all that is known of the world: what most of them say tells little, what few say tells much. A word is also worth more the
longer it is, which decides where there are two texts or all say the same.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise
from math import log
from typing import Final

import msgspec

from retrieval.chunking import sentences
from retrieval.quotes.support import bm25, rarity
from retrieval.quotes.words import content_words, words

NEAR: Final = 5  # words from one to the next that is asked for
_EXCERPT: Final = 40  # words
_LONGEST: Final = 1_000  # characters of them
_LONG: Final = 10  # letters: a longer word is no rarer
_LENGTH: Final = 0.5  # what the length of a word is worth beside its rarity


class Likeness(msgspec.Struct, frozen=True):
    """Of one text; each from 0 to 1, but for `length`, the logarithm of its words.

    `words`: BM25 as a share of the best text's. `pairs`: of words that follow each other in the question, the share that do so here.
    `near`: of those that say something, the share that stand near each other. `excerpt`: the sentence with most of the question's words.
    """

    words: float
    pairs: float
    near: float
    length: float
    excerpt: str


class Text:
    """A text by its sentences and their words, read once."""

    __slots__ = ("parts", "said")

    def __init__(self, text: str) -> None:
        self.parts = [text[start:end] for start, end in sentences.spans(text)] or [text]
        self.said = [list(words(part)) for part in self.parts]


def compared(question: str, texts: Sequence[Text]) -> list[Likeness]:
    """In the order of the texts."""
    asked = list(words(question))
    sought = content_words(question) or list(dict.fromkeys(asked))
    counts = [Counter(chain.from_iterable(text.said)) for text in texts]
    worth = _worth(sought, counts)
    lengths = [sum(map(len, text.said)) for text in texts]
    mean = sum(lengths) / max(1, len(lengths)) or 1.0
    scores = [bm25(worth, count, length / mean) for count, length in zip(counts, lengths, strict=True)]
    best = max(scores, default=0.0) or 1.0
    pairs, neighbours = set(pairwise(asked)), list(pairwise(sought))
    return [
        Likeness(score / best, _pairs(pairs, text), _near(neighbours, text), log(1 + length), _excerpt(worth, text))
        for text, length, score in zip(texts, lengths, scores, strict=True)
    ]


def _worth(sought: Sequence[str], counts: Sequence[Counter[str]]) -> dict[str, float]:
    """Of each word: how rare it is, and its length."""
    holding = {word: sum(word in count for count in counts) for word in sought}
    return {
        word: rarity(number, len(counts)) + _LENGTH * min(len(word), _LONG) / _LONG for word, number in holding.items()
    }


def _excerpt(worth: dict[str, float], text: Text) -> str:
    """The first of equals."""
    shares = [sum(worth[word] for word in worth if word in said) for said in map(frozenset, text.said)]
    best = max(range(len(shares)), key=shares.__getitem__)
    return " ".join(text.parts[best][:_LONGEST].split()[:_EXCERPT])


def _pairs(asked: set[tuple[str, str]], text: Text) -> float:
    return len(asked.intersection(pairwise(chain.from_iterable(text.said)))) / max(1, len(asked))


def _near(asked: Sequence[tuple[str, str]], text: Text) -> float:
    wanted = set(chain.from_iterable(asked))
    places: dict[str, list[int]] = {}
    for place, word in enumerate(chain.from_iterable(text.said)):
        if word in wanted:
            places.setdefault(word, []).append(place)
    near = sum(_gap(places[one], places[other]) <= NEAR for one, other in asked if one in places and other in places)
    return near / max(1, len(asked))


def _gap(some: Sequence[int], others: Sequence[int]) -> int:
    """The least distance between a place of one list and a place of another. Both are in order."""
    least, at = abs(some[0] - others[0]), 0
    for place in some:
        while at + 1 < len(others) and others[at + 1] <= place:
            at += 1
        least = min(least, *(abs(place - other) for other in others[at : at + 2]))
    return least
