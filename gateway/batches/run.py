"""One batch from its input to its files, by the process that has its lease: check → serve lines → settle → hand over.

A line is begun, served through a hot route like any call, and its result is on the worksheet before its call is settled. So a process
that is killed leaves lines of two kinds: those with a result, which are done, and those without, which the next owner begins again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Literal, TypeVar, final

import msgspec
import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.authentication import Authenticator
from gateway.batches import store
from gateway.batches.carrier import LineExchange, header
from gateway.batches.lines import Checker, Line, Problem, with_tier
from gateway.batches.pace import Pace
from gateway.batches.results import (
    Counts,
    Done,
    Usage,
    Verdict,
    answered,
    error_of,
    result_id,
    unanswered,
    usage_of,
    verdict,
)
from gateway.batches.room import Room
from gateway.batches.source import Source, check, left_over
from gateway.batches.store import Batch, LeaseLost, Outcome
from gateway.batches.terms import BatchTerms
from gateway.batches.worksheet import ERRORS, OUTPUT, Claim, Worksheet, newest
from gateway.database import appending
from gateway.drive import driven
from gateway.exchange import Exchange
from gateway.files.shelf import Shelf, StorageFailed

log = structlog.stdlib.get_logger(__name__)

BEAT_S: Final = 2.0
MAX_BEGUN: Final = 8  # owners that died over a line: whoever comes next does not try it again
MAX_OVERLOADED: Final = 8  # answers of 503 to one line, over about four minutes
MAX_WAIT_S: Final = 60.0
RETRY_S: Final = 1.0

Handler = Callable[[Exchange], Coroutine[Any, Any, None]]
Ending = Literal["expired", "cancelled", "failed", "stopped", "lost"]
T = TypeVar("T")

_LEFT: Mapping[str, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed, as its batch was cancelled."),
}


class Tools(msgspec.Struct, frozen=True):
    """What a run needs of its process. `unix` is the clock in Unix seconds, `now` a monotonic one."""

    engine: Engine
    shelf: Shelf
    room: Room
    terms: BatchTerms
    authenticator: Authenticator
    handlers: Mapping[str, Handler]
    unix: Callable[[], float]
    now: Callable[[], float]


class _Answer(msgspec.Struct, frozen=True):
    """What came of one try of a line."""

    verdict: Verdict
    message: str = ""
    overloaded: bool = False
    wait_s: float | None = None


@final
class Run:
    """`run` once. `look` and `stop` may be called while it runs."""

    def __init__(self, batch: Batch, claim: Claim, tools: Tools) -> None:
        self._batch = batch
        self._claim = claim
        self._tools = tools
        self._folder = tools.shelf.folder / "batches" / batch.id
        self._input = tools.shelf.path("files", batch.input_file_id)
        self._sheet: Worksheet | None = None
        self._counts = _known(batch)
        self._unwritten: list[tuple[Done, bytes]] = []
        self._secrets: dict[str | None, bytes] = {}
        self._ending: Ending | None = "cancelled" if batch.status == "cancelling" else None
        self._failure: Problem | None = None
        self._note: Problem | None = None
        self._ended = asyncio.Event()
        if self._ending is not None:
            self._ended.set()
        self._solvent = asyncio.Event()
        self._solvent.set()
        self._wake = asyncio.Event()
        self._beaten_at = tools.now()

    async def run(self) -> None:
        """Until the batch has ended, another owner has it, or `stop`."""
        try:
            if self._batch.outcome is None:
                async with asyncio.TaskGroup() as group:
                    beats = group.create_task(self._beat_on())
                    await self._work()
                    beats.cancel()
            if self._batch.outcome is not None:
                await self._hand_over()
            elif self._batch.status != "failed":
                await self._write(lambda tx: store.release(tx, self._batch))
        except* LeaseLost:
            log.warning("batch.lease_lost", batch=self._batch.id)
        finally:
            for secret in self._secrets.values():
                self._tools.authenticator.dismiss(secret)
            if self._sheet is not None:
                self._sheet.close()
            self._claim.let_go()

    def look(self) -> None:
        """Somebody may have changed the batch in the database."""
        self._wake.set()

    def stop(self) -> None:
        """Begins no more lines; those that run may end."""
        self._end("stopped")

    # From the input to an outcome

    async def _work(self) -> None:
        checked = await asyncio.to_thread(check, self._input, self._batch.endpoint, self._tools.terms.max_lines)
        if checked.problems:
            self._batch = await self._write(lambda tx: store.fail(tx, self._batch, checked.problems))
            log.info("batch.refused", batch=self._batch.id, problems=len(checked.problems))
            return
        if "in_progress" not in self._batch.moments:
            self._batch = await self._write(lambda tx: store.begin(tx, self._batch, checked.total, checked.model))
        sheet = await self._opened(checked)
        if sheet is None:
            return
        self._sheet, self._counts = sheet, sheet.counts
        log.info("batch.begun", batch=self._batch.id, lines=checked.total, done=sum(sheet.done))
        await self._serve_all(sheet, checked.total)
        await self._settle(sheet)

    async def _opened(self, checked: Checker) -> Worksheet | None:
        while True:
            try:
                return await asyncio.to_thread(Worksheet.open, self._folder, self._batch.epoch, checked.numbers)
            except OSError as error:
                if not await self._tried_again(error):
                    return None

    async def _serve_all(self, sheet: Worksheet, total: int) -> None:
        source = Source(self._input, sheet.done, self._batch.endpoint)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._tools.terms.lines, total - sum(sheet.done))):
                    group.create_task(self._serve_on(sheet, source))
        finally:
            source.close()

    async def _settle(self, sheet: Worksheet) -> None:
        """Every line gets a result, whatever ended the batch."""
        ending = self._ending
        if ending == "lost":
            raise LeaseLost
        if ending == "stopped":
            return
        outcome: Outcome = "completed" if ending is None else ending
        while True:
            try:
                await asyncio.to_thread(self._fill_up, sheet, ending)
                await asyncio.to_thread(sheet.sync)
                break
            except OSError as error:
                if not await self._tried_again(error):
                    return
        problems = None if self._failure is None else [self._failure]
        self._batch = await self._write(
            lambda tx: store.settle(
                tx,
                self._batch,
                outcome,
                sheet.counts,
                problems=problems,
                output=sheet.size(OUTPUT) > 0,
                errors=sheet.size(ERRORS) > 0,
            )
        )

    def _fill_up(self, sheet: Worksheet, ending: Ending | None) -> None:
        """Blocks. What could not be written so far, and a word for each line that was not served. Raises OSError."""
        while self._unwritten:
            sheet.append(*self._unwritten[0])
            del self._unwritten[0]
        if ending is None:
            return
        if self._failure is not None:
            code, message = self._failure.code, self._failure.message
        else:
            code, message = _LEFT[ending]
        pace = Pace()
        for line in left_over(self._input, sheet.done, self._batch.endpoint):
            sheet.append(*self._not_served(line, code, message))
            pace.keep()

    async def _hand_over(self) -> None:
        """The results become files of the client's."""
        while True:
            try:
                sizes = await asyncio.to_thread(self._adopt)
                break
            except StorageFailed as error:
                if not await self._tried_again(error):
                    return
        self._batch = await self._write(lambda tx: store.finish(tx, self._batch, sizes))
        await asyncio.to_thread(self._tools.shelf.forget_batch, self._batch.id)
        counts = self._batch
        log.info("batch.ended", batch=counts.id, status=counts.status, completed=counts.completed, failed=counts.failed)

    def _adopt(self) -> Mapping[str, int]:
        folder = newest(self._folder) or self._folder
        found = {}
        for id_, name in ((self._batch.output_file_id, OUTPUT), (self._batch.error_file_id, ERRORS)):
            size = None if id_ is None else self._tools.shelf.adopt(folder / name, id_)
            if id_ is not None and size is not None:
                found[id_] = size
        return found

    # One line

    async def _serve_on(self, sheet: Worksheet, source: Source) -> None:
        while await self._may_begin():
            line = await source.next()
            if line is None:
                return
            if sheet.begin(line.number) >= MAX_BEGUN:
                message = f"The server ended {MAX_BEGUN} times while it served this line"
                self._keep(*self._not_served(line, "interrupted", message))
            else:
                await self._serve(line)

    async def _may_begin(self) -> bool:
        """Waits while the lease is not sure, or the disk takes nothing. False when the batch has ended."""
        while self._ending is None:
            if self._tools.unix() >= self._batch.expires_at:
                self._end("expired")
            elif self._unwritten:
                await self._sleep(RETRY_S)
                self._write_again()
            elif self._tools.now() - self._beaten_at > store.LEASE_S / 2:
                await self._sleep(RETRY_S / 4)
            else:
                return True
        return False

    async def _serve(self, line: Line) -> None:
        """Until the line has a result or the batch has ended."""
        tries, overloaded, asking, wait_s = 0, 0, False, RETRY_S
        while self._ending is None:
            if not asking:
                await self._money()
            if not await self._tools.room.enter(self._ended.is_set):
                return
            try:
                answer = await self._call(line, last=overloaded >= MAX_OVERLOADED)
            finally:
                self._tools.room.leave()
            tries += 1
            overloaded += answer.overloaded
            if answer.verdict == "broke":
                asking = asking or self._ran_out(answer.message)
                if asking:
                    wait_s = min(MAX_WAIT_S, 2 * wait_s)
                    await self._sleep(wait_s)
                continue
            if asking:
                asking = False
                self._note = None
                self._solvent.set()
            match answer.verdict:
                case "done":
                    return
                case "stop":
                    self._fail(Problem("key_not_valid", answer.message))
                case "again":
                    backoff_s = min(MAX_WAIT_S, RETRY_S * 2.0 ** min(tries - 1, 6))
                    await self._sleep(backoff_s if answer.wait_s is None else answer.wait_s)

    async def _call(self, line: Line, *, last: bool) -> _Answer:
        """One call. Its result, if it is one, is written when this returns, before it was settled."""
        found: list[_Answer] = []

        def take(status: int, head: bytes, body: bytes) -> None:
            found.append(self._taken(line, status, head, body, last=last))

        tools, endpoint = self._tools, self._batch.endpoint
        secret, body = self._asked(line)
        carrier = LineExchange(endpoint.encode(), secret, body, tools.now(), take)
        try:
            await driven(tools.handlers[endpoint](carrier))
        except Exception:  # a line's border: the others go on
            log.exception("batch.line_failed", batch=self._batch.id, line=line.number)
        if not found:
            self._keep(
                *self._not_served(line, "internal_error", "Something went wrong on our side; the log has the details")
            )
            return _Answer("done")
        return found[0]

    def _taken(self, line: Line, status: int, head: bytes, body: bytes, *, last: bool) -> _Answer:
        code, message = (None, "") if status < 400 else error_of(body)
        what = verdict(status, code)
        # Our own queue is waited for as a limit is: as long as the batch lasts.
        overloaded = status == 503 and header(head, b"x-penstock-shed") is None
        if what == "again" and last and overloaded:
            what = "done"
        if what == "done":
            ok = 200 <= status < 300
            done = Done(line.number, ok, usage_of(body) if ok else Usage())
            id_ = result_id(self._batch.id, line.number)
            self._keep(done, answered(id_, line.custom_id, status, header(head, b"x-request-id"), body))
        return _Answer(what, message, overloaded, _seconds(header(head, b"retry-after")))

    def _asked(self, line: Line) -> tuple[bytes, bytes]:
        """Who asks, and what: a service tier's price is only for lines that ask their upstream for that tier."""
        tier = self._tools.terms.tier(line.model)
        body = line.body
        if tier is not None and line.service_tier is None:
            body = with_tier(body, tier)
        elif line.service_tier != tier:
            tier = None
        if tier not in self._secrets:
            self._secrets[tier] = self._tools.authenticator.deputy(self._batch.key_id, tier)
        return self._secrets[tier], body

    def _not_served(self, line: Line, code: str, message: str) -> tuple[Done, bytes]:
        id_ = result_id(self._batch.id, line.number)
        return Done(line.number, ok=False, usage=Usage()), unanswered(id_, line.custom_id, code, message)

    def _keep(self, done: Done, result: bytes) -> None:
        """What the disk does not take waits in memory, and with it all lines that would begin."""
        self._unwritten.append((done, result))
        if len(self._unwritten) == 1:
            self._write_again()

    def _write_again(self) -> None:
        assert self._sheet is not None
        try:
            while self._unwritten:
                self._sheet.append(*self._unwritten[0])
                del self._unwritten[0]
        except OSError as error:
            if self._note is None:
                log.error("batch.not_written", batch=self._batch.id, reason=str(error))  # noqa: TRY400 — says it all
            self._note = Problem("storage_full", f"The server's disk takes no results ({error}); the batch waits.")
        else:
            if self._note is not None and self._note.code == "storage_full":
                self._note = None

    # Money

    async def _money(self) -> None:
        """While the budget is at its end, one line asks again and the others wait."""
        while self._ending is None and not self._solvent.is_set():
            await self._first_of(self._solvent, MAX_WAIT_S)

    def _ran_out(self, message: str) -> bool:
        """Whether this line is the one that asks again."""
        if self._tools.terms.on_budget == "fail":
            self._fail(Problem("budget_exceeded", f"{message}. The batch ended there."))
            return False
        if not self._solvent.is_set():
            return False
        self._solvent.clear()
        self._note = Problem("budget_exceeded", f"{message}. The batch waits and goes on when there is budget for it.")
        log.info("batch.waits_for_budget", batch=self._batch.id)
        return True

    # The lease

    async def _beat_on(self) -> None:
        while self._ending != "lost":
            try:
                await self._beat()
            except LeaseLost:
                self._end("lost")
            except (SQLAlchemyError, OSError) as error:
                log.warning("batch.beat_failed", batch=self._batch.id, reason=str(error).splitlines()[0])
            self._wake.clear()
            left_s = self._batch.expires_at - self._tools.unix()
            await self._first_of(self._wake, BEAT_S if left_s < 0 else min(BEAT_S, left_s + 0.01))
            if self._tools.unix() >= self._batch.expires_at:
                self._end("expired")

    async def _beat(self) -> None:
        """The disk first: what the database counts, no power cut takes back. Raises LeaseLost, SQLAlchemyError, OSError."""
        sheet, at = self._sheet, self._tools.now()
        counts = _copied(self._counts)
        if sheet is not None:
            await asyncio.to_thread(sheet.sync)
        status = await asyncio.to_thread(self._transaction, lambda tx: store.beat(tx, self._batch, counts, self._note))
        self._beaten_at = at
        if status == "cancelling":
            self._end("cancelled")

    def _end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._ended.set()

    def _fail(self, problem: Problem) -> None:
        if self._ending is None:
            self._failure = problem
            self._end("failed")

    async def _sleep(self, seconds: float) -> None:
        """Less, if the batch ends."""
        await self._first_of(self._ended, seconds)

    async def _first_of(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return

    async def _tried_again(self, error: Exception) -> bool:
        """Waits a moment. False when the process is to end."""
        log.warning("batch.waits", batch=self._batch.id, reason=str(error).splitlines()[0])
        if self._ending not in ("stopped", "lost"):
            await asyncio.sleep(RETRY_S)
        return self._ending not in ("stopped", "lost")

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """In one transaction, tried again while the database is away. Raises LeaseLost."""
        while True:
            try:
                return await asyncio.to_thread(self._transaction, work)
            except SQLAlchemyError as error:
                if not await self._tried_again(error):
                    raise LeaseLost from error

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        with appending(self._tools.engine) as tx:
            return work(tx)


def _known(batch: Batch) -> Counts:
    counts = Counts()
    counts.completed, counts.failed, counts.usage = batch.completed, batch.failed, batch.usage or Usage()
    return counts


def _copied(counts: Counts) -> Counts:
    copy = Counts()
    copy.completed, copy.failed, copy.usage = counts.completed, counts.failed, counts.usage
    return copy


def _seconds(value: str | None) -> float | None:
    """Of `retry-after`."""
    if value is None or not value.isdigit():
        return None
    return min(MAX_WAIT_S, max(0.1, float(value)))
