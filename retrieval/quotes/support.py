"""How well a sentence supports an answer: what it shares with the question, turned into a probability.

The constants are those of a logistic regression over questions about real manuals, half of them with nothing there that answers:
`python -m benchmarks.quotes` fits them and prints what they are worth. More features (rarity left out, matches counted, numbers where
one is asked for) made no difference that could be told from chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Final

import msgspec

from retrieval.quotes.words import content_words, words

K1: Final = 1.2  # BM25, Robertson and Zaragoza 2009
B: Final = 0.75

_NEGLIGIBLE: Final = 1e-9


class Features(msgspec.Struct, frozen=True):
    """Each from 0 to 1. `shared`: the share of the question's words, weighted by rarity, half of it in the sentence itself, half with
    its headings and the sentence before. `similar`: the cosine of question and sentence, if known.
    """

    shared: float
    similar: float | None = None


class Weights(msgspec.Struct, frozen=True):
    bias: float
    shared: float
    similar: float = 0.0


LEXICAL: Final = Weights(bias=-3.01, shared=8.44)
WITH_VECTORS: Final = Weights(bias=-6.77, shared=3.25, similar=14.33)


def probability(features: Features) -> float:
    """That a sentence with these features answers."""
    weights = LEXICAL if features.similar is None else WITH_VECTORS
    score = weights.bias + weights.shared * features.shared + weights.similar * (features.similar or 0.0)
    return 1.0 / (1.0 + exp(-score))


def rarity(holding: int, among: int) -> float:
    """Inverse document frequency (Robertson and Spärck Jones) of a word that so many of them have."""
    return log(1.0 + (among - holding + 0.5) / (holding + 0.5))


def bm25(worth: Mapping[str, float], counts: Mapping[str, int], length: float) -> float:
    """Of a text with these counts, `length` as a share of the usual one, for words that are worth so much."""
    norm = K1 * (1.0 - B + B * length)
    return sum(
        weight * counts[word] * (K1 + 1.0) / (counts[word] + norm) for word, weight in worth.items() if word in counts
    )


class Corpus:
    """The words of all sentences that may be quoted, counted once."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self._counts = [Counter(words(sentence)) for sentence in sentences]
        self._lengths = [sum(count.values()) for count in self._counts]
        self._mean = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0
        self._holding = Counter(word for count in self._counts for word in count)

    def rarity(self, word: str) -> float:
        """Inverse document frequency; largest for a word that is nowhere, whose absence must count."""
        return rarity(self._holding[word], len(self._counts))

    def bm25(self, question: Sequence[str], place: int) -> float:
        """Of the sentence at `place`, for the content words of a question."""
        counts = self._counts[place]
        worth = {word: self.rarity(word) for word in question if word in counts}
        return bm25(worth, counts, self._lengths[place] / self._mean)

    def share(self, question: Mapping[str, float], place: int, around: str = "") -> float:
        """The rarity-weighted share of the question's words in the sentence at `place`, or in what is `around` it."""
        total = sum(question.values())
        if total < _NEGLIGIBLE:
            return 0.0
        there = self._counts[place].keys() | set(words(around)) if around else self._counts[place].keys()
        return sum(weight for word, weight in question.items() if word in there) / total


def weighed(question: str, corpus: Corpus) -> Mapping[str, float]:
    """The content words of a question by their rarity in the corpus."""
    return {word: corpus.rarity(word) for word in content_words(question)}
