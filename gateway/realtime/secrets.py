"""Short-lived keys for browsers: sealed, so that any process of this installation can read them and nobody else can.

Such a secret says whose key it stands for, until when, and what its sessions begin with. It is of use for conversations alone.
"""

from collections.abc import Callable
from typing import Final, final

import msgspec
from msgspec import Raw

from gateway import errors
from gateway.secret_box import SEALED, BoxError, SecretBox

PREFIX: Final = "ek_"
MAX_SESSION_BYTES: Final = 8 * 1024  # it travels in a header
SHORTEST_S: Final = 10
LONGEST_S: Final = 7200
USUAL_S: Final = 600


class Secret(msgspec.Struct, frozen=True):
    """`session`: the object of a `session.update`; `expires_at`: Unix seconds, for beginning one."""

    key_id: str
    expires_at: int
    model: str | None = None
    session: Raw = Raw(b"null")


_secret: Final = msgspec.json.Decoder(Secret)


@final
class Secrets:
    """`unix` is the clock in Unix seconds."""

    def __init__(self, box: SecretBox, unix: Callable[[], float]) -> None:
        self._box = box
        self._unix = unix

    def mint(self, secret: Secret) -> str:
        """Raises BadRequest for what is too long."""
        if len(bytes(secret.session)) > MAX_SESSION_BYTES:
            raise errors.BadRequest(
                f"The session may have {MAX_SESSION_BYTES} bytes; say the rest in a session.update", param="session"
            )
        sealed = self._box.seal(msgspec.json.encode(secret).decode())
        return PREFIX + sealed.removeprefix(SEALED).rstrip("=")  # which no name of a subprotocol may have

    def read(self, shown: str) -> Secret:
        """Raises Unauthenticated, KeyExpired."""
        packed = shown.removeprefix(PREFIX)
        try:
            secret = _secret.decode(self._box.open(packed + "=" * (-len(packed) % 4)))
        except (BoxError, ValueError, msgspec.DecodeError):
            raise errors.Unauthenticated("Incorrect API key provided") from None
        if secret.expires_at <= self._unix():
            raise errors.KeyExpired("This client secret has expired")
        return secret
