"""Whether an answer's sentences hold: each against the passages that it cites, by words and by meaning."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from retrieval.chunking import sentences
from retrieval.quotes.quoting import Similar
from retrieval.quotes.words import content_words, words

MOST_WORDS: Final = 0.8  # of a claim's words in one passage: it is said there
FEW_WORDS: Final = 0.5  # with a meaning as near as NEAR
NEAR: Final = 0.7
_CITED: Final = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_LISTED: Final = re.compile(r"^\s*\[\d{1,3}\]\s")  # a line of the list of sources


class Claim(msgspec.Struct, frozen=True):
    """One sentence of an answer. `cites` are numbers of passages, from 1; `unknown` those that name none.

    `shared`: the largest share of its words in one cited passage; `similar`: the largest cosine with a sentence of one, if asked for.
    """

    text: str
    cites: tuple[int, ...]
    unknown: tuple[int, ...]
    shared: float
    similar: float | None
    supported: bool


class Grounding(msgspec.Struct, frozen=True):
    """`cited` and `supported` are shares of all claims, 1 for an answer that claims nothing."""

    claims: tuple[Claim, ...]

    @property
    def cited(self) -> float:
        return sum(bool(claim.cites) for claim in self.claims) / len(self.claims) if self.claims else 1.0

    @property
    def supported(self) -> float:
        return sum(claim.supported for claim in self.claims) / len(self.claims) if self.claims else 1.0


async def ground(answer: str, passages: Sequence[str], similar: Similar | None = None) -> Grounding:
    """Citations look like [1] or [1, 2], inside a sentence or right behind it. A sentence without one is supported by nothing."""
    return Grounding(tuple([await _claim(text, cites, passages, similar) for text, cites in _claims(answer)]))


async def _claim(text: str, cites: Sequence[int], passages: Sequence[str], similar: Similar | None) -> Claim:
    known = [number for number in cites if 1 <= number <= len(passages)]
    shared = max((_shared(text, passages[number - 1]) for number in known), default=0.0)
    nearest: float | None = None
    if similar is not None and known and shared < MOST_WORDS:
        said = [
            passage[start:end]
            for passage in (passages[number - 1] for number in known)
            for start, end in sentences.spans(passage)
        ]
        cosines = await similar(text, said) if said else None
        nearest = max(cosines) if cosines else None
    supported = shared >= MOST_WORDS or (nearest is not None and nearest >= NEAR and shared >= FEW_WORDS)
    unknown = tuple(number for number in cites if number not in known)
    return Claim(text, tuple(known), unknown, shared, nearest, supported and not unknown)


def _claims(answer: str) -> list[tuple[str, tuple[int, ...]]]:
    """Sentences with what they cite; a citation that stands alone belongs to the sentence before it."""
    found: list[tuple[str, tuple[int, ...]]] = []
    body = "\n".join(line for line in answer.split("\n") if not _LISTED.match(line))
    for start, end in sentences.spans(body):
        text = body[start:end]
        leading = re.match(r"(?:\s*\[[\d,\s]+\])+", text)
        if leading is not None and found:
            before, cites = found.pop()
            found.append((before, cites + _numbers(leading[0])))
            text = text[leading.end() :]
        bare = _CITED.sub("", text).strip()
        if any(character.isalnum() for character in bare):
            found.append((bare, _numbers(text)))
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for cited in _CITED.findall(text) for number in cited.split(","))


def _shared(claim: str, passage: str) -> float:
    """Numbers and names count as words: a claim with another number shares less."""
    asked = content_words(claim)
    there = set(words(passage))
    return sum(word in there for word in asked) / len(asked) if asked else 0.0
