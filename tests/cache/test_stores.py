"""Where entries are kept: no larger than allowed, gone when they are old, and never wrong, whatever happened to their bytes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.entry import Entry, packed, unpacked
from gateway.cache.local import LocalStore
from gateway.cache.memory import Memory
from gateway.cache.redis import RedisStore
from gateway.cache.segments import FILES, Segments
from gateway.usage import of_tokens
from tests.fixtures.redis import RedisServer


def entry(number: int, *, size: int = 100, ends: float = 1000.0) -> Entry:
    content = b"%d " % number * (size // len(b"%d " % number))
    return Entry(number.to_bytes(32, "big"), 0.0, ends, "chat", False, content, of_tokens(number, 1), b"{}")


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_memory_forgets_what_was_longest_unused_and_stays_within_its_bytes() -> None:
    """Whatever is put in; what is larger than all of it is left out."""
    now = [0.0]
    memory = Memory(5_000, lambda: now[0])
    for number in range(100):
        memory.put(entry(number))
        assert memory.get(key(0)) is not None  # used each time, so it stays
        assert memory.bytes <= 5_000
    assert 5 < len(memory) < 100
    assert memory.get(key(1)) is None
    memory.put(entry(200, size=10_000))
    assert memory.get(key(200)) is None
    memory.put(entry(0, size=50))
    assert memory.bytes <= 5_000
    now[0] = 1000.0
    assert memory.get(key(0)) is None
    for number in range(100):
        memory.drop(key(number))
    assert memory.bytes == 0


@given(st.integers(0, 10_000), st.integers(1, 255), st.integers(0, 10_000))
def test_a_changed_or_cut_entry_is_none(at: int, change: int, cut: int) -> None:
    """Any byte, any length; nor is one found under another key."""
    raw = packed(entry(7))
    assert unpacked(raw, key(7)) == entry(7)
    assert unpacked(raw, key(8)) is None
    damaged = bytearray(raw)
    damaged[at % len(raw)] ^= change
    assert unpacked(bytes(damaged), key(7)) is None
    assert unpacked(raw[: cut % len(raw)], key(7)) is None


def test_the_disk_is_read_again_and_stays_within_its_bytes(tmp_path: Path) -> None:
    """Newer entries come in place of the oldest ones."""
    disk = Segments(tmp_path / "c", FILES * 64 * 1024)
    disk.open(0.0)
    for number in range(1000):
        disk.write(entry(number % 900, size=2000))
    size = sum(path.stat().st_size for path in tmp_path.glob("c/*.cache"))
    assert size <= FILES * 64 * 1024
    assert disk.read(key(99)) == entry(99, size=2000)
    assert disk.read(key(200)) is None
    kept = set(disk.places)
    disk.close()
    disk = Segments(tmp_path / "c", FILES * 64 * 1024)
    disk.open(0.0)
    assert len(kept & set(disk.places)) > 150
    for one in list(disk.places):
        assert disk.read(one) == entry(int.from_bytes(one, "big"), size=2000)
    disk.close()
    disk.open(2000.0)
    assert not disk.places
    disk.close()


@settings(max_examples=40)
@given(st.integers(0, 1 << 20), st.sampled_from(["cut", "flip", "garbage"]), st.data())
def test_damage_on_disk_is_a_miss(at: int, kind: str, data: st.DataObject) -> None:
    """Wherever a file was torn or changed, what is found is what was written, and the rest is not found."""
    import tempfile  # noqa: PLC0415 — hypothesis runs the body many times, and a fixture would be shared

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "c"
        disk = Segments(folder, 1 << 20)
        disk.open(0.0)
        for number in range(6):
            disk.write(entry(number))
        disk.close()
        path = next(folder.glob("*.cache"))
        raw = bytearray(path.read_bytes())
        at %= len(raw)
        if kind == "cut":
            del raw[at:]
        elif kind == "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        else:
            raw[at : at + 40] = data.draw(st.binary(min_size=40, max_size=40))
        path.write_bytes(bytes(raw))
        disk.open(0.0)
        for number in range(6):
            assert disk.read(key(number)) in (None, entry(number))
        disk.write(entry(9))
        assert disk.read(key(9)) == entry(9)
        disk.close()


async def test_two_processes_on_one_folder_keep_apart(tmp_path: Path) -> None:
    """Each has a folder of its own for as long as it lives, and the next one finds what the last one left."""
    first, second = (LocalStore(10_000, 1 << 20, tmp_path, lambda: 0.0) for _ in range(2))
    await opened(first, second)
    first.put(entry(1))
    second.put(entry(2))
    await first.close()
    third = LocalStore(10_000, 1 << 20, tmp_path, lambda: 0.0)
    await opened(third)
    assert third.near(key(1)) is None
    found = third.far(key(1))
    assert found is not None
    assert await found == entry(1)
    assert third.near(key(1)) == entry(1)
    assert third.far(key(2)) is None
    await second.close()
    await third.close()


async def test_a_folder_that_cannot_be_used_leaves_memory(tmp_path: Path) -> None:
    """Nothing is refused for it."""
    (tmp_path / "file").write_text("not a folder")
    store = LocalStore(10_000, 1 << 20, tmp_path / "file" / "cache", lambda: 0.0)
    store.put(entry(1))
    assert store.near(key(1)) == entry(1)
    await store.close()


async def test_redis_gives_what_another_process_put_and_nothing_damaged(redis_server: RedisServer) -> None:
    """With a time to live of its own; a value that was changed, or stands under another key, is none."""
    now = [0.0]
    first, second = (store(redis_server.url, now) for _ in range(2))
    first.put(entry(1, ends=500.0))
    first.put(entry(2))
    await settled(first)
    second_found = second.far(key(1))
    assert second_found is not None
    assert await second_found == entry(1, ends=500.0)
    name = f"tests-cache:{key(1).hex()}"
    assert 400_000 < int(redis_server.cli("PTTL", name)) <= 500_000
    assert redis_server.cli("RENAME", name, f"tests-cache:{key(3).hex()}") == "OK"
    third = store(redis_server.url, now)
    moved = third.far(key(3))
    assert moved is not None
    assert await moved is None
    redis_server.cli("SETRANGE", f"tests-cache:{key(2).hex()}", "30", "xx")
    changed = third.far(key(2))
    assert changed is not None
    assert await changed is None
    for one in (first, second, third):
        await one.close()


async def test_a_process_believes_its_own_copy_for_a_few_seconds(redis_server: RedisServer) -> None:
    """Another one may have renewed it."""
    now = [0.0]
    one = store(redis_server.url, now)
    one.put(entry(5))
    assert one.near(key(5)) is not None
    now[0] = 6.0
    assert one.near(key(5)) is None
    await one.close()


async def opened(*stores: LocalStore) -> None:
    """When the thread that opens them is through."""
    for one in stores:
        assert one._thread is not None
        await asyncio.wrap_future(one._thread.submit(lambda: None))


async def settled(one: RedisStore) -> None:
    if one._writing:
        await asyncio.wait(one._writing)


def store(url: str, now: list[float]) -> RedisStore:
    def spawn(coro: Any) -> "asyncio.Task[Any]":
        return asyncio.get_running_loop().create_task(coro)

    return RedisStore(url, 100_000, lambda: now[0], spawn, prefix="tests-cache", deadline_s=10)


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> None:
    if "redis_server" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("redis_server")
        for number in range(10):
            server.cli("DEL", f"tests-cache:{key(number).hex()}")
