"""Collections that are embedded anew while they are in use, on both kinds of database: what is read, what is written, what a fault does."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from retrieval import collection_store, embedding_store, snapshots
from retrieval.asking import Diversity, Wanted
from retrieval.database import Database
from retrieval.errors import BadRequest, Conflict, Refused
from retrieval.job_store import Owner
from retrieval.reembedding import gate, moves, store
from retrieval.reembedding.record import Asked, Gate, Reembedding, Relevant, Terms
from retrieval.spaces import FIRST, Canary, Space, place_of, version_at
from retrieval.tables import passage_embeddings
from retrieval.tenancy import Tenancy
from tests.fixtures.anew import PAYER, SMALL, House, Models
from tests.fixtures.retrieval import ANN, BEN


def vectors(database: Database, home: str, version: int) -> int:
    return database.read(lambda tx: embedding_store.number(tx, home, version))


async def test_a_collection_is_embedded_anew_and_back(house: House) -> None:
    """Read in the old version until the swap, in the new one from then on, in the old one after a rollback; nothing is ever missed,
    files come and go meanwhile, who pays is who was named, and what nobody reads any more is taken away."""
    home, (alpha, beta) = await house.filled("alpha", "beta")
    house.work()
    one = house.begin(home)
    assert (one.state, one.before.version, one.after.version) == ("backfilling", FIRST, 2)
    one = await house.reach(one, "ready")
    assert (one.after.dimensions, one.behind, one.owner) == (768, False, None)
    assert await house.reads(home) == FIRST
    assert set(house.models.texts("better")) == set(house.models.texts("better", PAYER)) != set()
    assert {tags for model, _, tags, _ in house.models.asked if model == "better"} == {("reembedding",)}
    _, (gamma,) = await house.filled("gamma", into=home)
    await house.retrieval.detach(ANN, home, beta)
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=False))
    assert await house.reads(home) == 2
    seen = await house.retrieval.get(ANN, home)
    assert (seen.collection.model, seen.collection.dimensions, seen.collection.version) == ("better", 768, 2)
    assert seen.counts.usage_bytes == 2 * (len("alpha " * 100) - 1) + 4 * 768 * 2, (
        "as if it had always been the new model's"
    )
    assert (await house.first(home, "gamma"), await house.first(home, "alpha")) == (gamma, alpha)
    assert beta not in {each.document.source_id for each in (await house.ask(home, "beta")).results}
    mixed = await house.ask(home, "gamma", diversity=Diversity())
    assert mixed.results[0].document.source_id == gamma
    _, (delta,) = await house.filled("delta", into=home)
    assert await house.first(home, "delta") == delta
    house.database.write(lambda tx: moves.roll_back(tx, home, one.id, "it was slower"))
    assert await house.reads(home) == FIRST
    for name, file_id in (("alpha", alpha), ("gamma", gamma), ("delta", delta)):
        assert await house.first(home, name) == file_id
    await house.until(one, lambda found: found.collected)
    assert (house.now(one).state, house.now(one).reason) == ("rolled_back", "it was slower")
    assert (vectors(house.database, home, 2), vectors(house.database, home, FIRST)) == (0, 3)
    again = await house.reach(house.begin(home, "other", Terms(auto=True, keep_s=0)), "finished")
    assert again.after.version == 3, "a number is never used again"
    await house.until(again, lambda found: found.collected)
    assert (vectors(house.database, home, FIRST), vectors(house.database, home, 3)) == (0, 3)
    assert await house.reads(home) == 3
    assert await house.first(home, "delta") == delta


async def test_who_reads_what_is_settled_by_its_key(house: House) -> None:
    """A canary's keys read the new version before the others do, each always the same; with nobody in it all read the old one."""
    home, (alpha,) = await house.filled("alpha")
    house.work()
    one = await house.reach(house.begin(home), "ready")
    lent = house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.0, [BEN.key_id]))
    assert lent.state == "canary"
    assert (await house.reads(home, ANN), await house.reads(home, BEN)) == (FIRST, 2)
    assert (await house.first(home, "alpha", ANN), await house.first(home, "alpha", BEN)) == (alpha, alpha)
    _, (beta,) = await house.filled("beta", into=home)
    assert (await house.first(home, "beta", ANN), await house.first(home, "beta", BEN)) == (beta, beta)
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 1.0, []))
    assert (await house.reads(home, ANN), await house.reads(home, BEN)) == (2, 2)
    back = house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.0, []))
    assert back.state == "ready"
    assert (await house.reads(home, ANN), await house.reads(home, BEN)) == (FIRST, FIRST)
    house.database.write(lambda tx: moves.cancel(tx, home, one.id))
    await house.until(one, lambda found: found.collected)
    assert vectors(house.database, home, 2) == 0
    with pytest.raises(Conflict, match="cancelled"):
        house.database.write(lambda tx: moves.promote(tx, home, one.id, force=True))


