"""Collections whose documents are cut anew while they are in use, on both kinds of database: both cuts are right, and nothing
is left of either.
"""

import asyncio
from pathlib import Path

import pytest

from retrieval import cut_store, snapshots
from retrieval.access import Caller
from retrieval.asking import Neighbours, Question, Result, Wanted
from retrieval.chunking_strategy import Chunking
from retrieval.errors import Conflict, Refused
from retrieval.job_store import Owner
from retrieval.reembedding import moves, store
from retrieval.reembedding.record import Asked, Gate, Reembedding, Relevant, Terms
from retrieval.spaces import FIRST
from tests.fixtures.anew import PAYER, SMALL, House
from tests.fixtures.editions import cut, require_sound, unread, words
from tests.fixtures.retrieval import ANN, BEN

TINY = Chunking("static", 40, 0)
AWAY = Refused(503, "away", "upstream_error", None, again=True, wait_s=0.2)


def story(name: str, tokens: int = 400) -> str:
    """Each fortieth word is one of its own."""
    return " ".join(f"{name}{at // 40}" if at % 40 == 0 else name for at in range(tokens))


async def put(house: House, home: str, text: str, chunking: Chunking | None = SMALL, **more: object) -> str:
    id_ = house.files.put(ANN, text)
    await house.retrieval.attach(ANN, home, Wanted(id_, chunking=chunking, **more))  # type: ignore[arg-type]
    assert (await house.ended(home, id_)).status == "completed"
    return id_


async def both(house: House, home: str, text: str, caller: Caller = ANN) -> tuple[Result, Result]:
    """The first by meaning, and the first by words."""
    found = []
    for dense, lexical in ((1.0, 0.0), (0.0, 1.0)):
        question = Question((text,), dense=dense, lexical=lexical, neighbours=Neighbours(1, 1))
        found.append((await house.retrieval.search(caller, home, question)).results[0])
    return found[0], found[1]


async def by_words(house: House, home: str, text: str, caller: Caller = ANN) -> int:
    """How many passages have a word."""
    return len((await house.retrieval.search(caller, home, Question((text,), dense=0.0))).results)


async def sizes(house: House, home: str, text: str, caller: Caller = ANN) -> set[int]:
    """Of the passages that are found either way."""
    return {len(each.passage.text.split()) for each in await both(house, home, text, caller)}


def promote(house: House, one: Reembedding) -> None:
    house.database.write(lambda tx: moves.promote(tx, one.collection_id, one.id, force=False))


def roll_back(house: House, one: Reembedding) -> None:
    house.database.write(lambda tx: moves.roll_back(tx, one.collection_id, one.id, None))


async def test_documents_are_cut_anew_and_back(house: House, tmp_path: Path) -> None:
    """Old passages until the swap and after a rollback, new ones between, by meaning and by words; files come, change and go meanwhile."""
    home = await house.store()
    alpha, beta, gamma = [await put(house, home, story(name)) for name in ("alpha", "beta", "gamma")]
    before = cut(house, home, FIRST)
    house.work()
    one = await house.reach(house.begin(home, chunking=TINY), "ready")
    assert (one.after.version, one.after.edition, one.after.chunking) == (2, 2, TINY)
    assert cut(house, home, FIRST) == before
    assert await sizes(house, home, "alpha3") == {100}
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.0, [BEN.key_id]))
    assert await sizes(house, home, "alpha3", BEN) == {40}
    assert await sizes(house, home, "alpha3", ANN) == {100}
    assert {len(each.text.split()) for each in await house.retrieval.passages(BEN, home, alpha, 50, -1)} == {40}
    for text in ("beta7", "gamma9"):
        for caller, size in ((ANN, 100), (BEN, 40)):
            for each in await both(house, home, text, caller):
                assert text in each.passage.text.split()
                assert each.context is not None
                assert " ".join(each.context.text.split()) in story(text[:-1])
                assert size < len(each.context.text.split()) <= 3 * size
    delta = await put(house, home, story("delta"))
    house.files.put(ANN, story("alpha", 200) + " " + story("omega"), id_=alpha)
    await house.retrieval.attach(ANN, home, Wanted(alpha, chunking=SMALL))
    await house.ended(home, alpha)
    await house.retrieval.detach(ANN, home, beta)
    for caller, size in ((ANN, 100), (BEN, 40)):
        assert await sizes(house, home, "delta5", caller) == {size}
        assert await sizes(house, home, "omega5", caller) == {size}
        assert await by_words(house, home, "alpha9", caller) == 0
    assert not house.now(one).behind
    promote(house, one)
    require_sound(house, home)
    assert {len(each) for each in cut(house, home, 2).values()} == {10, 15}
    document = await house.retrieval.document(ANN, home, delta)
    assert (document.chunking, document.passages) == (TINY, 10)
    assert await sizes(house, home, "delta5") == {40}
    assert (await house.retrieval.get(ANN, home)).counts.passages == 35
    epsilon = await put(house, home, story("epsilon"))
    other = await put(house, home, story("zeta"), None)
    assert (await house.retrieval.document(ANN, home, epsilon)).chunking == SMALL, "as was asked for"
    assert (await house.retrieval.document(ANN, home, other)).chunking == TINY, "as all are in this store now"
    assert await sizes(house, home, "zeta5") == {40}
    assert not house.now(one).behind
    roll_back(house, one)
    require_sound(house, home)
    assert await sizes(house, home, "alpha1") == await sizes(house, home, "epsilon3") == {100}
    assert (await house.retrieval.document(ANN, home, other)).chunking == Chunking()
    assert (await house.retrieval.document(ANN, home, gamma)).chunking == SMALL
    assert cut(house, home, FIRST)[gamma] == before[gamma]
    await house.until(one, lambda found: found.collected)
    assert unread(house, home, 2, 2) == (0, 0, 0)
    house.retrieval._residents.sweep()
    assert words(tmp_path / "retrieval", home, 2) is None
    assert words(tmp_path / "retrieval", home, FIRST) is not None


