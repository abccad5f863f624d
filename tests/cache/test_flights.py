"""Single flight under every ending that a leader can have."""

import asyncio

from gateway.cache.entry import Entry
from gateway.cache.flights import Flight

ENTRY = Entry(b"k" * 32, 0.0, 1.0, "chat", False, b"{}")


async def waiting(flight: Flight, count: int, wait_s: float = 30.0) -> list["asyncio.Task[object]"]:
    """So many callers, all of them in line."""
    tasks: list[asyncio.Task[object]] = []
    for _ in range(count):
        tasks.append(asyncio.get_running_loop().create_task(_join(flight, wait_s)))
        await asyncio.sleep(0)
    return tasks


async def _join(flight: Flight, wait_s: float) -> object:
    return await flight.join(wait_s)


async def test_all_get_what_the_leader_brings() -> None:
    """And the next one starts anew."""
    flights: dict[bytes, Flight] = {}
    flight = flights[b"k"] = Flight(flights, b"k")
    tasks = await waiting(flight, 5)
    flight.land(ENTRY)
    assert await asyncio.gather(*tasks) == [ENTRY] * 5
    assert flights == {}


async def test_after_a_failure_one_goes_on_and_after_a_second_all_do() -> None:
    """Nobody stands in a line of timeouts."""
    flights: dict[bytes, Flight] = {}
    flight = flights[b"k"] = Flight(flights, b"k")
    tasks = await waiting(flight, 4)
    flight.fail()
    assert await tasks[0] == "lead"
    assert (flight.waiting, b"k" in flights) == (3, True)
    flight.fail()
    assert await asyncio.gather(*tasks[1:]) == ["alone"] * 3
    assert flights == {}


async def test_who_leaves_hands_the_lead_on() -> None:
    """Whether it was waiting, or had just been given the lead and not woken yet."""
    flights: dict[bytes, Flight] = {}
    flight = flights[b"k"] = Flight(flights, b"k")
    tasks = await waiting(flight, 3)
    tasks[0].cancel()
    await asyncio.sleep(0)
    flight.fail(counts=False)
    tasks[1].cancel()  # it was given the lead, and does not know yet
    assert await tasks[2] == "lead"
    flight.land(ENTRY)
    assert flights == {}


async def test_nobody_waits_longer_than_it_has_time() -> None:
    """Then it asks for itself."""
    flights: dict[bytes, Flight] = {}
    flight = flights[b"k"] = Flight(flights, b"k")
    (task,) = await waiting(flight, 1, 0.01)
    assert await task == "alone"
    flight.fail()
    assert flights == {}


async def test_an_answer_that_is_not_shared_sends_all_on_their_way() -> None:
    """They ask at the same time, as without a cache."""
    flights: dict[bytes, Flight] = {}
    flight = flights[b"k"] = Flight(flights, b"k")
    tasks = await waiting(flight, 2)
    flight.scatter()
    assert await asyncio.gather(*tasks) == ["alone", "alone"]
    assert flights == {}
