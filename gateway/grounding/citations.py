"""What one turn of a model says, with its marks of passages as citations: the events of a response, and its items. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from gateway.bodies import NULL, RawObject
from gateway.grounding.marks import Marker, Piece, read
from gateway.grounding.sources import Sources
from gateway.wire import present

DELTA: Final = "response.output_text.delta"
TEXT_DONE: Final = "response.output_text.done"
PART_DONE: Final = "response.content_part.done"
ITEM_DONE: Final = "response.output_item.done"
ADDED: Final = "response.output_text.annotation.added"

_object: Final = msgspec.json.Decoder(RawObject)
_parts: Final = msgspec.json.Decoder(list[RawObject])
_list: Final = msgspec.json.Decoder(list[Raw])
_text: Final = msgspec.json.Decoder(str)
_number: Final = msgspec.json.Decoder(int)
_encode: Final = msgspec.json.Encoder().encode

Events = Iterator[tuple[str, Mapping[str, Any]]]


@final
class Citations:
    """Of one turn. What has no passages to cite goes through as it is."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._open: dict[
            tuple[int, int], tuple[Marker, Mapping[str, Any]]
        ] = {}  # and where its events say that they are
        self._told: dict[tuple[int, int], int] = {}  # annotations by now

    def heard(self, kind: str, index: int, fields: RawObject) -> Events:
        """The events that one event becomes. `index`: which item of the turn it is about."""
        if not self._sources:
            yield kind, fields
        elif kind == DELTA:
            place = index, _place(fields)
            if place not in self._open:
                at: dict[str, Any] = {name: fields[name] for name in ("item_id", "content_index") if name in fields}
                self._open[place] = Marker(self._sources.known, strip=True), at
            yield from self._shown(place, self._open[place][0].feed(_text.decode(fields["delta"])), fields)
        elif kind == TEXT_DONE:
            yield from self._ended(index)
            yield kind, {**fields, "text": self._read(fields.get("text", NULL)).text}
        elif kind == PART_DONE:
            yield from self._ended(index)
            yield kind, {**fields, "part": self._part(_object.decode(fields["part"]))}
        elif kind == ADDED:  # one of the model's own server
            place = index, _place(fields)
            self._told[place] = self._told.get(place, 0) + 1
            yield kind, {**fields, "annotation_index": self._told[place] - 1}
        elif kind == ITEM_DONE:
            yield from self._ended(index)
            yield kind, {**fields, "item": self.item(fields["item"])}
        else:
            yield kind, fields

    def item(self, item: Raw) -> Raw:
        """A message with its citations; anything else as it is."""
        if not self._sources or b'"output_text"' not in bytes(item):
            return item
        fields = _object.decode(item)
        content = fields.get("content", NULL)
        if bytes(fields.get("type", NULL)) != b'"message"' or not bytes(content).startswith(b"["):
            return item
        return Raw(_encode(fields | {"content": Raw(_encode([self._part(one) for one in _parts.decode(content)]))}))

    def _part(self, part: RawObject) -> RawObject:
        if bytes(part.get("type", NULL)) != b'"output_text"':
            return part
        piece = self._read(part.get("text", NULL))
        given = part.get("annotations", NULL)
        notes = _list.decode(given) if present(given) else []
        notes += [Raw(_encode(self._sources.annotation(one.number, one.index))) for one in piece.notes]
        return part | {"text": Raw(_encode(piece.text)), "annotations": Raw(_encode(notes))}

    def _read(self, text: Raw) -> Piece:
        return read(_text.decode(text) if present(text) else "", self._sources.known, strip=True)

    def _ended(self, index: int) -> Events:
        """What was held back of an item's text. Not every server has all the events that close one."""
        for place in [one for one in self._open if one[0] == index]:
            marker, at = self._open.pop(place)
            yield from self._shown(place, marker.close(), {**at, "logprobs": Raw(b"[]")})

    def _shown(self, place: tuple[int, int], piece: Piece, fields: Mapping[str, Any]) -> Events:
        if piece.text:
            yield DELTA, {**fields, "delta": piece.text}
        at = {name: fields[name] for name in ("item_id", "content_index") if name in fields}
        for one in piece.notes:
            number = self._told.get(place, 0)
            self._told[place] = number + 1
            note = self._sources.annotation(one.number, one.index)
            yield ADDED, {**at, "annotation": note, "annotation_index": number}


def _place(fields: Mapping[str, Raw]) -> int:
    given = fields.get("content_index", NULL)
    return _number.decode(given) if present(given) else 0
