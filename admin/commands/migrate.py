"""`penstock migrate`: brings the database to the schema of this version."""

import argparse

from admin import migrate
from admin.commands.configuration import loaded


def run(arguments: argparse.Namespace) -> int:
    settings = loaded(arguments).settings
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate.upgrade(settings.database)
    print(f"the database is at version {migrate.newest()}")
    return 0