async def test_an_edition_outlives_the_version_that_began_it(house: House, tmp_path: Path) -> None:
    """A new cut, then a new model for it, then a new cut again; what is finished with leaves nothing, and snapshots have what is read."""
    home = await house.store()
    alpha, _ = await put(house, home, story("alpha")), await put(house, home, story("beta"))
    house.work()
    at_once = Terms(auto=True, keep_s=0)
    one = house.begin(home, "words", at_once, TINY)
    for model, chunking, left in (
        (None, None, (FIRST, FIRST)),
        ("better", None, (2, None)),
        ("other", Chunking("static", 60, 0), (3, 2)),
    ):
        one = one if model is None else house.begin(home, model, at_once, chunking)
        one = await house.reach(one, "finished")
        await house.until(one, lambda found: found.collected)
        require_sound(house, home)
        version, edition = left
        if edition is not None:
            assert unread(house, home, version, edition) == (0, 0, 0)
            assert words(tmp_path / "retrieval", home, edition) is None
        assert {each.document.source_id for each in await both(house, home, "alpha3")} == {alpha}
        assert await sizes(house, home, "alpha3") == {40 if one.after.edition == 2 else 60}
        house.retrieval._residents.sweep()
    assert (one.after.version, one.after.edition) == (4, 4)
    taken = snapshots.take(house.database, tmp_path, home)
    back = snapshots.restore(house.database, tmp_path, home, taken.id)
    assert (back.edition, back.chunking) == (FIRST, Chunking("static", 60, 0))
    require_sound(house, back.id)
    assert await sizes(house, back.id, "alpha3") == {60}


async def test_a_document_whose_file_is_gone_is_kept_as_it_is(house: House) -> None:
    """And one that reads differently: nothing is lost, each is told by its name, and in both editions it says what its text says."""
    home = await house.store()
    gone, other, well = [await put(house, home, story(name)) for name in ("gone", "other", "well")]
    house.files.drop(gone)
    house.files.put(ANN, story("changed"), id_=other)
    house.work()
    one = await house.reach(house.begin(home, chunking=TINY, terms=Terms(auto=True)), "swapped")
    require_sound(house, home)
    kept = house.database.read(lambda tx: cut_store.kept(tx, home, FIRST, 10))
    assert [(each.source_id, each.note) for each in kept] == [
        (gone, "The content of the file is gone from the server's folder"),
        (other, "Its file is another one by now, which is not read yet"),
    ]
    assert await sizes(house, home, "gone3") == await sizes(house, home, "other3") == {100}
    assert await sizes(house, home, "well3") == {40}
    assert (await house.retrieval.document(ANN, home, gone)).chunking == SMALL
    assert (await house.retrieval.document(ANN, home, well)).chunking == TINY
    await house.retrieval.attach(ANN, home, Wanted(other))
    assert (await house.ended(home, other)).chunking == TINY
    assert await sizes(house, home, "changed3") == {40}
    roll_back(house, one)
    assert await sizes(house, home, "changed3") == {400}, "as the old edition would have cut it"
    require_sound(house, home)


