"""In which block an answer is, by the id in it: on both databases, over many blocks, and gone with them."""

from collections.abc import Sequence

from msgspec import msgpack
from sqlalchemy import Engine, func, select

from gateway import request_store
from gateway.database import appending, connect, reading
from gateway.journal_records import Settled
from gateway.ledger_blocks import Part
from gateway.tables import answer_marks
from gateway.usage import of_tokens

BLOCKS = 450  # more than are read at once


def block(engine: Engine, number: int, answers: Sequence[str | None], key: str = "key_1") -> list[str]:
    """The ids of its requests; its time is `number` seconds."""
    ids = [f"req_{number * 1000:012x}{place:020x}" for place in range(len(answers))]
    calls = [
        Settled(id_, float(number), "chat", 200, None, None, of_tokens(1, 1), key_id=key, answer_id=answer)
        for id_, answer in zip(ids, answers, strict=True)
    ]
    part = Part()
    part.take(calls, [msgpack.encode(call) for call in calls])
    part.keys.add(key)
    with appending(engine) as tx:
        request_store.add(tx, "session", part)
    return ids


def test_an_answer_is_found_by_its_own_id(database_url: str) -> None:
    """The newest that is admitted, wherever it is; nothing before a given moment; nothing after its block was forgotten."""
    engine = connect(database_url)
    oldest = block(engine, 1, ["chatcmpl-old", None, "chatcmpl-same"])
    for number in range(2, BLOCKS):
        block(engine, number, [f"chatcmpl-{number}", None])
    other = block(engine, BLOCKS, ["chatcmpl-same"], key="key_2")

    def found(*ids: str, key: str | None = None, since: float = 0.0) -> dict[str, str]:
        with reading(engine) as tx:
            made = request_store.answered(tx, ids, lambda record: key in {None, record.key_id}, since)
        return {id_: record.id for id_, record in made.items()}

    assert found("chatcmpl-old", "chatcmpl-nobody") == {"chatcmpl-old": oldest[0]}
    assert found("chatcmpl-same") == {"chatcmpl-same": other[0]}
    assert found("chatcmpl-same", key="key_1") == {"chatcmpl-same": oldest[2]}
    assert found("chatcmpl-old", since=100.0) == {}
    assert len(found(*(f"chatcmpl-{number}" for number in range(2, BLOCKS)))) == BLOCKS - 2

    with appending(engine) as tx:
        request_store.forget(tx, 3.0)
    assert found("chatcmpl-old") == {}
    with reading(engine) as tx:
        assert tx.execute(select(func.count()).select_from(answer_marks)).scalar_one() == BLOCKS - 2
    engine.dispose()
