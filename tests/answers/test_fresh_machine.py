"""The README's first minutes with documents: no configuration, no key, no network, and a cited answer, streamed."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedding import bundled
from tests.fixtures.server import ADMIN_KEY, ROOT, Server

# Of the documentation, to be quick: all of it takes the embedding model the better part of a minute.
SOME = ("docs/degradation.md",)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Server]:
    if not bundled.installed():
        pytest.skip("needs the `embedded` extra")
    server = Server({}, tmp_path, executed=True).start(with_key=False)
    (server.data / "admin-key").write_text(ADMIN_KEY)
    yield server
    server.stop()


def commands() -> tuple[str, str]:
    """As the README has them: one that reads documents, the next that asks."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    block = next(one for one in blocks if "penstock ingest" in one)
    ingest, _, ask = block.partition("\n")
    return ingest, ask


def run(server: Server, command: str) -> str:
    """Word for word, but for where this server is, and for what it is to be quick with."""
    command = command.replace("http://127.0.0.1:4000", server.url).replace(
        ".penstock/admin-key", str(server.data / "admin-key")
    )
    command = command.replace(
        "penstock ingest docs ", f"penstock ingest {' '.join(SOME)} --url {server.url} --key {ADMIN_KEY} "
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(240)
def test_two_commands_lead_to_a_cited_answer(bare: Server) -> None:
    """The first reads the project's own documentation, the second asks it."""
    ingest, ask = commands()
    assert f"{len(SOME)} added" in run(bare, ingest)
    events = [line[6:] for line in run(bare, ask).splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks: list[Any] = [json.loads(event) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert len([delta for delta in deltas if delta.get("content")]) > 1
    assert "Redis" in "".join(delta.get("content") or "" for delta in deltas)
    notes = [note for delta in deltas for note in delta.get("annotations") or ()]
    assert {note["type"] for note in notes} == {"url_citation"}
    assert "degradation.md" in {note["filename"] for note in notes}
    citation = next(one for delta in deltas for one in delta.get("citations") or ())
    text = (ROOT / "docs" / citation["source"]).read_text()
    assert text[citation["start"] : citation["end"]] == citation["quote"]
