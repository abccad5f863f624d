"""Passages as they are shown, beside the vectors that they are found by: copies of the truth, mapped from the artefact's files.

    .texts   records of passages and of their documents: length, CRC-32, where the document's record is, and then MessagePack
    .places  for each slot where its record is; 0 for nowhere

Whoever shows a record asks the truth whether it still is what it was (`retrieval.glance`, `retrieval.search`). A file that was damaged
when it was opened is no part of an artefact; one that is damaged later has records that do not fit their checksum, and they are not read.
A record is in one piece, as each piece is another place in memory that nobody has been to.
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
_PLACE: Final = Struct("<Q")  # 8 bytes
_HEAD: Final = Struct("<IIQ")  # 16 bytes
_BEGIN: Final = b"penstock"  # so that no record is at 0

Shown = tuple[Found, Document]


@final
class Texts:
    """The first `rows` slots of a state. For any thread."""

    def __init__(self, texts: Path, places: Path) -> None:
        """Raises OSError, ValueError where they are not a pair."""
        self.name = texts.name
        self._texts, self._places = _mapped(texts), _mapped(places)
        self.rows, rest = divmod(len(self._places), _PLACE.size)
        if rest or self._texts[: len(_BEGIN)] != _BEGIN:
            raise ValueError(f"{texts.name} and {places.name} are of another form")
        self.damaged = False
        self._passage = msgspec.msgpack.Decoder(Found).decode
        self._document = msgspec.msgpack.Decoder(Document).decode
        self._documents: dict[int, Document] = {}
        self._known: dict[int, Shown] = {}
        self.nbytes = 0  # of what is kept

    def read(self, ids: Sequence[int], slots: Sequence[int]) -> list[Shown | None]:
        """None where the truth had none when it was written, and where it is damaged: then `damaged` says so from there on.

        What was read is kept for the next who finds it. A graph's walk leaves the processor's caches without anything of ours: to decode
        ten records after it takes 30 µs, to look them up 5.
        """
        shown = list(map(self._known.get, ids))
        if all(shown):
            return shown
        missing = [at for at, each in enumerate(shown) if each is None]
        found = self._read([ids[at] for at in missing], [slots[at] for at in missing])
        if self.nbytes > SHOWN_BYTES:
            self._known = {}
            self.nbytes = 0
        for at, each in zip(missing, found, strict=True):
            if each is not None:
                shown[at] = self._known[ids[at]] = each
                self.nbytes += SHOWN_OBJECT + 2 * len(each[0].text)
        return shown

    def _read(self, ids: Sequence[int], slots: Sequence[int]) -> list[Shown | None]:
        """In one loop: what lies between two records in Python costs as much as to read them."""
        place, head, decode, document_of = _PLACE.unpack_from, _HEAD.unpack_from, self._passage, self._documents.get
        texts, places, rows = self._texts, self._places, self.rows
        last = len(texts) - _HEAD.size
        shown: list[Shown | None] = []
        for id_, slot in zip(ids, slots, strict=True):
            known = None
            if slot < rows and (at := place(places, 8 * slot)[0]):
                if at <= last:
                    length, check, of_document = head(texts, at)
                    at += 16
                    record = texts[at : at + length]
                    if crc32(record) == check:
                        passage = decode(record)
                        owner = passage.document_id
                        document = document_of(owner) or self._read_document(of_document, owner)
                        if passage.id == id_ and document is not None:
                            known = passage, document
                if known is None:
                    self.damaged = True
            shown.append(known)
        return shown

    def _read_document(self, at: int, id_: int) -> Document | None:
        if at > len(self._texts) - _HEAD.size:
            return None
        length, check, _ = _HEAD.unpack_from(self._texts, at)
        record = self._texts[at + _HEAD.size : at + _HEAD.size + length]
        if crc32(record) != check:
            return None
        if len(self._documents) >= DOCUMENTS_KEPT:
            self._documents.clear()
        document = self._document(record)
        if document.id != id_:
            return None
        self._documents[id_] = document
        return document


@final
class Told:
    """What is shown of the passages of one state: from its files, and what the truth was asked for, within a budget of bytes.

    `stale`: documents that were changed after the files were written, which are of the generation `since`: what they say of those, and of
    their passages, is not true any more.
    """

    def __init__(self, texts: Texts | None = None, since: int = -1, stale: frozenset[int] = frozenset()) -> None:
        self.texts = texts
        self.since = since
        self.stale = stale
        self.asked: dict[int, Shown] = {}
        self.documents: dict[int, Document] = {}
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        return self._nbytes + (0 if self.texts is None else self.texts.nbytes)

    @property
    def damaged(self) -> bool:
        """Whether the files are to be written again."""
        return self.texts is not None and self.texts.damaged

    def after(self, changed: Iterable[int]) -> "Told":
        """For the next state, as of these documents something was changed."""
        return Told(self.texts, self.since, self.stale if self.texts is None else self.stale.union(changed))

    def of(self, ids: Sequence[int], slots: Sequence[int]) -> list[Shown | None]:
        """What is known here of each of the passages."""
        if self.texts is None:
            return [self.asked.get(id_) for id_ in ids]
        shown = self.texts.read(ids, slots)
        if self.stale or None in shown:
            for at, each in enumerate(shown):
                if each is None or each[1].id in self.stale:
                    shown[at] = self.asked.get(ids[at])
        return shown

    def remember(self, shown: Mapping[int, Shown]) -> None:
        """What the truth has of passages at this generation, for the next who finds them."""
        if self._nbytes > SHOWN_BYTES:
            self.asked.clear()
            self.documents.clear()
            self._nbytes = 0
        self.asked.update(shown)
        for passage, document in shown.values():
            self.documents[document.id] = document
            self._nbytes += SHOWN_OBJECT + 2 * len(passage.text)


def packed(shown: Iterable[Sequence[Shown | None]], places: bytearray) -> Iterator[bytes]:
    """The file of texts, in pieces, of what stands in the slots from 0 on; where each record is goes to `places`."""
    documents: dict[int, int] = {}
    encode = msgspec.msgpack.Encoder().encode
    end = len(_BEGIN)
    yield _BEGIN

    def placed(what: Found | Document, of_document: int, piece: list[bytes]) -> int:
        nonlocal end
        record, at = encode(what), end
        piece += _HEAD.pack(len(record), crc32(record), of_document), record
        end += _HEAD.size + len(record)
        return at

    for some in shown:
        piece: list[bytes] = []
        for each in some:
            if each is None:
                places += _PLACE.pack(0)
                continue
            passage, document = each
            if document.id not in documents:
                documents[document.id] = placed(document, 0, piece)
            places += _PLACE.pack(placed(passage, documents[document.id], piece))
        yield b"".join(piece)


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        size = path.stat().st_size
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
