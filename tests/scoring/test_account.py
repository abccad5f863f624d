"""Scoring on a key's account: chunks are held, settled and recorded like calls, each row once, whoever is killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.scoring import chunks, graph, until
from tests.fixtures.server import Server

Json = dict[str, Any]

ROW = 1_000_000  # nano-dollars

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = {"predictions": {"prices": {"sums": {"row": ROW / 1e9}}}}
    server = Server(config, tmp_path_factory.mktemp("paid")).start(with_key=False)
    answer = server.admin.post(
        "/registry/sums/versions",
        files={"artifact": ("sums.onnx", graph(2.0)), "metadata": (None, '{"runtime": "onnx"}')},
    )
    assert answer.status_code == 201, answer.text
    yield server
    alive = server.running()
    server.stop()
    assert alive, server.output


def new_key(server: Server, **fields: Any) -> str:
    answer = server.admin.post("/keys", json={"name": "scores", **fields})
    assert answer.status_code == 201, answer.text
    id_: str = answer.json()["id"]
    return id_


def folder(server: Server) -> Path:
    made = server.data / "scoring" / "files"
    made.mkdir(parents=True, exist_ok=True)
    return made


def create(server: Server, name: str, rows: list[str], key: str, **more: Any) -> str:
    (folder(server) / f"{name}.csv").write_text("a,b,c\n" + "".join(f"{row}\n" for row in rows))
    body = {"model": "sums", "input": {"path": f"{name}.csv"}, "output": {"path": f"{name}-out.csv"}, "key_id": key}
    answer = server.admin.post("/scoring", json=body | more)
    assert answer.status_code == 201, answer.text
    id_: str = answer.json()["id"]
    return id_


def shown(server: Server, job: str) -> Json:
    found: Json = server.admin.get(f"/scoring/{job}").json()
    return found


def ended(server: Server, job: str, state: str = "completed") -> Json:
    found: Json = until(lambda: (one := shown(server, job))["state"] not in {"queued", "running"} and one)
    assert found["state"] == state, found
    return found


def spent(server: Server, job: str) -> int:
    """Nano-dollars in the ledger under the job's tag."""
    rows = server.admin.get("/spend", params={"group_by": "tag"}).json()["data"]
    return sum(row["cost_nanousd"] for row in rows if row["group"] == job)


def settled(server: Server, job: str, nanousd: int) -> None:
    """In the end, and not more."""
    until(lambda: spent(server, job) >= nanousd, 40)
    assert spent(server, job) == nanousd


def output(server: Server, name: str) -> list[str]:
    return (folder(server) / f"{name}-out.csv").read_text().splitlines()[1:]


def test_rows_that_have_an_answer_are_paid_for(paid: Server) -> None:
    """By the key that the job names, chunk by chunk, in the one ledger; those that were refused cost nothing."""
    key = new_key(paid, budget={"limit_usd": 1, "period": "total"})
    job = create(paid, "some", ["1,1,1"] * 24 + ["x,1,1"], key, chunk_rows=10)
    assert ended(paid, job)["key_id"] == key
    settled(paid, job, 24 * ROW)
    records = until(
        lambda: len(found := paid.admin.get("/requests", params={"tag": job}).json()["data"]) >= 3 and found
    )
    assert {(one["key_id"], one["endpoint"], one["model"], one["status"]) for one in records} == {
        (key, "scoring", "sums", 200)
    }
    assert sorted(one["cost_nanousd"] for one in records) == [4 * ROW, 10 * ROW, 10 * ROW]
    budget = next(one for one in paid.admin.get("/budgets").json()["data"] if one["scope"]["id"] == key)
    shown_budget = paid.admin.get(f"/budgets/{budget['id']}").json()
    assert shown_budget["settled_usd"] == pytest.approx(0.024)


def test_a_job_without_money_waits_for_it(paid: Server) -> None:
    """Paused with the reason, what was scored kept; with money it goes on from there, and nothing is paid twice."""
    key = new_key(paid, budget={"limit_usd": 25 * ROW / 1e9, "period": "total"})
    job = create(paid, "poor", ["1,2,3"] * 60, key, chunk_rows=10)
    paused = ended(paid, job, "paused")
    assert (paused["error"]["code"], paused["rows"]["done"]) == ("budget_exceeded", 20)
    assert not (folder(paid) / "poor-out.csv").exists()
    assert chunks(paid.data, job) == 2

    assert paid.admin.post(f"/scoring/{job}/resume").json()["state"] == "queued"
    assert ended(paid, job, "paused")["rows"]["done"] == 20
    budget = next(one for one in paid.admin.get("/budgets").json()["data"] if one["scope"]["id"] == key)
    assert paid.admin.patch(f"/budgets/{budget['id']}", json={"limit_usd": 1}).status_code == 200
    assert paid.admin.post(f"/scoring/{job}/resume").status_code == 200
    ended(paid, job)
    assert len(output(paid, "poor")) == 60
    settled(paid, job, 60 * ROW)
    assert paid.admin.post(f"/scoring/{job}/resume").status_code == 409


def test_a_key_that_is_revoked_pauses_its_job(paid: Server) -> None:
    """And one that never was is refused at once; a paused job can be cancelled."""
    key = new_key(paid, models=["others"])
    job = create(paid, "barred", ["1,2,3"], key)
    assert ended(paid, job, "paused")["error"]["code"] == "model_access_denied"
    assert paid.admin.post(f"/scoring/{job}/cancel").json()["state"] == "cancelled"
    body = {"model": "sums", "input": {"path": "barred.csv"}, "output": {"path": "b.csv"}, "key_id": "key_nobody"}
    refused = paid.admin.post("/scoring", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "key_id")


def scoring(server: Server) -> list[int]:
    """The processes that score for it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"admin.scoring.process" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found += [int(entry.name)] if parent == server.pid else []
        except (OSError, IndexError):
            continue
    return found


def advanced(server: Server, job: str) -> None:
    """By some chunks."""
    before = chunks(server.data, job)
    until(lambda: chunks(server.data, job) > before + 3)


def test_whoever_is_killed_each_row_is_paid_for_once(paid: Server) -> None:
    """The process that scores, twice, and then the server with all its accounts: the ledger has what one undisturbed run costs."""
    key, rows = new_key(paid, budget={"limit_usd": 10, "period": "total"}), 400
    job = create(paid, "often", [f"{number},1,1" for number in range(rows)], key, chunk_rows=2)
    for _ in range(2):
        advanced(paid, job)
        for pid in until(lambda: scoring(paid)):
            os.kill(pid, signal.SIGKILL)
    advanced(paid, job)
    paid.kill()
    assert chunks(paid.data, job) < rows // 2
    paid.start(with_key=False)
    ended(paid, job)
    assert len(output(paid, "often")) == rows
    settled(paid, job, rows * ROW)
