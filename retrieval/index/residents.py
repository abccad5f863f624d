"""The indexes that this process has in memory: those that were used last, within a budget of bytes."""

import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import final

import structlog

from retrieval import collection_store
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.index.advice import Advice, advise
from retrieval.index.engines import Engines
from retrieval.index.lexical import Lexical
from retrieval.index.ports import EngineAway
from retrieval.index.resident import Resident, Sizes
from retrieval.index.settings import EngineName, EngineSettings
from retrieval.index.state import State

log = structlog.stdlib.get_logger(__name__)


@final
class Residents:
    """`folder` has a folder for each collection. Every method blocks."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        budget_bytes: int,
        sizes: Sizes | None = None,
        engines: EngineSettings | None = None,
    ) -> None:
        self._database = database
        self._folder = folder
        self._budget = budget_bytes
        self._sizes = sizes or Sizes()
        self._engines = Engines(engines)
        self._turn = threading.Lock()
        self._known: OrderedDict[str, tuple[Resident, Lexical]] = OrderedDict()

    @property
    def recall(self) -> float:
        """What graphs have to have, at 10."""
        return self._engines.settings.recall

    def require(self, engine: EngineName | None) -> None:
        """Raises BadRequest where a collection cannot have that engine here."""
        self._engines.require(engine)

    def current(self, collection_id: str) -> tuple[Collection, State]:
        """Raises NotFound."""
        found = self._of(collection_id)[0].current()
        self._make_room(collection_id)
        return found

    def advise(self, collection: Collection, rows: int | None) -> Advice:
        """As `retrieval.index.advice.advise`."""
        return advise(self._database, self._engines, collection, rows)

    def latest(self, collection_id: str) -> tuple[Collection, State] | None:
        """What is in memory, whatever has changed since: for who finds that out afterwards. Asks nobody."""
        with self._turn:
            known = self._known.get(collection_id)
            if known is None:
                return None
            self._known.move_to_end(collection_id)
            return known[0].latest()

    def saw(self, collection: Collection) -> None:
        """As the truth has it now."""
        with self._turn:
            known = self._known.get(collection.id)
        if known is not None:
            known[0].saw(collection)

    def words(self, collection: Collection) -> Lexical:
        """Its index of words, up to date."""
        lexical = self._of(collection.id)[1]
        lexical.refresh(collection.generation)
        return lexical

    def maintain(self, collection_id: str) -> None:
        """Brings a collection up to date, and writes down what it is worth to: for who has just changed it."""
        resident, _ = self._of(collection_id)
        collection, _ = resident.current()
        self.words(collection)
        if resident.needs().artefact:
            resident.write()
        self._make_room(collection_id)

    def repair(self, collection_id: str, effort: int | None) -> None:
        """As `Resident.repair`."""
        self._of(collection_id)[0].repair(effort)

    def drop(self, collection_id: str) -> None:
        """It is deleted: nothing of it stays here."""
        with self._turn:
            known = self._known.pop(collection_id, None)
        if known is not None:
            known[0].close()
            known[1].close()
        try:
            self._engines.drop(collection_id)
        except EngineAway as error:  # the folder stays: whoever sweeps tries again
            log.warning("index.not_dropped", collection=collection_id, reason=str(error))
            (self._folder / collection_id).mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        shutil.rmtree(self._folder / collection_id, ignore_errors=True)

    def retry(self) -> None:
        """Graphs that could not be made when it was time, as their engine was away."""
        with self._turn:
            known = [(id_, resident) for id_, (resident, _) in self._known.items()]
        for id_, resident in known:
            if resident.retries():
                self.maintain(id_)

    def sweep(self) -> Sequence[str]:
        """Folders of collections that are not there any more, whoever deleted them."""
        if not self._folder.is_dir():
            return ()
        names = [path.name for path in self._folder.iterdir() if path.is_dir() and path.name.startswith("vs_")]
        gone: list[str] = []
        for start in range(0, len(names), 500):
            some = names[start : start + 500]
            gone += self._database.read(lambda tx, some=some: collection_store.unknown(tx, some))  # type: ignore[misc]
        for id_ in gone:
            self.drop(id_)
        return gone

    def close(self) -> None:
        with self._turn:
            for resident, lexical in self._known.values():
                resident.close()
                lexical.close()
            self._known.clear()
        self._engines.close()

    def _of(self, collection_id: str) -> tuple[Resident, Lexical]:
        with self._turn:
            known = self._known.get(collection_id)
            if known is None:
                folder = self._folder / collection_id
                resident = Resident(self._database, collection_id, folder, self._sizes, self._engines)
                known = self._known[collection_id] = resident, Lexical(self._database, collection_id, folder)
            self._known.move_to_end(collection_id)
            return known

    def _make_room(self, keep: str) -> None:
        """The least recently used goes first; what is in use stays with who uses it."""
        with self._turn:
            used = sum(resident.nbytes for resident, _ in self._known.values())
            for id_, (resident, lexical) in list(self._known.items()):
                if used <= self._budget and len(self._known) <= 4096:
                    break
                if id_ != keep:
                    used -= resident.nbytes
                    resident.forget()
                    lexical.close()
                    del self._known[id_]
