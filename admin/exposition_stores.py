"""What `/metrics` says of budgets, leases, searches and telemetry: the part of `admin.exposition` that is not about requests."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from admin.known_vectors import KnownVectors
from gateway.books import Books
from gateway.metrics import Searches
from gateway.scopes import Budget
from gateway.shares import Share

if TYPE_CHECKING:
    from admin.telemetry.watch import Watch
    from gateway.contents.keeper import Keeper
    from retrieval.service import Retrieval

NANO: Final = 1_000_000_000
MOST_BUDGETS: Final = 200


def budgets(books: Books) -> Iterator[Metric]:
    """Of budgets that bound a call of this process. Beyond `MOST_BUDGETS` those with the least left are told, and the others counted."""
    shares = sorted(_budget_shares(books), key=lambda share: share.left / max(1, share.account.limit))
    limit = GaugeMetricFamily(
        "penstock_budget_limit_usd", "What a budget's window may hold.", labels=("budget", "scope")
    )
    left = GaugeMetricFamily(
        "penstock_budget_remaining_usd",
        "What one more call could cost, as far as this process knows.",
        labels=("budget", "scope"),
    )
    for share in shares[:MOST_BUDGETS]:
        rule = share.bound.rule
        labels = rule.id, share.bound.scope.kind
        limit.add_metric(labels, share.account.limit / NANO)
        left.add_metric(labels, share.left / NANO)
    yield from (limit, left)
    counts = GaugeMetricFamily("penstock_budgets", "Budgets that bound a call lately, by state.", labels=("state",))
    spent = sum(share.left <= 0 for share in shares)
    counts.add_metric(("spent",), spent)
    counts.add_metric(("open",), len(shares) - spent)
    yield counts


def leases(books: Books) -> Iterator[Metric]:
    """By kind of account, which are few."""
    held = GaugeMetricFamily(
        "penstock_lease_held", "Set aside for calls in flight, in the account's unit.", labels=("kind",)
    )
    free = GaugeMetricFamily("penstock_lease_free", "Borrowed and not in use, in the account's unit.", labels=("kind",))
    sums: dict[str, tuple[int, int]] = {}
    for share in tuple(books.shares.every.values()):
        used, unused = sums.get(share.account.kind, (0, 0))
        sums[share.account.kind] = used + share.held, unused + share.free
    for kind, (used, unused) in sums.items():
        held.add_metric((kind,), used)
        free.add_metric((kind,), unused)
    yield from (held, free)


def searches(counted: Searches) -> Iterator[Metric]:
    """Of collections, whoever asks."""
    calls = CounterMetricFamily("penstock_retrieval_searches", "Searches of collections.", labels=("outcome",))
    for outcome, count in counted.outcomes.items():
        calls.add_metric((outcome,), count)
    duration = HistogramMetricFamily("penstock_retrieval_search_duration_seconds", "How long a search took.")
    duration.add_metric((), counted.duration.cumulative(), counted.duration.total)
    yield from (calls, duration)


def recall(plane: "Retrieval | None") -> Iterator[Metric]:
    """Of graphs, over all collections; also before there are any, or no rule could compare with that."""
    found, missed = (0, 0) if plane is None else (plane.checks.found, plane.checks.missed)
    done = dict.fromkeys(("raised", "lowered", "given_up"), 0) if plane is None else plane.checks.repairs
    neighbours = CounterMetricFamily(
        "penstock_recall_neighbours",
        "Nearest neighbours of searches that were done again exactly.",
        labels=("outcome",),
    )
    neighbours.add_metric(("found",), found)
    neighbours.add_metric(("missed",), missed)
    repairs = CounterMetricFamily(
        "penstock_recall_repairs", "What was done about a graph's effort, or the graph given up.", labels=("verdict",)
    )
    for verdict, count in done.items():
        repairs.add_metric((verdict,), count)
    yield from (neighbours, repairs)


def known_vectors(known: KnownVectors | None) -> Iterator[Metric]:
    """Of texts, by where their vector came from. Nothing before the first one."""
    cache = None if known is None else known.cache
    if cache is None:
        return
    texts = CounterMetricFamily("penstock_embedding_cache_texts", "Texts to embed, by outcome.", labels=("outcome",))
    for outcome, count in (
        ("memory", cache.counts.memory),
        ("store", cache.counts.store),
        ("miss", cache.counts.misses),
    ):
        texts.add_metric((outcome,), count)
    yield texts
    yield GaugeMetricFamily("penstock_embedding_cache_memory_bytes", "Of vectors in memory.", cache.memory_bytes)
    if (stored := cache.size()) is not None:
        yield GaugeMetricFamily("penstock_embedding_cache_disk_bytes", "Of the file that workers share.", stored)


def contents(keeper: "Keeper | None") -> Iterator[Metric]:
    """Of what was said, where that is recorded."""
    told = CounterMetricFamily(
        "penstock_contents", "Requests whose words were to be recorded, by what became of them.", labels=("outcome",)
    )
    if keeper is not None:
        told.add_metric(("kept",), keeper.kept)
        told.add_metric(("dropped",), keeper.dropped)
    yield told


def telemetry(watch: "Watch | None") -> Iterator[Metric]:
    """Of receivers of records. Nothing without one."""
    if watch is None:
        return
    counters = [
        CounterMetricFamily(f"penstock_telemetry_{name}", text, labels=("sink",))
        for name, text in (
            ("delivered", "Records of requests that a receiver took."),
            ("dropped", "Records that found no room, or that a receiver would not take."),
            ("failures", "Deliveries that failed, whatever became of them later."),
        )
    ]
    gauges = [
        GaugeMetricFamily(f"penstock_telemetry_{name}", text, labels=("sink",))
        for name, text in (("waiting", "Records that wait."), ("lag_seconds", "How long the oldest one does."))
    ]
    for feed in watch.feeds:
        _add(counters, feed.name, (feed.delivered, feed.dropped, feed.failures))
        _add(gauges, feed.name, (feed.waiting, feed.lag_s))
    counters[1].add_metric(("queue",), watch.dropped)
    yield from (*counters, *gauges)


def _add(families: Sequence[CounterMetricFamily | GaugeMetricFamily], sink: str, values: Sequence[float]) -> None:
    for family, value in zip(families, values, strict=True):
        family.add_metric((sink,), value)


def _budget_shares(books: Books) -> Iterator[Share]:
    return (share for share in tuple(books.shares.every.values()) if isinstance(share.bound.rule, Budget))
