"""What of a document is new: passages are told apart by what they say, so that a change embeds what changed and nothing else. Pure."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from retrieval.passage_store import Known, Placed
from retrieval.ports import Chunk


class Fresh(msgspec.Struct, frozen=True):
    """A passage that has no vector yet."""

    ordinal: int
    hash: bytes
    chunk: Chunk
    context: str = ""


class Changes(msgspec.Struct, frozen=True):
    """`placed` are there already and stay; `fresh` are to be embedded; `gone` were published and are no more."""

    placed: Sequence[Placed]
    fresh: Sequence[Fresh]
    gone: Sequence[int]


def changes(
    chunks: Sequence[Chunk], published: Sequence[Known], prepared: Sequence[Known], context_model: str | None = None
) -> Changes:
    """A passage that is there twice is embedded once for each place, as each has its own vector to be found by.

    `context_model` says something before each: of one that is there it has said it, and it is not asked again.
    """
    there: defaultdict[bytes, list[int]] = defaultdict(list)
    for known in (*reversed(prepared), *reversed(published)):  # the last is taken first: what is published stays
        there[known.hash].append(known.id)
    placed, fresh = [], []
    for ordinal, chunk in enumerate(chunks):
        hash_ = hash_of(chunk, context_model)
        if there[hash_]:
            placed.append(Placed(there[hash_].pop(), ordinal, chunk))
        else:
            fresh.append(Fresh(ordinal, hash_, chunk))
    kept = {each.id for each in placed}
    return Changes(placed, fresh, [known.id for known in published if known.id not in kept])


def hash_of(chunk: Chunk, context_model: str | None = None) -> bytes:
    """Of what is embedded, with the headings that it is found by, and whoever says something before it."""
    digest = hashlib.sha256()
    for part in (*chunk.heading, chunk.text, *(() if context_model is None else ("\0context", context_model))):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.digest()
