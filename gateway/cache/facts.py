"""What two questions must have in common beside their meaning as a vector: numbers, units, names, negation, language, time, person.

Sentence embeddings put "in 2019" next to "in 2020", and "can" next to "cannot". So a question is also taken apart by rules, and an
answer is only given again where nothing is left over on either side: every word that carries meaning has its like, in the same role.
What the rules do not know counts as a difference, so that they err towards asking upstream. English is known best; in other languages
words have to be the same.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from typing import Final

import msgspec

from gateway.cache import lexicon as lx

_ADDRESS: Final = r"(?<![a-z0-9._%+-])[a-z0-9._%+-]{1,64}@[a-z0-9.-]+|https?://\S+"
_SIGN: Final = r"[$€£¥₹]|°[cf]?|%"
_WORD: Final = re.compile(
    rf"{_ADDRESS}|{_SIGN}|\d[\d.,:]{{0,30}}\d|\d|[^\W\d_]+(?:['\u2019\-][^\W\d_]+)*|[^\W_]+", re.IGNORECASE
)
MAX_FREE_ORDER: Final = 30  # words; who says more, says it in an order
TURNED: Final = 3
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_GLUED: Final = re.compile(r"(\d[\d.,:]{0,30})([a-zµ°]+)", re.IGNORECASE)
_ORDINAL: Final = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_SHORT: Final = re.compile(r"\b(what|who|where|when|why|how|that|there|it|here|let)'s\b", re.IGNORECASE)
_OWNED: Final = re.compile(r"([^\W_][\w-]{0,60})'s\s+([^\W_][\w-]*)")
_LATIN: Final = frozenset({*lx.SMALL, "latin"})
_SWAPS: Final = frozenset({"to", "from", "than", "before", "after", "over", "under", "by", "against", "without"})


class Facts(msgspec.Struct, frozen=True):
    """Of one question. `said` are its words, numbers and units in order, each with the preposition that gives it its part, if one does."""

    language: str
    numbers: tuple[str, ...]
    units: frozenset[str]
    negations: int
    asks: frozenset[str]
    past: bool
    words: frozenset[str]
    names: frozenset[str]
    said: tuple[tuple[str, str], ...]
    marks: str  # signs that are no punctuation, in order: of sums, of code
    exact: tuple[str, ...]  # where there are such, every word as it is
    leads: frozenset[str]  # what stands behind a `to`
    passive: bool


def facts(text: str) -> Facts:
    """Pure; the same text always has the same facts. Takes time by the length of the text, of which callers set a bound."""
    given = _SHORT.sub(r"\1 is", unicodedata.normalize("NFKC", text).replace("\u2019", "'"))
    given = _OWNED.sub(r"\2 of \1", given)
    names = _names(given)
    tokens = _tokens(given)
    found = _Found(names, tokens)
    for index in range(len(tokens)):
        found.take(index)
    return Facts(
        language=language(given, tokens),
        numbers=tuple(sorted(found.numbers)),
        units=frozenset(found.units),
        negations=found.negations,
        asks=frozenset(_asks(tokens)),
        past=_past(tokens),
        words=frozenset(found.words),
        names=names,
        said=tuple(found.said),
        marks=(marks := "".join(letter for letter in given if _is_mark(letter))),
        exact=tuple(tokens) if marks else (),
        leads=frozenset(found.leads),
        passive=_passive(tokens),
    )


def agree(one: Facts, other: Facts) -> bool:
    """Whether nothing speaks against the answer to one question being the answer to the other."""
    return (
        _one_language(one.language, other.language)
        and one.numbers == other.numbers
        and one.units == other.units
        and one.negations % 2 == other.negations % 2
        and one.asks == other.asks
        and one.past == other.past
        and one.words == other.words
        and one.marks == other.marks
        and one.exact == other.exact
        and _same_parts(one, other)
    )


def language(text: str, tokens: list[str]) -> str:
    """A script, or for Latin letters the language whose small words there are most of; `latin` where there are none."""
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if not scripts:
        return "none"
    script = scripts.most_common(1)[0][0]
    if script != "LATIN":
        return script
    votes = {name: sum(token in small for token in tokens) for name, small in lx.SMALL.items()}
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] else "latin"


def stem(word: str) -> str:
    """An English word less what only grammar adds to it. Coarse: it is compared with others that were cut the same way."""
    for short in ("'s", "'", "'re", "'ll", "'ve", "'d"):
        word = word.removesuffix(short)
    if len(word) <= 3 or not word.isascii():
        return word
    for ending, instead in lx.ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("eed"):
            word = word[: -len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeious":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


_SYNONYMS: Final = {stem(word): stem(row[0]) for row in lx.SAME for word in row}


class _Found:
    """What is gathered word by word."""

    def __init__(self, names: frozenset[str], tokens: list[str]) -> None:
        self._names = names
        self._tokens = tokens
        self.numbers: list[str] = []
        self.units: set[str] = set()
        self.negations = 0
        self.words: set[str] = set()
        self.said: list[tuple[str, str]] = []
        self.leads: set[str] = set()
        self._role = ""
        self._led = False

    def take(self, index: int) -> None:
        token, before, behind = self._tokens[index], self._at(index - 1), self._at(index + 1)
        self._led = self._led or token == "to"  # noqa: S105 — a word
        if token in lx.ROLES and (token != "to" or self._is_place(behind)):  # noqa: S105 — a word
            self._role = lx.ROLES[token]
        if token in lx.NEGATIONS or token.endswith("n't"):
            self.negations += 1
            self._role = "without" if token in lx.WITHOUT else self._role
            return
        number = _number(token)
        if number is not None and not (token == "one" and behind not in lx.UNITS):  # noqa: S105 — a word
            self.numbers.append(number)
            self._say(number)
        elif token in lx.UNITS and (_number(before) is not None or token in lx.ALWAYS_UNITS):
            if not (lx.UNITS[token] in lx.MOMENTS and before in lx.CHOICES):
                self.units.add(lx.UNITS[token])
                self._role = self._role or _number(before) or ""
                self._say(lx.UNITS[token])
        elif token in lx.ASKS or token in lx.TENSES or (before == "how" and token in lx.MEASURES):
            self._far(token)
        elif stem(token) in self._names or token not in lx.FILLERS:
            if token == "time" and before in lx.CHOICES:  # noqa: S105 — a word
                return
            word = _SYNONYMS.get(stem(token), stem(token))
            self.words.add(word)
            self._say(word)

    def _far(self, token: str) -> None:
        """How far it is, is the distance."""
        if token == "far":  # noqa: S105 — a word
            self.words.add(_SYNONYMS[stem("distance")])

    def _at(self, index: int) -> str:
        return self._tokens[index] if 0 <= index < len(self._tokens) else ""

    def _is_place(self, behind: str) -> bool:
        """Whether `to` leads somewhere, and not to a verb."""
        return (
            behind in lx.ARTICLES
            or stem(behind) in self._names
            or behind in lx.UNITS
            or _number(behind) is not None
            or "from" in self._tokens
        )

    def _say(self, word: str) -> None:
        self.said.append((self._role, word))
        if self._led:
            self.leads.add(word)
        self._role, self._led = "", False


def _same_parts(one: Facts, other: Facts) -> bool:
    """Whether the words that there are play the same parts: from here to there is not from there to here."""
    ours, theirs = _by_role(one), _by_role(other)
    if any(ours[role] != theirs[role] for role in _SWAPS & ours.keys() & theirs.keys()):
        return False
    played = dict.fromkeys(word for _, word in one.said) | {word: role for role, word in one.said if role in _SWAPS}
    if any(role in _SWAPS and (played.get(word) or role) != role for role, word in other.said):
        return False
    compares = any(role == "than" for role, _ in one.said)
    names = one.names | other.names
    for belongs in (lambda word: word in names, _is_number, lambda word: word in lx.UNIT_NAMES):
        if not _same_order(
            [pair for pair in one.said if belongs(pair[1])], [pair for pair in other.said if belongs(pair[1])]
        ):
            return False
    ordered, its = [word for _, word in one.said], [word for _, word in other.said]
    if ordered == its:
        return True
    led = one.leads != other.leads and one.leads <= other.words and other.leads <= one.words
    if compares or len(ordered) > MAX_FREE_ORDER or (led and one.leads and other.leads):
        return False
    return one.passive != other.passive or not _turned(_free(one), _free(other))


def _free(one: Facts) -> list[str]:
    """Words that no preposition ties to a place, each once."""
    return list(dict.fromkeys(word for role, word in one.said if not role))


def _turned(one: list[str], other: list[str]) -> bool:
    """Whether somewhere a subject and an object have changed places around their verb: any three words in the opposite order."""
    place = {word: index for index, word in enumerate(other)}
    run = [place[word] for word in one if word in place]
    longest: list[int] = []  # patience sorting: the length of the longest falling run
    for value in run:
        at = bisect_left(longest, -value)
        longest[at : at + 1] = [-value]
    return len(longest) >= TURNED


def _same_order(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> bool:
    """One after the other as there, or each with a part of its own; one without any has no other to be taken for."""
    if [word for _, word in one] == [word for _, word in other]:
        return True
    return sum(not role for role, _ in one) <= 1 and sorted(one) == sorted(other)


def _by_role(one: Facts) -> dict[str, frozenset[str]]:
    roles = {role for role, _ in one.said if role}
    return {role: frozenset(word for played, word in one.said if played == role) for role in roles}


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "SP" and letter not in lx.PUNCTUATION and letter not in lx.UNITS


def _passive(tokens: list[str]) -> bool:
    return any(
        token in lx.BE and any(_is_participle(word) for word in tokens[index + 1 :])
        for index, token in enumerate(tokens)
    )


def _is_participle(token: str) -> bool:
    return token in lx.PAST_VERBS or (token.endswith("ed") and not token.endswith("eed") and len(token) > 4)


def _is_number(word: str) -> bool:
    return word[:1].isdigit()


def _one_language(one: str, other: str) -> bool:
    """A text without small words may be in any language of its script; its other words have to be the same anyway."""
    return one == other or ("latin" in (one, other) and {one, other} <= _LATIN)


def _asks(tokens: list[str]) -> set[str]:
    """What kind of answer is wanted: a person, a time, a number, yes or no. Which thing it is about, the other words say."""
    found = set()
    for index, token in enumerate(tokens):
        behind = tokens[index + 1] if index + 1 < len(tokens) else ""
        if token == "how":  # noqa: S105 — a word
            if behind == "far" or (behind == "much" and _at(tokens, index + 2) in lx.AUXILIARIES):
                continue
            found.add(f"how {behind}" if behind in lx.MEASURES else "how")
        elif token in lx.ASKS:
            found.add(token)
        elif token in lx.CHOICES and (behind == "time" or lx.UNITS.get(behind) in lx.MOMENTS):
            found.add("when")
        elif token in lx.PROCEDURES:
            found.add("how")
    if not found and tokens and _is_wish(tokens):
        found.add("how")
    if not found and _is_yes_or_no(tokens):
        found.add("whether")
    return found


def _is_wish(tokens: list[str]) -> bool:
    text = " ".join(tokens[:8])
    return any(wish in text for wish in lx.WISHES)


def _is_yes_or_no(tokens: list[str]) -> bool:
    opening = next((index for index, token in enumerate(tokens) if token not in lx.POLITE), len(tokens))
    first, second = _at(tokens, opening), _at(tokens, opening + 1)
    if first in {"if", "whether"}:
        return True
    return first in lx.AUXILIARIES and not (second == "you" and first in lx.REQUESTS)


def _past(tokens: list[str]) -> bool:
    """Whether it is about what was: by its auxiliaries, or by its verb where none says that it is about what is."""
    if any(lx.TENSES.get(token) == "past" for token in tokens):
        return True
    if any(token in lx.PRESENT for token in tokens):
        return False
    return any(_is_participle(token) for token in tokens)


def _at(tokens: list[str], index: int) -> str:
    return tokens[index] if 0 <= index < len(tokens) else ""


def _tokens(text: str) -> list[str]:
    text = _THOUSANDS.sub("", _ORDINAL.sub(r"\1", text))
    text = _GLUED.sub(r"\1 \2", text)
    return [token.rstrip(".,:").casefold() if len(token) > 1 else token.casefold() for token in _WORD.findall(text)]


def _names(text: str) -> frozenset[str]:
    """Stems of words that are written large where a sentence does not make them so, or that have capitals or digits inside."""
    found: set[str] = set()
    for match in re.finditer(r"[^\W_][^\s,;!?()\"]*", text):
        word = match[0].rstrip(".:'")
        opens = not text[: match.start()].rstrip() or text[: match.start()].rstrip()[-1] in ".!?:"
        inside = any(letter.isupper() or letter.isdigit() for letter in word[1:])
        if inside or (word[:1].isupper() and not opens and not word.startswith("I'") and word != "I"):
            found.update(stem(part) for part in _tokens(word) if not part[0].isdigit())
    return frozenset(found)


def _number(token: str) -> str | None:
    """A number's value in one spelling."""
    if token in lx.NUMBERS:
        return lx.NUMBERS[token]
    if not token or not token[0].isdigit():
        return None
    try:
        value = float(token.replace(",", "."))
    except ValueError:
        return token
    return str(int(value)) if value.is_integer() else str(value)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
