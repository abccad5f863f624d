"""Histograms by GenAI's conventions, added up from accounts of requests. Pure.

Labels are the configuration's names and closed sets; of what exceeds `MOST_SERIES` all is added up in one series, as OpenTelemetry's own
libraries do it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, final

from admin.telemetry import conventions
from admin.telemetry.account import Account, Step
from gateway.metrics import Histogram

MOST_SERIES: Final = 2000
OVERFLOW: Final = (("otel.metric.overflow", "true"),)

Labels = tuple[tuple[str, str], ...]


class Instrument(NamedTuple):
    """A histogram, or, without bounds, a sum that only grows."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...] = ()


TOKEN_USAGE: Final = Instrument(
    "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", conventions.TOKENS
)
CLIENT_DURATION: Final = Instrument(
    "gen_ai.client.operation.duration", "s", "GenAI operation duration.", conventions.DURATION_S
)
CLIENT_FIRST: Final = Instrument(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "Time to the first chunk of a stream.",
    conventions.FIRST_TOKEN_S,
)
CLIENT_PER_CHUNK: Final = Instrument(
    "gen_ai.client.operation.time_per_output_chunk", "s", "Time per chunk after the first one.", conventions.PER_TOKEN_S
)
SERVER_DURATION: Final = Instrument(
    "gen_ai.server.request.duration", "s", "First byte read to last byte written.", conventions.DURATION_S
)
SERVER_FIRST: Final = Instrument(
    "gen_ai.server.time_to_first_token", "s", "First byte read to first token sent.", conventions.FIRST_TOKEN_S
)
SERVER_PER_TOKEN: Final = Instrument(
    "gen_ai.server.time_per_output_token", "s", "Time per output token after the first one.", conventions.PER_TOKEN_S
)
OVERHEAD: Final = Instrument(
    "penstock.overhead", "s", "Time spent here, not upstream, queues included.", conventions.OVERHEAD_S
)
COST: Final = Instrument("penstock.cost", "USD", "What calls cost, as settled.")
INSTRUMENTS: Final = (
    TOKEN_USAGE,
    CLIENT_DURATION,
    CLIENT_FIRST,
    CLIENT_PER_CHUNK,
    SERVER_DURATION,
    SERVER_FIRST,
    SERVER_PER_TOKEN,
    OVERHEAD,
    COST,
)


@final
class Measures:
    """Since they were made, or `clear`ed."""

    def __init__(self) -> None:
        self._series: dict[tuple[Instrument, Labels], Histogram] = {}

    def add(self, accounts: Sequence[Account]) -> None:
        for account in accounts:
            for instrument, labels, value in observations(account):
                self._of(instrument, labels).observe(value)

    def every(self) -> Iterator[tuple[Instrument, list[tuple[Labels, Histogram]]]]:
        for instrument in INSTRUMENTS:
            points = [(labels, one) for (kind, labels), one in self._series.items() if kind is instrument]
            if points:
                yield instrument, points

    def clear(self) -> None:
        self._series = {}

    def _of(self, instrument: Instrument, labels: Labels) -> Histogram:
        found = self._series.get((instrument, labels))
        if found is None:
            if len(self._series) >= MOST_SERIES:
                labels = OVERFLOW
            found = self._series.setdefault((instrument, labels), Histogram(instrument.bounds))
        return found


def observations(account: Account) -> Iterator[tuple[Instrument, Labels, float]]:
    """What one account adds. An attempt that was settled by itself adds what it used; its time is told with its request."""
    labels = {
        "gen_ai.operation.name": conventions.operation(account.endpoint),
        "gen_ai.provider.name": conventions.provider(account.provider),
        "gen_ai.request.model": account.metric_model,
    }
    plain = _labels(labels)
    if account.prompt_tokens is not None and account.provider != "cache":  # a hit's tokens are nobody's
        yield TOKEN_USAGE, _labels({**labels, "gen_ai.token.type": "input"}), account.prompt_tokens
        if account.completion_tokens:
            yield TOKEN_USAGE, _labels({**labels, "gen_ai.token.type": "output"}), account.completion_tokens
    if account.cost_nanousd:
        yield COST, plain, account.cost_nanousd / 1_000_000_000
    if account.attempt or account.rounds:
        return
    told = plain if account.error_code is None else _labels({**labels, "error.type": _kind(account)})
    yield SERVER_DURATION, told, account.latency_ms / 1000
    for step in account.steps:
        if step.stage == "attempt":
            yield CLIENT_DURATION, _client(labels, step), step.ended - step.began
    if account.status == 200:
        yield OVERHEAD, plain, account.overhead_ms / 1000
    yield from _paced(account, plain)


def _paced(account: Account, labels: Labels) -> Iterator[tuple[Instrument, Labels, float]]:
    first_ms, tokens = account.first_token_ms, account.completion_tokens or 0
    if first_ms is None:
        return
    yield SERVER_FIRST, labels, first_ms / 1000
    answered = next((step for step in account.steps if step.stage == "attempt" and not step.failed), None)
    if answered is not None:
        yield CLIENT_FIRST, labels, max(0.0, account.at + first_ms / 1000 - answered.began)
    if tokens > 1 and account.error_code is None:
        each_s = max(0.0, account.latency_ms - first_ms) / 1000 / (tokens - 1)
        yield SERVER_PER_TOKEN, labels, each_s
        if answered is not None:
            yield CLIENT_PER_CHUNK, labels, each_s


def _client(labels: Mapping[str, str], step: Step) -> Labels:
    own = {**labels, "gen_ai.provider.name": conventions.provider(step.provider)}
    if step.address is not None:
        own["server.address"] = step.address
        own["server.port"] = str(step.port)
    if step.failed:
        own["error.type"] = str(step.status or step.outcome)
    return _labels(own)


def _kind(account: Account) -> str:
    """By status: an upstream may invent codes without end."""
    return str(account.status)


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
