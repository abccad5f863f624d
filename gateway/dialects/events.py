"""Takes a stream of server-sent events (WHATWG HTML 9.2) apart: any split of the bytes in, the data of whole events out."""

from typing import final

from gateway import errors

MAX_EVENT_BYTES = 4 * 1024 * 1024


@final
class EventReader:
    """The state between two pieces. Names of events are left out: those who use them repeat them in the data."""

    __slots__ = ("_most", "_tail")

    def __init__(self, most: int = MAX_EVENT_BYTES) -> None:
        self._most = most
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that is complete by now; comments and bare fields have none. Raises UpstreamError."""
        return [data for event in self.events(data) if (data := payload(event))]

    def events(self, data: bytes) -> list[bytes]:
        """Every event that is complete by now, as it came, less its empty line; its lines end in LF. Raises UpstreamError."""
        if self._tail:
            data = self._tail + data
        half = b""
        if data.find(b"\r") >= 0:
            if data.endswith(b"\r"):  # perhaps half of a CRLF
                data, half = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        whole, ends, rest = data.rpartition(b"\n\n")
        self._tail = rest + half
        if len(self._tail) > self._most:
            raise errors.UpstreamError(f"The upstream sent an event of more than {self._most} bytes")
        return [event for event in whole.split(b"\n\n") if event] if ends else []

    def close(self) -> list[bytes]:
        """The end of the body: an event that only lacks its empty line still counts."""
        return self.feed(b"\n\n") if self._tail.strip() else []


def payload(event: bytes) -> bytes:
    """`data` lines joined by LF."""
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
