"""`penstock ingest` and `penstock search` against a running server."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from admin.cli import parser
from admin.commands import search
from admin.commands.documents import Failed
from tests.fixtures.server import Server

ROOT = Path(__file__).parents[2]


class Shell:
    def __init__(self, server: Server, key: str) -> None:
        self._where = ["--url", server.url, "--key", key]

    def __call__(self, command: str, *arguments: str, status: int = 0) -> str:
        """What it prints; with the other status, also what it complains of."""
        whole = [sys.executable, "-m", "admin", command, *arguments, *self._where]
        done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False, env={}, timeout=50)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stdout + done.stderr

    def json(self, command: str, *arguments: str) -> Any:
        return json.loads(self(command, *arguments, "--json"))


@pytest.fixture
def shell(documents_server: Server) -> Shell:
    return Shell(documents_server, documents_server.new_key())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three texts, one of them below a folder, and something hidden."""
    made = tmp_path / "docs"
    (made / "deep").mkdir(parents=True)
    (made / ".git").mkdir()
    (made / "cats.txt").write_text("Cats sleep for most of the day.")
    (made / "guide.md").write_text("# Guide\n\n## Start\n\nTurn the valve of the penstock slowly.")
    (made / "deep" / "bread.txt").write_text("Sourdough rises with wild yeast.")
    (made / ".git" / "config").write_text("hidden")
    return made


def counted(report: dict[str, Any]) -> dict[str, int]:
    return {what: report[what] for what in ("added", "changed", "unchanged", "removed")} | {
        "failed": len(report["failed"])
    }


def test_a_second_run_sends_only_what_has_changed(shell: Shell, folder: Path) -> None:
    """Two commands from nothing to an answer. A new version takes the place of the old one; what is gone goes when asked."""
    said = shell("ingest", str(folder), "--collection", "handbook")
    assert said.startswith("3 added, 0 changed, 0 unchanged, 0 removed, 0 failed in handbook (vs_")
    answer = shell("search", "how do I open the water?", "--collection", "handbook", "-k", "1")
    assert "guide.md, line 1" in answer
    assert "Turn the valve of the penstock slowly." in answer
    again = shell.json("ingest", str(folder), "--collection", "handbook")
    assert f"({again['collection']})" in said
    assert counted(again) == {"added": 0, "changed": 0, "unchanged": 3, "removed": 0, "failed": 0}
    (folder / "cats.txt").write_text("Dogs bark at night.")
    (folder / "guide.md").unlink()
    changed = shell.json("ingest", str(folder), "--collection", "handbook", "--prune")
    assert counted(changed) == {"added": 0, "changed": 1, "unchanged": 1, "removed": 1, "failed": 0}
    texts = [
        result["content"][0]["text"] for result in shell.json("search", "animals", "--collection", "handbook")["data"]
    ]
    assert sorted(texts) == ["Dogs bark at night.", "Sourdough rises with wild yeast."]


def test_what_cannot_be_read_is_named_and_the_rest_is_there(shell: Shell, folder: Path) -> None:
    (folder / "broken.bin").write_bytes(b"\x00\xff\xfe" * 50)
    said = shell("ingest", str(folder), "--collection", "handbook", status=1)
    assert f"{folder / 'broken.bin'}: " in said
    assert "4 added" in said
    assert "1 failed" in said


def test_files_are_cut_as_is_said(shell: Shell, folder: Path) -> None:
    """And a piece that is found brings what it is of."""
    (folder / "guide.md").write_text("# Guide\n\n" + "Turn the valve of the penstock slowly. Wait for the water. " * 20)
    shell("ingest", str(folder / "guide.md"), "--collection", "handbook", "--chunking", "headings", "--children")
    (one,) = shell.json("search", "how do I open the water?", "--collection", "handbook")["data"]
    assert one["content"][0]["text"] == (folder / "guide.md").read_text().strip()
    assert one["content"][0]["matched"]["end"] - one["content"][0]["matched"]["start"] < 800
    said = shell("ingest", str(folder), "--collection", "other", "--context", "nobody", status=1)
    assert "The model 'nobody' does not exist" in said


def test_tenants_are_kept_apart(shell: Shell, folder: Path) -> None:
    """The collection is made so; two of them may have a file of one name, and neither takes the other's out."""
    for tenant, text in (("acme", "The pin is 4711."), ("other", "The pin is 8888.")):
        (folder / "cats.txt").write_text(text)
        report = shell.json("ingest", str(folder), "--collection", "apart", "--tenant", tenant, "--prune")
        assert counted(report) == {"added": 3, "changed": 0, "unchanged": 0, "removed": 0, "failed": 0}
    found = shell.json("search", "pin", "--collection", "apart", "--tenant", "acme", "-k", "50")
    assert [each["content"][0]["text"] for each in found["data"] if "pin" in each["content"][0]["text"]] == [
        "The pin is 4711."
    ]
    assert {each["attributes"]["tenant"] for each in found["data"]} == {"acme"}
    assert "names no tenant" in shell("search", "pin", "--collection", "apart", status=1)
    assert "--tenant says whose" in shell("ingest", str(folder), "--collection", "apart", status=1)


def test_what_is_wrong_is_said_in_a_line(shell: Shell, folder: Path) -> None:
    assert "there is no file or folder" in shell("ingest", str(folder / "none"), "--collection", "c", status=1)
    assert "there is no collection 'none'" in shell("search", "q", "--collection", "none", status=1)
    away = [
        sys.executable,
        "-m",
        "admin",
        "search",
        "q",
        "--collection",
        "c",
        "--url",
        "http://127.0.0.1:9",
        "--key",
        "k",
    ]
    done = subprocess.run(away, cwd=ROOT, capture_output=True, text=True, check=False, env={}, timeout=50)
    assert done.returncode == 1
    assert "no server at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_takes_every_option(shell: Shell, folder: Path) -> None:
    """Neighbours, places in each stage; what cannot be had is told on the side, and the answer is there."""
    shell("ingest", str(folder), "--collection", "handbook")
    only = json.dumps({"type": "prefix", "key": "path", "value": str(folder / "guide")})
    options = ["--explain", "--neighbors", "1", "--group", "2", "--mmr", "0.7", "--half-life", "30", "--threshold", "0"]
    said = shell("search", "how do I open the water?", "--collection", "handbook", "--filter", only, "--hyde", *options)
    assert "Turn the valve of the penstock slowly." in said
    assert re.search(r"fused 1 \(0\.\d+\), recency 1 \(", said)
    assert "bread" not in said


def test_options_become_a_request() -> None:
    given = [
        "--ranker",
        "m",
        "--multi-query",
        "2",
        "--chat-model",
        "c",
        "--date",
        "day",
        "--half-life",
        "3",
        "--rewrite",
    ]
    arguments = parser().parse_args(["search", "valve", "--collection", "c", *given])
    assert search.body(arguments) == {
        "query": "valve",
        "max_num_results": 5,
        "ranking_options": {"ranker": "m"},
        "rewrite_query": True,
        "expand": {"multi_query": 2, "model": "c"},
        "recency": {"half_life_days": 3.0, "attribute": "day"},
        "highlight": True,
    }
    broken = parser().parse_args(["search", "valve", "--collection", "c", "--filter", "{"])
    with pytest.raises(Failed, match="--filter is not valid JSON"):
        search.body(broken)
