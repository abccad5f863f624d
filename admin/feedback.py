"""Feedback for whoever serves it: whose an id is, what was said of it, and who hears of that.

Of what another team's key has asked nobody learns that it is there. An answer's record may take a moment until it is in the database;
feedback that comes sooner waits for it. Whoever names an answer by the id that stands in it speaks of the request behind it: the word
is kept under that one, whichever of both names is used.
"""

import asyncio
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, select

from gateway import request_store
from gateway.authentication import ADMIN
from gateway.database import appending, reading
from gateway.errors import BadRequest, BodyTooLarge, NotFound, RateLimited
from gateway.ids import new_id
from gateway.keys import Key
from inference.feedback import store
from inference.feedback.reading import Wrong
from inference.feedback.store import Kept, Owner, Subject
from inference.feedback.word import Word
from inference.tables import predictions

FRESH_S: Final = 60.0  # the record of a request that is younger may be on its way
PATIENCE_S: Final = 5.0
LOOK_AFTER_S: Final = 0.1
MAX_ROWS: Final = 100_000
ROWS_AT_ONCE: Final = 500
MAX_COMPLAINTS: Final = 100
PREDICTIONS: Final = "inference"  # the provider that their records name: admin.predictions.desk
PER_SECOND: Final = 50  # requests of a key; a bulk is one
BURST: Final = 200.0
MOST_KEYS: Final = 10_000
FULL: Final = f"{store.MOST_SOURCES} sources have spoken of it, and there is room for no more"
OURS: Final = ("req_", "srch_")
UNKNOWN: Final = "There is nothing with this id"

_MILLIS: Final = re.compile(r"[a-z]+_([0-9a-f]{12})")
_SEARCH: Final = re.compile(r"(srch_[0-9a-f]{32})([0-9a-f]{24})")


class Said(msgspec.Struct, frozen=True):
    """What is kept of a word, and the id that it was said of: the answer's or the request's."""

    id: str
    kept: Kept


class Row(msgspec.Struct, frozen=True):
    """A row of a bulk that was not kept, and why."""

    row: int
    id: str | None
    message: str
    param: str | None


class Taken(msgspec.Struct, frozen=True):
    """What became of a bulk: rows that say something new, that said the same before, and that were refused; the first of these."""

    accepted: int
    unchanged: int
    rejected: int
    errors: tuple[Row, ...]


