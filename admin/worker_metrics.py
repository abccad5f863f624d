"""One answer for several workers: each leaves its numbers in a file, and whoever is asked adds up all of them.

Numbers are read from the files alone, one's own renewed before that: were they asked of living workers, a counter could seem to go
back, which Prometheus takes for a restart. Files of workers that have ended keep counting; their gauges do not. The parent empties
the folder.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, final

import msgspec
from prometheus_client.core import Metric

from admin.workers import METRICS_FOLDER

HIGHEST: Final = frozenset(
    {
        "penstock_breaker_state",
        "penstock_budget_limit_usd",
        "penstock_cache_precision",
        "penstock_cache_threshold",
        "penstock_embedding_cache_disk_bytes",
        "penstock_fair_share_keys",
        "penstock_ledger_lag_seconds",
        "penstock_mcp_server_up",
        "penstock_mcp_tools",
        "penstock_snapshot_age_seconds",
        "penstock_telemetry_lag_seconds",
    }
)
"""Gauges that say something of the whole, each worker by itself: the highest counts."""
LOWEST: Final = frozenset({"penstock_budget_remaining_usd", "penstock_leases_healthy"})


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """`kind` is Prometheus' type."""

    name: str
    text: str
    kind: str
    samples: list[Sample]


class Numbers(msgspec.Struct, frozen=True, array_like=True):
    """Of one worker."""

    pid: int
    families: list[Family]


_decode = msgspec.msgpack.Decoder(Numbers).decode


@final
class WorkerMetrics:
    """`id_` is one of this process alone."""

    def __init__(self, data_dir: Path, id_: str) -> None:
        self._folder = data_dir / METRICS_FOLDER
        self._own = self._folder / f"{id_}.msgpack"

    def keep(self, families: Iterable[Metric]) -> None:
        """Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        made = [
            Family(
                each.name,
                each.documentation,
                each.type,
                [Sample(one.name, one.labels, one.value) for one in each.samples],
            )
            for each in families
        ]
        fresh = self._own.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(Numbers(os.getpid(), made)))
        fresh.replace(self._own)

    def every(self) -> Iterator[Metric]:
        """Added up over all workers, this one's as of the last `keep`."""
        found: dict[str, tuple[Family, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
        for numbers in self._read():
            living = _lives(numbers.pid)
            for family in numbers.families:
                _, sums = found.setdefault(family.name, (family, {}))
                if family.kind != "gauge" or living:
                    _add(sums, family)
        for family, sums in found.values():
            metric = Metric(family.name, family.text, family.kind)
            for (name, labels), value in sums.items():
                metric.add_sample(name, dict(labels), value)
            yield metric

    def _read(self) -> Iterator[Numbers]:
        for path in sorted(self._folder.glob("*.msgpack")):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                yield _decode(path.read_bytes())


def _add(sums: dict[tuple[str, tuple[tuple[str, str], ...]], float], family: Family) -> None:
    for sample in family.samples:
        place = sample.name, tuple(sample.labels.items())
        known = sums.get(place)
        if known is None:
            sums[place] = sample.value
        elif family.name in HIGHEST:
            sums[place] = max(known, sample.value)
        elif family.name in LOWEST:
            sums[place] = min(known, sample.value)
        else:
            sums[place] = known + sample.value


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
