"""What the documentation says is true: commands exist, blocks parse, settings are the code's, links lead somewhere."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from pydantic import BaseModel

from admin import settings
from admin.config_check import NOT_IN_FORCE, known_keys

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "retrieval", "inference", "embedding", "admin", "migrations", "tests", "benchmarks")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/**/*.md")])
SHELL = {"bash", "sh", "console"}


class Block(NamedTuple):
    """A fenced block: where it stands, what language it claims, what it says."""

    place: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            yield Block(f"{page.relative_to(ROOT)}:{line}", match[1], match[2])


BLOCKS = list(blocks())


@pytest.mark.parametrize("name", PACKAGES)
def test_a_folder_says_what_it_is_for(name: str) -> None:
    """Who opens a folder finds its purpose first."""
    text = (ROOT / name / "README.md").read_text()
    assert text.startswith(f"# {name}\n\n")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELL], ids=lambda b: b.place)
def test_a_shell_block_parses(block: Block) -> None:
    """What is shown can be pasted."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda b: b.place)
def test_a_python_block_parses(block: Block) -> None:
    """The same for Python."""
    ast.parse(block.text)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=lambda b: b.place)
def test_a_configuration_that_is_shown_loads(block: Block, tmp_path: Path) -> None:
    """Every sample of penstock.yaml passes the same check as a user's."""
    document = yaml.safe_load(block.text)
    if "models" not in document:
        pytest.skip("not a configuration")  # a block of another tool's YAML
    file = tmp_path / "penstock.yaml"
    file.write_text(block.text)
    loaded = settings.load({"--config": str(file)}, {})
    assert [model.name for model in loaded.settings.models] == [model["name"] for model in document["models"]]


def test_every_make_target_that_is_named_exists() -> None:
    """`make x` in a page or a message is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for block in BLOCKS
        if block.language in SHELL
        for command in re.findall(r"^make ([a-z][a-z -]*)", block.text, re.MULTILINE)
        for word in command.split()
    }
    named |= {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)[` ]", page.read_text())}
    assert named
    assert named - targets == set()


def test_every_command_that_is_named_exists() -> None:
    """`penstock x` is a command: its help can be asked for."""
    text = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    named = set(
        re.findall(r"(?:^|`)penstock ((?:config check|keys create|keys list|keys revoke|[a-z]+))\b", text, re.MULTILINE)
    )
    assert "serve" in named
    unknown = [command for command in sorted(named) if not _has_help(command)]
    assert unknown == []


def test_every_setting_is_documented_with_its_default() -> None:
    """The table in admin/README.md is the configuration: each key once, with the default that the code has."""
    documented = _settings_table(ROOT / "admin" / "README.md")
    assert documented == {key: default for key, default in _settings(settings.Settings) if not key.startswith("models")}


def test_every_model_setting_is_documented() -> None:
    """gateway/README.md names each key below `models`, in force or not."""
    text = (ROOT / "gateway" / "README.md").read_text()
    model_keys = known_keys(settings.Settings, ("models", 0))
    deployment_keys = known_keys(settings.Settings, ("models", 0, "deployments", 0))
    expected = [f"`models[].{key}`" for key in model_keys if key != "deployments"]
    expected += [f"`models[].deployments[].{key}`" for key in deployment_keys]
    assert [key for key in expected if key not in text] == []
    assert set(re.findall(r"`(models\[\][^`]*)`", text)) <= {key.strip("`") for key in expected}


def test_what_waits_for_a_later_version_is_said_so() -> None:
    """A setting that is accepted and has no effect yet is named as such where users look."""
    text = (ROOT / "gateway" / "README.md").read_text() + (ROOT / "admin" / "README.md").read_text()
    waiting = text[text.index("Accepted and not in force") :]
    assert [pattern for pattern, values in NOT_IN_FORCE if values is None and f"`{pattern}`" not in waiting] == []


def test_every_variable_is_documented() -> None:
    """Each PENSTOCK_ variable in a page is read by the settings, and the other way round."""
    named = {name for page in PAGES for name in re.findall(r"PENSTOCK_[A-Z_]+", page.read_text())}
    assert named == {*settings.ENVIRONMENT, "PENSTOCK_CONFIG"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    """Relative links name a file that is there."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def _has_help(command: str) -> bool:
    process = [sys.executable, "-m", "admin", *command.split(), "--help"]
    return subprocess.run(process, cwd=ROOT, capture_output=True, check=False).returncode == 0


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + name
        inner = field.get_default(call_default_factory=False)
        if isinstance(inner, BaseModel):
            yield from _settings(type(inner), f"{key}.")
        else:
            yield key, "none" if inner is None else str(inner).lower() if isinstance(inner, bool) else str(inner)


def _settings_table(page: Path) -> Mapping[str, str]:
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \| (?:`([^`]*)`|none) \|", page.read_text(), re.MULTILINE)
    return {key: default or "none" for key, default in rows}
