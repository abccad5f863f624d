"""Versions, aliases and approvals on both databases, and what a request sees of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from gateway.database import changing, connect, reading
from inference.errors import BadRequest, Conflict, Forbidden, ModelNotFound, NotFound
from inference.registry import alias_store, catalogue, version_store
from inference.registry.artefacts import Artefacts
from inference.registry.catalogue import EMPTY, Catalogue, CurrentLibrary
from inference.registry.records import Gate, NewVersion, Source
from inference.signature import Column, Signature

SIGNATURE = Signature((Column("input", "FP64", (-1, 4)),), (Column("predictions", "INT64"),))
ADA, BEN, CAY = "user ada", "user ben", "user cay"


def new(digest: str = "a" * 64, **fields: object) -> NewVersion:
    source = Source("sklearn", "b" * 64, 10, "model.skops")
    usual = {"runtime": "onnx", "digest": digest, "bytes": 20, "source": source, "signature": SIGNATURE}
    return NewVersion(**{**usual, "facts": {}, "lineage": {}, "profile": None, "bundle": digest, **fields})  # type: ignore[arg-type]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "registry")


class Registry:
    """Each change in a transaction and a revision of its own, as the admin plane has them."""

    def __init__(self, engine: Engine, artefacts: Artefacts) -> None:
        self.engine, self._artefacts, self._revision = engine, artefacts, 0

    def add(self, model: str = "fraud", *, by: str = ADA, **fields: object) -> int:
        with changing(self.engine) as tx:
            return version_store.add_version(tx, model, new(**fields), by, self.next()).version  # type: ignore[arg-type]

    def move(self, alias: str, version: int, model: str = "fraud") -> None:
        with changing(self.engine) as tx:
            alias_store.move(tx, model, alias, version, ADA, self.next())

    def approve(self, who: str, version: int = 1, alias: str = "champion", role: str = "platform_admin") -> None:
        with changing(self.engine) as tx:
            alias_store.approve(tx, f"appr_{self.next()}", "fraud", version, alias, who, role, None)

    def seen(self, known: Catalogue = EMPTY) -> Catalogue:
        with reading(self.engine) as tx:
            return catalogue.load(tx, self._artefacts, known)

    def next(self) -> int:
        self._revision += 1
        return self._revision


@pytest.fixture
def registry(engine: Engine, artefacts: Artefacts) -> Registry:
    return Registry(engine, artefacts)


def test_versions_are_numbered_and_come_back_whole(registry: Registry) -> None:
    """What was registered is what is read, and a number is given once, also after its version was deleted."""
    profile = {"columns": {"x": {"nulls": 0.5}}}
    assert registry.add(profile=profile, facts={"classes": ["a", "b"]}, lineage={"seed": 7}, tags={"team": "risk"}) == 1
    assert registry.add() == 2
    with changing(registry.engine) as tx:
        version_store.remove_version(tx, "fraud", 2, registry.next())
    assert registry.add() == 3
    with reading(registry.engine) as tx:
        first = version_store.find_version(tx, "fraud", 1)
        assert version_store.profile(tx, "fraud", 1) == profile
        assert version_store.profile(tx, "fraud", 3) is None
        assert [each.version for each in version_store.list_versions(tx, "fraud", 10)] == [3, 1]
        with pytest.raises(NotFound):
            version_store.find_version(tx, "fraud", 2)
        with pytest.raises(ModelNotFound):
            version_store.list_versions(tx, "nobody", 10)
    assert first.signature == SIGNATURE
    assert (first.facts, first.lineage, first.tags) == ({"classes": ["a", "b"]}, {"seed": 7}, {"team": "risk"})
    assert (first.source.filename, first.profiled, first.created_by) == ("model.skops", True, ADA)


def test_who_names_no_version_gets_the_champion(registry: Registry) -> None:
    """Without one the newest, but never one that is only somebody's challenger."""
    registry.add()
    registry.add()
    assert registry.seen().bundle("fraud").version == 2
    registry.move("challenger", 2)
    assert registry.seen().bundle("fraud").version == 1
    registry.move("champion", 2)
    state = registry.seen()
    assert state.bundle("fraud").version == 2
    assert state.bundle("fraud", alias="challenger").version == 2
    assert state.bundle("fraud", 1).version == 1
    assert state.versions("fraud") == (1, 2)
    assert state.names() == ("fraud",)
    for asked in ({"version": 9}, {"alias": "nobody"}):
        with pytest.raises(ModelNotFound):
            state.bundle("fraud", **asked)
    with pytest.raises(ModelNotFound):
        state.bundle("loans")


