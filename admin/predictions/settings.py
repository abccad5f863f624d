"""The sections `predictions` and `features`: how classic models are run, what they cost, what is kept, where features come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr

from gateway.settings import Section

NANO: Final = 1_000_000_000
Share = Annotated[float, Field(ge=0, le=1)]
Usd = Annotated[float, Field(ge=0, le=1_000_000)]
Names = tuple[Annotated[str, Field(min_length=1, max_length=500)], ...]


class PriceSpec(Section):
    """USD of a request, and of each row in it."""

    request: Usd = 0
    row: Usd = 0


def nanos(prices: Mapping[str, PriceSpec]) -> dict[str, tuple[int, int]]:
    """Nano-dollars of a request and of a row, by model."""
    return {name: (round(one.request * NANO), round(one.row * NANO)) for name, one in prices.items()}


class BatchSpec(Section):
    """What one batch of waiting calls may have at most. An idle model takes what is there and waits for nobody."""

    rows: int = Field(default=256, ge=1, le=1_000_000)
    mb: float = Field(default=8, gt=0, le=1024)


class CaptureSpec(Section):
    """`sample`: the share of calls that is kept, `samples` that of a model; `redact`: columns by model, `*` for every one."""

    sample: Share = 1.0
    samples: dict[str, Share] = Field(default={})
    redact: dict[str, Names] = Field(default={})
    retention_days: float = Field(default=30, gt=0, le=3650)
    max_rows: int = Field(default=1_000_000, ge=0, le=1_000_000_000)
    call_kb: float = Field(default=256, gt=0, le=65_536)
    pending_mb: float = Field(default=256, gt=0, le=65_536)


class ScoringSection(Section):
    """Predictions in bulk. `databases`: URLs by the names that jobs read from and write to; `folders`: whose files REST may name, beside
    `scoring/files` of the data directory. `concurrency`: jobs of a process at a time. `timeout_s`: of one chunk in the model.
    """

    databases: dict[str, SecretStr] = Field(default={})
    folders: tuple[Path, ...] = Field(default=())
    concurrency: int = Field(default=1, ge=0, le=64)
    timeout_s: float = Field(default=60, gt=0, le=86_400)


class PredictionsSection(Section):
    """`memory_mb`: of all models of a process together. `processes`: of one model that has to run in them.

    `grpc_port`: the protocol over gRPC, off unless named.
    """

    memory_mb: float = Field(default=1024, gt=0, le=1 << 24)
    timeout_s: float = Field(default=10, gt=0, le=3600)
    load_timeout_s: float = Field(default=120, gt=0, le=3600)
    max_rows: int = Field(default=10_000, ge=1, le=10_000_000)
    waiting: int = Field(default=1024, ge=1, le=1_000_000)
    processes: int = Field(default=1, ge=1, le=256)
    batch: BatchSpec = BatchSpec()
    prices: dict[str, PriceSpec] = Field(default={})
    capture: CaptureSpec = CaptureSpec()
    scoring: ScoringSection = ScoringSection()
    grpc_port: int | None = Field(default=None, ge=0, le=65_535)


class FeastSpec(Section):
    """A feature server of Feast. `token` is sent as a bearer's."""

    url: str = Field(min_length=1, max_length=2000, pattern=r"^https?://[^\s/]+")
    token: SecretStr | None = None
    timeout_s: float = Field(default=2.0, gt=0, le=60)


class FeaturesSection(Section):
    """`feast`: feature servers by the names that feature views have for them. `views` are those of `/admin/v1/features`.

    `history_days`: how far back training sets may ask; None: for ever.
    """

    feast: dict[str, FeastSpec] = Field(default={})
    views: tuple[dict[str, Any], ...] = Field(default=())
    history_days: float | None = Field(default=None, gt=0, le=36_500)
