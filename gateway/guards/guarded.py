"""What guards leave of a call."""

from collections.abc import Callable

import msgspec


class Guarded(msgspec.Struct, frozen=True):
    """What guards made of a call: `body` is what may leave, `mark` says which guards those are.

    `body` is empty as long as they have not spoken, and where they refuse. `hide` makes of a text that the client got what the model wrote.
    """

    mark: bytes
    body: bytes
    hide: Callable[[str], str] | None = None
