"""Stores that declare tenancy: nothing is kept, found or shown but within one tenant, whatever is asked and is changed meanwhile."""

import asyncio
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from retrieval import snapshots
from retrieval.access import Caller
from retrieval.asking import Neighbours, Question, Results, Wanted
from retrieval.collection_store import Change
from retrieval.errors import BadRequest, Forbidden, NotFound, TenantRequired
from retrieval.filters import parse
from retrieval.tenancy import Tenancy, bound, narrowed, of_document
from tests.fixtures.plane import Plane
from tests.fixtures.retrieval import ANN, BEN, EVE
from tests.fixtures.server import Json

APART = Tenancy("tenant", 1000)
ACME = {"type": "eq", "key": "tenant", "value": "acme"}
YEAR = {"type": "eq", "key": "year", "value": 2024}
OF_ACME = msgspec.structs.replace(ANN, tenant="acme")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (ACME, None),
        ({"type": "in", "key": "tenant", "value": ["acme"]}, None),
        ({"type": "in", "key": "tenant", "value": ["acme", "acme"]}, None),
        ({"type": "and", "filters": [ACME]}, None),
        ({"type": "and", "filters": [YEAR, ACME]}, parse(YEAR)),
        ({"type": "and", "filters": [{"type": "and", "filters": [ACME, YEAR]}, ACME]}, parse(YEAR)),
    ],
)
def test_a_filter_that_holds_for_one_tenant_alone_names_it(given: Json, left: object) -> None:
    """What says so goes, as it is true of every document there; the rest stays."""
    caller, rest = narrowed(APART, ANN, None, parse(given))
    assert caller == OF_ACME
    assert rest == left


@pytest.mark.parametrize(
    "given",
    [
        None,
        YEAR,
        {"type": "ne", "key": "tenant", "value": "other"},
        {"type": "in", "key": "tenant", "value": ["acme", "other"]},
        {"type": "in", "key": "tenant", "value": []},
        {"type": "nin", "key": "tenant", "value": ["other"]},
        {"type": "exists", "key": "tenant"},
        {"type": "prefix", "key": "tenant", "value": "acme"},
        {"type": "prefix", "key": "tenant", "value": ""},
        {"type": "gte", "key": "tenant", "value": "acme"},
        {"type": "not", "filter": ACME},
        {"type": "not", "filter": {"type": "not", "filter": ACME}},
        {"type": "or", "filters": [ACME]},
        {"type": "or", "filters": [ACME, YEAR]},
        {"type": "or", "filters": [ACME, ACME]},
        {"type": "and", "filters": [{"type": "or", "filters": [ACME, YEAR]}, YEAR]},
        {"type": "and", "filters": [ACME, {"type": "eq", "key": "tenant", "value": "other"}]},
        {"type": "eq", "key": "Tenant", "value": "acme"},
        {"type": "eq", "key": "tenant ", "value": "acme"},
        {"type": "eq", "key": "tenant", "value": True},
        {"type": "eq", "key": "tenant", "value": 1},
        {"type": "in", "key": "tenant", "value": [1, True]},
        {"type": "eq", "key": "tenant", "value": ""},
        {"type": "eq", "key": "tenant", "value": "acme\0"},
        {"type": "eq", "key": "tenant", "value": "\ud800"},
    ],
)
def test_a_filter_that_may_hold_for_others_names_nobody(given: Json | None) -> None:
    with pytest.raises(TenantRequired) as refusal:
        narrowed(APART, ANN, None, None if given is None else parse(given))
    assert refusal.value.status == 400
    assert refusal.value.code == "tenant_required"
    assert "tenant" in refusal.value.message


