"""Bytes to text: by mark, by declaration, as UTF-8, then by statistics; and an honest no."""

import codecs
import re

from charset_normalizer import from_bytes

from retrieval.parsing.errors import InvalidFile, UnknownEncoding, UnsupportedFile

_MARKS = (  # longest first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 64 * 1024
_MOST_CHAOS = 0.15
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MOST_CONTROLS = 0.005
_PRINTABLE = re.compile(rb"[\t\n\r -~]")


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """Text with `\\n` for every line end, and the name of its encoding. Raises UnknownEncoding, UnsupportedFile for binary data."""
    text, encoding = _decode(data, declared)
    if len(_CONTROLS.findall(text, 0, _SAMPLE)) > _MOST_CONTROLS * min(len(text), _SAMPLE):
        raise UnsupportedFile("The file is binary, not text, and of no type that can be read.")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decode(data: bytes, declared: str | None) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding, "its first bytes"), encoding.removesuffix("-sig")
    wide = _wide(data[:_SAMPLE])
    if wide is not None:
        return _strictly(data, wide, "its zero bytes"), wide
    if b"\0" in data[:_SAMPLE]:
        raise UnsupportedFile("The file is binary, not text, and of no type that can be read.")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    if declared is not None and _known(declared):
        return _strictly(data, declared, "what the file declares"), codecs.lookup(declared).name
    return _guess(data)


def _guess(data: bytes) -> tuple[str, str]:
    """The likeliest encoding of a sample that also fits the rest."""
    sample = _telling(data)
    for match in from_bytes(sample, threshold=_MOST_CHAOS):
        try:
            return data.decode(match.encoding), match.encoding
        except (UnicodeDecodeError, LookupError):
            continue
    raise UnknownEncoding("The text is in no encoding that can be told for sure. Save it as UTF-8.")


def _telling(data: bytes) -> bytes:
    """A sample around the first byte beyond ASCII: what comes before it fits nearly every encoding."""
    found = re.search(rb"[\x80-\xff]", data)
    start = max(0, found.start() - _SAMPLE // 4) if found else 0
    return data[start : start + _SAMPLE]


def _strictly(data: bytes, encoding: str, witness: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig")
        raise InvalidFile(
            f"The file is {name} by {witness}, but byte {error.start:,} does not fit. Save it as UTF-8."
        ) from None


def _wide(sample: bytes) -> str | None:
    """UTF-16 without a mark: nearly every second byte of Western text is zero, always on the same side."""
    half = len(sample) // 2
    if half < 2 or b"\0" not in sample:
        return None
    even, odd = sample[0 : 2 * half : 2], sample[1 : 2 * half : 2]
    for high, low, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if high.count(0) > 0.5 * half and low.count(0) < 0.01 * half and len(_PRINTABLE.findall(low)) > 0.5 * half:
            return name
    return None


def _known(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding  # noqa: SLF001 — base64 and rot13 are codecs as well, and there is no public word for it
    except LookupError:
        return False
