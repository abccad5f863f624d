"""What each routing strategy makes of the same calls: waiting, goodput and cache hits in a simulated fleet.

    python -m benchmarks.routing [--seeds 3] [--write]

The plans are the gateway's own (`gateway.routing`), the engines are simulated (`benchmarks.fleet`), so that nothing is noise: the same
seed gives the same table anywhere.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.fleet import Outcome, Scenario, by_strategy, round_robin

RESULTS = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- routing: written by make bench-routing ARGS=--write -->", "<!-- routing: end -->"
SLOWDOWN = 3.0  # an answer is good if it takes at most so many times what it takes on an idle engine that has its prompt, and a second

SCENARIOS = (
    Scenario("Four equal engines at three quarters of what they can do", (1.0, 1.0, 1.0, 1.0), load=19.0),
    Scenario("One of four is slow from the start", (0.33, 1.0, 1.0, 1.0), load=14.0),
    Scenario("One of four has half its work from elsewhere", (1.0, 1.0, 1.0, 1.0), load=15.0, strangers=3.0),
    Scenario(
        "One of four falls to a third of its speed in the middle", (1.0, 1.0, 1.0, 1.0), load=14.0, slow_from=300.0
    ),
    Scenario(
        "Eight engines, many conversations, caches that hold an eighth",
        (1.0,) * 8,
        load=38.0,
        conversations=4000,
        cache=150,
    ),
)
Runner = Callable[[Scenario, int], list[Outcome]]
RUNNERS: tuple[tuple[str, Runner], ...] = (
    ("round robin", round_robin),
    ("`weighted` (random)", lambda scenario, seed: by_strategy(scenario, "weighted", seed)),
    ("`least_busy`", lambda scenario, seed: by_strategy(scenario, "least_busy", seed)),
    ("`least_busy`, engines asked", lambda scenario, seed: by_strategy(scenario, "least_busy", seed, polled=True)),
    ("`latency`", lambda scenario, seed: by_strategy(scenario, "latency", seed)),
    ("`latency`, engines asked", lambda scenario, seed: by_strategy(scenario, "latency", seed, polled=True)),
    ("`prefix`", lambda scenario, seed: by_strategy(scenario, "prefix", seed)),
    ("`prefix`, engines asked", lambda scenario, seed: by_strategy(scenario, "prefix", seed, polled=True)),
)
INTRODUCTION = """## Routing

`make bench-routing`: the gateway's own plans over simulated engines ([fleet.py](fleet.py)), medians of {seeds} seeds; the same on any
machine. Two gateways, which do not know of each other's calls; ten minutes; answers with a long tail; a prompt takes half a second to
read, a tenth of that where the engine still has it. A good answer takes at most {slowdown:g} times what it takes on an idle engine, and a
second. *Engines asked*: what they say in `/metrics` every two seconds counts too."""
HEAD = ("strategy", "first token p50 s", "p99 s", "answer p50 s", "p99 s", "good answers", "cache hits")


def row(name: str, runs: Sequence[Sequence[Outcome]]) -> tuple[str, ...]:
    """Medians over the seeds."""

    def middle(of: Callable[[Sequence[Outcome]], float]) -> float:
        return statistics.median(of(run) for run in runs)

    return (
        name,
        f"{middle(lambda run: quantile([one.first_s for one in run], 0.5)):.2f}",
        f"{middle(lambda run: quantile([one.first_s for one in run], 0.99)):.2f}",
        f"{middle(lambda run: quantile([one.whole_s for one in run], 0.5)):.2f}",
        f"{middle(lambda run: quantile([one.whole_s for one in run], 0.99)):.2f}",
        f"{middle(lambda run: share(one.whole_s <= SLOWDOWN * one.ideal_s + 1 for one in run)):.1%}",
        f"{middle(lambda run: share(one.hit for one in run)):.1%}",
    )


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def share(of: Iterable[bool]) -> float:
    flags = list(of)
    return sum(flags) / len(flags)


def table(scenario: Scenario, seeds: int) -> str:
    lines = [HEAD, ("---",) * len(HEAD)]
    lines += [row(name, [run(scenario, seed) for seed in range(seeds)]) for name, run in RUNNERS]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write(content: str) -> None:
    """Replaces what stands between the marks, or appends it with them."""
    text = RESULTS.read_text(encoding="utf-8")
    section = f"{BEGIN}\n\n{content}\n\n{END}"
    head, begin, rest = text.partition(BEGIN)
    RESULTS.write_text(head + section + rest.partition(END)[2] if begin else f"{text}\n{section}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="renew the section of RESULTS.md")
    options = parser.parse_args()
    parts = [INTRODUCTION.format(seeds=options.seeds, slowdown=SLOWDOWN)]
    for scenario in SCENARIOS:
        parts.append(f"**{scenario.name}**, {scenario.load:g} calls a second\n\n{table(scenario, options.seeds)}")
        print(parts[-1], end="\n\n", flush=True)
    if options.write:
        write("\n\n".join(parts))


if __name__ == "__main__":
    main()
