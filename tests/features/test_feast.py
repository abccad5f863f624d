"""Feast's HTTP contract, asked of the real process as Feast's clients ask it, and asked by it of a feature server."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.features.conftest import NEVER, FeatureServer, Store, refusal

WHEN = "2026-01-02T03:04:05.250000Z"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def served(store: Store) -> Store:
    """`drivers` has driver 1001, with a null; the source of its pushes is called `drivers_push`."""
    store.view(
        "drivers",
        features=[
            {"name": "conv_rate", "datatype": "FP64"},
            {"name": "trips", "datatype": "INT64"},
            {"name": "city", "datatype": "BYTES"},
        ],
        source={"kind": "native", "push": "drivers_push"},
    )
    row = {"driver_id": 1001, "conv_rate": 0.25, "trips": 7, "city": None, "event_timestamp": WHEN}
    assert store.write("drivers", row).status_code == 200
    return store


def test_an_answer_is_what_a_feature_server_of_feast_gives(served: Store) -> None:
    """By column, entities first; values, statuses and times for each entity, the time of what has none that of 1970."""
    asked = {"features": ["drivers:conv_rate", "drivers:city"], "entities": {"driver_id": [1001, 1002]}}
    answer = served.online(asked)
    assert answer.status_code == 200, answer.text
    when = "2026-01-02T03:04:05.250Z"
    assert answer.json() == {
        "metadata": {"feature_names": ["driver_id", "conv_rate", "city"]},
        "results": [
            {"values": [1001, 1002], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": [NEVER, NEVER]},
            {"values": [0.25, None], "statuses": ["PRESENT", "NOT_FOUND"], "event_timestamps": [when, NEVER]},
            {"values": [None, None], "statuses": ["NULL_VALUE", "NOT_FOUND"], "event_timestamps": [when, NEVER]},
        ],
    }
    assert "x-request-id" in answer.headers
    full = served.online({**asked, "full_feature_names": True}).json()
    assert full["metadata"]["feature_names"] == ["driver_id", "drivers__conv_rate", "drivers__city"]
    service = served.online({"feature_service": "drivers", "entities": {"driver_id": [1001]}}).json()
    assert service["metadata"]["feature_names"] == ["driver_id", "conv_rate", "trips", "city"]
    assert service["results"][2]["values"] == [7]


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"features": ["drivers:nothing"]}, 404, "feature_not_found", "features[0]"),
        ({"features": ["nothing:x"]}, 404, "feature_view_not_found", "features[0]"),
        ({"features": ["drivers"]}, 400, "invalid_input", "features[0]"),
        ({"features": []}, 400, "invalid_input", "features"),
        ({"entities": {}}, 400, "invalid_input", "entities"),
        ({"entities": {"driver_id": 1}}, 400, "invalid_input", "entities.driver_id"),
        ({"entities": {"driver_id": ["1001"]}}, 400, "invalid_type", "entities.driver_id[0]"),
        ({"entities": {"driver_id": [1, 2], "x": [1]}}, 400, "row_count_mismatch", "entities.x"),
        ({"entities": {"customer": [1]}}, 400, "missing_feature", "entities.driver_id"),
        ({"entities": {"driver_id": []}}, 400, "invalid_input", "entities"),
        ({"full_feature_names": 1}, 400, "invalid_input", "full_feature_names"),
        ({"unknown": 1}, 400, "unknown_field", "unknown"),
    ],
)
def test_a_question_that_is_none_is_refused(served: Store, change: Json, status: int, code: str, param: str) -> None:
    asked = {"features": ["drivers:trips"], "entities": {"driver_id": [1001]}}
    refusal(served.online({**asked, **change}), status, code, param)


def test_pushes_are_for_who_is_named_for_them(served: Store) -> None:
    """What is written decides answers of others: leaving a list of routes out gives nobody that right."""
    df = {"driver_id": [1003, 1003], "conv_rate": [0.5, 0.1], "trips": [1, 2], "city": ["Bern", "Basel"]}
    df["event_timestamp"] = ["2026-02-02 00:00:00", "2026-02-01 00:00:00"]
    push = {"push_source_name": "drivers_push", "df": {**df, "created": ["2026-02-02", "2026-02-02"]}, "to": "online"}
    refusal(served.post("/push", push), 403, "route_access_denied")
    writer = served.new_key(routes=["/push", "/write-to-online-store", "/get-online-features"])
    answer = served.post("/push", push, key=writer)
    assert (answer.status_code, answer.content) == (200, b"")
    asked = {"features": ["drivers:city"], "entities": {"driver_id": [1003]}}
    assert served.online(asked).json()["results"][1]["values"] == ["Bern"], "the newer one, whatever came last"
    write = {"feature_view_name": "drivers", "df": {"driver_id": [1004], "conv_rate": [1.0], "trips": [None]}}
    assert served.post("/write-to-online-store", write, key=writer).json() is None
    asked = {"feature_service": "drivers", "entities": {"driver_id": [1004]}}
    said = served.online(asked).json()["results"]
    assert [one["statuses"] for one in said[1:]] == [["PRESENT"], ["NULL_VALUE"], ["NOT_FOUND"]]
    refusal(served.post("/push", {**push, "to": "nowhere"}, key=writer), 400, "invalid_input", "to")
    refusal(served.post("/push", {**push, "push_source_name": "x"}, key=writer), 404, "feature_view_not_found")
    odd = {**write, "df": {"driver_id": [1], "trips": [1.5]}}
    refusal(served.post("/write-to-online-store", odd, key=writer), 400, "invalid_type", "df.trips[0]")
    odd = {**write, "df": {"driver_id": [1], "trips": [1, 2]}}
    refusal(served.post("/write-to-online-store", odd, key=writer), 400, "row_count_mismatch", "df.trips")


def test_reading_is_for_keys_that_may_use_the_view(served: Store) -> None:
    asked = {"features": ["drivers:trips"], "entities": {"driver_id": [1001]}}
    refusal(served.online(asked, key=served.new_key(models=["chat"])), 403, "model_access_denied")
    assert served.online(asked, key=served.new_key(models=["features/drivers"])).status_code == 200
    assert served.online(asked, key=served.new_key(models=["features/*"])).status_code == 200
    refusal(served.http.post("/get-online-features", json=asked), 401, "invalid_api_key")
    answer = served.http.get("/push", headers={"authorization": f"Bearer {served.key}"})
    refusal(answer, 405, "method_not_allowed")


@pytest.fixture(scope="module")
def client(store: Store) -> Store:
    """Its view `at-feast` is there, called `hourly`."""
    store.view("at-feast", ttl_s=3600, source={"kind": "feast", "server": "main", "view": "hourly"})
    store.model("from-feast", {"name": "at-feast"})
    return store


def test_a_view_at_feast_is_asked_there_and_held_to_its_age(client: Store, feast: FeatureServer, now: float) -> None:
    """Feast itself does not look at the age when it answers; whoever predicts has to."""
    fresh, old = (datetime.fromtimestamp(now - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for age in (10, 7200))
    feast.known = {1: (1.0, 2.0, fresh), 2: (10.0, 20.0, old)}
    answer = client.predict("from-feast", {"driver_id": 1, "c": 0.5}, {"driver_id": 1, "c": 0.0})
    assert [one["sum"] for one in answer.json()["predictions"]] == [[4.5], [5.0]], answer.text
    assert feast.asked[-1] == {
        "path": "/get-online-features",
        "features": ["hourly:a", "hourly:b"],
        "entities": {"driver_id": [1, 1]},
        "full_feature_names": False,
    }
    assert feast.tokens[-1] == "Bearer sesame"
    refusal(client.predict("from-feast", {"driver_id": 2, "c": 0.0}), 502, "feature_stale", "a")
    refusal(client.predict("from-feast", {"driver_id": 3, "c": 0.0}), 400, "entity_not_found", "instances[0].driver_id")
    passed_on = client.online({"features": ["at-feast:a"], "entities": {"driver_id": [1, 2, 3]}}).json()["results"][1]
    assert passed_on["statuses"] == ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert passed_on["values"] == [1.0, None, None]
    refusal(client.write("at-feast", {"driver_id": 1, "a": 1.0}), 400, "not_writable")


@pytest.mark.parametrize(
    "broken",
    [
        (500, b'{"detail": "x"}'),
        (200, b"not json"),
        (200, b'{"results": []}'),
        (200, b'{"metadata": null}'),
        (200, b"[]"),
    ],
)
def test_a_feature_server_that_talks_nonsense_is_at_fault_itself(
    client: Store, feast: FeatureServer, broken: tuple[int, bytes]
) -> None:
    feast.broken = broken
    try:
        refusal(client.predict("from-feast", {"driver_id": 1, "c": 0.0}), 502, "feature_store_failed")
    finally:
        feast.broken = None
