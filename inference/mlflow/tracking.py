"""MLflow through its client, in a process with an interpreter that has it. Blocks: for threads."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from inference.errors import BadRequest, Unavailable

_PROGRAM: Final = Path(__file__).with_name("program.py")
_URI: Final = re.compile(r"models:/[^\s@/:]{1,200}(@[A-Za-z0-9_-]{1,200}|/[A-Za-z0-9]{1,20})")


@dataclass(frozen=True, slots=True)
class Fetched:
    """One version at MLflow, with its files in `folder`. `uri` names it for good: `models:/NAME/VERSION`."""

    uri: str
    folder: Path
    description: str | None
    tags: Mapping[str, str]
    lineage: Mapping[str, Any]


@final
class Tracking:
    """`uri` is that of MLflow's server. `python`: an interpreter that has MLflow; None is this one. `environ`: credentials for it."""

    def __init__(self, uri: str, python: Path | None, environ: Mapping[str, str], timeout_s: float) -> None:
        self._python = str(python or sys.executable)
        self._environ = {**environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
        self._timeout_s = timeout_s

    def fetch(self, uri: str, folder: Path) -> Fetched:
        """Raises BadRequest, Unavailable."""
        require_uri(uri)
        found = self._asked({"do": "fetch", "uri": uri, "folder": str(folder)})
        lineage = {
            "run": found["run"],
            "code": {"commit": found["commit"]} if found["commit"] else None,
            "metrics": found["metrics"] or None,
            "parameters": found["parameters"] or None,
        }
        return Fetched(
            uri=f"models:/{found['name']}/{found['version']}",
            folder=Path(found["folder"]),
            description=found["description"],
            tags=found["tags"],
            lineage={key: value for key, value in lineage.items() if value is not None},
        )

    def publish(
        self, name: str, folder: Path, *, alias: str | None, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> str:
        """A folder as the model's next version there: its number. Raises Unavailable."""
        job = {
            "do": "publish",
            "name": name,
            "folder": str(folder),
            "alias": alias,
            "tags": dict(tags),
            "metrics": dict(metrics),
        }
        return str(self._asked(job)["version"])

    def _asked(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            done = subprocess.run(  # noqa: S603 — the interpreter that the configuration names, and our own program
                [self._python, str(_PROGRAM)],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                env=self._environ,
                check=False,
            )
            answer = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"MLflow does not answer within {self._timeout_s:g} s", code="mlflow_unavailable"
            ) from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"MLflow's client could not be run: {error}", code="mlflow_unavailable") from error
        if "error" in answer:
            raise Unavailable(f"MLflow says: {answer['error']}", code="mlflow_failed")
        made: Mapping[str, Any] = answer["ok"]
        return made


def require_uri(uri: str) -> str:
    """Raises BadRequest."""
    if not _URI.fullmatch(uri):
        raise BadRequest(
            f"uri: {uri[:100]!r} is not models:/NAME@ALIAS or models:/NAME/VERSION",
            param="metadata.uri",
            code="invalid_value",
        )
    return uri


def of_model(uri: str | None) -> str | None:
    """The name of the model that a uri speaks of."""
    return None if uri is None else re.split(r"[@/]", uri.removeprefix("models:/"), maxsplit=1)[0]
