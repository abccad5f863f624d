"""Provider keys at rest: sealed with a key from outside the database, or left as the `${VAR}` references that they are."""

import base64
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.stdlib.get_logger(__name__)

SEALED = "sealed:v1:"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}")


class BoxError(Exception):
    """A sealed value cannot be opened: the secret key is missing, or it is another one than at the time of sealing."""


class SecretBox:
    """Seals and opens texts. `key` is asked only when there is something to do: most installations have references.

    `python` runs what `apart` needs.
    """

    def __init__(self, key: Callable[[], bytes], python: str = sys.executable) -> None:
        self._key = key
        self._python = python
        self._opened: dict[str, str] = {}  # while a server started
        self._child: _Child | None = None
        self._apart = False

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Has another process do the work of these lines, and keeps what it opened: a server whose secrets stay as they were at its start
        never loads the library, which would stay in memory as long as it runs."""
        self._apart = True
        try:
            yield
        finally:
            self._apart = False
            child, self._child = self._child, None
            if child is not None:
                child.end()

    def seal(self, text: str) -> str:
        """Raises BoxError."""
        key = _fernet_key(self._key())
        done = self._asked(key, "seal", text)
        if done is None:
            from cryptography.fernet import Fernet  # noqa: PLC0415 — 30 ms and 8 MB that references never need

            done = Fernet(key).encrypt(text.encode()).decode()
        return SEALED + done

    def open(self, sealed: str) -> str:
        """The text behind `seal`'s result. Raises BoxError."""
        known = self._opened.get(sealed)
        if known is not None:
            return known
        key, token = _fernet_key(self._key()), sealed.removeprefix(SEALED)
        text = self._asked(key, "open", token)
        if text is not None:
            self._opened[sealed] = text
            return text
        from cryptography.fernet import Fernet, InvalidToken  # noqa: PLC0415 — as above

        try:
            return Fernet(key).decrypt(token).decode()
        except InvalidToken as error:
            raise BoxError(
                "sealed with another secret key: restore PENSTOCK_SECRET_KEY, or set the value again"
            ) from error

    def _asked(self, key: bytes, what: str, text: str) -> str | None:
        """None: to be done here."""
        if not self._apart:
            return None
        try:
            if self._child is None:
                self._child = _Child(self._python, key)
            return self._child.ask(what, text)
        except (OSError, ValueError) as error:
            log.info("secrets.not_apart", reason=str(error))
            self._apart = False
            return None


class _Child:
    """`gateway.fernet_process`, running. Raises OSError, ValueError."""

    def __init__(self, python: str, key: bytes) -> None:
        program = Path(__file__).with_name("fernet_process.py")
        self._process = subprocess.Popen(  # noqa: S603 — a file of this package
            [python, "-P", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        try:
            self._say(key.decode())
        except OSError:  # it has ended already
            self.end()
            raise

    def ask(self, what: str, text: str) -> str | None:
        self._say((what, text))
        assert self._process.stdout is not None, "it is a pipe"
        answer: str | None = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        self._process.communicate()

    def _say(self, what: object) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()


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