async def test_files_do_not_wait_for_the_edition_that_nobody_reads(house: House) -> None:
    """Its model is away: what is added or changed is found at once, a canary reads old passages until it is made up for."""
    home = await house.store()
    alpha = await put(house, home, story("alpha"))
    house.work()
    one = await house.reach(house.begin(home, chunking=TINY, terms=Terms(max_attempts=1000)), "ready")
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 1.0, []))
    assert await sizes(house, home, "alpha3") == {40}
    house.models.failing["better"] = AWAY
    await put(house, home, story("beta"))
    house.files.put(ANN, story("gamma"), id_=alpha)
    await house.retrieval.attach(ANN, home, Wanted(alpha, chunking=SMALL))
    await house.ended(home, alpha)
    assert house.now(one).state == "backfilling"
    assert await sizes(house, home, "beta3") == await sizes(house, home, "gamma3") == {100}
    house.models.failing.clear()
    await house.reach(one, "canary")
    assert await sizes(house, home, "beta3") == await sizes(house, home, "gamma3") == {40}
    promote(house, one)
    require_sound(house, home)
    house.models.failing["words"] = AWAY
    house.files.put(ANN, story("delta"), id_=alpha)
    await house.retrieval.attach(ANN, home, Wanted(alpha, chunking=SMALL))
    await house.ended(home, alpha)
    with pytest.raises(Conflict, match="catching up"):
        roll_back(house, one)
    house.models.failing.clear()
    await house.until(one, lambda found: not found.behind)
    roll_back(house, one)
    require_sound(house, home)
    assert {each.passage.edition for each in await both(house, home, "delta3")} == {FIRST}
    assert await by_words(house, home, "gamma3") == 0


async def test_a_file_that_is_being_read_at_the_swap_is_right_in_both(house: House) -> None:
    """Its passages were prepared for the version that was read when it began."""
    home = await house.store()
    await put(house, home, story("alpha"))
    house.work()
    one = await house.reach(house.begin(home, chunking=TINY), "ready")
    for move in (promote, roll_back):
        entered, go = asyncio.Event(), asyncio.Event()
        house.models.holding["better" if move is promote else "words"] = entered, go
        name = "swap" if move is promote else "back"
        id_ = house.files.put(ANN, story(name))
        await house.retrieval.attach(ANN, home, Wanted(id_, chunking=SMALL))
        await asyncio.wait_for(entered.wait(), 20)
        move(house, one)
        house.models.holding.clear()
        go.set()
        assert (await house.ended(home, id_)).status == "completed"
        require_sound(house, home)
        assert await sizes(house, home, f"{name}3") == {40 if move is promote else 100}, "as it is cut where it is read"
    await house.until(one, lambda found: found.collected)
    assert unread(house, home, 2, 2) == (0, 0, 0)


@pytest.mark.parametrize("move", ["cancel", "delete"])
async def test_given_up_midway(house: House, move: str) -> None:
    """While documents are being cut: nothing is left, and the old passages never went."""
    home = await house.store()
    ids = [await put(house, home, story(f"name{number}x")) for number in range(4)]
    before = cut(house, home, FIRST)
    entered, go = asyncio.Event(), asyncio.Event()
    house.models.holding["better"] = entered, go
    house.work()
    one = house.begin(home, chunking=TINY)
    with pytest.raises(Conflict, match=one.id):
        house.begin(home, chunking=SMALL)
    await asyncio.wait_for(entered.wait(), 20)
    if move == "cancel":
        house.database.write(lambda tx: moves.cancel(tx, home, one.id))
    else:
        await house.retrieval.detach(ANN, home, ids.pop())
    go.set()
    if move == "cancel":
        await house.until(one, lambda found: found.collected)
        assert cut(house, home, FIRST) == before
        assert unread(house, home, 2, 2) == (0, 0, 0)
    else:
        await house.reach(one, "ready")
        promote(house, one)
        assert {len(each) for each in cut(house, home, 2).values()} == {10}
    require_sound(house, home)