def test_a_key_is_of_its_tenant_and_of_no_other() -> None:
    """What an admin has written is in force, also where it is no tenant's name: then it is for nobody."""
    assert narrowed(APART, OF_ACME, None, None) == (OF_ACME, None)
    assert narrowed(APART, OF_ACME, "acme", parse(ACME)) == (OF_ACME, None)
    for tenant, wanted in (("other", None), (None, {**ACME, "value": "other"}), ("acme", {**ACME, "value": "other"})):
        with pytest.raises(Forbidden):
            narrowed(APART, OF_ACME, tenant, None if wanted is None else parse(wanted))
    written: Sequence[object] = (None, "acme", 5, ["acme"], {}, "", "a\0", "\ud800", "a" * 513)
    assert [bound(each) for each in written] == [
        *(None, "acme"),
        *[""] * 7,
    ]
    nobody = msgspec.structs.replace(ANN, tenant="")
    assert narrowed(APART, nobody, None, None)[0].tenant == ""
    with pytest.raises(Forbidden):
        of_document(APART, {"tenant": "acme"}, nobody)


def test_without_tenancy_a_tenant_says_nothing() -> None:
    assert narrowed(None, OF_ACME, None, parse(ACME)) == (OF_ACME, parse(ACME))
    assert of_document(None, {}, OF_ACME) is None
    with pytest.raises(TenantRequired, match="declares no tenancy"):
        narrowed(None, ANN, "acme", None)


async def put(plane: Plane, store: str, tenant: str, text: str, caller: Caller = ANN, **more: object) -> str:
    file_id = plane.files.put(ANN, text)
    attributes = {"tenant": tenant, **more}
    await plane.retrieval.attach(caller, store, Wanted(file_id, attributes))  # type: ignore[arg-type]
    assert (await plane.ended(store, file_id)).status == "completed"
    return file_id


async def ask(plane: Plane, store: str, tenant: str | None, caller: Caller = ANN, **fields: object) -> Results:
    question = Question(("secret plan",), k=50, tenant=tenant)
    return await plane.retrieval.search(caller, store, msgspec.structs.replace(question, **fields))


def files(found: Results) -> list[str]:
    return sorted({each.document.source_id for each in found.results})


async def test_a_tenant_finds_its_own_and_nothing_else(plane: Plane) -> None:
    """By words, by meaning and by both; near tenants' names are other tenants."""
    store = await plane.store(tenancy=APART)
    composed = unicodedata.normalize("NFC", "café")
    names = [
        "acme",
        "ACME",
        "acme ",
        "acme%",
        "ac",
        composed,
        unicodedata.normalize("NFD", composed),
        "' OR 1=1 --",
        "../x",
    ]
    own = {name: await put(plane, store, name, f"secret plan number {n}") for n, name in enumerate(names)}
    for name in names:
        for weights in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
            found = await ask(plane, store, name, dense=weights[0], lexical=weights[1])
            assert files(found) == [own[name]], (name, weights)
            assert found.partition is not None
            assert found.partition.tenant == name
    for nobody in ("acm", "acmee", "Acme", "*", "%", "_cme", "%2e%2e"):
        assert files(await ask(plane, store, nobody)) == []
    for each in (None, {"type": "not", "filter": {"type": "exists", "key": "nothing"}}):
        with pytest.raises(TenantRequired):
            await ask(plane, store, None, wanted=None if each is None else parse(each))
    with pytest.raises(TenantRequired):
        await ask(plane, store, None, caller=Caller("key_ann", "team_1", labels=frozenset("*")))
    with pytest.raises(NotFound):
        await ask(plane, store, "acme", caller=EVE)


