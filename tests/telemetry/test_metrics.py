"""`/metrics`, the alert rules and the dashboard: what is promised is there, what is named exists, and several workers answer as one."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from admin.worker_metrics import WorkerMetrics
from gateway.metrics import MOST_SERIES, OTHER, Metrics
from tests.fixtures.server import ADMIN_KEY, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "penstock.json"
UNPACKED = ROOT / ".tools" / "debian" / "usr" / "bin" / "promtool"
PROMTOOL = shutil.which("promtool") or (str(UNPACKED) if UNPACKED.exists() else None)
NAMED = re.compile(r"\b(?:penstock|process|python)_[a-z0-9_]+\b")


@contextmanager
def closing(server: Server) -> Iterator[Server]:
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def config(upstream: Upstream, **server: object) -> dict[str, object]:
    handle = upstream.script(Behaviour(chunks=4, prompt_tokens=7, completion_tokens=4))
    place: dict[str, object] = {"id": "here", "base_url": handle.base_url, "model": "scripted", "api_key": "sk-up"}
    place["price"] = {"input": 1, "output": 2}
    return {"models": [{"name": "chat", "deployments": [place]}], "server": server}


@pytest.fixture(scope="module")
def scraped(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The text of a server that has answered, with a budget."""
    with closing(Server(config(upstream), tmp_path_factory.mktemp("metrics")).start()) as server:
        key = server.new_key(budget={"limit_usd": 5, "period": "day"})
        answer = server.post("/v1/chat/completions", {**server.ask("chat"), "stream": True}, key=key)
        assert answer.status_code == 200
        yield server.http.get("/metrics").text


@pytest.fixture(scope="module")
def families(scraped: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(scraped)}


@pytest.mark.parametrize(
    "name",
    [
        "penstock_requests",
        "penstock_tokens",
        "penstock_cost_usd",
        "penstock_request_duration_seconds",
        "penstock_time_to_first_token_seconds",
        "penstock_inter_token_seconds",
        "penstock_overhead_seconds",
        "penstock_queue_depth",
        "penstock_queue_wait_seconds",
        "penstock_cache_requests",
        "penstock_breaker_state",
        "penstock_attempt_failures",
        "penstock_budget_remaining_usd",
        "penstock_budget_limit_usd",
        "penstock_lease_held",
        "penstock_leases_healthy",
        "penstock_ledger_lag_seconds",
        "penstock_retrieval_searches",
        "penstock_recall_neighbours",
        "penstock_recall_repairs",
        "penstock_mcp_server_up",
    ],
)
def test_what_is_promised_is_there(families: dict[str, Metric], name: str) -> None:
    """Each with a line that says what it is."""
    assert families[name].documentation


def test_a_streamed_answer_has_its_numbers(families: dict[str, Metric]) -> None:
    """Tokens, cost, both clocks and the budget that it was charged to."""

    def sample(family: str, name: str, **labels: str) -> float:
        found = [
            one.value for one in families[family].samples if one.name == name and labels.items() <= one.labels.items()
        ]
        assert len(found) == 1, found
        return float(found[0])

    chat = {"endpoint": "chat", "model": "chat"}
    assert sample("penstock_tokens", "penstock_tokens_total", direction="output", **chat) == 4
    assert sample("penstock_cost_usd", "penstock_cost_usd_total", **chat) == pytest.approx(15e-6)
    assert sample("penstock_inter_token_seconds", "penstock_inter_token_seconds_count", **chat) == 1
    assert sample("penstock_budget_limit_usd", "penstock_budget_limit_usd", scope="key") == 5
    assert 4 < sample("penstock_budget_remaining_usd", "penstock_budget_remaining_usd", scope="key") <= 5


