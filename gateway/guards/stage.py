"""The stage between a call and its cache, for calls that have guards: before it, beside it, on its answer.

A call without a guard does not come here: the plane puts this stage before the others as long as there is any guard, and a snapshot knows
which keys and models have which.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, final

import msgspec
import structlog

from gateway import errors
from gateway.cache.stage import Answers
from gateway.call import Call
from gateway.guards import texts as reading
from gateway.guards.answers import Answer, content
from gateway.guards.beside import beside
from gateway.guards.bodies import opened
from gateway.guards.guarded import Guarded
from gateway.guards.judges import WENT_WRONG, Asking, Judges
from gateway.guards.marks import marked, streamed, streaming
from gateway.guards.masking import Restoring, Vault
from gateway.guards.policy import Chain, Guard, Stage
from gateway.guards.report import HEADER, GuardFailed, Outcome, Refused, Report, refused
from gateway.guards.scanning import LOCAL, Local, tell
from gateway.guards.schema import Schema, asked_again, schema_of
from gateway.guards.texts import Text
from gateway.guards.verdicts import Spoken, Verdict
from gateway.guards.watch import Aside, Watch
from gateway.guards.window import Piece
from gateway.journal_records import Routed, Try
from gateway.metering import Meter
from gateway.record import Record
from gateway.till import BudgetShort

log = structlog.stdlib.get_logger(__name__)

THREAD_AT: Final = 128 * 1024  # characters that are read in a thread, so that the others get their turns
MOST_KNOWN: Final = 1024
OPENING_S: Final = 60.0
NANO: Final = 1_000_000_000
# What has no texts in its answers: only what is asked is read.
SILENT: Final = frozenset({
    "embeddings", "rerank", "moderations", "speech", "image_generations", "image_edits", "image_variations", "count_tokens",
})  # fmt: skip
STREAMS: Final = frozenset({"chat", "completions", "responses", "messages"})


Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class _Unfit(Exception):
    """An answer that is not what its schema says, and may be asked for again."""

    def __init__(self, said: str, problems: list[str]) -> None:
        super().__init__()
        self.said = said
        self.problems = problems


@final
class Guarding:
    """`inner` answers what may pass. `attempted` is given the record of an answer that was asked for again."""

    def __init__(
        self,
        *,
        inner: Answers,
        judges: Judges,
        meter: Meter,
        spawn: Spawn,
        now: Callable[[], float],
        attempted: Callable[[Record], None],
    ) -> None:
        self.inner = inner
        self._judges = judges
        self._meter = meter
        self._spawn = spawn
        self._now = now
        self._attempted = attempted
        self._made: list[tuple[Guard, Local]] = []
        self._schemas: dict[bytes, Schema] = {}
        self.outcomes: dict[tuple[str, Outcome], int] = {}  # by guard: for the metrics
        self.tried: dict[str, int] = {}  # what guards on trial would have done

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        """As the dispatch. Raises Refused, GuardFailed."""
        guards = call.snapshot.guards
        if guards is None or isinstance(call.exchange, Asking):
            return self.inner.answer(call)
        named = call.overrides.fallbacks
        routed = call.record.routed
        if routed is not None and routed.router is not None:  # the router's own guards as well
            named = (*(named or ()), routed.router.partition(": ")[0])
        key = call.behalf or call.record.key
        chain = guards.of(key, call.model) if not named else guards.among(key, call.model, named)
        if chain is None:
            return self.inner.answer(call)
        return self._answer(call, chain)

    async def _answer(self, call: Call, chain: Chain) -> None:
        report, vault = Report(), Vault()
        body, request, exchange = call.body, call.request, call.exchange
        call.guarded = Guarded(chain.mark, b"")  # nothing may be kept of what nobody has read yet
        try:
            texts = await self._before(call, chain, report, vault)
            call.guarded = Guarded(chain.mark, call.body, vault.hide if vault else None)
            call.vet = partial(self._vet, call, chain, report)
            call.exchange = watch = self._watch(call, chain, report, vault)
            await self._asked(call, chain, texts, watch, report)
        except BudgetShort:
            call.body, call.request, call.guarded = body, request, None
            if call.grounds is not None:  # its passages were in the body that is gone
                call.grounds.done, call.grounds.body = False, None
            raise
        except (Refused, GuardFailed) as error:
            call.guarded = Guarded(chain.mark, b"")
            error.headers = (*error.headers, (HEADER, report.header))
            raise
        finally:
            call.exchange, call.vet = exchange, None
            streamed(report, self._now)
            self._note(call.record, report)

    # Before

    async def _before(self, call: Call, chain: Chain, report: Report, vault: Vault) -> list[Spoken]:
        """Makes of the call what may be sent. What is said in it, for who runs beside it."""
        body = opened(call)
        vault.take(text.value for text in body.texts)
        changed = False
        for guard in chain.at("before"):
            if guard.kind == "max_cost":
                self._priced(guard, call, report)
                continue
            changed = await self._read(guard, "before", body.texts, call, report, vault) or changed
        if changed:
            body.write(call)
        return _spoken(body.texts)

    async def _vet(self, call: Call, chain: Chain, report: Report, passages: str, put: Callable[[str], None]) -> None:
        """Passages that are added behind the guards. What is masked in them does not come back: others may get the same answer."""
        texts = [Text([passages], 0, passages, "tool")]
        asking = chain.at("before", "parallel")
        for guard in asking:
            if passages and guard.kind != "max_cost":
                await self._read(guard, "before", texts, call, report, Vault(restores=False))
        put(texts[0].value)
        for guard in asking:
            if guard.kind == "max_cost":
                self._priced(guard, call, report)

    def _priced(self, guard: Guard, call: Call, report: Report) -> None:
        """The worst case at the dearest deployment."""
        wild, most = call.match or call.request.model, 0
        for deployment in call.model.deployments:
            most = max(most, self._meter.offer(deployment, wild, call.request, call.body).need.nanousd)
        limit = guard.options["max_usd"]
        report.note(guard.name, "pass")
        if most > limit * NANO:
            why = f"at worst this call costs {most / NANO:.6f} USD, and the limit is {limit:g}: ask for fewer tokens"
            tell(guard, report, ("max_cost",), why)

    async def _read(
        self, guard: Guard, stage: Stage, texts: Sequence[Text], call: Call, report: Report, vault: Vault
    ) -> bool:
        """Has one guard read whole texts, and puts what they become. Whether there is anything new. Raises Refused, GuardFailed."""
        if stage == "stream" and call.record.stream:
            carried = streaming(call, guard, report, self._now)
            return await self._looked(guard, stage, texts, call, report, vault, carried)
        with marked(call, guard, report, self._now) as carried:
            return await self._looked(guard, stage, texts, call, report, vault, carried)

    async def _looked(
        self,
        guard: Guard,
        stage: Stage,
        texts: Sequence[Text],
        call: Call,
        report: Report,
        vault: Vault,
        carried: Mapping[bytes, bytes],
    ) -> bool:
        try:
            if guard.kind in LOCAL:
                made: Sequence[str] | None = await self._scanned(guard, texts, report, vault)
            else:
                made = await self._judged(guard, stage, texts, call, report, carried)
        except WENT_WRONG as error:
            if isinstance(error, (Refused, GuardFailed)):
                raise
            self._failed(guard, call, report, error)
            return False
        except Exception as error:  # noqa: BLE001 — whatever is wrong with a guard, its configuration says what follows
            self._failed(guard, call, report, error)
            return False
        if made is None or guard.dry_run:
            return False
        changed = False
        for number, (text, new) in enumerate(zip(texts, made, strict=True)):
            if new != text.value:
                text.put(new)
                if isinstance(texts, list):
                    texts[number] = text._replace(value=new)
                changed = True
        return changed

    async def _scanned(self, guard: Guard, texts: Sequence[Text], report: Report, vault: Vault) -> list[str]:
        local = self._local(guard)
        if not local.heavy and sum(len(text.value) for text in texts) < THREAD_AT:
            return local.read(texts, report, vault)
        if not local.opened:  # that has a time of its own
            await self._spawn(asyncio.wait_for(asyncio.to_thread(local.open), OPENING_S))
        waiting = asyncio.wait_for(asyncio.to_thread(local.read, texts, report, vault), guard.timeout_s)
        made: list[str] = await self._spawn(waiting)
        return made

    async def _judged(
        self,
        guard: Guard,
        stage: Stage,
        texts: Sequence[Text],
        call: Call,
        report: Report,
        carried: Mapping[bytes, bytes],
    ) -> Sequence[str] | None:
        verdict: Verdict = await self._spawn(self._judges.judge(guard, stage, _spoken(texts), call, carried))
        self._weigh(guard, verdict, report)
        return verdict.texts

    def _weigh(self, guard: Guard, verdict: Verdict, report: Report) -> None:
        if not verdict.categories:
            report.note(guard.name, "pass")
        elif verdict.texts is not None and not guard.dry_run:
            report.note(guard.name, "redact", verdict.categories)
        elif guard.action == "redact" and not guard.dry_run:  # it refuses what it cannot mend
            report.note(guard.name, "block", verdict.categories)
            raise refused(guard.name, verdict.categories, verdict.why)
        else:
            tell(guard, report, verdict.categories, verdict.why)

    def _failed(self, guard: Guard, call: Call, report: Report, error: Exception) -> None:
        """Raises GuardFailed where nothing may pass that was not seen."""
        why = type(error).__name__, _reason(error)
        log.warning("guard.failed", guard=guard.name, kind=guard.kind, error=why[0], reason=why[1], **call.record.told)
        report.note(guard.name, "error", (type(error).__name__,), trial=guard.dry_run)
        if guard.on_error == "fail_closed" and not guard.dry_run:
            raise GuardFailed(f"The guard '{guard.name}' could not be asked, and nothing passes without it") from error

    # The call itself

    async def _asked(self, call: Call, chain: Chain, texts: list[Spoken], watch: Watch, report: Report) -> None:
        parallel = chain.at("parallel")
        repairs = max(
            (guard.options.get("repair", 0) for guard in chain.at("after") if guard.kind == "json_schema"), default=0
        )
        for left in range(repairs, -1, -1):
            if parallel:
                await self._beside(call, parallel, texts, watch, report)
                parallel = ()
            else:
                await self.inner.answer(call)
            try:
                await self._answered(call, chain, watch, report, repairs=left)
            except _Unfit as unfit:
                again = asked_again(call.endpoint.name, reading.read(call.body) or {}, unfit.said, unfit.problems)
                assert again is not None
                self._settle(call)
                call.body = msgspec.json.encode(again)
                call.request = call.endpoint.parse(call.body)
                watch.reset()
                continue
            return

    async def _beside(
        self, call: Call, guards: Sequence[Guard], texts: list[Spoken], watch: Watch, report: Report
    ) -> None:
        """The call, while others read what is asked: it ends with the first of them that refuses."""
        spoken = self._spawn(self._speak(guards, texts, call, report))
        watch.wait_for(spoken)
        await beside(self.inner.answer(call), spoken, watch.let_go)

    async def _speak(self, guards: Sequence[Guard], texts: list[Spoken], call: Call, report: Report) -> None:
        held = [Text([one.text], 0, one.text, one.role) for one in texts]
        await asyncio.gather(*(self._read(guard, "parallel", tuple(held), call, report, Vault()) for guard in guards))

    def _settle(self, call: Call) -> None:
        """What was answered in vain is settled by itself."""
        record = call.record
        seconds = record.finished_at - record.started_at
        attempt = record.split_off()
        attempt.finished_at, attempt.error_code = self._now(), "guard_repair"
        self._meter.close(attempt, call.body)
        record.earlier_nanousd += attempt.cost_nanousd or 0
        record.trail = record.trail or []
        record.trail.append(
            Try(
                record.model or "",
                record.deployment or "",
                "repair",
                round(seconds * 1000, 3),
                attempt.id,
                attempt.cost_nanousd,
            )
        )
        record.first_token_at = None
        record.status = 0
        self._attempted(attempt)

    # Its answer

    def _watch(self, call: Call, chain: Chain, report: Report, vault: Vault) -> Watch:
        """Raises BadRequest for a stream that nobody here can read."""
        on_answer = chain.at("stream", "after")
        name = call.endpoint.name
        reads = bool(on_answer or chain.at("parallel") or vault) and name not in SILENT
        if reads and call.record.stream and name not in STREAMS:
            raise errors.BadRequest(
                f"Guards cannot read a stream of {call.endpoint.place}: ask for the whole answer",
                param="stream",
                code="unsupported_by_guards",
            )
        windows = [guard for guard in on_answer if guard.kind in LOCAL]
        asked = [guard for guard in chain.at("stream") if guard.kind not in LOCAL]

        def pieces() -> Sequence[Piece]:
            return [piece for guard in windows if (piece := self._piece(guard, call, report, vault)) is not None]

        async def ask(spoken: Sequence[Spoken]) -> None:
            for guard in asked:
                await self._read(
                    guard, "stream", [Text([one.text], 0, one.text, one.role) for one in spoken], call, report, vault
                )

        return Watch(
            call.exchange,
            report,
            vault,
            pieces=pieces,
            withheld=bool(chain.at("after")),
            reads=reads,
            ask=ask if asked else None,
            every=min((guard.options["window"] for guard in asked), default=0),
            aside=self._aside(windows),
        )

    def _aside(self, guards: Sequence[Guard]) -> Aside | None:
        """Where what takes long is done: in a thread, and with guards that fail closed no longer than they may take."""
        heavy = [guard for guard in guards if "after" in guard.stages and self._heavy(guard)]
        if not heavy:
            return None
        within = min((one.timeout_s + OPENING_S for one in heavy if one.on_error == "fail_closed"), default=None)

        async def aside(work: Callable[[], bytes]) -> bytes:
            made: bytes = await self._spawn(asyncio.wait_for(asyncio.to_thread(work), within))
            return made

        return aside

    def _heavy(self, guard: Guard) -> bool:
        try:
            return self._local(guard).heavy
        except Exception:  # noqa: BLE001 — told where it is asked
            return False

    def _piece(self, guard: Guard, call: Call, report: Report, vault: Vault) -> Piece | None:
        streaming(call, guard, report, self._now)
        try:
            local = self._local(guard)
            if local.heavy and "after" in guard.stages:
                held = local.whole(report, vault)
                held.failed = partial(self._failed, guard, call, report)
                return held
            piece = local.piece(report, vault)
        except Exception as error:  # noqa: BLE001 — as in `_read`
            self._failed(guard, call, report, error)
            return None
        report.note(guard.name, "pass")
        return piece

    async def _answered(self, call: Call, chain: Chain, watch: Watch, report: Report, *, repairs: int) -> None:
        """Reads what is withheld, and lets it go. Raises Refused, and _Unfit while there is another try."""
        if watch.streamed:
            await watch.finish_stream()
            spoken = [Text([text], 0, text, "assistant") for text in map("".join, watch.texts.values())]
            for guard in chain.at("after"):
                if guard.kind == "json_schema":
                    self._fits(guard, call, watch.content, report, repairs)
                elif guard.kind not in LOCAL:
                    await self._read(guard, "after", tuple(spoken), call, report, Vault())
            watch.close_stream()
        elif watch.whole is not None:
            status, head, body = watch.whole
            body = await self._whole(call, chain, body, watch, report, repairs)
            watch.inner.respond(status, head + report.lines, body)

    async def _whole(self, call: Call, chain: Chain, body: bytes, watch: Watch, report: Report, repairs: int) -> bytes:
        answer = Answer(body)
        changed = False
        for guard in chain.at("stream", "after"):
            if guard.kind == "json_schema":
                self._fits(guard, call, content(answer.fields), report, repairs)
            else:
                stage: Stage = "after" if "after" in guard.stages else "stream"
                changed = await self._read(guard, stage, answer.texts, call, report, watch.vault) or changed
        if watch.vault:
            for text in answer.texts:
                back = Restoring(watch.vault, in_json=text.in_json)
                new = back.feed(text.value) + back.finish()
                if new != text.value and text.holder is not None:
                    text.put(new)
                    changed = True
        return answer.written() if changed else body

    def _fits(self, guard: Guard, call: Call, said: str, report: Report, repairs: int) -> None:
        """Whether an answer is what a schema says: the guard's, or the one that the request itself names."""
        report.note(guard.name, "pass")
        try:
            fields = reading.read(call.body) or {}
            wanted = guard.options.get("json_schema") or schema_of(fields)
            if wanted is None:
                return
            problems = self._schema(wanted).problems(said)
        except Exception as error:  # noqa: BLE001 — as in `_read`
            self._failed(guard, call, report, error)
            return
        if not problems:
            return
        if (
            repairs
            and not guard.dry_run
            and guard.action == "block"
            and asked_again(call.endpoint.name, fields, said, problems) is not None
        ):
            report.note(guard.name, "repair", ("json_schema",))
            raise _Unfit(said, problems)
        tell(guard, report, ("json_schema",), "; ".join(problems))

    def _schema(self, wanted: Mapping[str, Any]) -> Schema:
        place = msgspec.json.encode(wanted)
        known = self._schemas.get(place)
        if known is None:
            if len(self._schemas) >= MOST_KNOWN:
                self._schemas.clear()
            known = self._schemas[place] = Schema(wanted)
        return known

    def _local(self, guard: Guard) -> Local:
        known = next((local for one, local in self._made if one is guard), None)
        if known is None:
            known = Local(guard)
            self._made = [*self._made[-MOST_KNOWN:], (guard, known)]
        return known

    def _note(self, record: Record, report: Report) -> None:
        if not report.outcomes:
            return
        for name, outcome in report.outcomes.items():
            if name in report.tried:
                self.tried[name] = self.tried.get(name, 0) + 1
            else:
                self.outcomes[name, outcome] = self.outcomes.get((name, outcome), 0) + 1
        record.routed = msgspec.structs.replace(record.routed or Routed(), guards=report.kept)


def _spoken(texts: Sequence[Text]) -> list[Spoken]:
    return [Spoken(one.role, one.value) for one in texts]


def _reason(error: Exception) -> str:
    """For the log: of our own errors what they say, of others nothing, as it may quote a text."""
    return (
        str(error)[:200]
        if isinstance(error, (LookupError, OSError)) or type(error).__name__ in {"NoJudgeError", "TooLongError"}
        else ""
    )