async def test_a_file_without_a_tenant_is_refused(plane: Plane) -> None:
    """When it is added, alone or with others, and when it is changed; nothing of it is there."""
    store = await plane.store(tenancy=APART)
    file_id = plane.files.put(ANN, "secret plan")
    other = plane.files.put(ANN, "secret plan b")
    for attributes in ({}, {"tenant": ""}, {"tenant": 5.0}, {"tenant": True}, {"Tenant": "acme"}):
        with pytest.raises(TenantRequired) as refusal:
            await plane.retrieval.attach(ANN, store, Wanted(file_id, attributes))
        assert refusal.value.param == "attributes.tenant"
    with pytest.raises(TenantRequired) as refusal:
        await plane.retrieval.add_batch(ANN, store, [Wanted(file_id, {"tenant": "acme"}), Wanted(other, {})])
    assert refusal.value.param == "files.1.attributes.tenant"
    assert other in refusal.value.message
    with pytest.raises(Forbidden):
        await plane.retrieval.attach(OF_ACME, store, Wanted(file_id, {"tenant": "other"}))
    assert (await plane.retrieval.get(ANN, store)).counts.total == 0
    await put(plane, store, "acme", "secret plan c")
    (document,) = (
        await plane.retrieval.documents(ANN, store, 10, after=None, before=None, order="asc", status=None)
    ).data
    for attributes in ({}, {"tenant": ""}, {"tenant": 5.0}):
        with pytest.raises(TenantRequired):
            await plane.retrieval.describe(ANN, store, document.source_id, attributes, None)
    with pytest.raises(Forbidden):
        await plane.retrieval.describe(OF_ACME, store, document.source_id, {"tenant": "other"}, None)
    assert files(await ask(plane, store, "acme")) == [document.source_id]


async def test_a_file_moves_to_another_tenant_at_once_and_back(plane: Plane) -> None:
    """With its words; filters see what it says now."""
    store = await plane.store(tenancy=APART)
    stays, moves = await put(plane, store, "a", "secret plan one"), await put(plane, store, "a", "secret plan two")
    theirs = await put(plane, store, "b", "secret plan three")
    for _ in range(3):
        assert files(await ask(plane, store, "a")) == sorted([stays, moves])
        assert files(await ask(plane, store, "a", dense=0.0)) == sorted([stays, moves])
        await plane.retrieval.describe(ANN, store, moves, {"tenant": "b", "year": 2024.0}, None)
        for dense in (0.0, 1.0):
            assert files(await ask(plane, store, "a", dense=dense)) == [stays]
            assert files(await ask(plane, store, "b", dense=dense)) == sorted([moves, theirs])
        assert files(await ask(plane, store, "b", wanted=parse(YEAR))) == [moves]
        await plane.retrieval.describe(ANN, store, moves, {"tenant": "a"}, None)
        assert files(await ask(plane, store, "a", wanted=parse(YEAR))) == []


async def test_what_replaces_a_file_for_another_tenant_shows_nothing_of_it(plane: Plane) -> None:
    """Not even until it is read."""
    store = await plane.store(tenancy=APART)
    before = await put(plane, store, "a", "secret plan of a")
    plane.words.gate = asyncio.Event()
    after = plane.files.put(ANN, "public plan")
    await plane.retrieval.attach(ANN, store, Wanted(after, {"tenant": "b"}, replaces=before))
    for tenant in ("a", "b"):
        assert files(await ask(plane, store, tenant, dense=0.0)) == []
    plane.words.gate.set()
    assert (await plane.ended(store, after)).status == "completed"
    assert files(await ask(plane, store, "b")) == [after]
    assert files(await ask(plane, store, "a")) == []


async def test_a_bound_key_sees_and_changes_its_tenant_alone(plane: Plane) -> None:
    """Files, their texts and passages, lists, tenants, deletions; and of stores without tenancy all that it saw before."""
    store, plain = await plane.store(tenancy=APART), await plane.store()
    own, foreign = await put(plane, store, "acme", "secret plan a"), await put(plane, store, "other", "secret plan b")
    elsewhere = await put(plane, plain, "other", "secret plan c")
    look = plane.retrieval
    listed = await look.documents(OF_ACME, store, 10, after=None, before=None, order="asc", status=None)
    assert [each.source_id for each in listed.data] == [own]
    for what in (
        look.document(OF_ACME, store, foreign),
        look.text(OF_ACME, store, foreign),
        look.passages(OF_ACME, store, foreign, 10, -1),
        look.describe(OF_ACME, store, foreign, {"tenant": "acme"}, None),
        look.detach(OF_ACME, store, foreign),
        look.remove_tenant(OF_ACME, store, "other"),
    ):
        with pytest.raises(NotFound):
            await what
    with pytest.raises(Forbidden):
        await look.attach(OF_ACME, store, Wanted(foreign, {"tenant": "acme"}))
    assert files(await ask(plane, store, None, caller=OF_ACME)) == [own]
    assert files(await ask(plane, store, "acme", caller=OF_ACME)) == [own]
    with pytest.raises(Forbidden):
        await ask(plane, store, "other", caller=OF_ACME)
    assert [each.partition.tenant for each in (await look.tenants(OF_ACME, store, 10, None)).data] == ["acme"]
    everywhere = await plane.retrieval.search(OF_ACME, plain, Question(("secret plan",)))
    assert files(everywhere) == [elsewhere]


