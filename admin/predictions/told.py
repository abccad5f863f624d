"""Captured predictions as messages for whoever is told of them: what the table has, and no more."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from inference.serving.capture import Captured

Store: TypeAlias = Callable[[list[Captured]], None]


def telling(store: Store, offer: Callable[[bytes], None]) -> Store:
    """Stores, and then tells. Made on the event loop that `offer` belongs to; called in other threads."""
    loop = asyncio.get_running_loop()

    def stored(rows: list[Captured]) -> None:
        store(rows)
        for row in rows:
            loop.call_soon_threadsafe(offer, body(row))

    return stored


def body(row: Captured) -> bytes:
    """As webhooks get it: columns that are not to be kept are not there either."""
    return msgspec.json.encode(
        {
            "event": "prediction.made",
            "id": row.id,
            "model": row.model,
            "version": row.version,
            "arm": row.arm,
            "rollout": row.rollout,
            "key_id": row.key_id,
            "team_id": row.team_id,
            "error": row.error,
            "valid": row.valid,
            "rows": row.rows,
            "latency_ms": round(row.latency_s * 1000, 3),
            "cost_usd": row.cost_nanousd / 1e9,
            "inputs": None if row.inputs is None else msgspec.Raw(row.inputs),
            "outputs": None if row.outputs is None else msgspec.Raw(row.outputs),
            "at": datetime.fromtimestamp(row.at, UTC),
        }
    )
