"""The schema: migrations and tables agree on both databases, and a start refuses what it cannot work with."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, inspect, text

from admin import migrate
from admin.tables import metadata as admin_metadata
from gateway.database import appending, connect, reading
from gateway.tables import metadata as gateway_metadata
from inference.fleet.tables import metadata as fleet_metadata
from inference.rollouts.tables import metadata as rollouts_metadata
from inference.tables import metadata as inference_metadata
from retrieval.tables import metadata as retrieval_metadata


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = connect(empty_database_url)
    yield engine
    engine.dispose()


def differences(engine: Engine) -> list[object]:
    """What the tables in the code have and the database has not, or the other way round."""
    both = MetaData()
    for metadata in (
        gateway_metadata,
        admin_metadata,
        retrieval_metadata,
        inference_metadata,
        rollouts_metadata,
        fleet_metadata,
    ):
        for table in metadata.sorted_tables:
            table.to_metadata(both)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, both))


def test_migrating_an_empty_database_gives_the_tables_of_the_code(engine: Engine, empty_database_url: str) -> None:
    """Whoever changes a table and forgets the migration sees it here."""
    assert migrate.state(engine) == "empty"
    migrate.upgrade(empty_database_url)
    assert differences(engine) == []
    assert migrate.current_is_head(engine)


def test_downgrading_takes_everything_away_and_upgrading_brings_it_back(
    engine: Engine, empty_database_url: str
) -> None:
    """The way back is tested too, so that a bad release can be undone."""
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert migrate.state(engine) == "empty"
    migrate.upgrade(empty_database_url)
    assert differences(engine) == []


def test_a_fresh_embedded_database_is_made_without_alembic_and_equals_a_migrated_one(tmp_path: Path) -> None:
    """The short way of the first start must not differ from the long one."""
    made, migrated = connect(f"sqlite:///{tmp_path / 'made.db'}"), connect(f"sqlite:///{tmp_path / 'migrated.db'}")
    migrate.prepare(made)
    migrate.upgrade(str(migrated.url))
    assert migrate.state(made) == "head"
    assert differences(made) == []
    schemas = []
    for engine in (made, migrated):
        with reading(engine) as tx:
            rows = tx.execute(text("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"))
            schemas.append([row.name for row in rows])
        engine.dispose()
    assert schemas[0] == schemas[1]


def test_an_embedded_database_of_an_older_release_is_migrated_at_the_start(tmp_path: Path) -> None:
    """Nobody who runs the embedded default should have to know about migrations."""
    engine = connect(f"sqlite:///{tmp_path / 'old.db'}")
    with appending(engine) as tx:  # as if a version 0000 had been there
        tx.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
    migrate.prepare(engine)
    assert migrate.state(engine) == "head"
    engine.dispose()


@pytest.mark.postgres
def test_postgresql_is_never_migrated_behind_the_operators_back(new_postgres: Callable[[str], str]) -> None:
    """Replicas of two releases may share it; only `penstock migrate` changes it."""
    engine = connect(new_postgres("template1"))
    with pytest.raises(migrate.SchemaError, match="penstock migrate"):
        migrate.prepare(engine)
    engine.dispose()


def test_a_newer_schema_is_refused_with_a_way_out(engine: Engine, empty_database_url: str) -> None:
    """An old release would write rows that the new one does not expect."""
    migrate.upgrade(empty_database_url)
    with appending(engine) as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate.state(engine) == "newer"
    with pytest.raises(migrate.SchemaError, match="newer release"):
        migrate.prepare(engine)
    with pytest.raises(migrate.SchemaError, match="newer"):
        migrate.upgrade(empty_database_url)


def test_half_a_schema_is_refused(engine: Engine, empty_database_url: str) -> None:
    """Tables without a version come from a restore that broke off: guessing would make it worse."""
    migrate.upgrade(empty_database_url)
    with appending(engine) as tx:
        tx.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(migrate.SchemaError, match="without a version"):
        migrate.prepare(engine)


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine, empty_database_url: str) -> None:
    """A table is in the way of the last step: the steps before it are undone as well."""
    with appending(engine) as tx:
        tx.execute(text("CREATE VIEW audit AS SELECT 1 AS one"))
    with pytest.raises(Exception, match="audit"):
        migrate.upgrade(empty_database_url)
    assert "keys" not in inspect(engine).get_table_names()


def test_processes_that_start_together_make_one_schema(engine: Engine) -> None:
    """Workers and replicas all look for the schema at the same moment."""
    failures: list[BaseException] = []

    def start() -> None:
        try:
            migrate.upgrade(engine.url.render_as_string(hide_password=False))
        except BaseException as error:  # noqa: BLE001 — a thread border: reported below
            failures.append(error)

    threads = [Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert migrate.current_is_head(engine)


def test_teams_that_keys_named_before_there_were_teams_are_kept(engine: Engine, empty_database_url: str) -> None:
    """Each becomes a team of an organisation made for them; keys without a team belong to nobody, as before."""
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "0003")
    with appending(engine) as tx:
        for number, team in enumerate(("'blue'", "'red'", "'blue'", "NULL")):
            tx.execute(
                text(
                    "INSERT INTO keys (id, digest, hint, name, team_id, created_at, updated_at, revision)"
                    f" VALUES ('key_{number}', :digest, 'h', 'n', {team}, 1, 1, 1)"
                ),
                {"digest": bytes([number])},
            )
    migrate.upgrade(empty_database_url)
    with reading(engine) as tx:
        teams = tx.execute(text("SELECT id, org_id, name FROM teams ORDER BY id")).all()
        keys = tx.execute(text("SELECT team_id, org_id FROM keys ORDER BY id")).all()
    assert [tuple(row) for row in teams] == [("blue", "org_default", "blue"), ("red", "org_default", "red")]
    assert [tuple(row) for row in keys] == [
        ("blue", "org_default"),
        ("red", "org_default"),
        ("blue", "org_default"),
        (None, None),
    ]