async def test_a_tenant_is_deleted_in_one_step(plane: Plane) -> None:
    """All that it had, and nothing else; whoever was still reading a file of it finds that out."""
    store = await plane.store(tenancy=APART)
    for number in range(3):
        await put(plane, store, "a", f"secret plan {number}")
    kept = await put(plane, store, "b/c", "secret plan four")
    plane.words.gate = asyncio.Event()
    file_id = plane.files.put(ANN, "secret plan five")
    await plane.retrieval.attach(ANN, store, Wanted(file_id, {"tenant": "a"}))
    await plane.at_work()
    listed = (await plane.retrieval.tenants(BEN, store, 10, None)).data
    assert [(each.partition.tenant, each.partition.documents) for each in listed] == [("a", 4), ("b/c", 1)]
    assert await plane.retrieval.remove_tenant(BEN, store, "a") == 4
    plane.words.gate.set()
    for _ in range(2):
        assert files(await ask(plane, store, "a")) == []
        assert files(await ask(plane, store, "a", dense=0.0)) == []
        assert files(await ask(plane, store, "b/c")) == [kept]
        plane.retrieval.maintain(store)
    for name in ("a", "nobody", "b", "", "x\0"):
        with pytest.raises(NotFound):
            await plane.retrieval.remove_tenant(ANN, store, name)
    assert (await plane.retrieval.get(ANN, store)).counts.total == 1
    plain = await plane.store()
    for refused in (plane.retrieval.tenants(ANN, plain, 10, None), plane.retrieval.remove_tenant(ANN, plain, "a")):
        with pytest.raises(BadRequest):
            await refused


async def test_words_weigh_as_in_a_store_of_their_own(plane: Plane) -> None:
    """What other tenants write changes no score, and neither does what moves away."""
    texts = ["valve gate valve", "gate of the north", "a pump and a valve", "the pump"]
    alone, store = await plane.store(), await plane.store(tenancy=APART)
    for text in texts:
        await put(plane, alone, "acme", text)
        await put(plane, store, "acme", text)
    moved = await put(plane, store, "acme", "valve valve valve pump")
    for number in range(20):
        await put(plane, store, "other", f"valve pump {number}")
    await plane.retrieval.describe(ANN, store, moved, {"tenant": "other"}, None)

    def told(found: Results) -> Sequence[tuple[str, float, object]]:
        return [(each.passage.text, each.score, each.traces[0].score) for each in found.results]

    for query in ("valve", "pump gate", "north"):
        question = Question((query,), dense=0.0)
        mine = await plane.retrieval.search(ANN, store, msgspec.structs.replace(question, tenant="acme"))
        assert told(mine) == told(await plane.retrieval.search(ANN, alone, question))
        both = await plane.retrieval.search(ANN, store, Question((query,), tenant="acme"))
        assert told(both) == told(await plane.retrieval.search(ANN, alone, Question((query,))))


