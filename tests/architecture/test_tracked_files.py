"""What must not be in the repository: places that only one machine has, and secrets."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT_LIMIT = 2_000_000

# Written in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a package registry's host (uv.lock alone names one)": r"files\.python"
    r"hosted\.org|py"
    r"pi\.org/simple|registry\.npm"
    r"js\.org",
    "a path of somebody's machine": r"/(?:home|Users)/[a-z]\w*/|/w" r"ork/(?:main|shared)|/o" r"pt/(?:wheels|py" r"pi)",
    "a private key": r"-----BEGIN (?:RSA |EC |OPENSSH )?PRIV" r"ATE KEY-----",
    "a provider's key": r"\bsk-(?:proj|ant)-[A-Za-z0-9_-]{24,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}\b",
}
ALLOWED = {"uv.lock"}


@pytest.fixture(scope="module")
def tracked() -> dict[str, str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.split("\0") if name and name not in ALLOWED]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace")
        for path in files
        if path.is_file() and path.stat().st_size < TEXT_LIMIT
    }


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_has(tracked: dict[str, str], what: str) -> None:
    """A clone must work on any machine and give nothing away."""
    pattern = re.compile(FORBIDDEN[what])
    found = [f"{name}: {match[0]}" for name, text in tracked.items() for match in [pattern.search(text)] if match]
    assert found == []


def test_what_a_run_writes_is_ignored() -> None:
    """A working copy stays clean after `make test`, `make bench` and `make serve`."""
    written = [
        ".venv/x",
        ".tools/x",
        ".penstock/penstock.db",
        "benchmarks/out/overhead.jsonl",
        ".mypy_cache/x",
        "dist/x",
    ]
    done = subprocess.run(["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout.split() == written