@final
class SearchIds:
    """Searches leave no record, so their ids say whose they are: to those who know the secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(b"penstock searches\n" + secret).digest()

    def new(self, key: Key) -> str:
        bare = new_id("srch")
        return bare + self._seal(bare, key)

    def owned(self, id_: str, key: Key) -> bool:
        found = _SEARCH.fullmatch(id_)
        return found is not None and hmac.compare_digest(found[2], self._seal(found[1], key))

    def _seal(self, bare: str, key: Key) -> str:
        whose = f"team {key.team_id}" if key.team_id is not None else f"key {key.id}"
        return hmac.new(self._secret, f"{bare}\n{whose}".encode(), hashlib.sha256).hexdigest()[:24]


@final
class Feedback:
    """One per process. `tell` hears of every word that is new."""

    def __init__(
        self,
        engine: Engine,
        searches: SearchIds,
        tell: Callable[[Kept], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._searches = searches
        self._tell = tell
        self._now = now
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by key: requests that are left, as of when

    async def say(self, key: Key, word: Word) -> Said:
        """Raises NotFound for what is not there, or another's; BadRequest where too many have spoken; RateLimited."""
        self._admit(key)
        (kept, fresh, refused), _ = await self._keep_patiently(key, [word], time.monotonic() + PATIENCE_S)
        if refused:
            raise BadRequest(FULL, param="source", code="too_many_sources")
        if not kept:
            raise NotFound(
                f"There is nothing with the id '{word.id}': name an answer by its x-request-id, or by the id in it.",
                param="id",
                code="subject_not_found",
            )
        for one in fresh:
            self._tell(one)
        return Said(word.id, kept[0])

    async def say_all(self, key: Key, rows: Iterator[tuple[int, Word | Wrong]]) -> Taken:
        """Every row by itself: one that is wrong does not stop the others. Raises BadRequest for what is no table at all, BodyTooLarge,
        RateLimited."""
        self._admit(key)
        accepted = unchanged = rejected = seen = 0
        patient_until = time.monotonic() + PATIENCE_S  # what was answered before this came is there by then
        errors: list[Row] = []
        while piece := await asyncio.to_thread(_piece, rows):
            seen += len(piece)
            if seen > MAX_ROWS:
                raise BodyTooLarge(f"At most {MAX_ROWS:,} rows at a time; those before were kept")
            words = [(number, one) for number, one in piece if isinstance(one, Word)]
            (_, fresh, refused), names = await self._keep_patiently(key, [one for _, one in words], patient_until)
            full = {(one.word.id, one.word.source) for one in refused}
            wrong = [Row(number, None, one.message, one.param) for number, one in piece if isinstance(one, Wrong)]
            wrong += [Row(number, one.id, UNKNOWN, "id") for number, one in words if one.id not in names]
            wrong += [
                Row(number, one.id, FULL, "source") for number, one in words if (names.get(one.id), one.source) in full
            ]
            for one in fresh:
                self._tell(one)
            accepted += len(fresh)
            unchanged += len(piece) - len(wrong) - len(fresh)
            rejected += len(wrong)
            errors += sorted(wrong, key=lambda row: row.row)[: MAX_COMPLAINTS - len(errors)]
        return Taken(accepted, unchanged, rejected, tuple(errors))

    def search_id(self, key: Key) -> str:
        """For the answer of a search."""
        return self._searches.new(key)

    def _admit(self, key: Key) -> None:
        """A second's worth of requests at a time, for each key in this process."""
        if key is ADMIN:
            return
        now = self._now()
        left, at = self._rates.pop(key.id, (BURST, now))
        left = min(BURST, left + (now - at) * PER_SECOND)
        self._rates[key.id] = max(0.0, left - 1), now
        if len(self._rates) > MOST_KEYS:
            self._rates.popitem(last=False)
        if left < 1:
            raise RateLimited(
                f"At most {PER_SECOND} requests a second with feedback: send many in one to /v1/feedback/bulk.",
                headers=(("retry-after", "1"),),
            )

    async def _keep_patiently(
        self, key: Key, words: Sequence[Word], until: float
    ) -> tuple[store.Taken, Mapping[str, str]]:
        """As `_keep`. The record of what was answered just now may be on its way to the database: it is waited for."""
        (kept, fresh, refused), known = await asyncio.to_thread(self._keep, key, words, 0.0)
        names, pause_s = dict(known), LOOK_AFTER_S
        while time.monotonic() < until:
            awaited = [word for word in words if word.id not in names and _young(word.id)]
            if not awaited:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, 1.5 * pause_s)
            more, known = await asyncio.to_thread(self._keep, key, awaited, time.time() - FRESH_S)
            names.update(known)
            kept += more.kept
            fresh += more.fresh
            refused += more.refused
        return store.Taken(kept, fresh, refused), names

    def _keep(self, key: Key, words: Sequence[Word], since: float) -> tuple[store.Taken, Mapping[str, str]]:
        """Those that are of something that the key may speak of, and those of them that say something new; what is kept under which id.

        Of answers before `since`, in Unix seconds, those are known that are named by their request's id.
        """
        with reading(self._engine) as tx:
            owners = self._owners(tx, key, {word.id for word in words}, since)
        now = time.time()
        mine = [
            Kept(new_id("fb"), replace(word, id=owners[word.id][0]), owners[word.id][1], now, now)
            for word in words
            if word.id in owners
        ]
        if not mine:
            return store.Taken([], [], []), {}
        with appending(self._engine) as tx:
            return store.keep(tx, mine), {id_: name for id_, (name, _) in owners.items()}

    def _owners(self, tx: Connection, key: Key, ids: set[str], since: float) -> Mapping[str, tuple[str, Owner]]:
        """Under which id a word of each is kept, and whose that is."""
        found = {
            id_: (id_, Owner("search", key.id, key.team_id, key.org_id))
            for id_ in ids
            if self._searches.owned(id_, key)
        }
        for id_, record in request_store.find(tx, [id_ for id_ in ids if id_.startswith("req_")]).items():
            if _speaks(key, record.key_id, record.team_id):
                found[id_] = id_, _owner(record)
        rest = ids - found.keys()
        if rest:
            columns = predictions.c
            mine = select(columns.id, columns.key_id, columns.team_id, columns.org_id).where(columns.id.in_(rest))
            for row in tx.execute(mine):
                if _speaks(key, row.key_id, row.team_id):
                    found[row.id] = row.id, Owner("prediction", row.key_id, row.team_id, row.org_id)
        named = [id_ for id_ in ids - found.keys() if not id_.startswith(OURS)]
        if named:
            records = request_store.answered(
                tx, named, lambda record: _speaks(key, record.key_id, record.team_id), since
            )
            found.update({id_: (record.id, _owner(record)) for id_, record in records.items()})
        return found


def _owner(record: request_store.RequestRecord) -> Owner:
    return Owner(_kind(record), record.key_id, record.team_id, record.org_id)


def _kind(record: request_store.RequestRecord) -> Subject:
    """The same whether its record or its capture is in the database first."""
    return "prediction" if record.provider == PREDICTIONS else "request"


def _speaks(key: Key, key_id: str | None, team_id: str | None) -> bool:
    """As for files: a key speaks of what it asked and what keys of its team asked, the admin key of everything."""
    return key is ADMIN or key.id == key_id or (key.team_id is not None and key.team_id == team_id)


def _young(id_: str) -> bool:
    """Whether its record may be on its way; an answer's own id does not say when it was."""
    if not id_.startswith(OURS):
        return True
    found = _MILLIS.match(id_)
    return found is not None and abs(time.time() - int(found[1], 16) / 1000) < FRESH_S


def _piece(rows: Iterator[tuple[int, Word | Wrong]]) -> list[tuple[int, Word | Wrong]]:
    piece = []
    try:
        for one in rows:
            piece.append(one)
            if len(piece) >= ROWS_AT_ONCE:
                break
    except Wrong as wrong:
        raise BadRequest(wrong.message, param=wrong.param) from None
    return piece


def event(said: Kept) -> bytes:
    """As webhooks get it: what was said, without the comment, which is somebody's text."""
    word = said.word
    return msgspec.json.encode(
        {
            "event": "feedback.said",
            "id": word.id,
            "kind": said.owner.kind,
            "source": word.source,
            "label": word.label,
            "score": word.score,
            "team_id": said.owner.team_id,
            "at": datetime.fromtimestamp(said.updated_at, UTC),
        }
    )