async def test_a_swap_is_seen_by_every_replica_at_once(house: House, tmp_path: Path) -> None:
    """A process that has everything in memory answers from the new version as soon as another one has swapped, and back."""
    home, (alpha,) = await house.filled("alpha")
    house.work()
    other = House(house.database, tmp_path / "elsewhere", house.files, house.models, "ses_2")
    assert await other.reads(home) == FIRST
    one = await house.reach(house.begin(home), "ready")
    for move, version in ((_promoted, 2), (_rolled_back, FIRST)):
        house.database.write(lambda tx, move=move: move(tx, one))  # type: ignore[misc]
        assert (await other.reads(home), await house.reads(home)) == (version, version)
        assert await other.first(home, "alpha") == alpha
    await other.stop()


def _promoted(tx: object, one: Reembedding) -> None:
    moves.promote(tx, one.collection_id, one.id, force=False)  # type: ignore[arg-type]


def _rolled_back(tx: object, one: Reembedding) -> None:
    moves.roll_back(tx, one.collection_id, one.id, None)  # type: ignore[arg-type]


async def test_a_search_that_began_before_the_swap_is_asked_again(house: House) -> None:
    """Its vector is of the old model: it is made again for the new one, and no vector meets those of another model."""
    home, (alpha,) = await house.filled("alpha")
    house.work()
    one = await house.reach(house.begin(home), "ready")
    await house.reads(home)
    swapped: list[bool] = []

    class Late(Models):
        async def embed(self, texts, model, payer, **more):  # type: ignore[no-untyped-def]
            made = await super().embed(texts, model, payer, **more)
            if model == "words" and not swapped:
                swapped.append(True)
                await asyncio.to_thread(house.database.write, lambda tx: _promoted(tx, one))
            return made

    late = Late()
    other = House(house.database, house.retrieval._residents._folder.parent / "late", house.files, late, "ses_3")
    found = await other.ask(home, "alpha")
    assert swapped
    assert found.embedded is not None
    assert (found.embedded.version, found.results[0].document.source_id) == (2, alpha)
    assert [model for model, *_ in late.asked] == ["words", "better"]
    await other.stop()


async def test_documents_do_not_wait_for_the_version_that_nobody_reads(house: House) -> None:
    """Its model is away: what is added is found at once, canary keys read the old version until what is missing is made up for."""
    home, _ = await house.filled("alpha")
    house.work()
    one = await house.reach(house.begin(home, terms=Terms(max_attempts=1000)), "ready")
    house.database.write(lambda tx: moves.lend(tx, home, one.id, 1.0, []))
    assert await house.reads(home) == 2
    house.models.failing["better"] = Refused(503, "away", "upstream_error", None, again=True, wait_s=0.2)
    _, (beta,) = await house.filled("beta", into=home)
    behind = house.now(one)
    assert (behind.state, behind.behind) == ("backfilling", True)
    assert await house.reads(home) == FIRST
    assert await house.first(home, "beta") == beta
    with pytest.raises(Conflict, match="backfilling"):
        house.database.write(lambda tx: _promoted(tx, one))
    house.models.failing.clear()
    await house.reach(one, "canary")
    assert await house.reads(home) == 2
    assert await house.first(home, "beta") == beta
    house.database.write(lambda tx: _promoted(tx, one))
    house.models.failing["words"] = Refused(503, "away", "upstream_error", None, again=True, wait_s=0.2)
    _, (gamma,) = await house.filled("gamma", into=home)
    assert await house.first(home, "gamma") == gamma
    with pytest.raises(Conflict, match="catching up"):
        house.database.write(lambda tx: _rolled_back(tx, one))
    house.models.failing.clear()
    await house.until(one, lambda found: not found.behind)
    house.database.write(lambda tx: _rolled_back(tx, one))
    assert (await house.reads(home), await house.first(home, "gamma")) == (FIRST, gamma)


async def test_a_model_that_fails_ends_it_with_a_reason(house: House) -> None:
    """After so many attempts; the old version answers as before, and whoever goes on embeds nothing a second time."""
    home, (alpha, beta) = await house.filled("alpha", "beta")
    house.work()
    house.models.failing["better"] = Refused(
        500, "Embedding: out of memory", "upstream_error", None, again=True, wait_s=0
    )
    one = await house.reach(house.begin(home, terms=Terms(max_attempts=3)), "failed")
    assert one.reason == "Embedding: out of memory"
    assert (await house.reads(home), await house.first(home, "beta")) == (FIRST, beta)
    house.models.failing.clear()
    house.database.write(lambda tx: moves.resume(tx, home, one.id))
    await house.reach(one, "ready")
    assert len([text for text in house.models.texts("better") if text.startswith(("alpha", "beta"))]) == 2
    house.models.failing["other"] = Refused(403, "Embedding: not for this key", "permission_error", None)
    house.database.write(lambda tx: moves.cancel(tx, home, one.id))
    denied = await house.reach(house.begin(home, "other"), "failed")
    assert (denied.reason, denied.attempts) == ("Embedding: not for this key", 0)
    assert await house.first(home, "alpha") == alpha


