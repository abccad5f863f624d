"""Prometheus' text from the numbers that the gateway keeps. Imported with the first scrape: the library is not needed before."""

import gc
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, final, get_args

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from admin import exposition_stores
from admin.known_vectors import KnownVectors
from admin.worker_metrics import WorkerMetrics
from gateway.books import Books
from gateway.listener import Listener
from gateway.metrics import Metrics, Searches
from gateway.plane import Plane
from gateway.refresh import Refresher
from inference.fleet.states import Condition, Phase, State

if TYPE_CHECKING:  # of those who have somebody to tell
    from admin.telemetry.watch import Watch
    from retrieval.service import Retrieval

log = structlog.stdlib.get_logger(__name__)

LABELS = ("endpoint", "model")
NANO = 1_000_000_000


@final
class Exposition:
    """A collector in the sense of prometheus_client, with a registry of its own."""

    def __init__(
        self,
        metrics: Metrics,
        plane: Plane,
        refresher: Refresher,
        listener: Listener,
        books: Books,
        alerts: Mapping[str, int],
        servers: Callable[[], Mapping[str, tuple[bool, str | None, int]]],
        searches: Searches,
        watch: "Watch | None" = None,
        workers: WorkerMetrics | None = None,
        engines: Callable[[], Mapping[str, Condition]] = dict,
        known: KnownVectors | None = None,
        documents: "Callable[[], Retrieval | None]" = lambda: None,
    ) -> None:
        """`workers`: where there are several, and one answers for all."""
        self._metrics = metrics
        self._plane = plane
        self._refresher = refresher
        self._listener = listener
        self._books = books
        self._alerts = alerts
        self._servers = servers
        self._searches = searches
        self._watch = watch
        self._workers = workers
        self._engines = engines
        self._known = known
        self._documents = documents
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def keep(self) -> None:
        """Leaves this process's numbers for the others."""
        if self._workers is not None:
            self._workers.keep(self._own())

    def collect(self) -> Iterator[Metric]:
        if self._workers is None:
            return self._own()
        try:
            self.keep()
            return self._workers.every()
        except OSError as error:
            log.warning("metrics.alone", reason=str(error))
            return self._own()

    def _own(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._deployments()
        yield from self._money()
        yield from self._shadows()
        yield from self._queues()
        yield from self._cache()
        yield from self._guards()
        yield from self._tools()
        yield from exposition_stores.budgets(self._books)
        yield from exposition_stores.leases(self._books)
        yield from exposition_stores.searches(self._searches)
        yield from exposition_stores.recall(self._documents())
        yield from exposition_stores.known_vectors(self._known)
        yield from exposition_stores.contents(self._plane.stages.keeper)
        yield from exposition_stores.telemetry(self._watch)
        yield from self._fleet()
        yield from self._process()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("penstock_requests", "Requests answered.", labels=(*LABELS, "status"))
        tokens = CounterMetricFamily("penstock_tokens", "Tokens by direction.", labels=(*LABELS, "direction"))
        duration = HistogramMetricFamily(
            "penstock_request_duration_seconds", "First byte read to last byte written.", labels=LABELS
        )
        cost = CounterMetricFamily("penstock_cost_usd", "What calls cost, as settled.", labels=LABELS)
        first = HistogramMetricFamily(
            "penstock_time_to_first_token_seconds", "First byte read to first content sent.", labels=LABELS
        )
        between = HistogramMetricFamily(
            "penstock_inter_token_seconds", "Between two tokens of a stream, on average.", labels=LABELS
        )
        overhead = HistogramMetricFamily(
            "penstock_overhead_seconds", "Time spent here, not upstream, queues included.", labels=LABELS
        )
        for key, series in self._metrics.every():
            for status, count in series.statuses.items():
                requests.add_metric((*key, str(status)), count)
            tokens.add_metric((*key, "input"), series.prompt_tokens)
            tokens.add_metric((*key, "output"), series.completion_tokens)
            cost.add_metric(key, series.cost_nanousd / NANO)
            for family, histogram in (
                (duration, series.duration),
                (first, series.first_token),
                (between, series.inter_token),
                (overhead, series.overhead),
            ):
                family.add_metric(key, histogram.cumulative(), histogram.total)
        yield from (requests, tokens, cost, duration, first, between, overhead)

    def _deployments(self) -> Iterator[Metric]:
        """Of those that failed of late; the others are well."""
        state = GaugeMetricFamily(
            "penstock_breaker_state",
            "1 for the state that a deployment with recent failures is in, in this process.",
            labels=("deployment", "state"),
        )
        health = self._plane.health
        for deployment in tuple(health.troubled):
            condition = health.condition(deployment)
            if condition is not None:
                state.add_metric((deployment, condition.state), 1)
        failures = CounterMetricFamily(
            "penstock_attempt_failures", "Attempts that failed, by class.", labels=("deployment", "failure")
        )
        for place, count in self._metrics.failures.items():
            failures.add_metric(place, count)
        yield from (state, failures)

    def _money(self) -> Iterator[Metric]:
        books = self._books
        yield GaugeMetricFamily(
            "penstock_leases_healthy", "1 if the lease store answered last time.", float(books.till.healthy)
        )
        yield GaugeMetricFamily(
            "penstock_ledger_lag_records", "In the journal, not yet in the database.", books.shipper.lag_records
        )
        yield GaugeMetricFamily(
            "penstock_ledger_lag_seconds", "Since the database had everything.", books.shipper.lag_s
        )
        yield GaugeMetricFamily("penstock_open_holds", "Calls that are held and not settled.", books.meter.open_holds)
        alerts = CounterMetricFamily(
            "penstock_budget_alerts", "Thresholds passed, told by this process.", labels=("threshold",)
        )
        for threshold, count in self._alerts.items():
            alerts.add_metric((threshold,), count)
        yield alerts

    def _shadows(self) -> Iterator[Metric]:
        shadows = CounterMetricFamily(
            "penstock_shadow_calls", "Copies of calls to another model, and those not made.", labels=("outcome",)
        )
        for outcome, count in self._plane.shadows.counts.items():
            shadows.add_metric((outcome,), count)
        yield shadows

    def _queues(self) -> Iterator[Metric]:
        """Of models with a `queue`, and of deployments with a `fair_share`."""
        labels, gates = ("model", "priority"), self._plane.gates
        depth = GaugeMetricFamily(
            "penstock_queue_depth", "Calls that wait for a place, in this process.", labels=labels
        )
        for place, count in gates.depths().items():
            depth.add_metric(place, count)
        calls = CounterMetricFamily(
            "penstock_queue_calls",
            "Calls that found their model full, by what became of them.",
            labels=(*labels, "outcome"),
        )
        for label, count in tuple(gates.counts.items()):
            calls.add_metric(label, count)
        waited = HistogramMetricFamily(
            "penstock_queue_wait_seconds", "How long those that were served had waited.", labels=labels
        )
        for place, histogram in tuple(gates.waited.items()):
            waited.add_metric(place, histogram.cumulative(), histogram.total)
        keys = GaugeMetricFamily(
            "penstock_fair_share_keys", "Keys that share a deployment's tokens per minute.", labels=("deployment",)
        )
        for deployment, count in self._plane.loads.active_keys().items():
            keys.add_metric((deployment,), count)
        yield from (depth, calls, waited, keys)

    def _cache(self) -> Iterator[Metric]:
        """Nothing where no model has a cache."""
        outcomes = CounterMetricFamily(
            "penstock_cache_requests",
            "Calls of models with a cache, by what became of them.",
            labels=("model", "outcome"),
        )
        for place, count in self._plane.stages.cache_outcomes.items():
            outcomes.add_metric(place, count)
        waiting = GaugeMetricFamily(
            "penstock_cache_waiting", "Calls that wait for what an equal one brings.", self._plane.stages.cache_waiting
        )
        yield from (outcomes, waiting)
        threshold = GaugeMetricFamily(
            "penstock_cache_threshold", "How near another question has to be for its answer.", labels=("model",)
        )
        precision = GaugeMetricFamily(
            "penstock_cache_precision", "95 % interval of the share of right answers.", labels=("model", "bound")
        )
        judged = CounterMetricFamily(
            "penstock_cache_judged", "Answers by meaning that were asked again.", labels=("model", "verdict")
        )
        for model, found in self._plane.stages.cache_precisions.items():
            threshold.add_metric((model,), found.threshold)
            for bound, value in found.interval._asdict().items():
                precision.add_metric((model, bound), value)
            judged.add_metric((model, "right"), found.right)
            judged.add_metric((model, "wrong"), found.wrong)
        checked = CounterMetricFamily(
            "penstock_cache_checked",
            "Answers by meaning that a cross-encoder was asked about.",
            labels=("model", "verdict"),
        )
        for place, count in self._plane.stages.cache_checked.items():
            checked.add_metric(place, count)
        yield from (threshold, precision, judged, checked)

    def _guards(self) -> Iterator[Metric]:
        """Nothing where there is no guard."""
        outcomes = CounterMetricFamily(
            "penstock_guard_calls", "Calls that a guard looked at, by what it did.", labels=("guard", "outcome")
        )
        for place, count in self._plane.stages.guard_outcomes.items():
            outcomes.add_metric(place, count)
        trials = CounterMetricFamily(
            "penstock_guard_trials", "Calls on which a guard in dry_run would have acted.", labels=("guard",)
        )
        for name, count in self._plane.stages.guard_trials.items():
            trials.add_metric((name,), count)
        yield from (outcomes, trials)

    def _tools(self) -> Iterator[Metric]:
        """Of MCP servers that this process has to do with."""
        up = GaugeMetricFamily("penstock_mcp_server_up", "1 if the server is connected.", labels=("server",))
        tools = GaugeMetricFamily("penstock_mcp_tools", "Tools that a server offers.", labels=("server",))
        for name, (answers, _, count) in self._servers().items():
            up.add_metric((name,), float(answers))
            tools.add_metric((name,), count)
        yield from (up, tools)

    def _fleet(self) -> Iterator[Metric]:
        """Of engines that this process runs: at most a few series for each that is declared."""
        engine = ("engine",)
        up = GaugeMetricFamily("penstock_engine_processes", "Processes of an engine.", labels=(*engine, "phase"))
        state = GaugeMetricFamily("penstock_engine_state", "1 for the state it is in.", labels=(*engine, "state"))
        restarts = CounterMetricFamily("penstock_engine_restarts", "Ends that nobody wanted.", labels=engine)
        rss = GaugeMetricFamily("penstock_engine_resident_bytes", "Resident set of all processes.", labels=engine)
        for name, condition in self._engines().items():
            phases = Counter(replica.phase for replica in condition.replicas)
            for phase in get_args(Phase):
                up.add_metric((name, phase), phases[phase])
            for one in get_args(State):
                state.add_metric((name, one), float(one == condition.state))
            restarts.add_metric((name,), condition.restarts)
            rss.add_metric((name,), condition.rss_mb * 1024 * 1024)
        yield from (up, state, restarts, rss)

    def _process(self) -> Iterator[Metric]:
        listener = self._listener
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield GaugeMetricFamily("penstock_client_connections", "Open client connections.", listener.open_connections)
        upstream = GaugeMetricFamily(
            "penstock_upstream_connections", "Open upstream connections.", labels=("upstream",)
        )
        for name, count in self._plane.pool.open_connections.items():
            upstream.add_metric((name,), count)
        yield upstream
        yield GaugeMetricFamily(
            "penstock_snapshot_age_seconds", "Since the database confirmed it.", self._refresher.age_s
        )
        yield CounterMetricFamily("process_cpu_seconds", "User and system.", usage.ru_utime + usage.ru_stime)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident set.", _resident_bytes())
        collections = sum(generation["collections"] for generation in gc.get_stats())
        yield CounterMetricFamily("python_gc_collections", "All generations.", collections)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 — two numbers from the kernel, not a file
        return int(file.read().split()[1]) * resource.getpagesize()