async def test_what_is_deleted_is_gone_from_both(house: House) -> None:
    home = await house.store()
    alpha, _ = await put(house, home, story("alpha")), await put(house, home, story("beta"))
    house.work()
    await house.reach(house.begin(home, chunking=TINY, terms=Terms(auto=True)), "swapped")
    await house.retrieval.detach(ANN, home, alpha)
    assert (unread(house, home, FIRST, FIRST)[0], unread(house, home, 2, 2)[0]) == (4, 10)
    await house.retrieval.delete(ANN, home)
    assert unread(house, home, FIRST, FIRST) == unread(house, home, 2, 2) == (0, 0, 0)


async def test_every_replica_reads_the_new_cut_at_once(house: House, tmp_path: Path) -> None:
    """By words as well: one that has the old ones in memory answers from the new ones as soon as another has swapped, and back."""
    home = await house.store()
    await put(house, home, story("alpha"))
    house.work()
    other = House(house.database, tmp_path / "elsewhere", house.files, house.models, "ses_2")
    assert await sizes(other, home, "alpha3") == {100}
    one = await house.reach(house.begin(home, "words", chunking=TINY), "ready")
    for move, size in ((promote, 40), (roll_back, 100)):
        move(house, one)
        assert await sizes(other, home, "alpha3") == await sizes(house, home, "alpha3") == {size}
    await other.stop()


async def test_the_gate_compares_documents(house: House) -> None:
    """Questions name files, or places in them: shorter passages of the same files lose nothing, a model that tells nothing apart does."""
    home = await house.store()
    names = [f"river{number}n" for number in range(8)]
    ids = [await put(house, home, story(name)) for name in names]
    house.work()
    asked = [
        *(Asked(f"{name} {name}5", [Relevant(id_)]) for name, id_ in zip(names, ids, strict=True)),
        *(Asked(f"{name}5", [Relevant(id_, 1, *_place(name))]) for name, id_ in zip(names, ids, strict=True)),
    ]
    bad = await house.until(
        house.begin(home, "dull", Terms(Gate(asked, 0.05), auto=True), TINY), lambda found: found.verdict is not None
    )
    assert bad.verdict is not None
    assert not bad.verdict.passed
    assert await sizes(house, home, f"{names[0]}5") == {100}
    house.database.write(lambda tx: moves.cancel(tx, home, bad.id))
    good = await house.reach(house.begin(home, "better", Terms(Gate(asked, 0.05), auto=True), TINY), "swapped")
    assert good.verdict is not None
    assert good.verdict.passed, good.verdict.reason


def _place(name: str) -> tuple[int, int]:
    at = story(name).index(f"{name}5")
    return at, at + len(name) + 1


async def test_another_process_goes_on_where_one_has_died(house: House) -> None:
    """What was cut is not read again, what was embedded is not embedded again."""
    home = await house.store()
    for number in range(5):
        await put(house, home, story(f"name{number}x"))
    one = house.begin(home, chunking=TINY)
    claimed = house.database.write(lambda tx: store.claim(tx, one, Owner("ses_dead", "host_1")))
    assert claimed is not None
    recut = house.retrieval.backfill._recut
    await recut._cut(claimed, 1)
    await recut._cut(claimed, 2)
    done = cut(house, home, 2)
    assert sum(map(len, done.values())) == 20
    house.work()
    await house.reach(one, "ready")
    assert {key: value for key, value in cut(house, home, 2).items() if done[key]} == {
        key: value for key, value in done.items() if value
    }
    assert len(house.models.texts("better", PAYER)) == 50
    promote(house, one)
    require_sound(house, home)


async def test_a_failed_one_is_gone_on_with(house: House) -> None:
    """Files that came, changed or went since it failed are right in it as well."""
    home = await house.store()
    alpha, beta, gamma = [await put(house, home, story(name)) for name in ("alpha", "beta", "gamma")]
    house.work()
    house.models.failing["better"] = Refused(500, "broken", "upstream_error", None, again=True, wait_s=0)
    one = await house.reach(house.begin(home, chunking=TINY, terms=Terms(max_attempts=2)), "failed")
    assert sum(map(len, cut(house, home, 2).values())) == 30
    await put(house, home, story("delta"))
    house.files.put(ANN, story("omega"), id_=alpha)
    await house.retrieval.attach(ANN, home, Wanted(alpha, chunking=SMALL))
    await house.ended(home, alpha)
    await house.retrieval.detach(ANN, home, gamma)
    house.models.failing.clear()
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "ready")
    promote(house, one)
    require_sound(house, home)
    for text in ("omega3", "delta3", "beta3"):
        assert await sizes(house, home, text) == {40}
    assert set(cut(house, home, 2)) == {alpha, beta, *cut(house, home, FIRST)}
