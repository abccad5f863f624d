"""What every command needs first: the settings as flags, environment and file give them, and the database behind them."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from admin import migrate
from admin.settings import FLAGS, Loaded, environment, load
from gateway.database import connect


def loaded(arguments: argparse.Namespace) -> Loaded:
    """Raises ConfigError."""
    flags = {name: getattr(arguments, name[2:].replace("-", "_"), None) for name in ("--config", *FLAGS)}
    return load(flags, environment())


def warn(configuration: Loaded) -> None:
    for warning in configuration.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@contextmanager
def database(arguments: argparse.Namespace) -> Iterator[Engine]:
    """The database with a schema that fits. Raises ConfigError, SchemaError, SQLAlchemyError, OSError."""
    settings = loaded(arguments).settings
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = connect(settings.database)
    try:
        migrate.prepare(engine)
        yield engine
    finally:
        engine.dispose()
