"""What is kept of responses and conversations, on both databases."""

import asyncio
import json
import time
from collections.abc import Iterator

import msgspec
import pytest
from msgspec import Raw
from sqlalchemy import Engine, func, select

from gateway import errors
from gateway.database import appending, connect
from gateway.responses import store
from gateway.responses.frame import Status
from gateway.responses.items import id_of, whole
from gateway.responses.runs import Run, Runs
from gateway.responses.shelf import Shelf
from gateway.responses.store import Stored
from gateway.tables import response_events, responses

OWNER = "key key_1"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


def items(*texts: str, stem: str = "s") -> list[Raw]:
    made = [Raw(json.dumps({"role": "user", "content": text}).encode()) for text in texts]
    return whole(made, stem)


def stored(id_: str, *texts: str, status: Status = "completed", **more: object) -> Stored:
    output = json.dumps({"id": id_, "status": status, "output": [{"type": "message", "id": f"out_{id_}"}]})
    made = Stored(
        id=id_,
        owner=OWNER,
        created_at=time.time(),
        status=status,
        request=msgspec.json.encode(items(*texts, stem=id_)),
        response=output.encode(),
    )
    return msgspec.structs.replace(made, **more)


def ids(found: list[Raw]) -> list[str]:
    return [id_of(one) for one in found]


def test_a_chain_is_read_from_its_beginning(engine: Engine) -> None:
    """Each turn's input and output; nothing of it is somebody else's, and a part that is gone is named."""
    with appending(engine) as tx:
        store.save(tx, stored("a", "one"))
        store.save(tx, stored("b", "two", "three", previous_id="a"))
        store.save(tx, stored("r", status="in_progress"))
        assert ids(store.history(tx, OWNER, "b")) == ["msg_a0000", "out_a", "msg_b0000", "msg_b0001", "out_b"]
        assert ids(store.inputs(tx, OWNER, "b")) == ["msg_a0000", "out_a", "msg_b0000", "msg_b0001"]
        for owner, id_ in (("key key_2", "b"), (OWNER, "r"), (OWNER, "x")):
            with pytest.raises(errors.BadRequest):
                store.history(tx, owner, id_)
        store.remove(tx, OWNER, "a")
        with pytest.raises(errors.BadRequest, match="'a'"):
            store.history(tx, OWNER, "b")


def test_an_end_is_written_once(engine: Engine) -> None:
    """What was given up or cancelled meanwhile does not come back as completed."""
    with appending(engine) as tx:
        store.save(tx, stored("a", status="queued", background=True, seen_at=100.0))
        store.save(tx, stored("b", status="queued", background=True, seen_at=100.0))
        store.save(tx, stored("c", status="queued", background=True, seen_at=100.0))
        assert store.seen(tx, ["a", "b", "c"], 200.0) == set()
        store.ask_to_stop(tx, "b")
        assert store.seen(tx, ["a", "b", "c", "gone"], 200.0) == {"b", "gone"}
        assert store.end(tx, stored("a")) == "completed"
        assert not store.any_lost(tx, 150.0, ())
        assert not store.any_lost(tx, 250.0, ("b", "c"))
        assert store.any_lost(tx, 250.0, ("b",))
        assert store.give_up(tx, 250.0, ()) == 2
        assert store.end(tx, stored("c")) is None
        found = {one: store.get(tx, OWNER, one) for one in "abc"}
    assert {one: row.status for one, row in found.items()} == {"a": "completed", "b": "cancelled", "c": "failed"}
    assert json.loads(found["c"].response)["error"]["code"] == "server_error"
    assert json.loads(found["b"].response)["status"] == "cancelled"


def test_an_end_does_not_come_back_from_a_deletion_or_a_cancellation(engine: Engine) -> None:
    """Whoever asked for it was told so by another process, while the last words were on their way."""
    with appending(engine) as tx:
        for id_ in ("deleted", "cancelled"):
            store.save(tx, stored(id_, status="queued", background=True, seen_at=100.0))
        store.remove(tx, OWNER, "deleted")
        assert store.end(tx, stored("deleted")) is None
        assert store.find(tx, OWNER, "deleted") is None
        assert store.ask_to_stop(tx, "cancelled")
        assert store.end(tx, stored("cancelled")) == "cancelled"
        assert not store.ask_to_stop(tx, "cancelled")
        kept = store.get(tx, OWNER, "cancelled")
    assert kept.status == json.loads(kept.response)["status"] == "cancelled"
    assert json.loads(kept.response)["output"]


def begun(id_: str) -> Run:
    """In the background, and silent for so long that others would give it up."""
    return Run(stored(id_, status="queued", background=True, seen_at=100.0), {}, b"", 0.0)


async def test_a_run_that_waits_for_the_database_is_given_up_by_nobody(engine: Engine) -> None:
    """Whether it still speaks or has ended: a database that was away knows neither, and whoever comes first asks about it."""
    shelf = Shelf(engine)
    runs, others = Runs(shelf, alone=False), Runs(shelf, alone=False)
    speaking, ended, dead = begun("speaking"), begun("ended"), begun("dead")
    with appending(engine) as tx:
        for run in (speaking, ended, dead):
            store.save(tx, run.stored)
    for run in (speaking, ended):
        runs.add(run)
        assert not runs.lost(run.stored)
    ended.end_with(b"event: response.completed\n\n")
    await runs.sweep()
    await runs._beat()
    await others.sweep()
    assert await shelf.ask(
        lambda tx: {one: store.get(tx, OWNER, one).status for one in ("speaking", "ended", "dead")}
    ) == {
        "speaking": "queued",
        "ended": "queued",
        "dead": "failed",
    }
    said: list[str] = []
    await runs.keep_end(ended, stored("ended"), lambda _: said.append("ended"))
    assert (await shelf.ask(lambda tx: store.get(tx, OWNER, "ended"))).status == "completed"
    assert said == ["ended"]


