"""The indexes that this process has in memory: those that were used last, within a budget of bytes."""

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import structlog
from sqlalchemy import Connection

from retrieval import collection_store, document_store
from retrieval.collection_store import Collection
from retrieval.database import Database
from retrieval.document_store import Partition
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
from retrieval.spaces import FIRST, TENANTS, partition_of, place_of, version_at
from retrieval.tenancy import Tenancy

MOST_KNOWN: Final = 4096  # indexes
OPEN_WORDS: Final = 64  # files
ROOM_EVERY_S: Final = 0.2

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
        self._words: dict[str, Lexical] = {}  # by the places of their files, of collections that are whole
        self._seen: dict[str, Collection] = {}
        self._open: OrderedDict[str, Lexical] = OrderedDict()  # of tenants: those that were asked last
        self._kept: dict[str, Partition] = {}  # of tenants, as they were when they were maintained
        self._made_room_at = 0.0

    @property
    def recall(self) -> float:
        """What graphs have to have, at 10."""
        return self._engines.settings.recall

    def require(self, engine: EngineName | None, *, apart: bool = False) -> None:
        """Raises BadRequest where a collection cannot have that engine here; `apart`: for each of its tenants."""
        self._engines.require(engine, apart=apart)

    def current(self, collection_id: str, version: int = FIRST, tenant: str | None = None) -> tuple[Collection, State]:
        """With vectors of the version, of a tenant alone where the collection declares tenancy. Raises NotFound."""
        found = self._of(collection_id, version, tenant).current()
        self._make_room(place_of(collection_id, version, tenant), often=tenant is None)
        return found

    def advise(self, collection: Collection, rows: int | None) -> Advice:
        """As `retrieval.index.advice.advise`."""
        return advise(self._database, self._engines, collection, rows)

    def latest(
        self, collection_id: str, version: int = FIRST, tenant: str | None = None
    ) -> tuple[Collection, State] | None:
        """What is in memory, whatever has changed since: for who finds that out afterwards. Asks nobody."""
        place = place_of(collection_id, version, tenant)
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

    def words(self, collection: Collection, tenant: str | None = None) -> Lexical:
        """The index of its edition's words, or of those of a tenant, up to date."""
        id_, edition = collection.id, collection.edition
        home = place_of(id_, FIRST, tenant)
        place = f"{home}/{lexical.file_of(edition)}"
        held = self._words if tenant is None else self._open
        with self._turn:
            words = held.get(place)
            if words is None:
                words = held[place] = Lexical(self._database, id_, self._folder / home, edition, tenant)
            if tenant is not None:
                self._open.move_to_end(place)
            # There may be thousands of tenants.
            old = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - OPEN_WORDS)]
        for each in old:
            each.close()
        words.refresh(collection.generation)
        return words

    def promoted(self, collection: Collection, tenant: str) -> bool:
        """Whether it has a graph of its own, as far as this machine's files say."""
        made = artefact.known(self._folder / place_of(collection.id, collection.version, tenant))
        return made is not None and made.engine is not None

    def maintain(self, collection_id: str, version: int | None = None, tenant: str | None = None) -> None:
        """Brings a collection up to date, and writes down what it is worth to: for who has just changed it.

        In the version that is read, and those that are in memory beside it, unless one is named; all tenants, unless one is.
        Raises NotFound.
        """
        found = self._database.read(lambda tx: collection_store.by_id(tx, collection_id))
        if found is None:
            raise NotFound(f"No such Vector store object: {collection_id}", param="vector_store_id")
        if version is not None:
            self._maintain(found, version, tenant)
            return
        self._maintain(found, found.version, tenant)
        for other in self._versions(collection_id) - {found.version}:
            with suppress(NotFound):  # it was left meanwhile
                self._maintain(found, other, tenant)

    def _maintain(self, found: Collection, version: int, tenant: str | None) -> None:
        if found.tenancy is not None and tenant is None:
            self._maintain_tenants(found, found.tenancy, version)
            return
        resident = self._of(found.id, version, tenant)
        collection, _ = resident.current()
        self.words(collection, tenant)
        if resident.needs().artefact:
            resident.write()
        self._make_room(place_of(found.id, version, tenant))

    def _maintain_tenants(self, found: Collection, tenancy: Tenancy, version: int) -> None:
        """Of those alone that changed. A small one that nobody asks for costs nothing but to look at. Raises NotFound."""
        collection, partitions = self._database.read(lambda tx: _apart(tx, found, version))
        large = min(self._sizes.written_from, tenancy.promote_at)
        whole, first = place_of(found.id, version), place_of(found.id, FIRST)
        kept: dict[str, Partition] = {}
        for each in partitions:
            place = place_of(found.id, version, each.tenant)
            if self._kept.get(place) != each:
                there = self._folder / place
                if each.passages >= large or (there / artefact.MANIFEST).exists():
                    self._maintain(found, version, each.tenant)
                elif (self._folder / place_of(found.id, FIRST, each.tenant)).is_dir():
                    self.words(collection, each.tenant)
            kept[place] = each
        with self._turn:
            others = {place: each for place, each in self._kept.items() if not place.startswith(f"{whole}/")}
            self._kept = others | kept
        for home in {whole, first}:  # words are with the first version
            for path in (self._folder / home / TENANTS).glob("*"):
                if f"{whole}/{TENANTS}/{path.name}" not in kept:
                    self._drop(f"{home}/{TENANTS}/{path.name}", whole=True)

    def repair(self, collection_id: str, effort: int | None, version: int = FIRST, tenant: str | None = None) -> None:
        """As `Resident.repair`."""
        self._of(collection_id, version, tenant).repair(effort)

    def drop(self, collection_id: str) -> None:
        """It is deleted: nothing of it stays here."""
        with self._turn:
            self._seen.pop(collection_id, None)
        places = {path.name for path in self._folder.glob(f"{collection_id}.v*")}
        places |= {place_of(collection_id, version) for version in self._versions(collection_id)}
        for place in sorted({collection_id, *places}):
            self._drop(place, whole=True)

    def drop_version(self, collection_id: str, version: int) -> None:
        """Nobody reads it any more. The words stay: other versions may have the same."""
        self._drop(place_of(collection_id, version), whole=version != FIRST)

    def drop_edition(self, collection_id: str, edition: int) -> None:
        """No version that anybody reads is of it any more."""
        name = lexical.file_of(edition)
        with self._turn:
            taken = self._taken(collection_id, name)
        for words in taken:
            words.close()
        home = self._folder / collection_id
        for each in (home, *(home / TENANTS).glob("*")):
            lexical.clear(each / name)

    def _drop(self, place: str, *, whole: bool) -> None:
        with self._turn:
            within = [each for each in self._known if each == place or each.startswith(f"{place}/")]
            known = [self._known.pop(each) for each in within]
            for each in within:
                self._kept.pop(each, None)
            words = self._taken(place) if whole else ()
        for resident in known:
            resident.close()
        for one in words:
            one.close()
        try:
            if f"/{TENANTS}/" not in place:  # servers keep nothing of tenants
                self._engines.drop(place)
        except EngineAway as error:  # the folder stays: whoever sweeps tries again
            log.warning("index.not_dropped", collection=place, reason=str(error))
            (self._folder / place).mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        if whole:
            shutil.rmtree(self._folder / place, ignore_errors=True)
        else:
            for home in (self._folder / place, *(self._folder / place / TENANTS).glob("*")):
                artefact.clear(home)

    def retry(self) -> None:
        """What could not be written when it was time, or was damaged when it was opened."""
        with self._turn:
            known = list(self._known.values())
        for resident in known:
            if resident.retries():
                self.maintain(resident.collection_id, resident.version, resident.tenant)

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
        for place in self._database.read(self._left_tenants):
            self._drop(place, whole=True)
        return gone

    def _left_tenants(self, tx: Connection) -> Sequence[str]:
        """Partitions that are here and that have no document any more, whoever deleted them."""
        left: list[str] = []
        for home in self._folder.glob(f"vs_*/{TENANTS}"):
            place = home.parent.name
            there = document_store.partitions(tx, version_at(place)[0])
            mine = {partition_of(each.tenant) for each in there}
            left += [f"{place}/{TENANTS}/{path.name}" for path in home.iterdir() if path.name not in mine]
        return left

    def _left(self, tx: Connection) -> Sequence[tuple[str, int]]:
        """Versions that are here and that nobody reads any more."""
        with self._turn:
            places = {place.partition("/")[0] for place in self._known}
        places |= {path.parent.name for path in self._folder.glob(f"vs_*/{artefact.MANIFEST}")}
        within = self._folder.glob(f"vs_*/{TENANTS}/*/{artefact.MANIFEST}")
        places |= {path.parents[2].name for path in within}
        places |= {path.name for path in self._folder.glob("vs_*.v*")}
        found: list[tuple[str, int]] = []
        for collection_id, version in map(version_at, sorted(places)):
            collection = collection_store.by_id(tx, collection_id)
            if collection is not None and not reembeddings.kept(tx, collection, version):
                found.append((collection_id, version))
        return found

    def _left_words(self, tx: Connection) -> Sequence[tuple[str, int]]:
        """The same of editions."""
        there = {(path.parent.name, path.name) for path in self._folder.glob("vs_*/words*.db")}
        within = self._folder.glob(f"vs_*/{TENANTS}/*/words*.db")
        there |= {(path.parents[2].name, path.name) for path in within}
        found: list[tuple[str, int]] = []
        for collection_id, name in sorted(there):
            edition, collection = lexical.edition_of(name), collection_store.by_id(tx, collection_id)
            if collection is None or edition is None:
                continue
            if edition not in reembeddings.editions(tx, collection):
                found.append((collection_id, edition))
        return found

    def close(self) -> None:
        with self._turn:
            for resident in self._known.values():
                resident.close()
            for words in (*self._words.values(), *self._open.values()):
                words.close()
            self._known.clear()
            self._words.clear()
            self._open.clear()
        self._engines.close()

    def _of(self, collection_id: str, version: int, tenant: str | None = None) -> Resident:
        place = place_of(collection_id, version, tenant)
        with self._turn:
            known = self._known.get(place)
            if known is None:
                folder = self._folder / place
                known = Resident(self._database, collection_id, folder, self._sizes, self._engines, version, tenant)
                self._known[place] = known
            self._known.move_to_end(place)
            return known

    def _versions(self, collection_id: str) -> set[int]:
        with self._turn:
            return {each.version for each in self._known.values() if each.collection_id == collection_id}

    def _taken(self, place: str, name: str = "") -> Sequence[Lexical]:
        """Indexes of words within a place, in files of that name if there is one: to be closed. For who has the turn."""
        taken: list[Lexical] = []
        for held in (self._words, self._open):
            mine = [each for each in held if each.startswith(f"{place}/") and (not name or each.endswith(f"/{name}"))]
            taken += [held.pop(each) for each in mine]
        return taken

    def _make_room(self, keep: str, *, often: bool = True) -> None:
        """The least recently used goes first; what is in use stays with who uses it. Not `often`: not at each of many searches."""
        now = time.monotonic()
        if not often and now < self._made_room_at + ROOM_EVERY_S and len(self._known) <= MOST_KNOWN:
            return
        self._made_room_at = now
        with self._turn:
            used = sum(resident.nbytes for resident in self._known.values())
            for id_, resident in list(self._known.items()):
                if used <= self._budget and len(self._known) <= MOST_KNOWN:
                    break
                if id_ != keep:
                    used -= resident.nbytes
                    resident.forget()
                    self._seen.pop(resident.collection_id, None)
                    del self._known[id_]
                    home = place_of(resident.collection_id, FIRST, resident.tenant)
                    for words in self._taken(home):  # another version's opens its own again
                        words.close()


def _apart(tx: Connection, found: Collection, version: int) -> tuple[Collection, Sequence[Partition]]:
    """It with vectors of the version, and what each of its tenants has there. Raises NotFound where they are not kept up to date."""
    now = collection_store.by_id(tx, found.id)
    collection = None if now is None else reembeddings.within(tx, now, version)
    if now is None or collection is None:
        raise NotFound(f"No such Vector store object: {found.id}", param="vector_store_id")
    unread = None if collection.edition == now.edition else collection.edition
    return collection, document_store.partitions(tx, found.id, edition=unread)
