"""`penstock serve` with the models of a folder, some of which misbehave: `python tests/serving/process.py FOLDER serve …`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from admin import cli, serve  # noqa: E402 — the path comes first
from admin.predictions.late import LatePredictions  # noqa: E402
from admin.wiring import House  # noqa: E402
from tests.serving.library import FolderLibrary  # noqa: E402

LOADER = "tests.serving.runtime:load"


class HouseOfModels(House):  # type: ignore[misc]  # final for everybody else: only where its models come from is another place
    def _make_predictions(self) -> LatePredictions:
        late = super()._make_predictions()
        library = FolderLibrary(Path(sys.argv[1]))
        late._library = lambda: library
        late._rollouts = lambda: (library, None)
        late._loader = (LOADER, LOADER)
        return late


if __name__ == "__main__":
    vars(serve)["House"] = HouseOfModels
    raise SystemExit(cli.main(sys.argv[2:]))
