"""`make faults`: plays every fault on a real server and prints what came of it. Ends with 1 if anything is not as it has to be.

python -m tests.faults [words of the cases to play]
"""

import sys
import tempfile
from pathlib import Path

from tests.faults.course import play
from tests.faults.table import cases
from tests.faults.verdict import Result
from tests.fixtures.upstream import scripted_upstream

COLUMNS = "{:<30} {:<24} {:<9} {:<44} {:>6} {:>8} {:>7}  {}"


def main(words: list[str]) -> int:
    wanted = [case for case in cases() if all(word in str(case) for word in words)]
    with tempfile.TemporaryDirectory(prefix="penstock-faults-") as folder:
        upstream_folder, server_folder = Path(folder) / "upstream", Path(folder) / "server"
        upstream_folder.mkdir()
        server_folder.mkdir()
        with scripted_upstream(upstream_folder) as upstream:
            results = play(upstream, server_folder, wanted)
    _print(results)
    return 1 if any(result.complaints for result in results) else 0


def _print(results: list[Result]) -> None:
    print(COLUMNS.format("fault", "call", "beside", "the client sees", "status", "attempts", "seconds", "bill"))
    for result in results:
        fault = result.case.fault
        print(
            COLUMNS.format(
                fault.name,
                str(fault.door),
                result.case.scene,
                result.outcome,
                result.status,
                result.attempts,
                f"{result.seconds:.2f}",
                result.bill,
            )
        )
        for complaint in result.complaints:
            print(f"    WRONG  {complaint}")
    wrong = sum(bool(result.complaints) for result in results)
    print(f"\n{len(results)} cases, {wrong} of them wrong")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