async def test_what_stands_around_is_the_tenants_own(plane: Plane) -> None:
    """Neighbours, groups, diversity and labels work within it."""
    store = await plane.store(tenancy=APART)
    await put(plane, store, "a", "secret plan a. " * 200)
    await put(plane, store, "b", "secret plan b. " * 200)
    found = await ask(plane, store, "a", neighbours=Neighbours(1, 1), group=2)
    assert found.results
    for each in found.results:
        for part in (each, *each.more):
            assert part.document.tenant == "a"
            assert part.context is None or "plan b" not in part.context.text
    spy = msgspec.structs.replace(EVE, granted=frozenset({store}), tenant="a")
    labelled = plane.files.put(ANN, "secret plan labelled")
    await plane.retrieval.attach(ANN, store, Wanted(labelled, {"tenant": "a"}, labels=("key:key_ann",)))
    await plane.ended(store, labelled)
    assert labelled in files(await ask(plane, store, "a"))
    assert labelled not in files(await ask(plane, store, None, caller=spy))


async def test_tenancy_is_declared_while_a_store_is_empty(plane: Plane) -> None:
    """By whoever searches it at that moment, it is noticed."""
    store = await plane.store()
    assert files(await plane.retrieval.search(ANN, store, Question(("secret plan",)))) == []
    seen = await plane.retrieval.change(ANN, store, Change(tenancy=APART))
    assert seen.collection.tenancy == APART
    with pytest.raises(TenantRequired):
        await plane.retrieval.search(ANN, store, Question(("secret plan",)))
    own = await put(plane, store, "acme", "secret plan")
    assert files(await ask(plane, store, "acme")) == [own]
    assert (await plane.retrieval.change(ANN, store, Change(tenancy=APART, name="b"))).collection.name == "b"
    for other in (None, Tenancy("other")):
        with pytest.raises(BadRequest, match="with files in it"):
            await plane.retrieval.change(ANN, store, Change(tenancy=other))
    await plane.retrieval.detach(ANN, store, own)
    await plane.retrieval.change(ANN, store, Change(tenancy=None))
    later = await put(plane, store, "acme", "secret plan")
    assert files(await plane.retrieval.search(ANN, store, Question(("secret plan",)))) == [later]


async def test_a_move_during_searches_shows_nobody_a_foreign_passage(plane: Plane) -> None:
    """Whatever is half done: a passage is of the tenant that asks, or it is not shown."""
    store = await plane.store(tenancy=APART)
    both = [await put(plane, store, "a", f"secret plan {n}") for n in range(4)]
    over = asyncio.Event()

    async def move() -> None:
        for turn in range(30):
            await plane.retrieval.describe(ANN, store, both[turn % 4], {"tenant": "ab"[turn % 2]}, None)
        over.set()

    async def look(tenant: str) -> int:
        seen = 0
        while not over.is_set():
            for dense in (1.0, 0.0):
                found = await ask(plane, store, tenant, dense=dense, neighbours=Neighbours(1, 1))
                assert all(each.document.tenant == tenant for each in found.results)
                seen += len(found.results)
        return seen

    _, *seen = await asyncio.gather(move(), look("a"), look("b"), look("a"))
    assert any(seen)


async def test_a_snapshot_keeps_tenants_apart(plane: Plane, tmp_path: Path) -> None:
    store = await plane.store(tenancy=APART)
    await put(plane, store, "a", "secret plan a")
    await put(plane, store, "b", "secret plan b")
    taken = snapshots.take(plane.database, tmp_path / "snapshots", store)
    made = snapshots.restore(plane.database, tmp_path / "snapshots", store, taken.id)
    assert made.tenancy == APART
    found = await ask(plane, made.id, "b")
    assert [each.passage.text for each in found.results] == ["secret plan b"]
    with pytest.raises(TenantRequired):
        await ask(plane, made.id, None)


async def test_a_sample_is_drawn_of_all_tenants(plane: Plane) -> None:
    store = await plane.store(tenancy=APART)
    for tenant in "abc":
        await put(plane, store, tenant, f"secret plan {tenant}")
    drawn = await plane.retrieval.sample(store, 0, 10)
    assert drawn is not None
    assert drawn.vectors.shape[0] == 3
    later = await plane.retrieval.sample(store, drawn.newest, 10)
    assert later is not None
    assert (later.newest, len(later.vectors)) == (drawn.newest, 0)
