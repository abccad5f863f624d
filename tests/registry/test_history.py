"""Who did what with a classic model, and when: under whatever name it had."""

import json
import subprocess
import sys
from typing import Any

from tests.fixtures.server import ADMIN_KEY, ROOT
from tests.registry.conftest import Desk, Models

Json = dict[str, Any]


def told(desk: Desk, name: str) -> list[tuple[Any, ...]]:
    """Oldest first: what happened, under which name, to which version, by which alias."""
    found, after = [], None
    while True:
        page = desk.http.get(f"/registry/{name}/history", params={"limit": 3} | ({"after": after} if after else {}))
        assert page.status_code == 200, page.text
        found += page.json()["data"]
        after = page.json()["next"]
        if not page.json()["has_more"]:
            break
    return [(each["event"], each["name"], each["version"], each["alias"]) for each in reversed(found)]


def made(desk: Desk, models: Models, name: str, **metadata: Any) -> None:
    assert desk.register(name, models["graph"].artefact, "onnx", **metadata).status_code == 201


def test_a_model_has_a_history(desk: Desk, models: Models) -> None:
    """Registered, approved, aliased, promoted, taken back, archived: from the audit, with who did it."""
    path = "/registry/told"
    gates = {"served": {"approvals": 1}}
    assert desk.http.post("/registry", json={"name": "told", "gates": gates}).status_code == 201
    made(desk, models, "told")
    made(desk, models, "told", alias="next")
    assert desk.http.post(f"{path}/versions/1/approvals", json={"alias": "served"}).status_code == 201
    assert desk.http.put(f"{path}/aliases/served", json={"version": 1}).status_code == 200
    assert desk.http.put(f"{path}/aliases/champion", json={"version": 1}).status_code == 200
    plan = {
        "target": {"kind": "model", "name": "told"},
        "strategy": "canary",
        "champion": "1",
        "challenger": "2",
        "gates": [{"metric": "error_rate", "max_regression": 0.02}],
    }
    for end in ("rollback", "promote"):
        rollout = desk.http.post("/rollouts", json=plan).json()["id"]
        assert desk.http.post(f"/rollouts/{rollout}/{end}").status_code == 200
    assert desk.http.delete(f"{path}/aliases/served").status_code == 200
    assert desk.http.patch(f"{path}/versions/1", json={"archived": True}).status_code == 200
    assert desk.http.patch(f"{path}/versions/1", json={"archived": False}).status_code == 200

    steps = [each for each in told(desk, "told") if each[0] != "rollout_stepped"]
    assert steps == [
        ("created", "told", None, None),
        ("registered", "told", 1, None),
        ("registered", "told", 2, None),
        ("approved", "told", 1, "served"),
        ("aliased", "told", 1, "served"),
        ("aliased", "told", 1, "champion"),
        ("rollout_started", "told", 2, None),
        ("rolled_back", "told", 1, None),
        ("rollout_started", "told", 2, None),
        ("promoted", "told", 2, None),
        ("unaliased", "told", 1, "served"),
        ("archived", "told", 1, None),
        ("restored", "told", 1, None),
    ]
    newest = desk.http.get(f"{path}/history").json()["data"][0]
    assert newest["actor"] == "admin key"
    assert newest["before"]["archived_at"] is not None
    entry = desk.http.get("/audit", params={"subject": "told/1", "limit": 1}).json()["data"][0]
    assert entry["id"] == newest["id"]


def test_a_name_is_changed_and_the_history_stays(desk: Desk, models: Models) -> None:
    """All of it moves, as at MLflow; and who takes the old name later gets no history of another."""
    made(desk, models, "before", alias="champion")
    made(desk, models, "taken")
    refused = desk.http.patch("/registry/before", json={"name": "taken"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "name")
    assert desk.http.patch("/registry/before", json={"name": "no name"}).status_code == 400

    shown = desk.http.patch("/registry/before", json={"name": "behind", "description": "renamed"}).json()
    assert (shown["name"], shown["description"], shown["aliases"]) == ("behind", "renamed", {"champion": 1})
    assert desk.http.get("/registry/before").status_code == 404
    made(desk, models, "behind", alias="champion")
    made(desk, models, "before")
    assert desk.http.get("/registry/before").json()["latest_version"] == 1

    assert told(desk, "behind") == [
        ("registered", "before", 1, None),
        ("renamed", "behind", None, None),
        ("registered", "behind", 2, None),
    ]
    asked = desk.server.post("/v1/predict/behind", {"instances": [{"rows": [1, 2, 3]}]}, key=ADMIN_KEY)
    assert (asked.status_code, asked.json()["version"]) == (200, 2)
    gone = desk.server.post("/v1/predict/nobody", {"instances": [{"rows": [1, 2, 3]}]}, key=ADMIN_KEY)
    assert gone.status_code == 404


def test_what_is_deleted_has_a_history(desk: Desk, models: Models) -> None:
    """Who has deleted it, above all; of what never was there is none."""
    made(desk, models, "short-lived")
    assert desk.http.delete("/registry/short-lived").status_code == 200
    assert [each[0] for each in told(desk, "short-lived")] == ["registered", "deleted"]
    assert desk.http.get("/registry/never/history").status_code == 404


def test_the_command_tells_it(desk: Desk, models: Models) -> None:
    """`penstock models rename` and `history`."""
    made(desk, models, "spoken")

    def command(*words: str) -> str:
        reach = ["--url", desk.server.url, "--key", ADMIN_KEY]
        done = subprocess.run(
            [sys.executable, "-m", "admin", "models", *words, *reach],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert command("rename", "spoken", "written").strip() == "spoken is called written now"
    lines = command("history", "written").splitlines()
    assert [line.split()[1:3] for line in lines] == [["renamed", "written"], ["registered", "spoken"]]
    assert len(json.loads(command("history", "written", "--json"))["data"]) == 2