async def test_the_gate_measures_both_versions(house: House) -> None:
    """One that finds less than is allowed is not swapped, unless somebody insists; what is measured stands beside each other."""
    names = [f"river{number}" for number in range(12)]
    home, ids = await house.filled(*names)
    house.work()
    asked = [Asked(name, [Relevant(id_)]) for name, id_ in zip(names, ids, strict=True)]
    one = await house.until(
        house.begin(home, "dull", Terms(Gate(asked, 0.05, k=1), auto=True)), lambda found: found.verdict is not None
    )
    assert one.state == "ready"
    assert one.verdict is not None
    assert not one.verdict.passed
    assert one.verdict.before["recall@1"] == one.verdict.before["ndcg@10"] == 1
    assert one.verdict.after["recall@1"] <= 0.1
    assert one.verdict.worst[0].after < one.verdict.worst[0].before
    assert "recall@1 1.0000 → " in (one.reason or "")
    with pytest.raises(Conflict, match="gate failed"):
        house.database.write(lambda tx: _promoted(tx, one))
    with pytest.raises(Conflict, match="gate failed"):
        house.database.write(lambda tx: moves.lend(tx, home, one.id, 0.5, []))
    assert await house.reads(home) == FIRST
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=True))
    house.database.write(lambda tx: _rolled_back(tx, one))
    good = await house.reach(house.begin(home, terms=Terms(Gate(asked, 0.05), auto=True)), "swapped")
    assert good.verdict is not None
    assert good.verdict.passed
    house.database.write(lambda tx: moves.finish(tx, home, good.id))
    nobody = Gate([Asked("x", [Relevant("file-none")])], 0.05)
    with pytest.raises(BadRequest, match=r"queries\.0"):
        house.begin(home, terms=Terms(nobody))


async def test_tenants_are_embedded_anew_together_and_stay_apart(house: House) -> None:
    """The gate asks each question of whoever has its answers; a question of two tenants is none."""
    home = await house.store(tenancy=Tenancy("tenant", 1000))
    ids = {}
    for tenant, name in (("a", "alpha"), ("a", "beta"), ("b", "alpha")):
        file_id = ids[tenant + name] = house.files.put(ANN, " ".join([name] * 100))
        await house.retrieval.attach(ANN, home, Wanted(file_id, {"tenant": tenant}, chunking=SMALL))
        assert (await house.ended(home, file_id)).status == "completed"
    both = Asked("alpha", [Relevant(ids["aalpha"]), Relevant(ids["balpha"])])
    with pytest.raises(BadRequest, match="of several tenants"):
        house.begin(home, terms=Terms(gate=Gate([both], 0.02)))
    questions = [Asked("alpha", [Relevant(ids["balpha"])]), Asked("beta", [Relevant(ids["abeta"])])]
    house.work()
    one = await house.reach(house.begin(home, terms=Terms(gate=Gate(questions, 0.02))), "ready")
    assert one.verdict is not None
    assert one.verdict.passed
    assert set(one.verdict.after.values()) == {1.0}
    house.database.write(lambda tx: moves.promote(tx, home, one.id, force=False))
    for tenant, there in (("a", {"aalpha", "abeta"}), ("b", {"balpha"})):
        found = await house.ask(home, "alpha", tenant=tenant)
        assert found.embedded is not None
        assert found.embedded.model == "better"
        assert {each.document.source_id for each in found.results} == {ids[each] for each in there}
    await house.retrieval.describe(ANN, home, ids["abeta"], {"tenant": "b"}, None)
    found = await house.ask(home, "beta", tenant="b")
    assert found.results[0].document.source_id == ids["abeta"]
    house.database.write(lambda tx: moves.roll_back(tx, home, one.id, "for once"))
    found = await house.ask(home, "beta", tenant="b")
    assert found.embedded is not None
    assert (found.embedded.model, found.results[0].document.source_id) == ("words", ids["abeta"])


async def test_one_at_a_time(house: House) -> None:
    home, _ = await house.filled("alpha")
    one = house.begin(home)
    with pytest.raises(Conflict, match=one.id):
        house.begin(home, "other")
    with pytest.raises(Conflict, match="backfilling"):
        house.database.write(lambda tx: moves.roll_back(tx, home, one.id, None))
    await house.retrieval.delete(ANN, home)
    assert house.database.read(lambda tx: store.by_id(tx, home, one.id)) is None


