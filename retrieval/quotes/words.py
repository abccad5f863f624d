"""Words as they are compared: folded, without endings, without those that say nothing."""

import re
from collections.abc import Iterator
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_IDEOGRAPHS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
STOP: Final = frozenset({
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because", "been",
    "before", "being", "both", "but", "by", "can", "could", "did", "do", "does", "doing", "each", "few", "for", "from",
    "further", "give", "had", "has", "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if",
    "in", "into", "is", "it", "its", "just", "let", "many", "may", "me", "might", "more", "most", "much", "must", "my",
    "no", "nor", "not", "of", "off", "on", "once", "one", "only", "or", "other", "our", "out", "over", "own", "please",
    "same", "shall", "she", "should", "so", "some", "such", "tell", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "those", "through", "to", "too", "under", "until", "up", "use", "used", "using",
    "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "whom", "whose", "why", "will",
    "with", "would", "you", "your", "s", "t", "don", "doesn", "explain", "know", "der", "die", "das", "und", "ist",
    "ein", "eine", "den", "dem", "des", "von", "zu", "mit", "auf", "wie", "wer", "wo", "wann", "le", "la",
    "les", "un", "une", "et", "est", "de", "du", "que", "qui", "quel", "quelle", "el", "los", "las", "y", "es",
    "en",
})  # fmt: skip


def words(text: str) -> Iterator[str]:
    """Every word, folded and without its ending; Chinese, Japanese and Korean as pairs of signs."""
    for match in _WORD.finditer(text):
        word = match[0].casefold()
        if _IDEOGRAPHS.search(word):
            yield from (word[place : place + 2] for place in range(max(1, len(word) - 1)))
        else:
            yield stem(word)


def content_words(text: str) -> list[str]:
    """Those that say something, in order, each once."""
    seen: dict[str, None] = {}
    for match in _WORD.finditer(text):
        word = match[0].casefold()
        if word not in STOP:
            seen.update(dict.fromkeys(words(word)))
    return list(seen)


def stem(word: str) -> str:
    """A light stemmer: plurals, -ing, -ed. What it gets wrong, it gets wrong in question and answer alike."""
    word = re.sub(r"['\u2019].*$", "", word) if len(word) > 3 else word
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]
    for ending in ("ing", "ed"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            word = word[: -len(ending)]
            word = word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz" else word
            break
    return word[:-1] if len(word) > 4 and word.endswith("e") else word
