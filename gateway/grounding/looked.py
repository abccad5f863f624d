"""What one call is to be answered from."""

from typing import final

from gateway.grounding.ports import Booking, Wanted


@final
class Looked:
    """`version` is that of everything that the answer rests on beside the request. `done`: the passages are in the call's body, which
    `body` remembers.
    """

    __slots__ = ("body", "booked", "done", "instructions", "version", "wanted")

    def __init__(self, wanted: Wanted, booked: Booking, instructions: str, version: bytes) -> None:
        self.wanted = wanted
        self.booked = booked
        self.instructions = instructions
        self.version = version
        self.done = False
        self.body: bytes | None = None
