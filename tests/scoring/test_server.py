"""A server works on jobs by itself: asked for over REST, watched, cancelled, and gone on with after it was killed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.scoring import chunks, graph, until
from tests.fixtures.server import Server

Json = dict[str, Any]


pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server({}, tmp_path_factory.mktemp("scoring")).start(with_key=False)
    answer = server.admin.post(
        "/registry/sums/versions",
        files={"artifact": ("sums.onnx", graph(2.0)), "metadata": (None, json.dumps({"runtime": "onnx"}))},
    )
    assert answer.status_code == 201, answer.text
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def files(server: Server) -> Path:
    folder = server.data / "scoring" / "files"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def create(server: Server, source: str, target: str, **more: Any) -> httpx.Response:
    body = {"model": "sums", "input": {"path": source}, "output": {"path": target}, **more}
    return server.admin.post("/scoring", json=body)


def completed(server: Server, job: str) -> bool:
    found = server.admin.get(f"/scoring/{job}").json()
    assert found["state"] in {"queued", "running", "completed"}, found
    return bool(found["state"] == "completed")


def table(path: Path, rows: int) -> None:
    path.write_text("a,b,c\n" + "".join(f"{number},1,1\n" for number in range(rows)))


def test_a_job_is_asked_for_watched_and_found(serving: Server) -> None:
    table(files(serving) / "in.csv", 50)
    answer = create(serving, "in.csv", "out.csv")
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    assert (made["model"], made["version"], made["state"]) == ("sums", 1, "queued")
    until(lambda: completed(serving, made["id"]))
    shown = serving.admin.get(f"/scoring/{made['id']}").json()
    assert shown["rows"] == {"total": 50, "done": 50, "refused": 0}
    assert len((files(serving) / "out.csv").read_text().splitlines()) == 51
    page = serving.admin.get("/scoring?limit=1&state=completed").json()
    assert [each["id"] for each in page["data"]] == [made["id"]]
    trail = serving.admin.get(f"/audit?subject={made['id']}").json()["data"]
    assert [each["action"] for each in trail] == ["scoring.create"]
    again = serving.admin.post(f"/scoring/{made['id']}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"input": {"path": "/etc/passwd.csv"}}, "path_not_allowed"),
        ({"output": {"path": "../../penstock.csv"}}, "path_not_allowed"),
        ({"input": {"path": "missing.csv"}}, "input_not_found"),
        ({"input": {"path": "in.xlsx"}}, "unsupported_format"),
        ({"input": {"database": "nowhere", "query": "SELECT 1"}}, "database_unknown"),
        ({"input": {}}, "invalid_value"),
        ({"model": "nobody"}, "model_not_found"),
        ({"version": 9}, "model_not_found"),
    ],
)
def test_what_cannot_be_scored_is_refused(serving: Server, change: Json, code: str) -> None:
    table(files(serving) / "in.csv", 2)
    answer = create(serving, "in.csv", "never.csv", **change)
    assert answer.json()["error"]["code"] == code, answer.text
    assert answer.status_code in {400, 404}


def test_a_server_that_is_killed_goes_on_with_its_job(serving: Server) -> None:
    """Row by row, so that it is at work when it is killed; a cancelled one leaves nothing."""
    table(files(serving) / "slow.csv", 1500)
    made = create(serving, "slow.csv", "slow-out.csv", chunk_rows=1).json()
    until(lambda: chunks(serving.data, made["id"]) > 5)
    serving.kill()
    assert not (files(serving) / "slow-out.csv").exists()
    serving.start(with_key=False)
    until(lambda: completed(serving, made["id"]))
    assert len((files(serving) / "slow-out.csv").read_text().splitlines()) == 1501


def test_a_cancelled_job_ends_and_leaves_nothing(serving: Server) -> None:
    table(files(serving) / "long.csv", 200_000)
    made = create(serving, "long.csv", "long-out.csv", chunk_rows=1).json()
    until(lambda: serving.admin.get(f"/scoring/{made['id']}").json()["state"] == "running")
    assert serving.admin.post(f"/scoring/{made['id']}/cancel").json()["state"] == "cancelled"
    until(lambda: not (serving.data / "scoring" / made["id"]).exists())
    assert [path.name for path in files(serving).iterdir() if "long-out" in path.name] == []
    trail = serving.admin.get(f"/audit?subject={made['id']}").json()["data"]
    assert [each["action"] for each in trail] == ["scoring.cancel", "scoring.create"]