async def test_an_empty_store_and_other_dimensions(house: House, tmp_path: Path) -> None:
    """There is nothing to embed: the first document is, in the new version, with the dimensions that are asked for."""
    home = await house.store()
    house.work()
    one = await house.reach(house.begin(home, cut=8, terms=Terms(auto=True)), "swapped")
    _, (alpha,) = await house.filled("alpha", into=home)
    found = await house.ask(home, "alpha")
    assert found.embedded is not None
    assert (found.embedded.version, found.embedded.dimensions) == (one.after.version, 8)
    assert found.results[0].document.source_id == alpha
    taken = snapshots.take(house.database, tmp_path, home)
    back = snapshots.restore(house.database, tmp_path, home, taken.id)
    assert (back.version, back.model, back.dimensions, back.cut) == (FIRST, "better", 8, 8)
    assert await house.first(back.id, "alpha") == alpha
    house.database.write(lambda tx: _rolled_back(tx, one))
    assert (await house.reads(home), await house.first(home, "alpha")) == (FIRST, alpha)


async def test_what_is_deleted_leaves_no_vector_of_any_version(house: House) -> None:
    home, (alpha, _) = await house.filled("alpha", "beta")
    house.work()
    await house.reach(house.begin(home, terms=Terms(auto=True)), "swapped")
    await house.retrieval.detach(ANN, home, alpha)
    count = select(func.count()).select_from(passage_embeddings)
    assert house.database.read(lambda tx: tx.execute(count).scalar_one()) == 1
    await house.retrieval.delete(ANN, home)
    assert house.database.read(lambda tx: tx.execute(count).scalar_one()) == 0
    assert house.database.read(lambda tx: collection_store.by_id(tx, home)) is None


async def test_another_process_goes_on_where_one_has_died(house: House) -> None:
    """What was embedded is not embedded again, and the dead one's lease is no obstacle on its machine."""
    home, _ = await house.filled(*(f"name{number}" for number in range(7)))
    one = house.begin(home)
    dead = Owner("ses_dead", "host_1")
    claimed = house.database.write(lambda tx: store.claim(tx, one, dead))
    assert claimed is not None
    done = house.database.read(lambda tx: embedding_store.missing(tx, home, 2, 0, 3))
    made = {each.id: np.ones(768, "<f4").tobytes() for each in done}
    house.database.write(lambda tx: embedding_store.add(tx, home, 2, made))
    house.work()
    await house.reach(one, "ready")
    assert len(house.models.texts("better")) == 4
    assert vectors(house.database, home, 2) == 7


def test_a_canary_grows_and_keeps_who_is_in_it() -> None:
    """The share is about right, a larger one has all of a smaller one's keys, and another re-embedding draws others."""
    keys = [f"key_{number}" for number in range(4000)]
    space = Space(2, "better")
    some, more = ({key for key in keys if Canary(space, share, (), "reemb_1").reads(key)} for share in (0.1, 0.3))
    assert some < more
    assert 0.08 < len(some) / len(keys) < 0.12
    others = {key for key in keys if Canary(space, 0.1, (), "reemb_2").reads(key)}
    assert others != some
    assert Canary(space, 0.0, ("key_1",), "").reads("key_1")
    assert not any(Canary(space, 0.0, (), "x").reads(key) for key in keys)
    assert all(Canary(space, 1.0, (), "x").reads(key) for key in keys)


def test_places_say_whose_they_are() -> None:
    for version in (FIRST, 2, 17):
        assert version_at(place_of("vs_1", version)) == ("vs_1", version)


def test_a_gate_allows_what_it_says_and_no_more() -> None:
    """Recall and nDCG, each by itself; a passage that answers is found by its characters."""
    asked = [Asked("a", [Relevant("f1")]), Asked("b", [Relevant("f2")])]
    whole = [["f1"], ["f2"]]
    assert gate.verdict(Gate(asked, 0.0), whole, whole).passed
    half = gate.verdict(Gate(asked, 0.5), whole, [["f1"], ["f3"]])
    assert half.passed
    assert (half.before["recall@10"], half.after["recall@10"]) == (1.0, 0.5)
    worse = gate.verdict(Gate(asked, 0.49), whole, [["f1"], ["f3"]])
    assert not worse.passed
    assert [each.query for each in worse.worst] == ["b"]
    lower = gate.verdict(Gate(asked, 0.1), whole, [["f1"], ["f3", "f4", "f2"]])
    assert not lower.passed
    assert lower.after["recall@10"] == 1.0
