"""Features joined to predictions on the real process: entities in, what is known of them to the model, as fresh as it has to be."""

import json
import sqlite3
import time
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from tests.features.conftest import Store, refusal


@pytest.fixture(scope="module")
def joined(store: Store) -> Store:
    """`joined` takes a and b from the view `stats`, c from its callers."""
    store.view("stats", ttl_s=3600, source={"kind": "native", "push": "stats_source"})
    store.model("joined", {"name": "stats"})
    wrote = store.write("stats", {"driver_id": 1, "a": 1.0, "b": 2.0}, {"driver_id": 2, "a": 10.0, "b": 20.0})
    assert wrote.status_code == 200, wrote.text
    assert wrote.json() == {"view": "stats", "rows": 2}
    return store


def test_entities_get_their_features_on_every_path(joined: Store) -> None:
    """Records, lists, columns, MLflow's forms, CSV, and the protocol in JSON and binary: the sum is that of the joined values."""
    forms: list[dict[str, Any]] = [
        {"instances": [{"driver_id": 1, "c": 0.5}, {"driver_id": 2, "c": 0.0}]},
        {"instances": [[1, 0.5], [2, 0.0]]},
        {"inputs": {"driver_id": [1, 2], "c": [0.5, 0.0]}},
        {"dataframe_split": {"columns": ["c", "driver_id"], "data": [[0.5, 1], [0.0, 2]]}},
    ]
    for form in forms:
        for path in ("/v1/predict/joined", "/v1/predict/joined/invocations"):
            answer = joined.post(path, form)
            assert answer.status_code == 200, answer.text
            assert [one["sum"] for one in answer.json()["predictions"]] == [[4.5], [50.0]]
    tensors = [
        {"name": "driver_id", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "c", "datatype": "FP32", "shape": [2, 1], "data": [0.5, 0.0]},
    ]
    answer = joined.post("/v2/models/joined/infer", {"inputs": tensors, "outputs": [{"name": "sum"}]})
    assert answer.json()["outputs"][0]["data"] == [4.5, 50.0], answer.text
    client = tritonclient.http.InferenceServerClient(joined.url.partition("://")[2])
    inputs = []
    for name, array in (("driver_id", np.array([2], np.int64)), ("c", np.array([[1]], np.float32))):
        one = tritonclient.http.InferInput(name, list(array.shape), "INT64" if name == "driver_id" else "FP32")
        one.set_data_from_numpy(array)
        inputs.append(one)
    headers = {"authorization": f"Bearer {joined.key}"}
    assert client.infer("joined", inputs, headers=headers).as_numpy("sum").tolist() == [[49.0]]
    client.close()


def test_who_gives_every_feature_is_answered_with_those(joined: Store) -> None:
    answer = joined.predict("joined", {"a": 1.0, "b": 1.0, "c": 1.0})
    assert answer.json()["predictions"][0]["sum"] == [2.0], answer.text


@pytest.mark.parametrize(
    ("row", "code", "param"),
    [
        ({"c": 1.0}, "missing_feature", "instances[0].driver_id"),
        ({"driver_id": 1}, "missing_feature", "instances[0].c"),
        ({"driver_id": "1", "c": 1.0}, "invalid_type", "instances[0].driver_id"),
        ({"driver_id": None, "c": 1.0}, "null_not_allowed", "instances[0].driver_id"),
        ({"driver_id": 1, "c": 1.0, "a": 3.0}, "unknown_feature", "instances[0].a"),
        ({"a": 1.0, "b": "x", "c": 1.0}, "invalid_type", "instances[0].b"),
        ({"driver_id": 999, "c": 1.0}, "entity_not_found", "instances[0].driver_id"),
    ],
)
def test_bad_input_is_refused_with_its_place(joined: Store, row: dict[str, Any], code: str, param: str) -> None:
    refusal(joined.predict("joined", row), 400, code, param)


def test_what_was_joined_is_captured_with_the_entities(joined: Store) -> None:
    """For labels, monitors and the next training set: what the model saw, not what was asked."""
    id_ = joined.predict("joined", {"driver_id": 2, "c": 3.0}).json()["id"]
    deadline = time.monotonic() + 30
    found = None
    while found is None:
        assert time.monotonic() < deadline
        with sqlite3.connect(joined.data / "penstock.db", timeout=20) as db:
            found = db.execute("SELECT inputs FROM predictions WHERE id = ?", (id_,)).fetchone()
        time.sleep(0.05)
    assert json.loads(found[0]) == {"driver_id": [2], "a": [10.0], "b": [20.0], "c": [3.0]}


def test_a_value_that_is_too_old_is_no_value(store: Store, now: float) -> None:
    """By the view's policy, or the bundle's own: refused, null, or the default."""
    store.view("aged", ttl_s=600)
    store.write("aged", {"driver_id": 1, "a": 1.0, "b": 2.0, "event_timestamp": now - 1200})
    store.write("aged", {"driver_id": 2, "a": 1.0, "b": 2.0, "event_timestamp": now})
    store.model("aged", {"name": "aged"})
    store.model("aged-null", {"name": "aged", "missing": "null"})

    def told(model: str, driver: int = 1) -> Any:
        answer = store.predict(model, {"driver_id": driver, "c": 0.0})
        return answer.json()["predictions"][0]["sum"] if answer.status_code == 200 else answer

    assert told("aged", 2) == told("aged-null", 2) == [5.0]
    refusal(told("aged"), 502, "feature_stale", "a")
    assert told("aged-null") == [None]
    assert store.admin.patch("/features/aged", json={"missing": "default"}).json()["missing"] == "default"
    assert told("aged") == [None], "a has no default"
    changed = store.admin.patch("/features/aged", json={"features": [{"name": "a", "datatype": "FP32", "default": 3}]})
    assert changed.json()["version"] == 1, changed.text
    assert told("aged") == [17.0]
    assert store.admin.patch("/features/aged", json={"ttl_s": None, "missing": "error"}).json()["ttl_s"] is None
    assert told("aged") == [5.0]


def test_a_bundle_may_call_features_otherwise(store: Store) -> None:
    store.view("renamed", features=[{"name": "conv_rate", "datatype": "FP64"}, {"name": "trips", "datatype": "INT64"}])
    store.write("renamed", {"driver_id": 1, "conv_rate": 0.5, "trips": 3})
    store.model("renamed", {"name": "renamed", "inputs": {"a": "conv_rate", "b": "trips"}})
    assert store.predict("renamed", {"driver_id": 1, "c": 0.0}).json()["predictions"][0]["sum"] == [6.5]


def test_a_view_that_is_not_there_leaves_everything_to_the_caller(store: Store) -> None:
    """As lineage alone, which it may be; as soon as there is such a view, it is asked."""
    store.model("later", {"name": "to-come"})
    assert store.predict("later", {"a": 1.0, "b": 1.0, "c": 1.0}).status_code == 200
    refusal(store.predict("later", {"driver_id": 1, "c": 1.0}), 400, "unknown_feature")
    store.view("to-come")
    store.write("to-come", {"driver_id": 1, "a": 4.0, "b": 0.0})
    assert store.predict("later", {"driver_id": 1, "c": 1.0}).json()["predictions"][0]["sum"] == [3.0]
    assert store.admin.delete("/features/to-come").json()["name"] == "to-come"
    refusal(store.predict("later", {"driver_id": 1, "c": 1.0}), 400, "unknown_feature")
    store.view("to-come")
    refusal(store.predict("later", {"driver_id": 1, "c": 1.0}), 400, "entity_not_found")
