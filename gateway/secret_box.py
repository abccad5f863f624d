"""Provider keys at rest: sealed with a key from outside the database, or left as the `${VAR}` references that they are."""

import base64
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

SEALED = "sealed:v1:"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}")


class BoxError(Exception):
    """A sealed value cannot be opened: the secret key is missing, or it is another one than at the time of sealing."""


class SecretBox:
    """Seals and opens texts. `key` is asked only when there is something to do: most installations have references."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key

    def seal(self, text: str) -> str:
        from cryptography.fernet import Fernet  # noqa: PLC0415 — 30 ms and 8 MB that references never need

        return SEALED + Fernet(_fernet_key(self._key())).encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text behind `seal`'s result. Raises BoxError."""
        from cryptography.fernet import Fernet, InvalidToken  # noqa: PLC0415 — as above

        try:
            return Fernet(_fernet_key(self._key())).decrypt(sealed.removeprefix(SEALED)).decode()
        except InvalidToken as error:
            raise BoxError(
                "sealed with another secret key: restore PENSTOCK_SECRET_KEY, or set the value again"
            ) from error


def is_reference(value: str) -> bool:
    """Whether a value takes anything from the environment; then it is stored as it was written."""
    return _REFERENCE.search(value) is not None


def is_sealed(value: str) -> bool:
    return value.startswith(SEALED)


def shown(value: str | None) -> str | None:
    """A secret as REST and the console show it: references by their name without a default, anything else as `set`."""
    if value is None:
        return None
    match = _REFERENCE.fullmatch(value)
    return f"${{{match.group(1)}}}" if match else "set"


def load_or_create_key(path: Path) -> bytes:
    """The key in `path`, made on first use with mode 600. Processes that start together end up with the same one."""
    if not path.exists():
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mkstemp gives mode 600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # atomic, and refuses to overwrite
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    return path.read_bytes().strip()


def _fernet_key(secret: bytes) -> bytes:
    """Any long random text will do as the secret: Fernet wants exactly 32 bytes in base64."""
    if len(secret) < 16:
        raise BoxError("the secret key is shorter than 16 characters: use for instance `openssl rand -base64 32`")
    return base64.urlsafe_b64encode(hashlib.sha256(b"penstock secret box v1:" + secret).digest())
