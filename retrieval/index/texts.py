"""Passages as they are shown, beside the vectors that they are found by: copies of the truth, mapped from the artefact's files.

    .texts   records of passages and of their documents, as MessagePack
    .places  for each slot where its passage's and its document's record is: offset, length and CRC-32 of either

Whoever shows a record asks the truth whether it still is what it was (`retrieval.glance`, `retrieval.search`). A file that was damaged
when it was opened is no part of an artefact; one that is damaged later has records that do not fit their checksum, and they are not read.
"""

import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import Final, final
from zlib import crc32

import msgspec

from retrieval.document_store import Document
from retrieval.passage_store import Found

SHOWN_BYTES: Final = 32 << 20
SHOWN_OBJECT: Final = 600  # of a passage beside its text, and its share of a document
DOCUMENTS_KEPT: Final = 4096  # decoded
_PLACE: Final = Struct("<QIIQII")
_NOWHERE: Final = (0, 0, 0)

Shown = tuple[Found, Document]
Place = tuple[int, int, int]


@final
class Texts:
    """The first `rows` slots of a state. For any thread."""

    def __init__(self, texts: Path, places: Path) -> None:
        """Raises OSError, ValueError where they are not a pair."""
        self._texts, self._places = _mapped(texts), _mapped(places)
        self.rows, rest = divmod(len(self._places), _PLACE.size)
        if rest:
            raise ValueError(f"{places.name} has {len(self._places)} bytes")
        self.damaged = False
        self._passage = msgspec.msgpack.Decoder(Found).decode
        self._document = msgspec.msgpack.Decoder(Document).decode
        self._documents: dict[int, Document] = {}

    def read(self, slot: int) -> Shown | None:
        """None where the truth had none when it was written, and where it is damaged: then `damaged` says so from there on."""
        at, length, check, of_document, *more = _PLACE.unpack_from(self._places, slot * _PLACE.size)
        if not length:
            return None
        record = self._texts[at : at + length]
        if crc32(record) != check:
            self.damaged = True
            return None
        document = self._documents.get(of_document) or self._read_document(of_document, *more)
        return None if document is None else (self._passage(record), document)

    def _read_document(self, at: int, length: int, check: int) -> Document | None:
        record = self._texts[at : at + length]
        if crc32(record) != check:
            self.damaged = True
            return None
        if len(self._documents) >= DOCUMENTS_KEPT:
            self._documents.clear()
        document = self._documents[at] = self._document(record)
        return document


@final
class Told:
    """What is shown of the passages of one state: from its files, and what the truth was asked for, within a budget of bytes.

    `stale`: documents that were changed after the files were written. What they say of those, and of their passages, is not true any more.
    """

    def __init__(self, texts: Texts | None = None, stale: frozenset[int] = frozenset()) -> None:
        self.texts = texts
        self.stale = stale
        self.asked: dict[int, Shown] = {}
        self.documents: dict[int, Document] = {}
        self.nbytes = 0

    def after(self, changed: Iterable[int]) -> "Told":
        """For the next state, as of these documents something was changed."""
        return Told(self.texts, self.stale.union(changed) if self.texts is not None else self.stale)

    def of(self, ids: Sequence[int], slots: Sequence[int]) -> dict[int, Shown]:
        """Those of the passages that are known here, by id."""
        there: dict[int, Shown] = {}
        texts, rows = self.texts, 0 if self.texts is None else self.texts.rows
        for id_, slot in zip(ids, slots, strict=True):
            known = texts.read(slot) if texts is not None and slot < rows else None
            if known is None or known[0].id != id_ or known[1].id in self.stale:
                known = self.asked.get(id_)
            if known is not None:
                there[id_] = known
        return there

    def remember(self, shown: Mapping[int, Shown]) -> None:
        """What the truth has of passages at this generation, for the next who finds them."""
        if self.nbytes > SHOWN_BYTES:
            self.asked.clear()
            self.documents.clear()
            self.nbytes = 0
        self.asked.update(shown)
        for passage, document in shown.values():
            self.documents[document.id] = document
            self.nbytes += SHOWN_OBJECT + 2 * len(passage.text)


def packed(shown: Iterable[Sequence[Shown | None]], places: bytearray) -> Iterator[bytes]:
    """The file of texts, in pieces, of what stands in the slots from 0 on; where everything is goes to `places`."""
    documents: dict[int, Place] = {}
    encode = msgspec.msgpack.Encoder().encode
    end = 0

    def placed(what: Found | Document, piece: list[bytes]) -> Place:
        nonlocal end
        record = encode(what)
        piece.append(record)
        place = end, len(record), crc32(record)
        end += len(record)
        return place

    for some in shown:
        piece: list[bytes] = []
        for each in some:
            if each is None:
                places += _PLACE.pack(*_NOWHERE, *_NOWHERE)
                continue
            passage, document = each
            if document.id not in documents:
                documents[document.id] = placed(document, piece)
            places += _PLACE.pack(*placed(passage, piece), *documents[document.id])
        yield b"".join(piece)


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        size = path.stat().st_size
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
