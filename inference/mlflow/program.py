"""Asks MLflow's client one thing: a job as JSON on the input, an answer as JSON on the output. Run by path, with any interpreter that has
MLflow: nothing of Penstock is imported here, as MLflow's dependencies and ours need not agree.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    job = json.load(sys.stdin)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what MLflow prints must not be taken for an answer
    try:
        answer: dict[str, Any] = {"ok": _JOBS[job["do"]](job)}
    except Exception as error:  # noqa: BLE001 — the border of the process: the server tells it
        answer = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
    json.dump(answer, answers)
    answers.flush()
    return 0


def fetch(job: dict[str, Any]) -> dict[str, Any]:
    """`models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/NAME/latest`: its files, and what is known of it."""
    import mlflow  # noqa: PLC0415 — an error here is an answer

    client = mlflow.MlflowClient()
    name, version = _resolved(client, job["uri"])
    found = client.get_model_version(name, version)
    folder = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=job["folder"])
    run = None
    if found.run_id:
        try:
            run = client.get_run(found.run_id)
        except mlflow.exceptions.MlflowException:
            run = None  # deleted, or another's
    tags = {} if run is None else run.data.tags
    return {
        "name": name,
        "version": str(version),
        "folder": str(folder),
        "description": found.description or None,
        "tags": {str(key): str(value) for key, value in found.tags.items()},
        "run": found.run_id or None,
        "commit": tags.get("mlflow.source.git.commit"),
        "metrics": {} if run is None else dict(run.data.metrics),
        "parameters": {} if run is None else dict(run.data.params),
    }


def publish(job: dict[str, Any]) -> dict[str, Any]:
    """A folder as a model's next version, with tags and perhaps an alias."""
    import mlflow  # noqa: PLC0415 — as above

    client = mlflow.MlflowClient()
    name = job["name"]
    try:
        client.get_registered_model(name)
    except mlflow.exceptions.MlflowException:
        client.create_registered_model(name)
    experiment = client.get_experiment_by_name("penstock")
    experiment_id = client.create_experiment("penstock") if experiment is None else experiment.experiment_id
    run = client.create_run(experiment_id, run_name=f"{name} from Penstock")
    for key, value in job.get("metrics", {}).items():
        client.log_metric(run.info.run_id, key, value)
    client.log_artifacts(run.info.run_id, job["folder"], "model")
    client.set_terminated(run.info.run_id)
    source = f"{run.info.artifact_uri.rstrip('/')}/model"
    made = client.create_model_version(
        name, source, run.info.run_id, tags=job.get("tags") or {}, description=job.get("description")
    )
    if job.get("alias"):
        client.set_registered_model_alias(name, job["alias"], made.version)
    return {"name": name, "version": str(made.version), "run": run.info.run_id}


def _resolved(client: Any, uri: str) -> tuple[str, str]:
    rest = uri.removeprefix("models:/").strip("/")
    if "@" in rest:
        name, _, alias = rest.rpartition("@")
        return name, str(client.get_model_version_by_alias(name, alias).version)
    name, _, version = rest.rpartition("/")
    if not name:
        raise ValueError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    if version.lower() == "latest":
        return name, str(max(int(each.version) for each in client.search_model_versions(f"name='{name}'")))
    return name, version


_JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"fetch": fetch, "publish": publish}


if __name__ == "__main__":
    # As a file this folder is on the path, and `mlflow` must not mean it.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main())
