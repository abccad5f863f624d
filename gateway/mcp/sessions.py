"""Session ids that every process can check and nobody can make: a random part, and a keyed hash of it and the key that it belongs to.

A session holds nothing but its id, so any process serves it. Ended ones are remembered by the process that ended them.
"""

import hashlib
import hmac
import secrets
from typing import Final, final

MOST_ENDED: Final = 10_000


@final
class Sessions:
    """`secret` is the same in every process of an installation."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(b"penstock mcp sessions v1:" + secret).digest()
        self._ended: dict[str, None] = {}  # the oldest is forgotten first

    def begin(self, key_id: str) -> str:
        nonce = secrets.token_hex(16)
        return f"{nonce}{self._mark(nonce, key_id)}"

    def valid(self, session: str, key_id: str) -> bool:
        """Whether it was begun for this key and is not ended here."""
        nonce, mark = session[:32], session[32:]
        return hmac.compare_digest(mark.encode(), self._mark(nonce, key_id).encode()) and session not in self._ended

    def end(self, session: str) -> None:
        if len(self._ended) >= MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session] = None

    def _mark(self, nonce: str, key_id: str) -> str:
        return hmac.new(self._secret, f"{nonce}:{key_id}".encode(), hashlib.sha256).hexdigest()
