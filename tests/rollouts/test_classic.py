"""A classic model's canary on the real process: registered, asked, told the truth, and taken back or promoted by it."""

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from tests.fixtures.rollouts import over
from tests.fixtures.server import Json, Server

pytestmark = pytest.mark.timeout(180)

ACCURACY = {"metric": "accuracy", "max_regression": 0.02}


def above(threshold: float) -> bytes:
    """x (n, 1) to 1 where it is above the threshold, as a classifier answers."""
    tensor, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    constants: dict[str, np.ndarray[Any, Any]] = {
        "threshold": np.array([[threshold]], np.float32),
        "flat": np.array([-1], np.int64),
    }
    graph = onnx.helper.make_graph(
        [
            node("Greater", ["x", "threshold"], ["over"]),
            node("Cast", ["over"], ["number"], to=onnx.TensorProto.INT64),
            node("Reshape", ["number", "flat"], ["predictions"]),
        ],
        "above",
        [tensor("x", onnx.TensorProto.FLOAT, ["n", 1])],
        [tensor("predictions", onnx.TensorProto.INT64, ["n"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    made: bytes = model.SerializeToString()
    return made


def register(server: Server, name: str, artefact: bytes) -> None:
    answer = server.admin.post(
        f"/registry/{name}/versions",
        files={"artifact": (f"{name}.onnx", artefact)},
        data={"metadata": json.dumps({"runtime": "onnx"})},
    )
    assert answer.status_code == 201, answer.text


def two_versions(server: Server, name: str, challenger: float) -> None:
    for threshold in (0.0, challenger):
        register(server, name, above(threshold))
    moved = server.admin.put(f"/registry/{name}/aliases/champion", json={"version": 1})
    assert moved.status_code == 200, moved.text


def begin(server: Server, name: str, **fields: Any) -> httpx.Response:
    body = {
        "target": {"kind": "model", "name": name},
        "strategy": "canary",
        "champion": "champion",
        "challenger": "2",
        "steps": [0.5, 1.0],
        "bake_s": 0.2,
        "min_requests": 20,
        "gates": [ACCURACY],
        **fields,
    }
    return server.admin.post("/rollouts", json=body)


def lived_on(server: Server, name: str, rollout: str, wanted: Callable[[Json], bool]) -> tuple[Json, list[Json]]:
    """Asks with known truths, and tells them, until the rollout is as wanted; all answers."""
    seed = random.Random(7)
    deadline = time.monotonic() + 120
    answers: list[Json] = []
    with ThreadPoolExecutor(4) as pool:
        while True:
            asked = [seed.uniform(-1, 1) for _ in range(120)]
            told = list(
                pool.map(lambda x: server.post(f"/v1/predict/{name}", {"instances": [[x]], "user": str(x)}), asked)
            )
            assert {one.status_code for one in told} == {200}, told[0].text
            answers += [one.json() for one in told]
            truths = [{"id": one.json()["id"], "label": int(x > 0)} for x, one in zip(asked, told, strict=True)]
            heard = server.post("/v1/feedback/bulk", truths)
            assert heard.status_code == 200, heard.text
            shown: Json = server.admin.get(f"/rollouts/{rollout}").json()
            if wanted(shown):
                return shown, answers
            assert time.monotonic() < deadline, shown


def champion(server: Server, name: str) -> int:
    version: int = server.admin.get(f"/registry/{name}/aliases/champion").json()["version"]
    return version


@pytest.mark.parametrize(
    ("challenger", "state", "version"), [(-0.2, "rolled_back", 1), (0.0, "promoted", 2)], ids=["10 % wrong", "as good"]
)
def test_labels_decide_about_a_new_version(rolling_server: Server, challenger: float, state: str, version: int) -> None:
    """No request fails meanwhile, and the alias is where the verdict says."""
    name = f"labels-{state.replace('_', '-')}"
    two_versions(rolling_server, name, challenger)
    made = begin(rolling_server, name)
    assert made.status_code == 201, made.text
    shown, answers = lived_on(rolling_server, name, made.json()["id"], over)
    assert shown["state"] == state, shown
    assert champion(rolling_server, name) == version
    assert {one["version"] for one in answers} == {1, 2}


def test_a_version_that_lacks_approvals_is_not_rolled_out(rolling_server: Server) -> None:
    """It would come to be the champion while nobody looks."""
    name = "gated"
    two_versions(rolling_server, name, 0.0)
    gates = {"champion": {"approvals": 1, "roles": ["platform_admin"]}}
    changed = rolling_server.admin.patch(f"/registry/{name}", json={"gates": gates})
    assert changed.status_code == 200, changed.text
    refused = begin(rolling_server, name)
    assert refused.status_code == 409, refused.text
    assert refused.json()["error"]["code"] == "approval_required"


def test_aliases_name_the_arms(rolling_server: Server) -> None:
    name = "by-alias"
    two_versions(rolling_server, name, 0.0)
    assert begin(rolling_server, name, challenger="challenger").status_code == 404
    named = rolling_server.admin.put(f"/registry/{name}/aliases/challenger", json={"version": 2})
    assert named.status_code == 200, named.text
    made = begin(rolling_server, name, challenger="challenger")
    assert made.status_code == 201, made.text
    assert (made.json()["champion"], made.json()["challenger"]) == ("1", "2")


def test_nothing_is_taken_from_under_a_rollout(rolling_server: Server) -> None:
    """A move of its alias would neither be in force nor last; without the challenger's version its share of the requests would fail."""
    name = "held"
    two_versions(rolling_server, name, 0.0)
    register(rolling_server, name, above(0.5))
    made = begin(rolling_server, name).json()
    registry = f"/registry/{name}"
    admin = rolling_server.admin
    for refused in (
        admin.put(f"{registry}/aliases/champion", json={"version": 3}),
        admin.delete(f"{registry}/aliases/champion"),
        admin.patch(f"{registry}/versions/2", json={"archived": True}),
        admin.delete(f"{registry}/versions/2"),
        admin.delete(registry),
    ):
        assert refused.status_code == 409, refused.text
        assert refused.json()["error"]["code"] == "rollout_active"
    assert admin.delete(f"{registry}/versions/3").status_code == 200
    assert admin.post(f"/rollouts/{made['id']}/rollback").json()["state"] == "rolled_back"
    assert champion(rolling_server, name) == 1
    assert admin.delete(f"{registry}/versions/2").status_code == 200


def test_what_is_said_of_a_prediction_is_of_that_kind_always(rolling_server: Server) -> None:
    """Whichever of its record and its capture is in the database first."""
    name = "said"
    two_versions(rolling_server, name, 0.0)
    id_ = rolling_server.post(f"/v1/predict/{name}", {"instances": [[0.5]]}).json()["id"]
    assert rolling_server.post("/v1/feedback", {"id": id_, "label": 1}).json()["kind"] == "prediction"
    deadline = time.monotonic() + 30
    while rolling_server.admin.get(f"/requests/{id_}").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    scored = rolling_server.post("/v1/feedback", {"id": id_, "score": 1, "source": "later"})
    assert scored.json()["kind"] == "prediction", scored.text
