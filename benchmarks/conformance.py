"""The conformance suite of the Open Inference Protocol (`tests/oip/test_conformance.py`) against MLServer, KServe and Penstock.

python -m benchmarks.conformance [--python .tools/lean/bin/python] [--write]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import scorers
from benchmarks.predictions import RESULTS, ROOT, penstock, row_and_graph
from benchmarks.report import command, machine, table, write_section
from benchmarks.scorers import System

MARKS: Final = ("<!-- conformance: written by make bench-oip ARGS=--write -->", "<!-- conformance: end -->")
LIMIT_S: Final = 900
SPEAKERS: Final = (("mlserver", scorers.mlserver), ("kserve", scorers.kserve))


@dataclass(frozen=True, slots=True)
class Score:
    """`failed`: the checks' names."""

    name: str
    passed: int
    skipped: int
    failed: tuple[str, ...]

    @property
    def asked(self) -> int:
        return self.passed + self.skipped + len(self.failed)


def main() -> int:
    options = argparse.ArgumentParser(description="How much of the Open Inference Protocol each server speaks.")
    options.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="of the environment that has Penstock"
    )
    options.add_argument("--write", action="store_true", help="renew the section of benchmarks/RESULTS.md")
    given = options.parse_args()
    scores = []
    with tempfile.TemporaryDirectory(prefix="penstock-oip-") as name, ExitStack() as stack:
        folder = Path(name)
        row, _ = row_and_graph(folder)
        scores.append(scored(folder, penstock(folder, stack, row, given.python, grpc=True)))
        scores += [scored(folder, start(folder, stack, row)) for peer, start in SPEAKERS if scorers.installed(peer)]
    text = said(scores)
    print(text)
    if given.write:
        write_section(RESULTS, text, MARKS)
    return int(bool(scores[0].failed))


def scored(folder: Path, system: System) -> Score:
    report = folder / f"{system.name}.xml"
    told = {"OIP_URL": f"http://127.0.0.1:{system.port}", "OIP_MODEL": "cancer"}
    if system.grpc is not None:
        told["OIP_GRPC"] = f"127.0.0.1:{system.grpc}"
    if system.key is not None:
        told["OIP_KEY"] = system.key
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    subprocess.run(
        [*program, "tests/oip/test_conformance.py", f"--junit-xml={report}"],
        cwd=ROOT,
        env={**os.environ, **told},  # noqa: TID251 — what pytest needs to start, and what its suite is told
        stdout=subprocess.DEVNULL,
        check=False,
        timeout=LIMIT_S,
    )
    cases = list(ET.parse(report).iter("testcase"))
    failed = tuple(case.attrib["name"] for case in cases if {"failure", "error"} & {one.tag for one in case})
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Score(system.name, len(cases) - skipped - len(failed), skipped, failed)


def said(scores: Sequence[Score]) -> str:
    host = machine()
    rows = [[one.name, f"{one.passed} of {one.asked}", str(one.skipped), _grouped(one.failed)] for one in scores]
    return (
        "## Open Inference Protocol\n\n"
        f"`{command('bench-oip', sys.argv[1:])}`, {host.date}, commit {host.commit}: `tests/oip/test_conformance.py`, which knows a "
        "server's model from its metadata alone, over REST (JSON, binary tensors with and without the header's length) and gRPC. "
        "MLServer with its runtime of scikit-learn, KServe with a class of its SDK.\n\n"
        + table(["server", "passed", "skipped", "failed"], rows)
    )


def _grouped(names: Sequence[str]) -> str:
    """Checks that have many cases stand once, with how many."""
    counted = Counter(name.partition("[")[0] for name in names)
    return ", ".join(f"`{name}`" + (f" ({count})" if count > 1 else "") for name, count in counted.items()) or "none"


if __name__ == "__main__":
    raise SystemExit(main())
