"""The bundled map: every line can be found, names are forgiving where they are safe, and nothing is free by accident."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.catalog import Deployment
from gateway.price_map import BUNDLED, MAX_KEPT, Entry, PriceMap, keys
from gateway.pricing import compile_price, cost, factor_of
from gateway.tariffs import Terms
from gateway.usage import usage
from tests.fixtures.patience import quickest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prices() -> PriceMap:
    return PriceMap()


def lines() -> list[tuple[str, Entry]]:
    split = [line.split(b"\t", 1) for line in BUNDLED.read_bytes().splitlines()]
    return [(name.decode(), msgspec.json.decode(text, type=Entry)) for name, text in split]


def test_every_line_can_be_found(prices: PriceMap) -> None:
    """The search by halves misses none, first and last included."""
    every = lines()
    assert len(every) > 1000
    assert [name for name, entry in every if prices.find("litellm", name) != entry] == []


def test_a_file_that_is_cut_off_or_written_anew_ends_no_search(tmp_path: Path) -> None:
    """A release that is installed over a running one, or a disk that was full: no call may hang in its price."""
    text = BUNDLED.read_bytes()
    file = tmp_path / "prices"
    file.write_bytes(text.rstrip(b"\n"))
    cut = PriceMap(file)
    last, entry = lines()[-1]
    assert (cut.find("litellm", last), cut.find("litellm", "zzz")) == (entry, None)
    file.write_bytes(text[: len(text) // 2])
    assert cut.find("litellm", "zzzz") is None
    assert PriceMap(file).find("litellm", "aaa") is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai", "openai/gpt-4o"),
        ("openai", "gpt-4o-2024-08-06"),
        ("anthropic", "claude-haiku-4-5"),
        ("anthropic", "claude-haiku-4-5-20991231"),
        ("gemini", "gemini-2.5-pro"),
        ("azure", "gpt-4o"),
        ("mistral", "mistral-small-latest"),
        ("deepseek", "deepseek-chat"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("fireworks", "accounts/fireworks/models/llama-v3p3-70b-instruct"),
        ("cohere", "command-r7b-12-2024"),
        ("perplexity", "sonar"),
        ("cerebras", "llama3.1-8b"),
    ],
)
def test_a_providers_model_has_a_price_and_sizes(prices: PriceMap, provider: str, model: str) -> None:
    """By the name that the provider itself gives it."""
    entry = prices.find(provider, model)
    assert entry is not None
    assert entry.schedule is not None
    assert cost(usage(1000, 1000), compile_price(entry.schedule)) > 0
    assert entry.max_input_tokens


@pytest.mark.parametrize("model", ["nope", "", "\n", "\t", "gpt-4o\n", "￿", "\ud800", "gpt-4o\t{}", "a" * 10_000])
def test_an_unknown_name_has_none(prices: PriceMap, model: str) -> None:
    """Names come from clients: none can reach into another line."""
    assert prices.find("openai", model) is None


def test_a_local_server_is_not_the_provider_whose_model_it_names(prices: PriceMap) -> None:
    """A model on one's own machine costs what its owner says."""
    assert prices.find("vllm", "gpt-4o") is None


def test_what_is_kept_is_bounded(prices: PriceMap) -> None:
    """Clients choose names under wildcards, so that they must not fill the memory."""
    wild = Deployment("w", "openai", "http://x", "gpt-*")
    for number in range(MAX_KEPT + 10):
        prices.quote(wild, f"{number}")
    assert len(prices._entries) <= MAX_KEPT
    assert len(prices._quotes) <= MAX_KEPT


def test_a_wildcard_is_quoted_by_name(prices: PriceMap) -> None:
    """Price, discount and sizes of what the `*` stands for; an unknown one follows the terms."""
    terms = Terms(factor_of(0.5), "hold", 7)
    quote = prices.quote(Deployment("w", "openai", "http://x", "gpt-*", terms=terms), "4o")
    assert quote.price is not None
    assert cost(usage(1000), quote.price) == 1_250_000
    assert quote.max_output_tokens == 16_384
    unknown = prices.quote(Deployment("w", "openai", "http://x", "gpt-*", terms=terms), "of-nobody")
    assert unknown.price is not None
    assert cost(usage(10**6), unknown.price) == 7
    assert prices.quote(Deployment("w", "openai", "http://x", "gpt-*"), "of-nobody").price is None


def test_chat_models_charge_for_input_and_output() -> None:
    """A zero in somebody's table would let a budget leak."""
    free = [
        name
        for name, entry in lines()
        if entry.schedule is not None
        and entry.mode in {"chat", "responses"}
        and entry.schedule.base.input
        and not entry.schedule.base.output
    ]
    assert free == []


def test_names_are_tried_from_exact_to_general() -> None:
    """The release before its family."""
    assert list(keys("gemini", "gemini-2.0-flash-001")) == ["gemini/gemini-2.0-flash-001", "gemini/gemini-2.0-flash"]


def test_importing_costs_no_memory_and_no_time() -> None:
    """Nothing is read until a deployment without a price asks: then some pages of the file, not all of it."""
    code = (
        "import time, resource\n"
        "import gateway.catalog\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "began = time.process_time()\n"
        "from gateway.price_map import PriceMap\n"
        "assert PriceMap().find('openai', 'gpt-4o') is not None\n"
        "print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )

    def cpu_s() -> float:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, kib = done.stdout.split()
        assert int(kib) < 3 * 1024
        return float(seconds)

    assert quickest(cpu_s, 0.03) < 0.03
