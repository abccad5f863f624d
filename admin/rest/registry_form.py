"""The form that a version comes in: `artifact`, `metadata` as JSON, and perhaps `reference`. Files go to the disk as they come."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, final

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from admin.api.multipart import plain_name
from gateway.errors import BadRequest, BodyTooLarge

if TYPE_CHECKING:  # the library has it for type checkers alone
    from python_multipart.multipart import MultipartCallbacks

FILES: Final = ("artifact", "reference")
METADATA: Final = "metadata"
MAX_METADATA_BYTES: Final = 4 << 20
MAX_HEADER_BYTES: Final = 4096
MAX_PARTS: Final = 16
WRITTEN_AT_ONCE: Final = 1 << 20


class Form(msgspec.Struct, frozen=True):
    """`files` by field, `names` as their owner calls them."""

    files: Mapping[str, Path]
    names: Mapping[str, str]
    metadata: bytes


async def receive(content_type: str, body: AsyncIterator[bytes], folder: Path, limit: int) -> Form:
    """Reads the whole body; each file has up to `limit` bytes. Raises BadRequest, BodyTooLarge."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("Send a form: content-type multipart/form-data", code="invalid_content_type")
    reader = _Reader(folder, limit)
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        async for piece in body:
            parser.write(piece)
            if reader.waiting >= WRITTEN_AT_ONCE:
                await asyncio.to_thread(reader.flush)
        parser.finalize()
        await asyncio.to_thread(reader.flush)
    except ClientDisconnect:
        raise BadRequest("The client left before the end of its file", code="client_disconnected") from None
    except MultipartParseError as error:
        raise BadRequest(f"The form cannot be read: {error}", code="invalid_form") from None
    finally:
        await asyncio.to_thread(reader.close)
    return reader.form()


@final
class _Reader:
    """What the parser calls."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._header, self._value, self._disposition = b"", b"", b""
        self._field = ""
        self._pieces: list[tuple[str, bytes]] = []
        self._sizes: dict[str, int] = {}
        self._files: dict[str, BinaryIO] = {}
        self._names: dict[str, str] = {}
        self._metadata: list[bytes] | None = None
        self._ended = False
        self._parts = 0
        self.waiting = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add_header(data[start:end], b""),
            "on_header_value": lambda data, start, end: self._add_header(b"", data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._head_read,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_end": self._end_form,
        }

    def flush(self) -> None:
        for field, data in self._pieces:
            if field not in self._files:
                self._files[field] = (self._folder / field).open("xb")
            self._files[field].write(data)
        self._pieces, self.waiting = [], 0

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def form(self) -> Form:
        if not self._ended:
            raise BadRequest("The form is cut off", code="invalid_form")
        if self._metadata is None:
            raise BadRequest(f"The form has no field '{METADATA}'", param=METADATA, code="missing_required_parameter")
        for field in self._names:
            (self._folder / field).touch()  # an empty file has no piece
        return Form({name: self._folder / name for name in self._names}, self._names, b"".join(self._metadata))

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest("The form has too many fields", code="invalid_form")
        self._disposition = self._header = self._value = b""
        self._field = ""

    def _add_header(self, name: bytes, value: bytes) -> None:
        self._header += name
        self._value += value
        if len(self._header) + len(self._value) > MAX_HEADER_BYTES:
            raise BadRequest("The form has a header that is too long", code="invalid_form")

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _head_read(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == METADATA:
            if self._metadata is not None:
                raise BadRequest("The form has `metadata` twice", param=name, code="invalid_form")
            self._metadata = []
        elif name in FILES:
            if name in self._names:
                raise BadRequest(f"The form has `{name}` twice", param=name, code="invalid_form")
            self._names[name] = plain_name(options.get(b"filename"))
        else:
            raise BadRequest(
                f"The form has a field '{name[:80]}': expected artifact, metadata and reference",
                param=name[:80] or None,
                code="unknown_parameter",
            )
        self._field = name

    def _data(self, data: bytes) -> None:
        size = self._sizes[self._field] = self._sizes.get(self._field, 0) + len(data)
        if self._field == METADATA:
            if size > MAX_METADATA_BYTES:
                raise BodyTooLarge(f"metadata: it may have {MAX_METADATA_BYTES:,} bytes", param=METADATA)
            assert self._metadata is not None
            self._metadata.append(data)
            return
        if size > self._limit:
            raise BodyTooLarge(f"{self._field}: it may have {self._limit:,} bytes", param=self._field)
        self._pieces.append((self._field, data))
        self.waiting += len(data)

    def _end_form(self) -> None:
        self._ended = True
