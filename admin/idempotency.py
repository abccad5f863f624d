"""Idempotency-Key: a POST that is sent again, because its answer was lost, makes nothing twice and gets the same answer.

The answer is kept in the transaction that makes the object, so there is no moment in which one exists without the other, and
concurrent duplicates wait for each other in `changing`. Answers are sealed (that to a new key holds its secret) and forgotten
after a day. What failed is not kept: it may be tried again.
"""

import hashlib
import time

import msgspec
from sqlalchemy import Connection, delete, insert, select

from admin.tables import idempotency
from gateway.errors import Conflict
from gateway.secret_box import BoxError, SecretBox

KEPT_S = 86_400


class Answer(msgspec.Struct, frozen=True):
    """`replayed`: this is what the first of several equal requests was told."""

    status: int
    body: bytes
    replayed: bool = False


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """Of what is asked: the same JSON in another order or spacing is the same request."""
    meaning = msgspec.json.encode(msgspec.json.decode(body), order="sorted") if body.strip() else b""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), meaning))).digest()


def recall(tx: Connection, key: str, asked: bytes, box: SecretBox) -> Answer | None:
    """The answer kept under a key. Raises Conflict where the key stands for another request."""
    tx.execute(delete(idempotency).where(idempotency.c.created_at < time.time() - KEPT_S))
    row = tx.execute(select(idempotency).where(idempotency.c.key == key)).one_or_none()
    if row is None:
        return None
    if bytes(row.fingerprint) != asked:
        raise Conflict(
            "This Idempotency-Key was used for another request: send a new one.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    try:
        return Answer(row.status, box.open(row.answer).encode(), replayed=True)
    except BoxError as error:
        raise Conflict(
            "This request was carried out before, but its answer was sealed with another secret key.",
            param="Idempotency-Key",
            code="idempotency_answer_lost",
        ) from error


def keep(tx: Connection, key: str, asked: bytes, answer: Answer, box: SecretBox) -> None:
    sealed = box.seal(answer.body.decode())
    tx.execute(
        insert(idempotency).values(
            key=key, fingerprint=asked, status=answer.status, answer=sealed, created_at=time.time()
        )
    )