def test_labels_are_bounded() -> None:
    """Whatever comes beyond the last place is counted together."""
    metrics = Metrics()
    for number in range(MOST_SERIES + 50):
        metrics.series("chat", f"model-{number}").prompt_tokens += 1
        metrics.failed(f"place-{number}", "refused")
    assert len(metrics.every()) == MOST_SERIES + 1
    assert metrics.series(OTHER, OTHER).prompt_tokens == 50
    assert len(metrics.failures) == MOST_SERIES + 1
    assert metrics.failures[OTHER, OTHER] == 50


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_own_checks_pass(scraped: str) -> None:
    """`promtool check metrics` finds nothing to say, `check rules` nothing wrong."""
    assert PROMTOOL is not None
    metrics = subprocess.run([PROMTOOL, "check", "metrics"], input=scraped, capture_output=True, text=True, check=False)
    assert (metrics.returncode, metrics.stderr) == (0, "")
    rules = subprocess.run([PROMTOOL, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert rules.returncode == 0, rules.stdout + rules.stderr


def known(families: dict[str, Metric]) -> set[str]:
    names = set()
    for name, family in families.items():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {f"{name}{end}" for end in ends}
    return (
        names
        | {f"penstock_telemetry_{name}" for name in ("delivered_total", "dropped_total", "failures_total")}
        | {
            "penstock_telemetry_waiting",
            "penstock_telemetry_lag_seconds",
        }
    )


def test_the_rules_name_only_what_exists(families: dict[str, Metric]) -> None:
    """A rule over a name that nobody exports never fires, and nobody hears of that."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 10
    for rule in rules:
        assert rule["annotations"]["summary"]
        assert set(NAMED.findall(rule["expr"])) <= known(families), rule["alert"]
        assert NAMED.findall(rule["expr"])


def test_the_dashboard_names_only_what_exists(families: dict[str, Metric]) -> None:
    """The same for what is drawn; every panel has its place and an expression."""
    board = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        for target in panel["targets"]:
            assert NAMED.findall(target["expr"]), panel["title"]
            assert set(NAMED.findall(target["expr"])) <= known(families), panel["title"]
    variables = [str(each["query"]) for each in board["templating"]["list"] if each["type"] == "query"]
    assert all(set(NAMED.findall(query)) <= known(families) for query in variables)


def test_workers_are_added_up(tmp_path: Path) -> None:
    """Counters of all that ever were, gauges of those that live; what is one thing for all is not multiplied."""

    def of(count: float, open_: float, healthy: float) -> list[Metric]:
        counter = CounterMetricFamily("penstock_requests", "Requests.", labels=("model",))
        counter.add_metric(("chat",), count)
        gauges = [GaugeMetricFamily("penstock_open_holds", "Open.", open_)]
        return [counter, *gauges, GaugeMetricFamily("penstock_leases_healthy", "Healthy.", healthy)]

    first, second = WorkerMetrics(tmp_path, "a"), WorkerMetrics(tmp_path, "b")
    first.keep(of(3, 2, 1))
    second.keep(of(4, 5, 0))
    found = {sample.name: sample.value for family in first.every() for sample in family.samples}
    assert found == {"penstock_requests_total": 7, "penstock_open_holds": 7, "penstock_leases_healthy": 0}


def test_several_workers_answer_as_one(upstream: Upstream, tmp_path: Path) -> None:
    """Whichever worker is asked, it tells of every request, and never of fewer than before."""
    with closing(Server(config(upstream, workers=2), tmp_path).start()) as server:

        def ask(_: int) -> int:
            return server.post("/v1/chat/completions", server.ask("chat"), key=ADMIN_KEY).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(40))) == {200}

        def counted() -> float:
            answer = server.http.get("/metrics", headers={"connection": "close"})
            families = text_string_to_metric_families(answer.text)
            samples = [one for family in families for one in family.samples if one.name == "penstock_requests_total"]
            return sum(one.value for one in samples if one.labels["model"] == "chat")

        seen = [counted() for _ in range(40)]
        assert seen == sorted(seen)
        assert seen[-1] == 40
