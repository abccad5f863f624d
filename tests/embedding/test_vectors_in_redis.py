"""Vectors in a real Redis: a time to live each, and neither an error nor a wait where there is none."""

import time

from admin.vectors_in_redis import VectorsInRedis
from tests.fixtures.redis import RedisServer

KEYS = [number.to_bytes(32, "big") for number in range(1200)]


def test_what_one_puts_another_finds(redis_server: RedisServer) -> None:
    """More than go into one command; each goes by itself when its time is over."""
    first, second = (VectorsInRedis(redis_server.url, 1000, prefix="tests-vectors", away_s=0.0) for _ in range(2))
    entries = {key: key * 2 for key in KEYS}
    first.put(entries)
    assert second.get([*KEYS, b"x" * 32]) == entries
    assert 0 < int(redis_server.cli("TTL", f"tests-vectors:{KEYS[7].hex()}")) <= 1000
    other = VectorsInRedis(redis_server.url, 1000, prefix="tests-others")
    assert other.get(KEYS) == {}
    for each in (first, second, other):
        each.close()


def test_a_redis_that_does_not_answer_is_left_alone(redis_server: RedisServer) -> None:
    """One look takes as long as it may, those behind it nothing; and when it is back it is asked again."""
    vectors = VectorsInRedis(redis_server.url, 1000, prefix="tests-away", away_s=3600.0)
    patient = VectorsInRedis(redis_server.url, 1000, prefix="tests-away", away_s=0.0)
    patient.put({KEYS[0]: b"a"})
    redis_server.pause()
    try:
        assert vectors.get(KEYS[:1]) == {}
        began = time.monotonic()
        for _ in range(1000):
            assert vectors.get(KEYS[:1]) == {}
            vectors.put({KEYS[1]: b"b"})
        assert time.monotonic() - began < 60  # two thousand times the deadline is minutes
        patient.put({KEYS[2]: b"c"})
    finally:
        redis_server.resume()
    assert vectors.get(KEYS[:1]) == {}
    deadline = time.monotonic() + 30
    while patient.get(KEYS[:1]) != {KEYS[0]: b"a"}:
        assert time.monotonic() < deadline
    vectors.close()
    patient.close()


def test_without_redis_there_is_nothing() -> None:
    vectors = VectorsInRedis("unix:///nowhere/redis.sock", 1000)
    vectors.put({KEYS[0]: b"a"})
    assert vectors.get(KEYS[:2]) == {}
    vectors.close()
