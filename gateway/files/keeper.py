"""Files for whoever serves them: on the shelf and in the database together, off the event loop, and forgotten when their time is over."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar, final

import msgspec
import structlog
from sqlalchemy import Connection, Engine

from gateway.database import appending, reading
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.files import store, upload_store
from gateway.files.shelf import Incoming, Shelf
from gateway.files.store import File
from gateway.files.upload_store import Part, Upload
from gateway.keys import Key
from gateway.paging import Page

SWEEP_EVERY_S: Final = 60.0
SEARCH_EVERY: Final = 60  # sweeps: to look for what nobody knows, all of the folder is read
SWEPT_AT_ONCE: Final = 200

Removing = Callable[[Connection, Sequence[str]], object]

T = TypeVar("T")
log = structlog.stdlib.get_logger(__name__)


class FileTerms(msgspec.Struct, frozen=True):
    """`max_bytes` of one file, `quota_bytes` of all files of a team, or of a key without one."""

    max_bytes: int
    quota_bytes: int


def _nothing_else(_tx: Connection, _ids: Sequence[str]) -> None:
    """Files are all that there is."""


@final
class Files:
    """One per process. `removing` is told, in the same transaction, of files that go. `background` runs as long as the server does."""

    def __init__(self, engine: Engine, shelf: Shelf, terms: FileTerms, removing: Removing = _nothing_else) -> None:
        self._engine = engine
        self._removing = removing
        self.shelf = shelf
        self.terms = terms

    async def require_room(self, key: Key, size: int) -> None:
        """Before anything is written. Raises BodyTooLarge."""
        await self._write(lambda tx: store.require_room(tx, key, size, self.terms.quota_bytes))

    async def keep(
        self, key: Key, id_: str, incoming: Incoming, *, purpose: str, filename: str, keep_s: int | None
    ) -> File:
        """What has come in whole. Raises BodyTooLarge, StorageFailed: then nothing of it is left."""
        size, quota = incoming.size, self.terms.quota_bytes

        def work() -> File:
            incoming.keep("files")
            try:
                with appending(self._engine) as tx:
                    return store.create(tx, key, id_, purpose, filename, size, keep_s=keep_s, quota=quota)
            except BaseException:
                self.shelf.forget("files", [id_])
                raise

        return await asyncio.to_thread(work)

    async def get(self, key: Key, id_: str) -> File:
        """Raises NotFound."""
        return await self._read(lambda tx: store.get(tx, key, id_))

    async def content(self, key: Key, id_: str) -> tuple[File, Path]:
        """Raises NotFound."""
        file = await self.get(key, id_)
        path = self.shelf.path("files", id_)
        if not await asyncio.to_thread(path.exists):
            raise NotFound(f"The content of {id_} is gone from the server's folder", param="id", code="content_gone")
        return file, path

    async def listed(
        self, key: Key, limit: int, *, after: str | None, purpose: str | None, order: Literal["asc", "desc"]
    ) -> Page[File]:
        return await self._read(lambda tx: store.listed(tx, key, limit, after=after, purpose=purpose, order=order))

    async def delete(self, key: Key, id_: str) -> None:
        """Raises NotFound; Conflict while a batch reads it."""

        def work(tx: Connection) -> None:
            store.get(tx, key, id_)
            if store.in_use(tx, id_):
                raise Conflict(
                    f"The file {id_} is the input of a batch that is not finished: cancel that first",
                    code="file_in_use",
                    headers=(("x-should-retry", "false"),),
                )
            self._removing(tx, [id_])
            store.remove(tx, [id_])

        await self._write(work)
        await asyncio.to_thread(self.shelf.forget, "files", [id_])

    async def start_upload(
        self, key: Key, *, purpose: str, filename: str, size: int, mime_type: str, keep_s: int | None
    ) -> Upload:
        """Raises BodyTooLarge."""

        def work(tx: Connection) -> Upload:
            store.require_room(tx, key, size, self.terms.quota_bytes)
            return upload_store.create(
                tx, key, purpose=purpose, filename=filename, size=size, mime_type=mime_type, keep_s=keep_s
            )

        return await self._write(work)

    async def pending_upload(self, key: Key, id_: str) -> Upload:
        """Raises NotFound, BadRequest."""
        return await self._write(lambda tx: upload_store.pending(tx, key, id_))

    async def keep_part(self, key: Key, upload_id: str, id_: str, incoming: Incoming) -> Part:
        """Raises BadRequest, StorageFailed: then nothing of it is left."""

        def work() -> Part:
            incoming.keep("parts")
            try:
                with appending(self._engine) as tx:
                    upload = upload_store.pending(tx, key, upload_id)
                    return upload_store.add_part(tx, upload, id_, incoming.size)
            except BaseException:
                self.shelf.forget("parts", [id_])
                raise

        return await asyncio.to_thread(work)

    async def complete_upload(
        self, key: Key, id_: str, part_ids: Sequence[str], md5: str | None
    ) -> tuple[Upload, File]:
        """The parts become one file. Raises NotFound, BadRequest, BodyTooLarge, StorageFailed: then the upload is as it was."""

        def work() -> tuple[Upload, File]:
            file_id = store.new_id()
            with reading(self._engine) as tx:
                wanted = upload_store.parts(tx, upload_store.get(tx, key, id_), part_ids)
            with self.shelf.incoming(file_id) as whole:
                for part in wanted:
                    whole.append(self.shelf.path("parts", part.id))
                if md5 is not None:
                    _require_md5(whole.path, md5)
                whole.keep("files")
            try:
                with appending(self._engine) as tx:
                    upload = upload_store.pending(tx, key, id_)
                    every = upload_store.every_part(tx, upload)
                    file = store.create(
                        tx,
                        key,
                        file_id,
                        upload.purpose,
                        upload.filename,
                        whole.size,
                        keep_s=upload.keep_s,
                        quota=self.terms.quota_bytes,
                    )
                    ended = upload_store.end(tx, upload, "completed", file_id)
            except BaseException:
                self.shelf.forget("files", [file_id])
                raise
            self.shelf.forget("parts", [part.id for part in every])
            return ended, file

        return await asyncio.to_thread(work)

    async def cancel_upload(self, key: Key, id_: str) -> Upload:
        """Raises NotFound, BadRequest."""

        def work() -> Upload:
            with appending(self._engine) as tx:
                upload = upload_store.pending(tx, key, id_)
                every = upload_store.every_part(tx, upload)
                ended = upload_store.end(tx, upload, "cancelled")
            self.shelf.forget("parts", [part.id for part in every])
            return ended

        return await asyncio.to_thread(work)

    def background(self) -> Sequence[Coroutine[object, object, None]]:
        return (self._sweep_on(),)

    async def _sweep_on(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await asyncio.to_thread(self.sweep)
                if sweeps % SEARCH_EVERY == 0:
                    await asyncio.to_thread(self.search)
            except Exception as error:  # noqa: BLE001 a task border: it is tried again
                log.warning("files.not_swept", reason=str(error).splitlines()[0])
            sweeps += 1

    def sweep(self) -> None:
        """Blocks. Files and uploads whose time is over."""
        while True:
            with appending(self._engine) as tx:
                gone = store.expired(tx, SWEPT_AT_ONCE)
                self._removing(tx, gone)
                store.remove(tx, gone)
            self.shelf.forget("files", gone)
            if len(gone) < SWEPT_AT_ONCE:
                break
        with appending(self._engine) as tx:
            overdue = upload_store.overdue(tx, SWEPT_AT_ONCE)
            parts = [part.id for upload in overdue for part in upload_store.every_part(tx, upload)]
            for upload in overdue:
                upload_store.end(tx, upload, "expired")
            upload_store.remove(tx, [upload.id for upload in overdue])
        self.shelf.forget("parts", parts)

    def search(self) -> None:
        """Blocks. What a process left behind that died between the disk and the database."""
        self.shelf.sweep()
        for ids in self.shelf.old("files"):
            with reading(self._engine) as tx:
                gone = store.unknown(tx, ids)
            self.shelf.forget("files", gone)
        for ids in self.shelf.old("parts"):
            with reading(self._engine) as tx:
                gone = upload_store.unknown_parts(tx, ids)
            self.shelf.forget("parts", gone)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with reading(self._engine) as tx:
                return work(tx)

        return await asyncio.to_thread(transaction)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with appending(self._engine) as tx:
                return work(tx)

        return await asyncio.to_thread(transaction)


def _require_md5(path: Path, md5: str) -> None:
    """Raises BadRequest."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.lower():
        raise BadRequest("The parts together have another MD5 sum", param="md5", code="checksum_mismatch")
