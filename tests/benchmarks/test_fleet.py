"""What the simulated fleet says of the strategies holds at a small size, too: these are the claims of docs/routing.md."""

from benchmarks.fleet import Outcome, Scenario, by_strategy, round_robin
from benchmarks.routing import quantile, share

SMALL = Scenario("small", (0.33, 1.0, 1.0, 1.0), load=13.0, seconds=150.0, conversations=300)


def p99(run: list[Outcome]) -> float:
    return quantile([one.whole_s for one in run], 0.99)


def hits(run: list[Outcome]) -> float:
    return share(one.hit for one in run)


def test_the_same_seed_gives_the_same_run() -> None:
    """Or a table could not be checked."""
    assert by_strategy(SMALL, "latency", 1) == by_strategy(SMALL, "latency", 1) != by_strategy(SMALL, "latency", 2)


def test_looking_at_the_load_spares_the_slow_engine() -> None:
    """Its queue grows without end for whoever does not look."""
    blind = min(p99(round_robin(SMALL, 1)), p99(by_strategy(SMALL, "weighted", 1)))
    for strategy in ("least_busy", "latency", "prefix"):
        assert p99(by_strategy(SMALL, strategy, 1)) < 0.5 * blind


def test_prefixes_find_their_cache() -> None:
    """Nearly twice as often as by chance, where the caches together hold all conversations and each of them a third."""
    assert hits(by_strategy(SMALL, "prefix", 1)) > 1.5 * hits(by_strategy(SMALL, "weighted", 1))


def test_asking_engines_helps_where_others_use_them() -> None:
    """Calls that do not come through us are seen in `/metrics` alone."""
    shared = Scenario("shared", (1.0, 1.0, 1.0, 1.0), load=15.0, seconds=300.0, strangers=3.0)
    assert p99(by_strategy(shared, "least_busy", 1, polled=True)) <= p99(by_strategy(shared, "least_busy", 1))
    firsts = [
        quantile([one.first_s for one in by_strategy(shared, "least_busy", 1, polled=polled)], 0.9)
        for polled in (True, False)
    ]
    assert firsts[0] < firsts[1]
