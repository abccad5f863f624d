"""Tenants and readers with labels among each other's documents: whatever a search asks for, nothing foreign is in the answer.

A hundred thousand searches in `make soak`, a few hundred everywhere.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import httpx
import numpy as np
import pytest

from retrieval import collection_store, document_store
from retrieval.access import Caller
from retrieval.asking import Question, Wanted
from retrieval.chunking_strategy import Chunking
from retrieval.document_store import NewDocument
from retrieval.errors import BadRequest, Forbidden, NotFound, TenantRequired
from retrieval.filters import parse
from retrieval.tenancy import Tenancy
from tests.fixtures.plane import DIMENSIONS, Plane
from tests.fixtures.retrieval import attach, fill, unit
from tests.fixtures.server import Json, Server

FIELDS = ("key_id", "team_id", "access_labels", "labels", "owner", "collection_id", "__proto__", "key_id' OR '1'='1")


def adversarial(chance: random.Random, victims: Sequence[str]) -> Json | None:
    """A filter that names somebody else, everybody, or what is not an attribute at all."""
    key = chance.choice(FIELDS)
    someone = chance.choice([*victims, "*", "%", "", "' OR 1=1 --"])
    leaf: Json = chance.choice(
        [
            {"type": "eq", "key": key, "value": someone},
            {"type": "ne", "key": key, "value": someone},
            {"type": "in", "key": key, "value": [someone, "*"]},
            {"type": "exists", "key": key},
            {"type": "prefix", "key": key, "value": someone[:5]},
        ]
    )
    return chance.choice(
        [
            None,
            leaf,
            {"type": "not", "filter": leaf},
            {"type": "or", "filters": [leaf, {"type": "not", "filter": leaf}]},
            {"type": "and", "filters": [{"type": "or", "filters": [leaf, {"type": "exists", "key": "owner"}]}]},
        ]
    )


class Town:
    """Tenants with the same words and attributes that pretend; and one team whose members share a store and have a label each."""

    def __init__(self, plane: Plane, tenants: int, seed: int, *, read: bool) -> None:
        """`read`: documents are read as files are, not put where reading would put them, which is quicker by a hundred."""
        self.read = read
        self.plane = plane
        self.chance = random.Random(seed)
        self.callers = [Caller(f"key_{n}", f"team_{n}" if n % 2 else None, None) for n in range(tenants)]
        self.members = [Caller(f"key_m{n}", "team_shared", None, frozenset({f"label_{n}"})) for n in range(tenants)]
        self.names = [each.key_id for each in self.callers]
        self.stores: dict[str, Caller] = {}
        self.files: dict[str, Caller] = {}
        self.shared = ""
        self.told: Counter[str] = Counter()

    async def build(self) -> "Town":
        plane, waiting = self.plane, list[tuple[Caller, str, str]]()
        self.shared = await plane.store(self.members[0])
        for caller in self.callers:
            store = await plane.store(caller)
            self.stores[store] = caller
            for number in range(2):
                waiting.append((caller, store, await self._add(caller, store, str(number))))
        for number, member in enumerate(self.members):
            labels = (f"label_{number}",)
            waiting.append((member, self.shared, await self._add(member, self.shared, "shared", labels)))
        for caller, store, file_id in waiting:
            assert (await plane.ended(store, file_id, caller)).status == "completed"
        return self

    async def _add(self, caller: Caller, store: str, what: str, labels: tuple[str, ...] = ()) -> str:
        victim = self.chance.choice(self.callers)
        lies = {"key_id": victim.key_id, "team_id": victim.team_id or "", "access_labels": "*", "owner": "*"}
        text = f"secret plan of {caller.key_id} number {what}"
        file_id = self.plane.files.put(caller, text)
        self.files[file_id] = caller
        if self.read:
            await self.plane.retrieval.attach(caller, store, Wanted(file_id, lies, labels=labels))
        else:
            collection = (await self.plane.retrieval.get(caller, store)).collection
            self.plane.database.write(lambda tx: collection_store.learn_dimensions(tx, store, DIMENSIONS))
            document = attach(self.plane.database, collection, file_id, lies, labels)
            fill(self.plane.database, document, [text], unit(np.stack([self.plane.words._vector(text)])))
        return file_id

    async def pry(self) -> None:
        """One search."""
        chance, wanted = self.chance, adversarial(self.chance, self.names)
        try:
            filters = None if wanted is None else parse(wanted)
        except BadRequest:
            self.told["refused"] += 1
            return
        weight = chance.choice([1.0, 0.5, 0.0])
        text = chance.choice(["secret plan", f"secret plan of {chance.choice(self.names)}"])
        question = Question((text,), k=50, wanted=filters, dense=weight)
        kind = chance.choice(["own", "foreign", "shared"])
        if kind == "shared":
            caller, store = chance.choice(self.members), self.shared
        else:
            store = chance.choice(list(self.stores))
            caller = self.stores[store] if kind == "own" else chance.choice([*self.callers, *self.members[:5]])
        if kind == "foreign" and caller is not self.stores[store]:
            with pytest.raises(NotFound):
                await self.plane.retrieval.search(caller, store, question)
            self.told["not found"] += 1
            return
        results = (await self.plane.retrieval.search(caller, store, question)).results
        assert all(self.files[each.document.source_id] is caller for each in results), (caller, wanted)
        self.told[f"passages, {kind}"] += len(results)
        self.told["searches with passages"] += bool(results)


class Partitions:
    """One store that declares tenancy: keys that name a tenant, keys that are bound to one, and files that move between tenants."""

    def __init__(self, plane: Plane, tenants: int, seed: int) -> None:
        self.plane, self.chance = plane, random.Random(seed)
        self.owner = Caller("key_owner", "team_owner", None)
        self.names = [f"tenant {number}" for number in range(tenants)]
        self.bound = {
            name: Caller(f"key_{number}", "team_owner", None, tenant=name) for number, name in enumerate(self.names)
        }
        self.whose: dict[str, str] = {}
        self.store = ""
        self.told: Counter[str] = Counter()

    async def build(self) -> "Partitions":
        plane = self.plane
        self.store = await plane.store(self.owner, tenancy=Tenancy("tenant", 1000))
        collection = (await plane.retrieval.get(self.owner, self.store)).collection
        plane.database.write(lambda tx: collection_store.learn_dimensions(tx, self.store, DIMENSIONS))
        for name in (*self.names, *self.names):
            text = f"secret plan of {name}"
            file_id = plane.files.put(self.owner, text)
            said = {"tenant": name, "owner": "*", "tenants": self.chance.choice(self.names)}
            new = NewDocument(file_id, "a.txt", said, (), Chunking(), tenant=name)
            document = plane.database.write(lambda tx, new=new: document_store.attach(tx, collection, new))  # type: ignore[misc]
            fill(plane.database, document, [text], unit(np.stack([plane.words._vector(text)])))
            self.whose[file_id] = name
        return self

    def filter(self) -> Json | None:
        """One that says nothing, or too much, or something that is beside the point."""
        one, other = self.chance.sample(self.names, 2)
        leaf: Json = {"type": "eq", "key": self.chance.choice(["tenant", "tenant", "owner", "tenants"]), "value": one}
        return self.chance.choice(
            [
                None,
                leaf,
                {"type": "and", "filters": [leaf, {"type": "exists", "key": "owner"}]},
                {"type": "or", "filters": [leaf, {"type": "exists", "key": "tenant"}]},
                {"type": "not", "filter": leaf},
                {"type": "in", "key": "tenant", "value": [one, other]},
                {"type": "prefix", "key": "tenant", "value": "tenant"},
                {"type": "and", "filters": [{"type": "or", "filters": [leaf, {"type": "not", "filter": leaf}]}]},
            ]
        )

    async def move(self) -> None:
        file_id = self.chance.choice(list(self.whose))
        name = self.whose[file_id] = self.chance.choice(self.names)
        await self.plane.retrieval.describe(self.owner, self.store, file_id, {"tenant": name, "owner": "*"}, None)
        self.told["moves"] += 1

    async def pry(self) -> None:
        """One search."""
        wanted, name = self.filter(), self.chance.choice(self.names)
        named = self.chance.choice([None, name])
        caller = self.chance.choice([self.owner, self.bound[name]])
        text = self.chance.choice(["secret plan", f"secret plan of {self.chance.choice(self.names)}"])
        filters, weight = None if wanted is None else parse(wanted), self.chance.choice([1.0, 0.5, 0.0])
        question = Question((text,), k=50, wanted=filters, dense=weight, tenant=named)
        try:
            found = await self.plane.retrieval.search(caller, self.store, question)
        except (TenantRequired, Forbidden) as error:
            self.told[type(error).__name__] += 1
            return
        assert found.partition is not None
        meant = found.partition.tenant
        assert caller.tenant in (None, meant)
        assert named in (None, meant)
        assert all(self.whose[each.document.source_id] == meant for each in found.results), (caller, wanted)
        assert all(each.document.tenant == meant for each in found.results)
        if wanted is None:
            assert len(found.results) == sum(whose == meant for whose in self.whose.values())
        self.told["searches with passages"] += bool(found.results)


async def pry_partitions(plane: Plane, tenants: int, searches: int, seed: int) -> None:
    town = await Partitions(plane, tenants, seed).build()
    began = time.monotonic()
    for number in range(searches):
        if town.chance.random() < 0.05:
            await town.move()
        await town.pry()
        if number % 5000 == 4999:
            print(f"{number + 1} searches, {time.monotonic() - began:.0f} s: {dict(town.told)}", flush=True)
    assert town.told["searches with passages"] > searches / 8
    assert town.told["TenantRequired"] > searches / 16
    assert town.told["Forbidden"] > searches / 32


async def test_a_declared_store_shows_nobody_what_is_another_tenants(plane: Plane) -> None:
    """All that a tenant has is found, whatever has moved, and nothing else."""
    await pry_partitions(plane, 12, 200, 5)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_a_thousand_tenants_of_one_store_see_nothing_of_each_other(plane: Plane) -> None:
    lite = plane.database.read(lambda tx: tx.dialect.name) == "sqlite"
    await pry_partitions(plane, 1000, 50_000 if lite else 5_000, int(time.time()))


async def pry(plane: Plane, tenants: int, searches: int, seed: int, *, read: bool) -> None:
    began = time.monotonic()
    town = await Town(plane, tenants, seed, read=read).build()
    print(f"{tenants} tenants after {time.monotonic() - began:.0f} s", flush=True)
    for number in range(searches):
        await town.pry()
        if number % 5000 == 4999:
            print(f"{number + 1} searches, {time.monotonic() - began:.0f} s: {dict(town.told)}", flush=True)
    assert town.told["searches with passages"] > searches / 8
    assert town.told["passages, shared"] > searches / 16
    assert town.told["not found"] > searches / 8


async def test_nobody_sees_what_is_not_theirs(plane: Plane) -> None:
    """Not one foreign passage, and their own are found."""
    await pry(plane, 16, 200, 5, read=True)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_a_thousand_tenants_see_nothing_of_each_other(plane: Plane) -> None:
    """A hundred thousand on SQLite, a tenth of them on PostgreSQL, which decides the same by the same SQL."""
    lite = plane.database.read(lambda tx: tx.dialect.name) == "sqlite"
    await pry(plane, 1000, 100_000 if lite else 10_000, int(time.time()), read=False)


def over_http(server: Server, tenants: int, searches: int, seed: int) -> Mapping[str, int]:
    """The same through keys and bodies."""
    chance, told = random.Random(seed), Counter[str]()
    keys = [server.new_key() for _ in range(tenants)]
    stores: dict[str, str] = {}
    owners: dict[str, str] = {}
    for key in keys:
        stores[key] = ok(server.post("/v1/vector_stores", {"embedding_model": "embed"}, key=key))["id"]
        file = {"file": ("a.txt", f"secret plan of {key[-8:]}".encode())}
        head = {"authorization": f"Bearer {key}"}
        added = ok(server.http.post("/v1/files", files=file, data={"purpose": "assistants"}, headers=head))["id"]
        owners[added] = key
        lies = {"owner": "*", "key_id": chance.choice(keys)[-8:], "access_labels": "*"}
        ok(server.post(f"/v1/vector_stores/{stores[key]}/files", {"file_id": added, "attributes": lies}, key=key))
    for key in keys:
        until = time.monotonic() + 60
        while True:
            counts = ok(server.http.get(f"/v1/vector_stores/{stores[key]}", headers={"authorization": f"Bearer {key}"}))
            if counts["file_counts"]["completed"] == 1:
                break
            assert time.monotonic() < until, counts
            time.sleep(0.05)
    for _ in range(searches):
        key, of = chance.choice(keys), chance.choice(keys)
        of = key if chance.random() < 0.5 else of
        wanted = adversarial(chance, [each[-8:] for each in keys])
        body: Json = {"query": "secret plan", "max_num_results": 50}
        body |= {"filters": wanted} if wanted is not None else {}
        answer = server.post(f"/v1/vector_stores/{stores[of]}/search", body, key=key)
        told[str(answer.status_code)] += 1
        if answer.status_code == 200:
            assert of == key
            found = [each["file_id"] for each in answer.json()["data"]]
            assert all(owners[each] == key for each in found)
            told["passages"] += len(found)
        else:
            assert answer.status_code == (400 if of == key else answer.status_code)
            assert answer.status_code in (400, 404), answer.text
            assert "secret plan of" not in answer.text
    return told


def ok(answer: httpx.Response) -> Json:
    assert answer.status_code in (200, 201), answer.text
    told: Json = answer.json()
    return told


def test_nobody_sees_what_is_not_theirs_over_http(documents_server: Server) -> None:
    told = over_http(documents_server, 4, 40, 5)
    assert told["passages"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_tenants_see_nothing_of_each_other_over_http(documents_server: Server) -> None:
    told = over_http(documents_server, 100, 5000, int(time.time()))
    print(told, flush=True)
    assert told["passages"] > 500
    assert told["404"] > 500
