"""Whether there is work in the database: asked with the newest revision, so that nobody asks who has none."""

import asyncio
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, insert

from gateway.batches.store import ANY_UNFINISHED
from gateway.database import appending, changing, record_revision
from gateway.responses.store import ANY_RUNNING
from gateway.signs import BATCHES, JOBS, RUNS, Signs
from gateway.tables import batches, responses
from retrieval.job_store import ANY as ANY_JOB


@pytest.fixture
def signs(engine: Engine) -> Signs:
    return Signs(engine, {BATCHES: ANY_UNFINISHED, RUNS: ANY_RUNNING, JOBS: ANY_JOB})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 — nobody would tell
            await asyncio.sleep(0.005)


def add_batch(engine: Engine, status: str) -> None:
    nothing = {"moments": {}, "total": 0, "completed": 0, "failed": 0, "created_at": 1.0, "expires_at": 2.0, "epoch": 0}
    whose = {"id": f"batch_{status}", "key_id": "k", "endpoint": "/v1/x", "input_file_id": "f"}
    with appending(engine) as tx:
        tx.execute(insert(batches).values(**nothing, **whose, completion_window="24h", status=status))


def add_response(engine: Engine, id_: str, status: str, seen_at: float | None) -> None:
    with appending(engine) as tx:
        tx.execute(
            insert(responses).values(
                id=id_,
                owner="k",
                created_at=1.0,
                status=status,
                background=True,
                seen_at=seen_at,
                request=b"[]",
                response=b"{}",
            )
        )


def test_there_may_be_anything_until_somebody_has_looked(signs: Signs) -> None:
    """A process that has just started goes on with what was left."""
    assert all(signs.there(kind) for kind in (BATCHES, RUNS, JOBS))
    signs.look()
    assert not any(signs.there(kind) for kind in (BATCHES, RUNS, JOBS))
    signs.close()


def test_the_answer_has_the_newest_revision(signs: Signs, engine: Engine) -> None:
    """It is the same question."""
    with changing(engine) as tx:
        expected = record_revision(tx, "a test")
    assert signs.look() == expected
    signs.close()


def test_what_has_ended_is_no_sign(signs: Signs, engine: Engine) -> None:
    """Batches and responses stay in their tables."""
    add_batch(engine, "completed")
    add_response(engine, "resp_over", "completed", None)
    signs.look()
    assert not signs.there(BATCHES)
    assert not signs.there(RUNS)
    add_response(engine, "resp_runs", "in_progress", time.time())
    signs.look()
    assert (signs.there(RUNS), signs.there(BATCHES), signs.there(JOBS)) == (True, False, False)
    signs.close()


async def test_who_follows_hears_of_the_first_work_and_not_of_more(signs: Signs, engine: Engine) -> None:
    """Whoever looks while there is some looks by itself."""
    heard: list[str] = []
    signs.follow(BATCHES, lambda: heard.append("batches"))
    signs.follow(JOBS, lambda: heard.append("jobs"))
    await asyncio.to_thread(signs.look)
    add_batch(engine, "validating")
    await asyncio.to_thread(signs.look)
    await until(lambda: heard == ["batches"])
    add_batch(engine, "in_progress")
    await asyncio.to_thread(signs.look)
    with appending(engine) as tx:
        tx.execute(delete(batches))
    await asyncio.to_thread(signs.look)
    assert not signs.there(BATCHES)
    add_batch(engine, "cancelling")
    await asyncio.to_thread(signs.look)
    await until(lambda: heard == ["batches", "batches"])
    signs.close()


def test_it_can_be_asked_again_after_its_end(signs: Signs) -> None:
    """A question that is late opens a connection of its own, as the first one did."""
    signs.look()
    signs.close()
    signs.look()
    signs.close()
