"""One HTTP request that arrived whole, and the way to answer it: the port that the server's own protocol fills."""

from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from inference.serving.errors import BadInput

JSON: Final = b"application/json"


class Exchange(Protocol):
    """`head` is a block of finished header lines. Names of `headers` are in lower case."""

    url: bytes
    method: bytes

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...

    @property
    def body(self) -> bytes: ...

    @property
    def started_at(self) -> float: ...

    def respond(self, status: int, head: bytes, body: bytes) -> None: ...


def path_of(exchange: Exchange) -> str:
    """Decoded, without the query."""
    return unquote(exchange.url.partition(b"?")[0].decode("latin-1"))


def query_of(exchange: Exchange) -> Mapping[str, str]:
    """The last value of each."""
    _, _, query = exchange.url.partition(b"?")
    if not query:
        return {}
    return {name: values[-1] for name, values in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()}


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises BadInput."""
    try:
        made = msgspec.json.decode(body)
    except RecursionError:
        raise BadInput("The body is nested too deeply", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(made, dict):
        raise BadInput("The body has to be a JSON object", code="invalid_json")
    return made


def version_of(text: str, place: str) -> int:
    """Raises BadInput."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadInput(f"Invalid '{place}': expected the number of a version", param=place, code="invalid_version")
    return int(text)
