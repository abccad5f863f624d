"""Which sentences answer a question: found by words, weighed with meanings, told only when they support an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from heapq import nlargest
from typing import Final, NamedTuple

from retrieval.chunking import sentences
from retrieval.quotes.passage import Answer, Passage, Quotation
from retrieval.quotes.support import Corpus, Features, probability, weighed

Similar = Callable[[str, Sequence[str]], Awaitable[Sequence[float] | None]]
"""The cosine of a question and each of some sentences; None where meanings cannot be compared now."""

THRESHOLD: Final = 0.6  # of support: below it, nothing is quoted
_MOST: Final = 3  # quotations
_NEXT: Final = 0.6  # of the best one's support: what is weaker adds nothing
_CANDIDATES: Final = 24  # sentences whose meaning is looked at
_SHORTEST: Final = 3  # words: a heading or a single word answers nothing
_LONGEST: Final = 1200  # characters of one quotation
_MOST_SENTENCES: Final = 50_000


class _Sentence(NamedTuple):
    text: str
    start: int  # in its passage's text
    passage: Passage
    before: str  # the sentence before it, and the headings that it stands under


class _Weighed(NamedTuple):
    place: int
    support: float


async def quote(
    question: str, passages: Sequence[Passage], similar: Similar | None = None, *, threshold: float = THRESHOLD
) -> Answer:
    """The best supported sentences, best first; none where none reaches `threshold`. Words are counted in a thread."""
    ranking = await asyncio.to_thread(rank, question, passages)
    candidates = ranking.candidates
    cosines: Sequence[float] | None = None
    if similar is not None and candidates:
        cosines = await similar(question, [ranking.sentences[place].text for place in candidates])
    judged = [
        _Weighed(place, probability(ranking.features(place, None if cosines is None else cosines[number])))
        for number, place in enumerate(candidates)
    ]
    judged.sort(key=lambda each: -each.support)
    return Answer(tuple(_chosen(ranking.sentences, judged, threshold)), len(ranking.sentences))


class Ranking(NamedTuple):
    """The sentences of some passages under a question; `candidates` are indexes of the best by words."""

    sentences: Sequence["_Sentence"]
    corpus: Corpus
    weights: Mapping[str, float]
    candidates: Sequence[int]

    def features(self, place: int, cosine: float | None) -> Features:
        sentence = self.sentences[place]
        own = self.corpus.share(self.weights, place)
        near = self.corpus.share(self.weights, place, sentence.before)
        return Features((own + near) / 2, None if cosine is None else max(0.0, min(1.0, cosine)))


def rank(question: str, passages: Sequence[Passage]) -> Ranking:
    """Work and memory grow with the length of all passages."""
    found = _sentences(passages)
    corpus = Corpus([sentence.text for sentence in found])
    weights = weighed(question, corpus)
    asked = list(weights)
    scores = [corpus.bm25(asked, place) for place in range(len(found))]
    best = nlargest(_CANDIDATES, range(len(found)), key=scores.__getitem__)
    return Ranking(found, corpus, weights, [place for place in best if scores[place] > 0])


def _sentences(passages: Sequence[Passage]) -> list[_Sentence]:
    """What can be quoted, each text once, in the order of the passages."""
    found: dict[str, _Sentence] = {}
    for passage in passages:
        before = ""
        for start, end in sentences.spans(passage.text):
            text = passage.text[start:end][:_LONGEST]
            if len(text.split()) >= _SHORTEST or (len(text) > 8 and not text.isascii()):
                around = " ".join((before, *passage.heading, passage.source))
                found.setdefault(" ".join(text.split()), _Sentence(text, start, passage, around))
            before = text
            if len(found) >= _MOST_SENTENCES:
                return list(found.values())
    return list(found.values())


def _chosen(found: Sequence[_Sentence], judged: Sequence[_Weighed], threshold: float) -> list[Quotation]:
    best = judged[0].support if judged else 0.0
    chosen: list[Quotation] = []
    for each in judged:
        if each.support < max(threshold, best * _NEXT) or len(chosen) == _MOST:
            break
        sentence = found[each.place]
        chosen.append(_quotation(sentence, each.support))
    return chosen


def _quotation(sentence: _Sentence, support: float) -> Quotation:
    start = sentence.passage.start + sentence.start
    return Quotation(sentence.text, sentence.passage, start, start + len(sentence.text), support)
