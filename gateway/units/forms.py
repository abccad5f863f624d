"""Forms with files (RFC 7578) as offsets into the bytes that the client sent: nothing is copied, and what two readers could read
differently is refused, so that the upstream reads the form that was checked."""

import re
from typing import Final, NoReturn, final

import msgspec

from gateway.errors import BadRequest

MAX_PARTS: Final = 256
MAX_HEAD_BYTES: Final = 4096
MAX_VALUE_BYTES: Final = 256 * 1024

_BOUNDARY = re.compile(
    rb"""^multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\\]+)"|([^\s;"]+))\s*(?:;.*)?$""",
    re.IGNORECASE | re.DOTALL,
)
_ALLOWED = re.compile(rb"^[0-9A-Za-z'()+_,\-./:=?]{1,70}$")  # RFC 2046 5.1.1, less the space
_NAME = re.compile(
    rb'^form-data\s*;\s*name=(?:"([A-Za-z0-9_.\-\[\]]{1,128})"|([A-Za-z0-9_.\-]{1,128}))'
    rb'((?:\s*;\s*filename\*?=(?:"(?:[^"\\]|\\.)*"|[^\s;"]+))*)$',
    re.IGNORECASE | re.DOTALL,
)


class Part(msgspec.Struct, frozen=True, gc=False):
    """`start` and `end` are the value's, in the body."""

    name: str
    start: int
    end: int
    file: bool

    @property
    def size(self) -> int:
        return self.end - self.start


@final
class Form:
    """A form that was read. What decides something here may occur once: asking for a field that is there twice is refused."""

    def __init__(self, body: bytes, parts: tuple[Part, ...], content_type: bytes) -> None:
        self._body = body
        self.parts = parts
        self.content_type = content_type

    def one(self, name: str) -> Part | None:
        """The only part of that name. Raises BadRequest where there are several."""
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise BadRequest(f"The form has {len(found)} fields '{name}'", param=name, code="duplicate_parameter")
        return found[0] if found else None

    def text(self, name: str) -> str | None:
        part = self.one(name)
        if part is None:
            return None
        if part.file or part.size > MAX_VALUE_BYTES:
            raise BadRequest(f"Invalid '{name}': a text is expected, not a file", param=name, code="invalid_type")
        try:
            return self._body[part.start : part.end].decode()
        except UnicodeDecodeError:
            raise BadRequest(f"Invalid '{name}': not UTF-8", param=name, code="invalid_type") from None

    def number(self, name: str, least: int, most: int) -> int | None:
        text = self.text(name)
        if not text:
            return None
        if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
            raise BadRequest(f"Invalid '{name}': a number from {least} to {most}", param=name, code="invalid_value")
        return int(text)

    def truth(self, name: str) -> bool:
        text = (self.text(name) or "false").lower()
        if text not in {"true", "false", "1", "0"}:
            raise BadRequest(f"Invalid '{name}': true or false", param=name, code="invalid_type")
        return text in {"true", "1"}

    def files(self, *names: str) -> list[Part]:
        return [part for part in self.parts if part.name in names and part.file]

    def required(self, name: str) -> str:
        text = self.text(name)
        if not text:
            _missing(name)
        return text

    def around(self, name: str) -> tuple[memoryview, memoryview]:
        """What stands before the value of a field, and behind it."""
        part = self.one(name)
        assert part is not None
        whole = memoryview(self._body)
        return whole[: part.start], whole[part.end :]

    def bytes_of(self, part: Part) -> memoryview:
        return memoryview(self._body)[part.start : part.end]

    def text_bytes(self, *without: str) -> int:
        """Of all fields that are no files."""
        return sum(part.size for part in self.parts if not part.file and part.name not in without)


def read_form(body: bytes, content_type: bytes | None) -> Form:
    """Raises BadRequest for what is no form, or one that could be read in two ways."""
    match = _BOUNDARY.match(content_type.strip()) if content_type is not None else None
    if match is None:
        raise BadRequest(
            "This endpoint takes a form: content-type must be multipart/form-data with a boundary",
            code="unsupported_content_type",
        )
    boundary = match[1] or match[2]
    if _ALLOWED.match(boundary) is None or (content_type or b"").lower().count(b"boundary=") != 1:
        _damaged("its boundary has characters that none may have")
    parts = _parts(body, b"--" + boundary)
    return Form(body, parts, b'multipart/form-data; boundary="%b"' % boundary)


def _parts(body: bytes, dash: bytes) -> tuple[Part, ...]:
    if not body.startswith(dash):
        _damaged("it does not begin with its boundary")
    delimiter = b"\r\n" + dash
    parts: list[Part] = []
    at = len(dash)
    while not body.startswith(b"--", at):
        if not body.startswith(b"\r\n", at):
            _damaged("something else follows a boundary")
        if len(parts) == MAX_PARTS:
            _damaged(f"it has more than {MAX_PARTS} parts")
        at += 2
        head_end = body.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES)
        if head_end < 0:
            _damaged("a part has no end of its header")
        start = head_end + 4
        end = body.find(delimiter, start)
        if end < 0:
            _damaged("its last boundary is missing")
        parts.append(_part(body[at:head_end], start, end))
        at = end + len(delimiter)
    if body[at + 2 :].strip(b"\r\n \t"):
        _damaged("something follows its end")
    return tuple(parts)


def _part(head: bytes, start: int, end: int) -> Part:
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        lower = name.lower()
        if not colon or lower in fields or name != name.strip() or b"\n" in line or b"\r" in line:
            _damaged("the header of a part is damaged")
        fields[lower] = value.strip()
    if b"content-transfer-encoding" in fields:  # RFC 7578 4.7: not to be sent, and some readers would decode it
        _damaged("a part has a content-transfer-encoding")
    match = _NAME.match(fields.get(b"content-disposition", b""))
    if match is None or match[3].lower().count(b"name=") != match[3].lower().count(b"filename="):
        _damaged("a part has no name, or one with unusual characters")
    return Part((match[1] or match[2]).decode(), start, end, bool(match[3]))


def _missing(name: str) -> NoReturn:
    raise BadRequest(f"Missing required parameter: '{name}'", param=name, code="missing_required_parameter")


def _damaged(why: str) -> NoReturn:
    raise BadRequest(f"The form cannot be read: {why}", code="invalid_form")
