"""The indexes that this process has in memory: those that were used last, within a budget of bytes."""

import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

import structlog
from sqlalchemy import Connection

from retrieval import collection_store
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.errors import NotFound
from retrieval.index import artefact, lexical
from retrieval.index.advice import Advice, advise
from retrieval.index.engines import Engines
from retrieval.index.lexical import Lexical
from retrieval.index.ports import EngineAway
from retrieval.index.resident import Resident, Sizes
from retrieval.index.settings import EngineName, EngineSettings
from retrieval.index.state import State
from retrieval.reembedding import store as reembeddings
from retrieval.spaces import FIRST, place_of, version_at

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
        self._known: OrderedDict[str, Resident] = OrderedDict()  # by place: see `spaces.place_of`
        self._words: dict[tuple[str, int], Lexical] = {}  # by collection and edition
        self._seen: dict[str, Collection] = {}

    @property
    def recall(self) -> float:
        """What graphs have to have, at 10."""
        return self._engines.settings.recall

    def require(self, engine: EngineName | None) -> None:
        """Raises BadRequest where a collection cannot have that engine here."""
        self._engines.require(engine)

    def current(self, collection_id: str, version: int = FIRST) -> tuple[Collection, State]:
        """With vectors of the version. Raises NotFound."""
        found = self._of(collection_id, version).current()
        self._make_room(place_of(collection_id, version))
        return found

    def advise(self, collection: Collection, rows: int | None) -> Advice:
        """As `retrieval.index.advice.advise`."""
        return advise(self._database, self._engines, collection, rows)

    def latest(self, collection_id: str, version: int = FIRST) -> tuple[Collection, State] | None:
        """What is in memory, whatever has changed since: for who finds that out afterwards. Asks nobody."""
        place = place_of(collection_id, version)
        with self._turn:
            known = self._known.get(place)
            if known is None:
                return None
            self._known.move_to_end(place)
            return known.latest()

    def seen(self, collection_id: str) -> Collection | None:
        """As the truth last had it, of one that has an index in memory. Asks nobody."""
        return self._seen.get(collection_id)

    def saw(self, collection: Collection) -> None:
        """As the truth has it now."""
        with self._turn:
            known = self._known.get(place_of(collection.id, collection.version))
            before = self._seen.get(collection.id)
            if before is None or before.generation <= collection.generation:
                self._seen[collection.id] = collection
        if known is not None:
            known.saw(collection)

    def words(self, collection: Collection) -> Lexical:
        """The index of its edition's words, up to date."""
        id_, edition = collection.id, collection.edition
        with self._turn:
            words = self._words.get((id_, edition))
            if words is None:
                words = self._words[id_, edition] = Lexical(self._database, id_, self._folder / id_, edition)
        words.refresh(collection.generation)
        return words

    def maintain(self, collection_id: str, version: int | None = None) -> None:
        """Brings a collection up to date, and writes down what it is worth to: for who has just changed it.

        In the version that is read, and those that are in memory beside it, unless one is named. Raises NotFound.
        """
        if version is not None:
            self._maintain(collection_id, version)
            return
        found = self._database.read(lambda tx: collection_store.by_id(tx, collection_id))
        if found is None:
            raise NotFound(f"No such Vector store object: {collection_id}", param="vector_store_id")
        self._maintain(collection_id, found.version)
        for other in self._versions(collection_id) - {found.version}:
            with suppress(NotFound):  # it was left meanwhile
                self._maintain(collection_id, other)

    def _maintain(self, collection_id: str, version: int) -> None:
        resident = self._of(collection_id, version)
        collection, _ = resident.current()
        self.words(collection)
        if resident.needs().artefact:
            resident.write()
        self._make_room(place_of(collection_id, version))

    def repair(self, collection_id: str, effort: int | None, version: int = FIRST) -> None:
        """As `Resident.repair`."""
        self._of(collection_id, version).repair(effort)

    def drop(self, collection_id: str) -> None:
        """It is deleted: nothing of it stays here."""
        with self._turn:
            self._seen.pop(collection_id, None)
        places = {path.name for path in self._folder.glob(f"{collection_id}.v*")}
        places |= {place_of(collection_id, version) for version in self._versions(collection_id)}
        self._forget_words(collection_id)
        for place in sorted({collection_id, *places}):
            self._drop(place, whole=True)

    def drop_version(self, collection_id: str, version: int) -> None:
        """Nobody reads it any more. The words stay: other versions may have the same."""
        self._drop(place_of(collection_id, version), whole=version != FIRST)

    def drop_edition(self, collection_id: str, edition: int) -> None:
        """No version that anybody reads is of it any more."""
        with self._turn:
            words = self._words.pop((collection_id, edition), None)
        if words is not None:
            words.close()
        lexical.clear(self._folder / collection_id / lexical.file_of(edition))

    def _drop(self, place: str, *, whole: bool) -> None:
        with self._turn:
            known = self._known.pop(place, None)
        if known is not None:
            known.close()
        try:
            self._engines.drop(place)
        except EngineAway as error:  # the folder stays: whoever sweeps tries again
            log.warning("index.not_dropped", collection=place, reason=str(error))
            (self._folder / place).mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        if whole:
            shutil.rmtree(self._folder / place, ignore_errors=True)
        else:
            artefact.clear(self._folder / place)

    def retry(self) -> None:
        """What could not be written when it was time, or was damaged when it was opened."""
        with self._turn:
            known = list(self._known.values())
        for resident in known:
            if resident.retries():
                self.maintain(resident.collection_id, resident.version)

    def sweep(self) -> Sequence[str]:
        """Folders of collections that are not there any more, whoever deleted them."""
        if not self._folder.is_dir():
            return ()
        names = sorted({version_at(path.name)[0] for path in self._folder.glob("vs_*") if path.is_dir()})
        gone: list[str] = []
        for start in range(0, len(names), 500):
            some = names[start : start + 500]
            gone += self._database.read(lambda tx, some=some: collection_store.unknown(tx, some))  # type: ignore[misc]
        for id_ in gone:
            self.drop(id_)
        for collection_id, version in self._database.read(self._left):
            self.drop_version(collection_id, version)
        for collection_id, edition in self._database.read(self._left_words):
            self.drop_edition(collection_id, edition)
        return gone

    def _left(self, tx: Connection) -> Sequence[tuple[str, int]]:
        """Versions that are here and that nobody reads any more."""
        with self._turn:
            places = set(self._known)
        places |= {path.parent.name for path in self._folder.glob(f"vs_*/{artefact.MANIFEST}")}
        places |= {path.name for path in self._folder.glob("vs_*.v*")}
        found: list[tuple[str, int]] = []
        for collection_id, version in map(version_at, sorted(places)):
            collection = collection_store.by_id(tx, collection_id)
            if collection is not None and not reembeddings.kept(tx, collection, version):
                found.append((collection_id, version))
        return found

    def _left_words(self, tx: Connection) -> Sequence[tuple[str, int]]:
        """The same of editions."""
        found: list[tuple[str, int]] = []
        for path in sorted(self._folder.glob("vs_*/words*.db")):
            collection_id, edition = path.parent.name, lexical.edition_of(path.name)
            collection = collection_store.by_id(tx, collection_id)
            if collection is None or edition is None:
                continue
            if edition not in reembeddings.editions(tx, collection):
                found.append((collection_id, edition))
        return found

    def close(self) -> None:
        with self._turn:
            for resident in self._known.values():
                resident.close()
            for words in self._words.values():
                words.close()
            self._known.clear()
            self._words.clear()
        self._engines.close()

    def _of(self, collection_id: str, version: int) -> Resident:
        place = place_of(collection_id, version)
        with self._turn:
            known = self._known.get(place)
            if known is None:
                folder = self._folder / place
                known = Resident(self._database, collection_id, folder, self._sizes, self._engines, version)
                self._known[place] = known
            self._known.move_to_end(place)
            return known

    def _versions(self, collection_id: str) -> set[int]:
        with self._turn:
            return {each.version for each in self._known.values() if each.collection_id == collection_id}

    def _forget_words(self, collection_id: str) -> None:
        with self._turn:
            mine = [place for place in self._words if place[0] == collection_id]
            closed = [self._words.pop(place) for place in mine]
        for words in closed:
            words.close()

    def _make_room(self, keep: str) -> None:
        """The least recently used goes first; what is in use stays with who uses it."""
        with self._turn:
            used = sum(resident.nbytes for resident in self._known.values())
            for id_, resident in list(self._known.items()):
                if used <= self._budget and len(self._known) <= 4096:
                    break
                if id_ != keep:
                    used -= resident.nbytes
                    resident.forget()
                    self._seen.pop(resident.collection_id, None)
                    del self._known[id_]
                    for place, words in list(self._words.items()):
                        if place[0] == resident.collection_id:  # another version's opens its own again
                            words.close()
                            del self._words[place]