async def test_what_was_said_before_a_cancellation_is_kept_with_the_end(engine: Engine) -> None:
    """The beat that hears of it, from another process, keeps nothing; so it must not count as kept."""
    shelf = Shelf(engine)
    runs, run = Runs(shelf, alone=False), begun("cancelled")
    await shelf.change(lambda tx: store.save(tx, run.stored))
    runs.add(run)
    run.send(b"event: response.created\n\nevent: response.queued\n\n")
    await shelf.change(lambda tx: store.ask_to_stop(tx, "cancelled"))
    await runs._beat()
    run.end_with(b"event: response.incomplete\n\n")
    await runs.keep_end(run, stored("cancelled", status="cancelled"), lambda _: None)
    parts = await shelf.ask(lambda tx: store.events_after(tx, "cancelled", -1))
    names = [b"response.created", b"response.queued", b"response.incomplete"]
    assert b"".join(events for _, events in parts) == b"".join(b"event: %b\n\n" % name for name in names)


async def test_the_end_of_a_run_that_was_deleted_is_kept_nowhere(engine: Engine) -> None:
    """Neither as a response, nor as events, nor in its conversation."""
    shelf = Shelf(engine)
    runs, run = Runs(shelf, alone=False), begun("deleted")
    await shelf.change(lambda tx: store.save(tx, run.stored))
    runs.add(run)
    run.end_with(b"event: response.incomplete\n\n")
    await shelf.change(lambda tx: store.remove(tx, OWNER, "deleted"))
    said: list[str] = []
    await runs.keep_end(run, stored("deleted", status="cancelled"), lambda _: said.append("deleted"))
    assert await shelf.ask(lambda tx: store.find(tx, OWNER, "deleted")) is None
    assert await shelf.ask(lambda tx: store.events_after(tx, "deleted", -1)) == []
    assert said == []


def test_what_is_old_is_forgotten_with_its_events(engine: Engine) -> None:
    """And nothing else is."""
    with appending(engine) as tx:
        for number in range(450):
            store.save(tx, stored(f"old{number}", created_at=50.0))
        store.save(tx, stored("new", created_at=150.0))
        for id_ in ("old3", "new"):
            store.add_events(tx, id_, 1, b"x")
        store.add_events(tx, "nowhere", 1, b"x")
        store.forget(tx, 100.0)
        assert tx.execute(select(responses.c.id)).scalars().all() == ["new"]
        assert tx.execute(select(func.count()).select_from(response_events)).scalar_one() == 1
        assert store.events_after(tx, "new", 0) == [(1, b"x")]
        assert store.events_after(tx, "new", 1) == []


def test_a_conversation_keeps_its_order(engine: Engine) -> None:
    """Whatever is added or taken out; a response that was part of it still knows what it was made from."""
    with appending(engine) as tx:
        made = store.new_conversation("conv_1", OWNER, Raw(b"{}"))
        store.create(tx, made, items("a", "b"))
        store.save(tx, stored("r", "c", conversation_id="conv_1", before=store.end_of(tx, "conv_1")))
        store.append(tx, OWNER, "conv_1", items("c", stem="t"))
        assert ids(store.items_of(tx, "conv_1")) == ["msg_s0000", "msg_s0001", "msg_t0000"]
        assert ids(store.inputs(tx, OWNER, "r")) == ["msg_s0000", "msg_s0001", "msg_r0000"]
        store.remove_item(tx, "conv_1", "msg_s0001")
        store.append(tx, OWNER, "conv_1", items("d", stem="u"))
        assert ids(store.items_of(tx, "conv_1")) == ["msg_s0000", "msg_t0000", "msg_u0000"]
        store.append(tx, "key key_2", "conv_1", items("e", stem="v"))
        assert len(store.items_of(tx, "conv_1")) == 3
        with pytest.raises(errors.NotFound):
            store.conversation(tx, "key key_2", "conv_1")
        store.remove_conversation(tx, OWNER, "conv_1")
        assert ids(store.inputs(tx, OWNER, "r")) == ["msg_r0000"]


async def test_writes_at_the_same_time_share_a_transaction_and_its_failure(engine: Engine) -> None:
    """Nobody is told that something is kept which is not."""
    shelf = Shelf(engine)
    one, two = stored("a"), stored("b")
    kept = await asyncio.gather(
        shelf.write(lambda tx: store.save(tx, one)), shelf.write(lambda tx: store.save(tx, two))
    )
    assert list(kept) == [True, True]
    broken = stored("c", owner=None)
    assert await shelf.write(lambda tx: store.save(tx, broken)) is False
    assert await shelf.ask(lambda tx: store.find(tx, OWNER, "c")) is None
    assert await shelf.ask(lambda tx: store.get(tx, OWNER, "b")) == two
    await shelf.close()
