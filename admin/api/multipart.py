"""A form with one file in it, which goes to the disk as it comes: `multipart/form-data` (RFC 7578).

Starlette's own reader keeps files in memory or in the system's temporary folder first; here they are written once, where they stay.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final, final

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from gateway.errors import BadRequest, BodyTooLarge
from gateway.files.shelf import Incoming

if TYPE_CHECKING:  # the library has it for type checkers alone
    from python_multipart.multipart import MultipartCallbacks

WRITTEN_AT_ONCE: Final = 1 << 20
MAX_FIELD_BYTES: Final = 4096
MAX_FIELDS: Final = 32


class Form(msgspec.Struct, frozen=True):
    """`filename` is what the client calls its file."""

    fields: Mapping[str, str]
    filename: str


async def receive(
    content_type: str, body: AsyncIterator[bytes], incoming: Incoming, *, file_field: str, limit: int
) -> Form:
    """Reads the whole body; the file is in `incoming` then, which is not kept yet. Raises BadRequest, BodyTooLarge, StorageFailed."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("Send a form: content-type multipart/form-data", code="invalid_content_type")
    reader = _Reader(file_field)
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        async for piece in body:
            parser.write(piece)
            if incoming.size + reader.waiting > limit:
                raise BodyTooLarge(f"A file may have {limit:,} bytes", param=file_field, code="file_too_large")
            if reader.waiting >= WRITTEN_AT_ONCE:
                await asyncio.to_thread(incoming.write, reader.taken())
        parser.finalize()
    except ClientDisconnect:
        raise BadRequest("The client left before the end of its file", code="client_disconnected") from None
    except MultipartParseError as error:
        raise BadRequest(f"The form cannot be read: {error}", code="invalid_form") from None
    if reader.filename is None or not reader.ended:
        raise BadRequest(f"The form has no file in '{file_field}'", param=file_field, code="missing_required_parameter")
    await asyncio.to_thread(incoming.write, reader.taken())
    return Form(reader.fields, reader.filename)


@final
class _Reader:
    """What the parser calls. The bytes of the file wait in `taken`."""

    def __init__(self, file_field: str) -> None:
        self._file_field = file_field
        self._pieces: list[bytes] = []
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name = ""
        self._in_file = False
        self._field = b""
        self.waiting = 0
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add_header(data[start:end], b""),
            "on_header_value": lambda data, start, end: self._add_header(b"", data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._head_read,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._end_form,
        }

    def taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces, self.waiting = [], 0
        return data

    def _begin(self) -> None:
        self._disposition = self._field = self._header = self._value = b""
        self._in_file = False

    def _add_header(self, name: bytes, value: bytes) -> None:
        self._header += name
        self._value += value
        if len(self._header) + len(self._value) > MAX_FIELD_BYTES:
            raise BadRequest("The form has a header that is too long", code="invalid_form")

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _head_read(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if self._name == self._file_field:
            if self.filename is not None:
                raise BadRequest("The form has more than one file", param=self._name, code="invalid_form")
            self._in_file = True
            self.filename = plain_name(filename)
        elif len(self.fields) >= MAX_FIELDS:
            raise BadRequest("The form has too many fields", code="invalid_form")

    def _data(self, data: bytes) -> None:
        if self._in_file:
            self._pieces.append(data)
            self.waiting += len(data)
            return
        self._field += data
        if len(self._field) > MAX_FIELD_BYTES:
            raise BadRequest(f"The field '{self._name}' is too long", param=self._name, code="invalid_form")

    def _end(self) -> None:
        if not self._in_file:
            self.fields[self._name] = self._field.decode("utf-8", "replace")

    def _end_form(self) -> None:
        self.ended = True


def plain_name(filename: bytes | None) -> str:
    """A name for people to read, never a path."""
    name = (filename or b"").decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable())[:255] or "file"
