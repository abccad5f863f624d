"""Starts `tests.upstream.main` from any folder: `python tests/upstream/server.py --port 0` prints the port."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("tests.upstream.main", run_name="__main__")
