"""Tells when a budget passes one of its thresholds: once per threshold and window, over all replicas and restarts.

What counts is what was settled, not what calls under way may cost. Whoever sees a threshold passed claims it in the database;
the one who gets it logs, counts and tells the webhooks.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from typing import Final, final

import msgspec
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from admin.webhooks import Webhook
from gateway import alert_store
from gateway.database import appending
from gateway.scopes import SLOTS, Budget
from gateway.shares import Share

log = structlog.stdlib.get_logger(__name__)

MAX_KNOWN: Final = 100_000
MAX_WAITING: Final = 1_000
RETRY_S: Final = 1.0
MAX_LABELS: Final = 20  # of the metric: thresholds are any numbers that somebody writes
KEPT_S: Final = 90 * 86_400.0

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Alert(msgspec.Struct, frozen=True):
    """`account` is that of a budget on one scope, without its window; `until` is that window's end."""

    account: str
    rule: Budget
    scope: str
    threshold: float
    settled_nanousd: int
    limit_nanousd: int
    at: float
    resets_at: float | None
    until: float | None

    def body(self) -> bytes:
        """As webhooks get it."""
        return _encode(
            {
                "event": "budget.threshold",
                "budget": self.rule.id,
                "scope": self.scope,
                "threshold": self.threshold,
                "settled_usd": _usd(self.settled_nanousd),
                "limit_usd": _usd(self.limit_nanousd),
                "period": self.rule.period,
                "resets_at": None if self.resets_at is None else datetime.fromtimestamp(self.resets_at, UTC),
                "at": datetime.fromtimestamp(self.at, UTC),
            }
        )


@final
class Alerts:
    """Shown every share of money after each report to the lease store. `run` does what takes time. Lives on one event loop."""

    def __init__(self, engine: Engine, webhooks: Sequence[Webhook], unix: Callable[[], float]) -> None:
        self._engine = engine
        self._webhooks = webhooks
        self._unix = unix
        self._told: dict[tuple[str, float], float] = {}  # until when
        self._waiting: asyncio.Queue[Alert] = asyncio.Queue(MAX_WAITING)
        self.counts: dict[str, int] = {}  # by threshold, in percent

    def offer(self, kind: str, body: bytes) -> None:
        """To the webhooks that want to hear of such. Returns at once."""
        for webhook in self._webhooks:
            if kind in webhook.events:
                webhook.offer(body)

    def wanted(self, kind: str) -> bool:
        """Whether anybody hears of such."""
        return any(kind in webhook.events for webhook in self._webhooks)

    def seen(self, share: Share, settled: int) -> None:
        """Plain arithmetic, on the event loop."""
        rule, limit = share.bound.rule, share.account.limit
        if not isinstance(rule, Budget) or limit <= 0:
            return
        for threshold in rule.thresholds:
            if settled < threshold * limit:
                return  # they grow
            self._pass(share, rule, threshold, settled)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._claims())
            for webhook in self._webhooks:
                tasks.create_task(webhook.run())

    def _pass(self, share: Share, rule: Budget, threshold: float, settled: int) -> None:
        now = self._unix()
        account = share.bound.account
        if self._told.get((account, threshold), 0.0) > now or self._waiting.full():
            return  # told, or to be tried at the next report
        until = _until(share, rule, now)
        if len(self._told) >= MAX_KNOWN:
            self._told.clear()  # the database knows
        self._told[account, threshold] = inf if until is None else until
        scope = share.bound.scope
        alert = Alert(
            account,
            rule,
            f"{scope.kind}:{scope.id}",
            threshold,
            settled,
            share.account.limit,
            now,
            share.resets_at,
            until,
        )
        self._waiting.put_nowait(alert)

    async def _claims(self) -> None:
        while True:
            alert = await self._waiting.get()
            try:
                if await self._claim(alert):
                    self._tell(alert)
            except SQLAlchemyError as error:
                log.warning("alerts.waiting", reason=str(error).splitlines()[0])
                await asyncio.sleep(RETRY_S)
                if self._waiting.full():
                    self._told.pop((alert.account, alert.threshold), None)  # the next report shows it again
                else:
                    self._waiting.put_nowait(alert)
            finally:
                self._waiting.task_done()

    async def _claim(self, alert: Alert) -> bool:
        """Whether it is ours to tell."""

        def claim() -> bool:
            with appending(self._engine) as tx:
                alert_store.forget(tx, alert.at - KEPT_S)
                return alert_store.claim(tx, alert.account, alert.threshold, alert.at, alert.until)

        return await asyncio.to_thread(claim)

    def _tell(self, alert: Alert) -> None:
        log.warning(
            "budget.threshold",
            budget=alert.rule.id,
            scope=alert.scope,
            threshold=alert.threshold,
            limit_nanousd=alert.limit_nanousd,
            settled_nanousd=alert.settled_nanousd,
        )
        label = f"{alert.threshold * 100:g}"
        if label not in self.counts and len(self.counts) >= MAX_LABELS:
            label = "other"
        self.counts[label] = self.counts.get(label, 0) + 1
        self.offer("budget", alert.body())


def _until(share: Share, rule: Budget, now: float) -> float | None:
    """When the same threshold may be told again: with the next window; where windows roll, when what is counted now is gone."""
    if rule.period == "total":
        return None
    if rule.rolling:
        length, slots = SLOTS[rule.period]
        return now + length * slots
    return share.resets_at


def _usd(nanousd: int) -> Decimal:
    return Decimal(nanousd).scaleb(-9)
