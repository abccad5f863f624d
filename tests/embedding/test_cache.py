"""Texts that were read before: given again whole, in order and to nobody else, and never run twice."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedding import bundled
from embedding.backends.hashing import HashingBackend
from embedding.cache import ModelVectors, Vector, VectorCache
from embedding.engine import Engine, Limits
from embedding.errors import Closed, InputTooLong, InvalidInput, RequestTooLarge
from embedding.model import Model
from embedding.ports import ModelSpec
from embedding.tokens import Tokenizer
from embedding.vector_file import VectorFile

SPEC = ModelSpec("hashing", dimensions=64, max_tokens=16, matryoshka=True)
LONG = "one two three " * 20
DAY_S = 86_400.0


class Clock:
    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A cache on a file, and engines over it that say how many texts they ran."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self.clock = Clock()
        self.opened = 0
        self._folder = folder
        self._tokenizer = tokenizer
        self._engines: list[Engine] = []
        self.cache = self._made(1 << 20)

    def engine(self, identity: bytes = b"hashing", *, known: bool = True, **limits: int) -> Engine:
        part = self.cache.of(identity) if known else None
        self._engines.append(Engine(SPEC, self._open, limits=Limits(**limits), known=part))
        return self._engines[-1]

    async def restart(self, memory_bytes: int = 1 << 20) -> None:
        await self.close()
        self.cache = self._made(memory_bytes)

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()
        await self.cache.close()

    def _made(self, memory_bytes: int) -> VectorCache:
        return VectorCache(memory_bytes, lambda: VectorFile(self._folder, 1 << 24, self.clock), 30 * DAY_S, self.clock)

    def _open(self) -> Model:
        self.opened += 1
        return Model(SPEC, self._tokenizer, HashingBackend(SPEC.dimensions))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    if not bundled.installed():
        pytest.skip("needs the `embedded` extra")
    return Tokenizer(bundled.tokenizer_file(), SPEC.max_tokens)


@pytest.fixture
async def house(tmp_path: Path, tokenizer: Tokenizer) -> AsyncIterator[House]:
    house = House(tmp_path / "vectors", tokenizer)
    yield house
    await house.close()


def same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


async def test_what_was_read_before_is_given_again_in_order(house: House) -> None:
    """Known and new texts and the same one twice, in one request: each new one is run once, and all is as without a cache."""
    engine, plain = house.engine(), house.engine(known=False)
    await engine.embed(["b", "d", LONG], tenant="t")
    texts = ["a", "b", "a", LONG, "c", "d", "b"]
    given, expected = await engine.embed(texts, tenant="t"), await plain.embed(texts)
    assert same(given.vectors, expected.vectors)
    assert (given.prompt_tokens, given.truncated) == (expected.prompt_tokens, expected.truncated)
    assert engine.status.sequences == 5
    again = await engine.embed(texts, tenant="t")
    assert same(again.vectors, expected.vectors)
    assert (again.prompt_tokens, again.truncated) == (expected.prompt_tokens, 1)
    assert engine.status.sequences == 5
    again.vectors[:] = 0  # whoever asked may do with it what it likes
    assert same((await engine.embed(texts, tenant="t")).vectors, expected.vectors)
    counts = house.cache.counts
    assert (counts.misses, counts.store) == (5, 0)


async def test_dimensions_are_cut_from_what_is_known(house: House) -> None:
    """Whatever was asked for first, it is as without a cache."""
    engine, plain = house.engine(), house.engine(known=False)
    for dimensions in (16, None, 32):
        given = await engine.embed(["a", "b"], dimensions=dimensions, tenant="t")
        assert same(given.vectors, (await plain.embed(["a", "b"], dimensions=dimensions)).vectors)
    assert engine.status.sequences == 2


async def test_nothing_is_found_of_another_tenant_or_model(house: House) -> None:
    """Nor by who names no tenant."""
    engine = house.engine()
    await engine.embed(["a"], tenant="t")
    for tenant in ("u", "", None, None):
        await engine.embed(["a"], tenant=tenant)
    assert engine.status.sequences == 5
    other = house.engine(b"another")
    await other.embed(["a"], tenant="t")
    assert other.status.sequences == 1


def test_keys_tell_apart_whatever_is_asked() -> None:
    """Each part by itself, and not where one ends and the next begins."""
    cache = VectorCache(1 << 20, None, DAY_S, Clock())
    asked = [
        (b"m", "t", "x", ""),
        (b"n", "t", "x", ""),
        (b"m", "u", "x", ""),
        (b"m", "t", "y", ""),
        (b"m", "t", "x", "z"),
    ]
    asked += [
        (b"mt", "", "x", ""),
        (b"m", "tx", "", ""),
        (b"m", "", "tx", ""),
        (b"m", "t", "", "x"),
        (b"m", "", "x", "t"),
    ]
    keys = {cache.of(identity).keys(tenant, [text], how)[0] for identity, tenant, text, how in asked}
    assert len(keys) == len(asked)


async def test_what_is_refused_is_refused_again(house: House) -> None:
    """A text that may not be cut, one that is no Unicode, more tokens than a request may have: known or not."""
    engine = house.engine(tokens_per_request=40)
    await engine.embed([LONG, "a"], tenant="t")
    for _ in range(2):
        with pytest.raises(InputTooLong):
            await engine.embed([LONG], truncation="error", tenant="t")
        with pytest.raises(InvalidInput):
            await engine.embed(["\ud800"], tenant="t")
        with pytest.raises(RequestTooLarge):
            await engine.embed([LONG, "a", LONG, LONG], tenant="t")
    await engine.close()
    with pytest.raises(Closed):
        await engine.embed(["a"], tenant="t")


async def test_what_is_on_the_disk_needs_no_model(house: House) -> None:
    """After a restart, too; and a model is opened for what is new."""
    expected = await house.engine().embed(["a", "b", LONG], tenant="t")
    await house.restart()
    house.opened = 0
    engine = house.engine()
    given = await engine.embed([LONG, "b", "a"], tenant="t")
    assert same(given.vectors, expected.vectors[::-1])
    assert (given.prompt_tokens, given.truncated) == (expected.prompt_tokens, 1)
    assert house.opened == 0
    assert (house.cache.counts.store, house.cache.counts.misses) == (3, 0)
    await engine.embed(["a", "new"], tenant="t")
    assert (house.opened, engine.status.sequences) == (1, 1)
    await house.restart()
    warm = house.engine()
    await warm.warm()
    mixed = await warm.embed(["c", "a", "new", "d"], tenant="t")
    assert warm.status.sequences == 2
    assert same(mixed.vectors[1], expected.vectors[0])


async def test_an_old_vector_is_made_anew(house: House) -> None:
    """In memory and on the disk."""
    engine = house.engine()
    await engine.embed(["a"], tenant="t")
    house.clock.now += 31 * DAY_S
    await engine.embed(["a"], tenant="t")
    assert engine.status.sequences == 2
    await house.restart()
    house.clock.now += 29 * DAY_S
    await house.engine().embed(["a"], tenant="t")
    assert house.cache.counts.store == 1
    await house.restart()
    house.clock.now += 2 * DAY_S
    await house.engine().embed(["a"], tenant="t")
    assert (house.cache.counts.store, house.cache.counts.misses) == (0, 1)


async def test_memory_keeps_what_was_used_last(house: House) -> None:
    """And no more bytes than it may."""
    await house.restart(memory_bytes=20_000)
    known = house.cache.of(b"m")
    keys = known.keys("t", [str(number) for number in range(100)])
    for key in keys:
        known.add({key: Vector(bytes(256))})
        assert known.near(keys[:1])
        assert house.cache.memory_bytes <= 20_000
    assert 10 < len(known.near(keys)) < 50
    assert not known.near(keys[1:2])
    known.add({keys[1]: Vector(bytes(40_000))})
    assert house.cache.memory_bytes <= 20_000


@pytest.mark.parametrize("raw", [b"", b"x", bytes(16), bytes(17), bytes(600)])
def test_a_store_is_not_believed(raw: bytes) -> None:
    """What is damaged, cut off or another key's is a miss."""

    class Store:
        kept: dict[bytes, bytes]

        def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            return dict.fromkeys(keys, raw)

        def put(self, entries: object) -> None: ...
        def size(self) -> None: ...
        def close(self) -> None: ...

    known: ModelVectors = VectorCache(1 << 20, Store, DAY_S, Clock()).of(b"m")
    assert known.far(known.keys("t", ["a", "b"])) == {}


async def test_a_changed_bit_or_another_key_is_a_miss() -> None:
    """Wherever it is."""
    opened: list[dict[bytes, bytes]] = [{}]

    class Store:
        def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            return {key: opened[0][key] for key in keys if key in opened[0]}

        def put(self, entries: Mapping[bytes, bytes]) -> None:
            opened[0].update(entries)

        def size(self) -> None: ...
        def close(self) -> None: ...

    make: Callable[[], VectorCache] = lambda: VectorCache(1 << 20, Store, DAY_S, Clock())  # noqa: E731
    cache = make()
    known = cache.of(b"m")
    one, other = known.keys("t", ["a", "b"])
    known.add({one: Vector(bytes(range(32)), 7, truncated=True)})
    await cache.close()
    packed = opened[0][one]
    again = make().of(b"m")
    assert again.far([one])[one][:3] == (bytes(range(32)), 7, True)
    opened[0][other] = packed
    assert again.far([other]) == {}
    for bit in range(8 * len(packed)):
        changed = bytearray(packed)
        changed[bit // 8] ^= 1 << bit % 8
        opened[0][one] = bytes(changed)
        assert again.far([one]) == {}
