"""Vectors of questions and of passages: each is made as the store's model was told when the store was begun."""

from pathlib import Path

from retrieval import snapshots
from retrieval.asking import Question, Wanted
from retrieval.job_store import Owner
from retrieval.ports import Role
from retrieval.reembedding import moves
from retrieval.reembedding import store as reembeddings
from retrieval.reembedding.record import Terms
from retrieval.spaces import Space
from tests.fixtures.plane import Plane
from tests.fixtures.retrieval import ANN


async def filled(plane: Plane, *texts: str) -> str:
    store = await plane.store()
    for text in texts:
        file = plane.files.put(ANN, text)
        await plane.retrieval.attach(ANN, store, Wanted(file))
        assert (await plane.ended(store, file)).status == "completed"
    return store


def said(plane: Plane) -> list[tuple[Role, str | None]]:
    made = [(role, prompts) for role, prompts, _ in plane.words.told]
    plane.words.told.clear()
    return made


async def search(plane: Plane, store: str, question: Question) -> None:
    assert (await plane.retrieval.search(ANN, store, question)).results


async def test_passages_questions_and_made_up_answers_have_their_roles(plane: Plane) -> None:
    """What HyDE makes up is near passages, so it is embedded as one."""
    plane.words.prompted = "E5"
    store = await filled(plane, "a turbine turns")
    assert said(plane) == [("passage", "E5")]
    await search(plane, store, Question(("what turns?", "which one?"), meanings=("the turbine turns",)))
    assert sorted(said(plane)) == [("passage", "E5"), ("query", "E5"), ("query", "E5")]


async def test_a_model_without_prompts_is_asked_once(plane: Plane) -> None:
    """One call for all of a question's texts, as there is nothing that tells them apart."""
    store = await filled(plane, "a turbine turns")
    said(plane)
    await search(plane, store, Question(("what turns?",), meanings=("the turbine turns",)))
    assert said(plane) == [("query", None), ("query", None)]


async def test_a_store_keeps_the_prompts_that_it_was_begun_with(plane: Plane, tmp_path: Path) -> None:
    """Whatever the model's settings are by now: a question and a passage that were made differently are not near each other."""
    plane.words.prompted = "old"
    store = await filled(plane, "a turbine turns")
    plane.words.prompted = "new"
    said(plane)
    file = plane.files.put(ANN, "a gate holds water")
    await plane.retrieval.attach(ANN, store, Wanted(file))
    assert (await plane.ended(store, file)).status == "completed"
    await search(plane, store, Question(("what turns?",)))
    assert said(plane) == [("passage", "old"), ("query", "old")]
    assert (await plane.retrieval.get(ANN, await plane.store())).collection.prompts == "new"
    taken = snapshots.take(plane.database, tmp_path, store)
    assert snapshots.restore(plane.database, tmp_path, store, taken.id).prompts == "old"


async def test_embedded_anew_it_has_the_new_ones(plane: Plane) -> None:
    """The old version is asked in the old way until the swap, and after a way back."""
    plane.words.prompted = "old"
    store = await filled(plane, "a turbine turns")
    said(plane)
    space = Space(0, "words", prompts="new")
    begun = plane.database.write(lambda tx: moves.begin(tx, store, space, ANN.key_id, Terms()))
    mine = plane.database.write(lambda tx: reembeddings.claim(tx, begun, Owner("ses_2", "host_1")))
    assert mine is not None
    await plane.retrieval.backfill.run(mine)
    assert said(plane) == [("passage", "new")]
    await search(plane, store, Question(("what turns?",)))
    assert said(plane)[-1] == ("query", "old")
    plane.database.write(lambda tx: moves.promote(tx, store, begun.id, force=False))
    await search(plane, store, Question(("what turns?",)))
    assert said(plane)[-1] == ("query", "new")  # who did not know of the swap asks once more
    file = plane.files.put(ANN, "a gate holds water")
    await plane.retrieval.attach(ANN, store, Wanted(file))
    assert (await plane.ended(store, file)).status == "completed"
    assert sorted(said(plane)) == [("passage", "new"), ("passage", "old")]
    plane.database.write(lambda tx: moves.roll_back(tx, store, begun.id, None))
    await search(plane, store, Question(("what turns?",)))
    assert said(plane)[-1] == ("query", "old")
