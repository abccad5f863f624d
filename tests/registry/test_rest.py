"""The registry over REST and the command line, in a real server: what is registered is there, in force, and comes back as it was."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer

from tests.fixtures.server import ADMIN_KEY, ROOT
from tests.registry.conftest import Desk, Models

Json = dict[str, Any]


def error(answer: Any, status: int) -> Json:
    assert answer.status_code == status, answer.text
    found: Json = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


@pytest.fixture(scope="module")
def cancer(desk: Desk, models: Models) -> Json:
    """Version 1 of `cancer`, with a reference sample, as champion."""
    frame = load_breast_cancer(as_frame=True).frame
    reference = frame.to_csv(index=False).encode()
    lineage = {"code": {"commit": "abc123", "dirty": True}, "seed": 7, "metrics": {"auc": 0.99}}
    answer = desk.register(
        "cancer",
        models["cancer"].artefact,
        "sklearn",
        reference=reference,
        alias="champion",
        lineage=lineage,
        target="target",
        tags={"team": "risk"},
        description="benign or not",
    )
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def test_a_version_is_registered_with_all_that_is_known_of_it(desk: Desk, cancer: Json, models: Models) -> None:
    """Converted, hashed, with its signature, lineage and profile."""
    assert (cancer["model"], cancer["version"], cancer["aliases"]) == ("cancer", 1, ["champion"])
    assert (cancer["runtime"], cancer["source"]["runtime"]) == ("onnx", "sklearn")
    assert cancer["source"]["digest"] == hashlib.sha256(models["cancer"].artefact).hexdigest()
    assert cancer["digest"] != cancer["source"]["digest"]
    assert cancer["signature"]["inputs"][0] | {"name": "input"} == cancer["signature"]["inputs"][0]
    assert [each["name"] for each in cancer["signature"]["outputs"]] == ["predictions", "probabilities"]
    assert cancer["facts"]["conversion"]["kept"] is True
    assert cancer["facts"]["classes"] == [0, 1]
    assert cancer["lineage"] == {"code": {"commit": "abc123", "dirty": True}, "seed": 7, "metrics": {"auc": 0.99}}
    assert cancer["tags"] == {"team": "risk"}
    shown = desk.http.get("/registry/cancer/versions/1").json()
    assert shown == cancer
    profile = desk.http.get("/registry/cancer/versions/1/profile").json()
    assert profile["rows"] == 569
    assert profile["columns"]["input[0]"]["quantiles"]["0.5"] == pytest.approx(13.37)
    assert profile["target"]["mean"] == pytest.approx(0.627, abs=0.001)
    model = desk.http.get("/registry/cancer").json()
    assert (model["aliases"], model["latest_version"]) == ({"champion": 1}, 1)


def test_artefacts_come_back_as_they_were(desk: Desk, cancer: Json, models: Models) -> None:
    """What was given, and what is served."""
    given = desk.http.get("/registry/cancer/versions/1/artifact")
    assert given.content == models["cancer"].artefact
    assert 'filename="model.bin"' in given.headers["content-disposition"]
    served = desk.http.get("/registry/cancer/versions/1/artifact", params={"of": "served"})
    assert hashlib.sha256(served.content).hexdigest() == cancer["digest"]


def test_the_same_release_has_the_same_hash(desk: Desk, models: Models) -> None:
    """And one with another feature view has not."""
    artefact = models["graph"].artefact
    one = desk.register("same", artefact, "onnx").json()
    two = desk.register("same", artefact, "onnx", description="again").json()
    other = desk.register(
        "same", artefact, "onnx", lineage={"feature_view": {"name": "patients", "version": "2"}}
    ).json()
    assert [each["version"] for each in (one, two, other)] == [1, 2, 3]
    assert one["bundle"] == two["bundle"] != other["bundle"]
    assert one["signature"]["inputs"][0]["name"] == "rows"
    page = desk.http.get("/registry/same/versions", params={"limit": 2}).json()
    assert ([each["version"] for each in page["data"]], page["has_more"]) == ([3, 2], True)
    rest = desk.http.get("/registry/same/versions", params={"limit": 2, "after": page["next"]}).json()
    assert ([each["version"] for each in rest["data"]], rest["has_more"]) == ([1], False)


def test_a_registration_sent_again_is_one(desk: Desk, models: Models) -> None:
    """Idempotency-Key holds for forms too."""
    artefact, headers = models["graph"].artefact, {"idempotency-key": "one"}
    first = desk.register("once", artefact, "onnx", headers=headers)
    again = desk.register("once", artefact, "onnx", headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert len(desk.http.get("/registry/once/versions").json()["data"]) == 1


def test_an_alias_moves_and_the_audit_knows_who_did_it(desk: Desk, models: Models) -> None:
    """PUT, GET, DELETE; unknown ones are 404 and names have rules."""
    for _ in range(2):
        assert desk.register("moving", models["graph"].artefact, "onnx").status_code == 201
    for version in (1, 2):
        moved = desk.http.put("/registry/moving/aliases/champion", json={"version": version})
        assert (moved.status_code, moved.json()["version"]) == (200, version)
    assert desk.http.get("/registry/moving/aliases/champion").json()["set_by"] == "admin key"
    entry = desk.http.get("/audit", params={"action": "classic_alias.set", "subject": "moving/champion"}).json()[
        "data"
    ][0]
    assert (entry["actor"], entry["before"]["version"], entry["after"]["version"]) == ("admin key", 1, 2)
    assert error(desk.http.delete("/registry/moving/versions/2"), 409)["code"] == "version_in_use"
    assert error(desk.http.delete("/registry/moving"), 409)["code"] == "version_in_use"
    assert desk.http.delete("/registry/moving/versions/1").json() == {
        "name": "moving",
        "version": 1,
        "alias": None,
        "deleted": True,
    }
    assert (
        error(desk.http.put("/registry/moving/aliases/champion", json={"version": 1}), 404)["code"]
        == "version_not_found"
    )
    assert error(desk.http.put("/registry/moving/aliases/v3", json={"version": 2}), 400)["param"] == "alias"
    assert (
        error(desk.http.put("/registry/nobody/aliases/champion", json={"version": 1}), 404)["code"] == "model_not_found"
    )
    assert error(desk.http.get("/registry/moving/aliases/challenger"), 404)["code"] == "alias_not_found"
    assert desk.http.delete("/registry/moving/aliases/champion").status_code == 200
    assert desk.http.delete("/registry/moving").status_code == 200
    assert error(desk.http.get("/registry/moving"), 404)["code"] == "model_not_found"


def test_words_and_the_archive_change_and_nothing_else(desk: Desk, models: Models) -> None:
    """PATCH takes description, tags and archived."""
    made = desk.register("words", models["graph"].artefact, "onnx").json()
    desk.register("words", models["graph"].artefact, "onnx")
    changed = desk.http.patch("/registry/words/versions/1", json={"tags": {"a": "b"}, "archived": True}).json()
    assert (changed["tags"], changed["bundle"]) == ({"a": "b"}, made["bundle"])
    assert changed["archived_at"] is not None
    assert (
        error(desk.http.put("/registry/words/aliases/champion", json={"version": 1}), 400)["code"] == "version_archived"
    )
    assert (
        error(desk.http.patch("/registry/words/versions/1", json={"digest": "x"}), 400)["code"] == "unknown_parameter"
    )
    assert desk.http.patch("/registry/words/versions/1", json={"archived": False}).json()["archived_at"] is None
    assert desk.http.patch("/registry/words", json={"description": "all"}).json()["description"] == "all"


def test_a_champion_needs_its_approvals(desk: Desk, models: Models) -> None:
    """By roles, by different people, none by who registered it; with the alias in the registration nothing is registered at all."""
    gate = {"champion": {"approvals": 2, "roles": ["platform_admin", "team_admin"]}}
    assert desk.http.post("/registry", json={"name": "gated", "gates": gate}).status_code == 201
    artefact = models["graph"].artefact
    refused = desk.register("gated", artefact, "onnx", alias="champion")
    assert error(refused, 409)["code"] == "approval_required"
    assert desk.http.get("/registry/gated").json()["latest_version"] is None
    assert desk.register("gated", artefact, "onnx", alias="challenger").status_code == 201
    org = desk.http.post("/orgs", json={"name": "approvers"}).json()["id"]
    team = desk.http.post("/teams", json={"name": "approvers", "org_id": org}).json()["id"]
    path = "/registry/gated/versions/1/approvals"
    assert error(desk.http.post(path, json={}), 403)["type"] == "permission_error"  # it is who registered it
    for number in range(2):
        token = {"name": f"t{number}", "role": "team_admin", "org_id": org, "team_id": team}
        secret = desk.http.post("/tokens", json=token).json()["key"]
        theirs = {"authorization": f"Bearer {secret}"}
        assert (
            error(desk.http.put("/registry/gated/aliases/champion", json={"version": 1}), 409)["code"]
            == "approval_required"
        )
        assert error(desk.http.put("/registry/gated/aliases/champion", json={"version": 1}, headers=theirs), 403)
        assert desk.http.post(path, json={"comment": "fine"}, headers=theirs).status_code == 201
    assert len(desk.http.get(path).json()["data"]) == 2
    assert desk.http.put("/registry/gated/aliases/champion", json={"version": 1}).status_code == 200
    entries = desk.http.get("/audit", params={"action": "classic_version.approve"}).json()["data"]
    assert len({entry["actor"] for entry in entries}) == 2


def test_the_command_registers_lists_and_moves(desk: Desk, models: Models, tmp_path: Path) -> None:
    """`penstock models register NAME ARTIFACT --runtime … --alias champion`."""
    artefact = tmp_path / "sums.onnx"
    artefact.write_bytes(models["graph"].artefact)

    def command(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "admin", "models", *words, "--json", "--url", desk.server.url, "--key", ADMIN_KEY],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr

    made = command("register", "sums", str(artefact), "--runtime", "onnx", "--alias", "champion", "--metric", "f1=0.9")
    assert (made["version"], made["aliases"], made["runtime"]) == (1, ["champion"], "onnx")
    assert made["lineage"]["metrics"] == {"f1": 0.9}
    assert command("alias", "sums", "challenger", "1")["version"] == 1
    assert any(each["name"] == "sums" for each in command("classic")["data"])
    assert "no file" in command("register", "sums", str(tmp_path / "nothing.onnx"))
