"""What the configuration and this machine declare, put into the database at a start. REST has the last word on what it has edited."""

from collections.abc import Sequence
from typing import final

import structlog
from sqlalchemy import Engine

from admin import discovery
from admin.fleet.desk import seed_engines
from admin.settings import Loaded
from gateway.database import changing
from gateway.providers import EMBEDDED, PROVIDERS
from gateway.secret_box import SecretBox
from gateway.seeding import Seed, SeedReport, seed, seed_guards, seed_servers

log = structlog.stdlib.get_logger(__name__)


@final
class Declared:
    """Each kind in a transaction of its own. Raises SQLAlchemyError."""

    def __init__(self, engine: Engine, loaded: Loaded, box: SecretBox) -> None:
        self._engine = engine
        self._loaded = loaded
        self._box = box

    def put(self) -> None:
        """All of it. A configuration with models replaces what an earlier start without one had found on this machine."""
        loaded, bare = self._loaded, not self._loaded.settings.models
        self.models("file", discovery.file_seeds(loaded))
        self.models("environment", discovery.environment_seeds(loaded.environ) if bare else ())
        self.models(EMBEDDED, discovery.embedded_seeds() if bare else ())
        self._servers()
        self._engines()
        self._views()
        if not bare:
            for provider in PROVIDERS:
                self.models(f"local:{provider}", ())

    def models(self, source: str, seeds: Sequence[Seed]) -> None:
        """These, and none else of that source."""
        with changing(self._engine) as tx:
            report = seed(tx, source, seeds, self._box)
        _tell(source, report)

    def _servers(self) -> None:
        with changing(self._engine) as tx:
            report = seed_servers(tx, discovery.server_seeds(self._loaded), self._box)
        _tell("file", report)
        with changing(self._engine) as tx:
            report = seed_guards(tx, discovery.guard_seeds(self._loaded), self._box)
        _tell("file", report)

    def _engines(self) -> None:
        with changing(self._engine) as tx:
            report = seed_engines(tx, discovery.engine_seeds(self._loaded), self._box)
        _tell("file", SeedReport(report.added, report.updated, report.kept, report.removed))

    def _views(self) -> None:
        if self._loaded.settings.features.views:
            from admin.feature_seeding import seed_views  # noqa: PLC0415 — NumPy, for those who declare some

            with changing(self._engine) as tx:
                report = seed_views(tx, self._loaded)
            _tell("file", report)


def _tell(source: str, report: SeedReport) -> None:
    for kept in report.kept:
        log.warning("seed.kept", source=source, object=kept, reason="it was edited over REST, which has the last word")
    changes = {name: list(getattr(report, name)) for name in ("added", "updated", "removed") if getattr(report, name)}
    if changes:
        log.info("seed.applied", source=source, **changes)
