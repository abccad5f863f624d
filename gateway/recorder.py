"""Takes each finished request into the metrics."""

from collections.abc import Mapping
from typing import Protocol, final

from gateway.metrics import Metrics, Series
from gateway.record import Record
from gateway.resilience.failures import Failure


class Asked(Protocol):
    """What a request came as."""

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...


class Records(Protocol):
    """Who is told of requests and attempts, on the event loop."""

    def finished(self, record: Record, asked: Asked | None = None) -> None:
        """Once per request, at its end."""

    def failed(self, deployment: str, failure: Failure) -> None:
        """One attempt, whatever becomes of its request."""

    def attempted(self, record: Record) -> None:
        """One attempt that an upstream may have seen, as a record of its own, while its request goes on."""


@final
class Recorder:
    """Of metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def finished(self, record: Record, asked: Asked | None = None) -> None:  # noqa: ARG002 — for those who look further
        series = self._metrics.series(record.endpoint, record.metric_model)
        status, statuses = record.status, series.statuses
        statuses[status] = statuses.get(status, 0) + 1
        series.duration.observe(record.finished_at - record.started_at)
        if status == 200:
            series.overhead.observe(record.overhead_s)
            if record.first_token_at is not None:
                series.first_token.observe(record.first_token_at - record.started_at)
                used = record.usage
                if used is not None and used.output > 1 and record.error_code is None:
                    series.inter_token.observe((record.finished_at - record.first_token_at) / (used.output - 1))
        _add_use(series, record)

    def failed(self, deployment: str, failure: Failure) -> None:
        self._metrics.failed(deployment, failure)

    def attempted(self, record: Record) -> None:
        _add_use(self._metrics.series(record.endpoint, record.metric_model), record)


def _add_use(series: Series, record: Record) -> None:
    used = record.usage
    if used is not None:
        series.prompt_tokens += used.input
        series.completion_tokens += used.output
        series.cost_nanousd += record.cost_nanousd or 0
