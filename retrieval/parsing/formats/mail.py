"""E-mail (RFC 5322, MIME): the headers that matter, the body, and attachments of every kind that can be read."""

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Final

from retrieval.parsing import charset, registry
from retrieval.parsing.errors import InvalidFile, ParseError, TooDeep, TooLarge, TooMuchMemory
from retrieval.parsing.formats import html
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_HEADERS: Final = ("From", "To", "Cc", "Date", "Subject")
_MAX_NESTING: Final = 4
_MAX_PARTS: Final = 1000
_LEVELS: Final = 20  # more than any format has


def parse(source: Source, out: Writer) -> None:
    if source.nesting > _MAX_NESTING:
        raise TooDeep(f"The message holds messages in each other, more than {_MAX_NESTING} deep.")
    message = email.message_from_bytes(source.read(source.limits.file_bytes), policy=email.policy.default)
    if not isinstance(message, EmailMessage) or not message.keys():
        raise InvalidFile("The file is no e-mail: it has no header.")
    subject = _header(message, "Subject") or source.name
    out.title = out.title or subject
    out.enter(1, subject)
    headers = [f"{name}: {value}" for name in _HEADERS if (value := _header(message, name))]
    out.add("note", "\n".join(headers))
    body = message.get_body(preferencelist=("plain", "html"))
    if isinstance(body, EmailMessage):
        _body(body, source, out)
    for place, part in enumerate(_attachments(message), start=1):
        if place > _MAX_PARTS:
            raise TooLarge(f"The message has more than {_MAX_PARTS} parts.")
        _attachment(part, source, out)
    out.leave(1)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, LookupError, AttributeError, IndexError):  # the library's on malformed addresses and dates
        return ""


def _body(part: EmailMessage, source: Source, out: Writer) -> None:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return
    text, encoding = charset.decode(content, part.get_content_charset())
    out.encoding = out.encoding or encoding
    if part.get_content_type() == "text/html":
        html.parse_text(text, out, max_depth=source.limits.depth)
        return
    for paragraph in text.split("\n\n"):
        out.add("quote" if paragraph.lstrip().startswith(">") else "paragraph", paragraph)


def _attachments(message: EmailMessage) -> Iterator[EmailMessage]:
    """What is neither the body nor another form of it."""
    try:
        for part in message.iter_attachments():
            if isinstance(part, EmailMessage):
                yield part
    except (KeyError, AttributeError, TypeError):  # a multipart that has no parts
        return


def _attachment(part: EmailMessage, source: Source, out: Writer) -> None:
    """An attachment that cannot be read is named in the warnings; the message is still worth having."""
    name = " ".join((part.get_filename() or part.get_content_type()).split())
    out.enter(2, name)
    encoding, title = out.encoding, out.title
    out.below += _LEVELS
    try:
        inner = Source(
            f"{name}.eml" if part.get_content_type() == "message/rfc822" else name,
            _content(part),
            source.limits,
            declared=part.get_content_type(),
            charset=part.get_content_charset(),
            nesting=source.nesting + 1,
        )
        if inner.size:
            registry.parse_into(inner, out)
    except (TooLarge, TooMuchMemory, TooDeep):
        raise
    except ParseError as error:
        out.warn(f"The attachment {name} was left out: {error.message}")
    out.below -= _LEVELS
    out.encoding, out.title = encoding, title
    out.leave(2)


def _content(part: EmailMessage) -> bytes:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload(0)
        return inner.as_bytes() if isinstance(inner, EmailMessage) else b""
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
