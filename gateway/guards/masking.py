"""Placeholders in place of what a model must not see, and the way back: `[EMAIL_1]` goes there, and what stood there comes back."""

import re
from collections.abc import Iterable
from typing import Final, final

import msgspec

_PLACE: Final = re.compile(r"\[[A-Z][A-Z0-9_]{0,48}_[1-9][0-9]{0,5}\]")
_TAIL: Final = re.compile(r"\[(?:[A-Z][A-Z0-9_]{0,55}\]?)?\Z")
_LONGEST: Final = 58
_encode: Final = msgspec.json.Encoder().encode


def mark(category: str) -> str:
    """What stands in the place of something that is not to come back."""
    return f"[{category.upper()}]"


@final
class Vault:
    """Of one request. The same thing has the same placeholder everywhere; one that the client wrote itself is never ours."""

    __slots__ = ("_counts", "_places", "_restores", "_taken", "_values")

    def __init__(self, *, restores: bool = True) -> None:
        """Without `restores` nothing comes back: `[EMAIL]` stands for every address."""
        self._restores = restores
        self._values: dict[str, str] = {}
        self._places: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._taken: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def take(self, texts: Iterable[str]) -> None:
        """What looks like a placeholder in a request before anything of it is masked."""
        for text in texts:
            if "[" in text:
                self._taken.update(_PLACE.findall(text))

    def mask(self, value: str, category: str) -> str:
        if not self._restores:
            return mark(category)
        known = self._places.get((category, value))
        if known is not None:
            return known
        name = category.upper()
        while True:
            count = self._counts[name] = self._counts.get(name, 0) + 1
            place = f"[{name}_{count}]"
            if place not in self._taken:
                break
        self._places[category, value] = place
        self._values[place] = value
        return place

    def value(self, place: str) -> str | None:
        return self._values.get(place)

    def hide(self, text: str) -> str:
        """The way back again, for whoever keeps what was said; also inside JSON, and JSON inside of that."""
        for place, value in sorted(self._values.items(), key=lambda each: -len(each[1])):
            once = _encode(value)[1:-1].decode()
            for spelt in dict.fromkeys((_encode(once)[1:-1].decode(), once, value)):
                text = text.replace(spelt, place)
        return text


@final
class Restoring:
    """A text on its way back to the client. `in_json`: it is the inside of a JSON document, where some characters are escaped."""

    __slots__ = ("_in_json", "_text", "_vault")

    def __init__(self, vault: Vault, *, in_json: bool) -> None:
        self._vault = vault
        self._in_json = in_json
        self._text = ""

    def feed(self, text: str) -> str:
        self._text += text
        tail = _TAIL.search(self._text, max(0, len(self._text) - _LONGEST))
        cut = len(self._text) if tail is None else tail.start()
        out, self._text = self._text[:cut], self._text[cut:]
        return self._restored(out)

    def finish(self) -> str:
        out, self._text = self._text, ""
        return self._restored(out)

    def _restored(self, text: str) -> str:
        return _PLACE.sub(self._value, text) if "[" in text else text

    def _value(self, found: re.Match[str]) -> str:
        value = self._vault.value(found[0])
        if value is None:
            return found[0]
        return _encode(value)[1:-1].decode() if self._in_json else value
