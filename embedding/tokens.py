"""Text to token ids, cut at the model's limit without reading more of the text than the limit needs."""

from array import array
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer as Vocabulary

from embedding.errors import InputTooLong, InvalidInput

Truncation = Literal["truncate", "error"]

_CHARACTERS_PER_TOKEN = 12  # about three times English: nearly every long text is settled by its first piece
_LAST_WORD = 128  # a cut inside a word changes that word's tokens, at most 100 of them (max_input_chars_per_word)


@dataclass(frozen=True, slots=True)
class Encoded:
    """`ids` carry the special tokens. `truncated`: the text went on beyond the model's limit."""

    ids: "array[int]"
    truncated: bool

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Tokenizer:
    """The tokenizer of one model. Safe in several threads; the library releases the interpreter while it works."""

    def __init__(self, file: Path | str, max_tokens: int) -> None:
        """`file`: `tokenizer.json`, or what stands in it."""
        self._vocabulary = Vocabulary.from_str(file if isinstance(file, str) else file.read_text(encoding="utf-8"))
        # The file asks for a fixed length of 128; length is decided here and padding by the backend.
        self._vocabulary.no_truncation()
        self._vocabulary.no_padding()
        self._max_tokens = max_tokens
        # Special tokens that end a text: most models have one, some have none.
        self._closing = len(list(takewhile(bool, reversed(self._vocabulary.encode("a").special_tokens_mask))))

    def encode(self, text: str, truncation: Truncation = "truncate") -> Encoded:
        """The ids of a text. InputTooLong only with `truncation="error"`."""
        ids, whole = self._start(text)
        if len(ids) <= self._max_tokens:
            return Encoded(array("i", ids), truncated=False)
        if truncation == "error":
            count = f"{len(ids)}" if whole else f"more than {self._max_tokens}"
            raise InputTooLong(
                f"This model's maximum context length is {self._max_tokens} tokens, but one input has {count}. "
                "Split the text into shorter pieces.",
                param="input",
            )
        closing = self._closing
        return Encoded(array("i", [*ids[: self._max_tokens - closing], *ids[len(ids) - closing :]]), truncated=True)

    def _start(self, text: str) -> tuple[list[int], bool]:
        """Enough ids of a text to know its first `max_tokens`, and whether they are all of them.

        A text of 10 MB would take seconds and hundreds of megabytes to tokenise for nothing. Pieces are doubled, because
        a run of blanks or one endless word may hold few tokens in many characters.
        """
        length = self._max_tokens * _CHARACTERS_PER_TOKEN
        while length < len(text):
            ids = self._ids(text[:length])
            if len(ids) > self._max_tokens + _LAST_WORD:
                return ids, False
            length *= 2
        return self._ids(text), True

    def _ids(self, text: str) -> list[int]:
        try:
            return self._vocabulary.encode(text).ids
        except (TypeError, UnicodeEncodeError):  # the library's word for a string that UTF-8 cannot hold
            raise InvalidInput("The text holds a lone surrogate, which is not valid Unicode.", param="input") from None
