"""What many journal records at once say."""

from collections.abc import Sequence

import msgspec

from gateway.journal_records import Ended, Intent, Settled

End = Settled | Ended
Opening = Intent | bytes  # what was written when a call began, decoded or not


class IntentId(msgspec.Struct, array_like=True, tag="i", gc=False):
    id: str


class BeganId(msgspec.Struct, array_like=True, tag="b", gc=False):
    id: str


class Batch(msgspec.Struct, frozen=True, gc=False):
    """`opened` are the calls that begin, with what was written of each; `ends` the settlements, `payloads` their bytes.

    `kinds` are the tags of all records, in order. `closed_at`: the journal's end is among them.
    """

    opened: Sequence[tuple[str, Opening]]
    ends: Sequence[End]
    payloads: Sequence[bytes]
    kinds: Sequence[int]
    closed_at: float | None = None
