"""Runs migrations inside the transaction that `admin.migrate` opened: all of them take effect, or none."""

from alembic import context

from admin.tables import metadata as admin_metadata
from gateway.tables import metadata as gateway_metadata
from inference.fleet.tables import metadata as fleet_metadata
from inference.rollouts.tables import metadata as rollouts_metadata
from inference.tables import metadata as inference_metadata
from retrieval.tables import metadata as retrieval_metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[
        gateway_metadata,
        admin_metadata,
        retrieval_metadata,
        inference_metadata,
        rollouts_metadata,
        fleet_metadata,
    ],
    transactional_ddl=True,  # SQLite's is, although Alembic assumes otherwise; our connections begin explicitly
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
