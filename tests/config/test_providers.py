"""The table of providers: data that must fit together."""

from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.catalog import Deployment, Model, compile_catalog
from gateway.providers import IN_PROCESS, PROVIDERS, Provider


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
def test_a_provider_is_consistent(provider: Provider) -> None:
    """HTTPS for everything that is not this machine, a port that its URL has, a key variable wherever a key is needed."""
    if provider.base_url is not None:
        parts = urlsplit(provider.base_url)
        assert parts.scheme == ("http" if provider.local_port else "https")
        assert provider.local_port in {None, parts.port}
        assert not provider.base_url.endswith("/")
    if provider.key_required:
        assert provider.env is not None


def test_the_documentation_says_what_is_spelt_otherwise() -> None:
    """Which provider, and each field that is renamed or left out for it."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text()
    section = page.split("## Other names", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    for provider in PROVIDERS.values():
        for name in (*(pair for renamed in provider.renames for pair in renamed), *provider.omits):
            told = "prompt_cache_*" if name.startswith("prompt_cache_") else name
            assert any(f"`{provider.name}`" in row and f"`{told}`" in row for row in rows), (provider.name, name)


def test_the_documentation_has_every_provider() -> None:
    """Address, key and names: what the page says is what is done."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text()
    section = page.split("## The table", 1)[1].split("\n## ", 1)[0]
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:5]) for line in section.splitlines() if line.startswith("| `")
    ]
    assert rows == [
        (
            f"`{provider.name}`",
            provider.base_url or ("its own for everyone" if provider.litellm is None else "through LiteLLM"),
            f"`{provider.env}`" if provider.env else "–",
            ", ".join(f"`{name}`" for name in provider.wildcards) or "–",
        )
        for provider in PROVIDERS.values()
        if provider.name not in IN_PROCESS
    ]


def test_no_public_name_belongs_to_two_providers() -> None:
    """`gpt-4o` must mean one provider, whatever keys are set."""
    names = list(chain.from_iterable(provider.wildcards for provider in PROVIDERS.values()))
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "o1", "o3-mini", "claude-haiku-4-5", "text-embedding-3-small", "sonar"]
)
def test_usual_names_are_matched(name: str) -> None:
    """Bare names such as o1 as well, which no pattern with a dash would find."""
    names = chain.from_iterable(provider.wildcards for provider in PROVIDERS.values())
    catalog = compile_catalog(Model(each, (Deployment(each, "x", "", each),)) for each in names)
    assert catalog.find(name) is not None
