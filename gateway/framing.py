"""What a request's header says of its body, and which headers say it in a way that proxies and servers read differently."""

from gateway import errors


def declared_length(headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes], version: str) -> int:
    """The declared length (0 if none), after refusing what proxies and servers read in different ways (RFC 9112 6.3, 11.2)."""
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        for single in (b"host", b"content-length", b"transfer-encoding", b"authorization"):
            if names.count(single) > 1:
                raise errors.BadRequest(f"The header has more than one {single.decode()}", code="bad_request")
    if version == "1.1":
        if b"host" not in fields:
            raise errors.BadRequest("A request needs a Host header", code="bad_request")
    elif version != "1.0":  # the parser lets a first line without a version pass for HTTP/0.9
        raise errors.BadRequest(f"This server speaks HTTP/1.1, not HTTP/{version}", code="bad_request")
    length = fields.get(b"content-length")
    encoding = fields.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise errors.BadRequest("Content-Length and Transfer-Encoding exclude each other", code="bad_request")
        if version != "1.1" or encoding.lower() != b"chunked":
            raise errors.BadRequest("Only 'Transfer-Encoding: chunked' is understood", code="bad_request")
        return 0
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 18:
        raise errors.BadRequest("Content-Length is not a number", code="bad_request")
    return int(length)
