"""What can be quoted: a text with the name of its source, and the anchors of a quotation in it."""

import msgspec


class Passage(msgspec.Struct, frozen=True):
    """`source` is what a reader knows it by. `start` is the place of `text` in the whole document, in characters.

    `id` and `document_id` are whatever the collection calls them; None for what stands in the conversation. `number`: the one under which
    the conversation shows it, by which it is cited.
    """

    text: str
    source: str
    start: int = 0
    page: int | None = None
    line: int | None = None
    heading: tuple[str, ...] = ()
    id: str | None = None
    document_id: str | None = None
    number: int | None = None


class Quotation(msgspec.Struct, frozen=True):
    """`text` as it stands in `passage`, at `[start, end)` of the document. `support`: the probability that it answers, 0 to 1."""

    text: str
    passage: Passage
    start: int
    end: int
    support: float


class Answer(msgspec.Struct, frozen=True):
    """No quotations: nothing supports an answer. `considered` is the number of sentences that were looked at."""

    quotations: tuple[Quotation, ...]
    considered: int
