"""Outcomes of routes and prompts, read from the record of requests: nothing is added to a request's own way."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, final

from msgspec.structs import replace
from sqlalchemy import Engine

from gateway import request_store
from gateway.database import reading
from gateway.record import LEFT
from gateway.request_store import BlockName, RequestRecord
from inference.rollouts.rollout import CHALLENGER, CHAMPION, ArmName
from inference.rollouts.store import Observed, Rollout
from inference.rollouts.tally import Seen
from inference.rollouts.values import Value

LATE_S: Final = 900.0  # a replica that could not ship its records for longer is not waited for
BLOCKS: Final = 40  # of one look; the rest have to wait for the next
MAX_KNOWN: Final = 50_000
DRIFTS: Final = ("input_drift", "output_drift")
UNREACHED: Final = frozenset(
    (400, 401, 402, 403, 404, 409, 413, 415, 422, 429)
)  # before a model: whoever asked, and limits


@final
class RecordSource:
    """Remembers which blocks it has read, as they never change. After a restart it reads those of the last minutes again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._read: dict[str, set[BlockName]] = {}

    def since(self, rollout: Rollout) -> Sequence[Observed]:
        known = self._read.setdefault(rollout.id, set())
        since = max(rollout.position.started_at, rollout.updated_at - LATE_S)
        found: list[Observed] = []
        with reading(self._engine) as tx:
            names = [name for name in request_store.blocks_since(tx, since) if name not in known][:BLOCKS]
            for name in names:
                found += _outcomes(rollout, request_store.block(tx, name))
        if len(known) > MAX_KNOWN:
            known.clear()
        known.update(names)
        return found

    def keep(self, ids: Sequence[str]) -> None:
        """Forgets what it knows for other rollouts."""
        for gone in self._read.keys() - set(ids):
            del self._read[gone]


def _outcomes(rollout: Rollout, records: Sequence[RequestRecord]) -> Iterator[Observed]:
    plan = rollout.plan
    arms: dict[str, ArmName] = {
        f"{plan.name}@{plan.champion}": CHAMPION,
        f"{plan.name}@{plan.challenger}": CHALLENGER,
    }
    drifts = any(plan.gate(metric) is not None for metric in DRIFTS)
    for record in records:
        drawn = record.route_version if plan.kind == "route" else record.prompt_version
        arm = arms.get(drawn or "")
        if arm is None or record.at < rollout.position.started_at or "-" in record.id:
            continue
        seen = seen_of(record)
        if seen is not None:
            if drifts and seen.ok:
                seen = replace(seen, inputs=_sizes("prompt", record), outputs=_sizes("completion", record))
            yield Observed(record.shadow_of or record.id, arm, record.at, seen)


def _sizes(side: Literal["prompt", "completion"], record: RequestRecord) -> dict[str, Value]:
    tokens = record.prompt_tokens if side == "prompt" else record.completion_tokens
    return {f"{side}_tokens": None if tokens is None else float(tokens)}


def seen_of(record: RequestRecord) -> Seen | None:
    """None for a call that says nothing of the arm: its client left, or it was refused before a model was asked."""
    if record.status in {0, 499} or record.error_code == LEFT:
        return None
    if not record.attempts and record.status in UNREACHED:
        return None
    ok = record.status < 400 and record.error_code is None
    return Seen(
        ok=ok,
        latency_ms=record.latency_ms if ok else None,
        first_token_ms=record.first_token_ms if ok else None,
        cost_nanousd=record.cost_nanousd if ok else None,
        differs=None if record.agreement is None else record.agreement < 1,
    )
