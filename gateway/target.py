"""One deployment on the wire, prepared."""

from typing import Final
from urllib.parse import quote

import msgspec

from gateway.catalog import Deployment
from gateway.dialect import Dialect
from gateway.errors import BadRequest
from gateway.pool import Origin
from gateway.spelling import Spelling

IN_PATHS: Final = "/:@!$&()*+,;=~%"


class Target(msgspec.Struct, frozen=True):
    """`head`: request line and header lines up to the ones that differ per request. `where`: those of an answer at the first attempt.

    With a dialect every request has a path of its own behind `base`, and `head` starts with the line after it. `limited`: the provider
    behind it chooses a limit for answers where the client names none, so it is told one. `spelling`: what the provider wants otherwise.
    """

    deployment: Deployment
    origin: Origin
    head: bytes
    where: bytes
    dialect: Dialect | None = None
    base: str = ""
    limited: bool = True
    spelling: Spelling | None = None

    def opening(self, path: str, headers: tuple[tuple[str, str], ...], method: str = "POST") -> bytes:
        """The head of a request in a dialect. Raises BadRequest: a client's model name may end up in here."""
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers)
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise BadRequest("The request needs a header that cannot be sent")
        return f"{method} {self.base}{quote(path, safe=IN_PATHS + '?')} HTTP/1.1\r\n{lines}".encode() + self.head
