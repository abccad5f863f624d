"""Long texts in parts that a model can be asked about, so that nothing hides behind what it does not read. Pure."""

from collections.abc import Sequence

import msgspec

from gateway.guards.verdicts import Spoken


class TooLongError(ValueError):
    """Of a text that would take more questions than a guard may ask: it has not read all of it."""


def parts(text: str, most: int, overlap: int) -> list[str]:
    """Of at most `most` characters, each with the last `overlap` of the one before. A text that fits is one part."""
    step = most - overlap
    return [text[at : at + most] for at in range(0, max(1, len(text) - overlap), step)]


def conversations(texts: Sequence[Spoken], most: int, overlap: int, turns: int, asked: int) -> list[list[Spoken]]:
    """What a model is asked that judges the end of a conversation: the conversation, of `turns` at most each time; before it, each part
    of a text that is longer than `most`, but the last. Raises TooLongError for more than `asked`.
    """
    made: list[list[Spoken]] = []
    short: list[Spoken] = []
    for one in texts:
        *former, last = (msgspec.structs.replace(one, text=part) for part in parts(one.text, most, overlap))
        made += ([part] for part in former)
        short.append(last)
    made += (short[at : at + turns] for at in range(0, len(short), turns))
    if len(made) > asked:
        raise TooLongError(f"it asks {asked} questions of {most} characters at most")
    return made
