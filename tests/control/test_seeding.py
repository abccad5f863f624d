"""Seeding: the file is the seed, the database is the truth."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from gateway import model_store
from gateway.database import changing, newest_revision, reading
from gateway.secret_box import SecretBox
from gateway.seeding import Seed, SeedReport, seed
from gateway.settings import DeploymentSpec, ModelSpec

Seeding = Callable[..., SeedReport]


def model(
    name: str, *deployments: str, origin: str = "file penstock.yaml:1", weight: float = 1, **fields: object
) -> Seed:
    below = tuple(
        DeploymentSpec.model_validate({"id": id_, "base_url": "http://127.0.0.1:1/v1", "weight": weight})
        for id_ in deployments
    )
    return Seed(ModelSpec.model_validate({"name": name, "deployments": below, **fields}), origin)


@pytest.fixture
def seeding(engine: Engine, box: SecretBox) -> Seeding:
    def run(*seeds: Seed, source: str = "file") -> SeedReport:
        with changing(engine) as tx:
            return seed(tx, source, seeds, box)

    return run


def stored(engine: Engine) -> dict[str, list[str]]:
    with reading(engine) as tx:
        return {record.name: [d.id for d in below] for record, below in model_store.every_model(tx)}


def revision(engine: Engine) -> int:
    with reading(engine) as tx:
        return newest_revision(tx)


def test_what_is_new_is_added_and_seeding_again_changes_nothing(engine: Engine, seeding: Seeding) -> None:
    """A restart with the same file is not a change: no revision, so no reload anywhere."""
    report = seeding(model("chat", "a", "b"), model("other"))
    assert report == SeedReport(added=("model chat", "model other", "deployment a", "deployment b"))
    before = revision(engine)
    assert seeding(model("chat", "a", "b", origin="file penstock.yaml:7"), model("other")) == SeedReport()
    assert revision(engine) == before
    with reading(engine) as tx:
        assert model_store.get_model(tx, "chat").origin == "file penstock.yaml:7"


def test_changed_text_is_taken_over_and_vanished_objects_are_removed(engine: Engine, seeding: Seeding) -> None:
    """As long as nobody touched them over REST, objects follow their file."""
    seeding(model("chat", "a", "b"), model("other", "c"))
    report = seeding(model("chat", "a", weight=3, strategy="order"))
    assert report.updated == ("model chat", "deployment a")
    assert report.removed == ("deployment b", "deployment c", "model other")
    assert stored(engine) == {"chat": ["a"]}
    with reading(engine) as tx:
        assert model_store.get_deployment(tx, "a").spec["weight"] == 3


def test_what_was_edited_over_rest_is_kept_and_reported(engine: Engine, seeding: Seeding, box: SecretBox) -> None:
    """Whether the file changes it or drops it, the last word is that of REST, and the operator is told."""
    seeding(model("chat", "a"))
    with changing(engine) as tx:
        model_store.change_deployment(tx, "a", {"weight": 9}, box)
    assert seeding(model("chat", "a", weight=2)).kept == ("deployment a",)
    assert seeding().kept == ("deployment a", "model chat")
    with reading(engine) as tx:
        assert model_store.get_deployment(tx, "a").spec["weight"] == 9


def test_what_was_deleted_over_rest_does_not_come_back(engine: Engine, seeding: Seeding, box: SecretBox) -> None:
    """A restart must not undo a deletion; making the object again over REST does."""
    seeding(model("chat", "a", "b"))
    with changing(engine) as tx:
        model_store.delete_deployment(tx, "a")
    assert seeding(model("chat", "a", "b")).kept == ("deployment a",)
    assert stored(engine) == {"chat": ["b"]}
    with changing(engine) as tx:
        model_store.delete_model(tx, "chat")
    assert seeding(model("chat", "a", "b")).kept == ("model chat", "deployment a", "deployment b")
    assert stored(engine) == {}
    with changing(engine) as tx:
        model_store.create_model(tx, ModelSpec(name="chat"), box)
    assert stored(engine) == {"chat": []}


def test_a_file_that_forgets_a_deleted_object_may_name_it_again(engine: Engine, seeding: Seeding) -> None:
    """The mark of a deletion lasts as long as the file names the object."""
    seeding(model("chat", "a"))
    with changing(engine) as tx:
        model_store.delete_model(tx, "chat")
    assert seeding() == SeedReport()
    assert seeding(model("chat", "a")).added == ("model chat", "deployment a")


def test_sources_do_not_remove_each_others_objects_and_the_file_wins(engine: Engine, seeding: Seeding) -> None:
    """What was found in the environment gives way to what a person wrote."""
    found = model("gpt-*", "openai", origin="environment OPENAI_API_KEY")
    seeding(model("chat", "a"))
    seeding(found, source="environment")
    assert stored(engine) == {"chat": ["a"], "gpt-*": ["openai"]}
    assert seeding(model("gpt-*", "openai", weight=2)).updated == ("model gpt-*", "deployment openai")
    assert seeding(found, source="environment") == SeedReport()
    assert seeding(source="environment") == SeedReport()
    assert stored(engine) == {"gpt-*": ["openai"]}


def test_a_model_that_still_has_deployments_of_rest_is_kept(engine: Engine, seeding: Seeding, box: SecretBox) -> None:
    """Removing it would take along what its file never knew."""
    seeding(model("chat", "a"))
    with changing(engine) as tx:
        spec = DeploymentSpec.model_validate({"id": "mine", "base_url": "http://127.0.0.1:1/v1"})
        model_store.create_deployment(tx, "chat", spec, box)
    report = seeding()
    assert (report.removed, report.kept) == (("deployment a",), ("model chat",))
    assert stored(engine) == {"chat": ["mine"]}


def test_a_deployment_can_move_to_another_model(engine: Engine, seeding: Seeding) -> None:
    """Its id stays, so it is the same object."""
    seeding(model("one", "a"), model("two"))
    assert seeding(model("one"), model("two", "a")).updated == ("deployment a",)
    assert stored(engine) == {"one": [], "two": ["a"]}


def test_deployments_stay_as_their_file_lists_them(engine: Engine, seeding: Seeding, box: SecretBox) -> None:
    """Not by their ids, also after the file lists them otherwise; what REST adds stands last."""
    seeding(model("chat", "zebra", "ant"))
    assert stored(engine) == {"chat": ["zebra", "ant"]}
    with changing(engine) as tx:
        model_store.change_deployment(tx, "ant", {"weight": 2}, box)
        spec = DeploymentSpec.model_validate({"id": "aardvark", "base_url": "http://127.0.0.1:1/v1"})
        model_store.create_deployment(tx, "chat", spec, box)
    assert stored(engine) == {"chat": ["zebra", "ant", "aardvark"]}
    assert seeding(model("other", "yak", "bee")).added == ("model other", "deployment yak", "deployment bee")
    assert seeding(model("other", "bee", "yak")).updated == ("deployment bee", "deployment yak")
    assert stored(engine)["other"] == ["bee", "yak"]
    with reading(engine) as tx:
        assert "position" not in model_store.get_deployment(tx, "yak").spec


@pytest.mark.parametrize(
    "seeds",
    [(model("a"), model("a")), (model("a", "x"), model("b", "x")), (model("a", origin="environment X"),)],
    ids=["model twice", "deployment twice", "another source"],
)
def test_contradictions_are_refused_as_a_whole(engine: Engine, seeding: Seeding, seeds: tuple[Seed, ...]) -> None:
    """Nothing of a contradictory file takes effect."""
    with pytest.raises(ValueError, match=r"twice|not of source"):
        seeding(*seeds)
    assert stored(engine) == {}