def test_only_what_changed_is_read_again(registry: Registry) -> None:
    """A reader of an unchanged registry gets the very same object, and of a changed one the shelves that did not change."""
    registry.add("fraud")
    registry.add("loans")
    before = registry.seen()
    assert registry.seen(before) is before
    registry.add("loans")
    after = registry.seen(before)
    assert after.shelves["fraud"] is before.shelves["fraud"]
    assert (before.versions("loans"), after.versions("loans")) == ((1,), (1, 2))
    with changing(registry.engine) as tx:
        version_store.remove_model(tx, "loans")
    assert registry.seen(after).names() == ("fraud",)


def test_a_library_answers_with_the_state_in_force(registry: Registry) -> None:
    """The port holds no state of its own."""
    states = [EMPTY]
    library = CurrentLibrary(lambda: states[-1])
    assert library.names() == ()
    registry.add()
    states.append(registry.seen())
    assert library.names() == ("fraud",)
    assert library.bundle("fraud", 1).digest == "a" * 64


def test_an_archived_version_is_kept_and_not_served(registry: Registry) -> None:
    """It cannot be what an alias leads to, neither before nor after."""
    registry.add()
    registry.add()
    registry.move("champion", 1)

    def archive(version: int, *, archived: bool) -> None:
        with changing(registry.engine) as tx:
            version_store.archive(tx, "fraud", version, registry.next(), archived=archived)

    with pytest.raises(Conflict, match="champion"):
        archive(1, archived=True)
    archive(2, archived=True)
    assert registry.seen().versions("fraud") == (1,)
    with pytest.raises(BadRequest, match="archived"):
        registry.move("champion", 2)
    archive(2, archived=False)
    registry.move("champion", 2)
    assert registry.seen().bundle("fraud").version == 2


def test_what_an_alias_leads_to_is_not_deleted(registry: Registry) -> None:
    """Neither the version nor its model."""
    registry.add()
    registry.move("champion", 1)
    with pytest.raises(Conflict, match="champion"), changing(registry.engine) as tx:
        version_store.remove_version(tx, "fraud", 1, registry.next())
    with pytest.raises(Conflict, match="champion"), changing(registry.engine) as tx:
        version_store.remove_model(tx, "fraud")
    with changing(registry.engine) as tx:
        alias_store.remove(tx, "fraud", "champion", registry.next())
        version_store.remove_model(tx, "fraud")
    assert registry.seen().names() == ()


def gated(registry: Registry, approvals: int, roles: tuple[str, ...] = ("platform_admin",)) -> None:
    with changing(registry.engine) as tx:
        version_store.change_model(tx, "fraud", registry.next(), gates={"champion": Gate(approvals, roles)})


def test_a_gate_asks_for_approvals_by_others(registry: Registry) -> None:
    """Two people, neither of them the one who registered it; the same one twice is one."""
    registry.add(by=ADA)
    gated(registry, 2)
    with pytest.raises(Conflict, match="2 approvals") as refused:
        registry.move("champion", 1)
    assert refused.value.code == "approval_required"
    registry.move("challenger", 1)  # has no gate
    with pytest.raises(Forbidden):
        registry.approve(ADA)
    with pytest.raises(Forbidden):
        registry.approve(BEN, role="team_admin")
    registry.approve(BEN)
    registry.approve(BEN)
    with pytest.raises(Conflict, match="there are 1"):
        registry.move("champion", 1)
    registry.approve(CAY)
    registry.move("champion", 1)
    with reading(registry.engine) as tx:
        assert [each.actor for each in alias_store.approvals_of(tx, "fraud", 1)] == [BEN, CAY]


def test_approvals_are_of_one_version_and_can_be_withdrawn(registry: Registry) -> None:
    """What was approved yesterday says nothing of what is registered today."""
    registry.add(by=ADA)
    registry.add(by=ADA)
    gated(registry, 1)
    registry.approve(BEN, 1)
    with pytest.raises(Conflict):
        registry.move("champion", 2)
    with changing(registry.engine) as tx:
        alias_store.withdraw(tx, "fraud", 1, "champion", BEN)
    with pytest.raises(Conflict):
        registry.move("champion", 1)
    with pytest.raises(BadRequest, match="needs no approval"):
        registry.approve(BEN, 1, "challenger")


def test_files_that_a_row_names_are_known(registry: Registry) -> None:
    """By what is served and by what was given."""
    registry.add(digest="c" * 64)
    with reading(registry.engine) as tx:
        assert known(tx, "b", "c", "d") == {"b" * 64, "c" * 64}


def known(tx: Connection, *letters: str) -> frozenset[str]:
    return version_store.known_digests(tx, [letter * 64 for letter in letters])
