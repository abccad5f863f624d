"""Dependencies run one way: import-linter's contracts, and no exemption from them."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_import_contract_is_kept() -> None:
    """admin sits on the three planes, they on the engine, siblings never meet, and what decides does no I/O."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_contract_has_an_exemption() -> None:
    """An ignored import is a hole in a wall: zero of them, in any contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert settings["contracts"]
    assert not [contract["name"] for contract in settings["contracts"] if contract.get("ignore_imports")]
