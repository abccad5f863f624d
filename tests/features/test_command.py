"""`penstock features` on a real server's data directory, and skew over REST."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.features.conftest import Store
from tests.fixtures.scoring import graph
from tests.fixtures.server import ADMIN_KEY


def features(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "admin", "features", *arguments, "--data-dir", str(store.data)]
    return subprocess.run(command, text=True, capture_output=True, timeout=100, check=False)


def test_a_table_becomes_rows_and_rows_a_training_set(store: Store, tmp_path: Path) -> None:
    """Applied from YAML, materialised from CSV, joined into Parquet as of each row's time, by the command line alone."""
    view = tmp_path / "view.yaml"
    view.write_text(
        "name: shops\nttl_s: 86400\nentities: [{name: shop, datatype: BYTES}]\n"
        "features: [{name: sales, datatype: FP64}, {name: open, datatype: BOOL}]\n"
    )
    reach = ["--url", store.url, "--key", ADMIN_KEY]
    assert features(store, "apply", str(view), *reach).stdout == "shops is at version 1\n"
    view.write_text(view.read_text().replace("{name: open", "{name: staff, datatype: INT32}, {name: open"))
    assert features(store, "apply", str(view), *reach).stdout == "shops is at version 2\n"
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "shop,at,sales,open,comment\nZug,2026-01-02T00:00:00Z,2.5,true,x\nZug,2026-01-01T00:00:00Z,1.5,,y\nBern,2026-01-01,,false,\n"
    )
    wrote = features(store, "materialize", "shops", str(rows), "--timestamp", "at")
    assert wrote.stdout == "3 rows are in shops\n", wrote.stderr
    online = store.online({"feature_service": "shops", "entities": {"shop": ["Zug", "Bern"]}}).json()["results"]
    old = ["OUTSIDE_MAX_AGE"] * 2
    assert [one["statuses"] for one in online[1:]] == [old, old, ["NOT_FOUND"] * 2]
    asked = tmp_path / "asked.csv"
    asked.write_text(
        "shop,event_timestamp,label\nZug,2026-01-01T12:00:00Z,a\nZug,2026-01-02T12:00:00Z,b\nBern,2026-01-03,c\n"
    )
    out = tmp_path / "set.parquet"
    joined = features(store, "training-set", str(asked), "--view", "shops", "--output", str(out))
    assert joined.returncode == 0, joined.stderr
    table = pq.read_table(out).to_pydict()
    assert (table["label"], table["sales"], table["open"]) == (["a", "b", "c"], [1.5, 2.5, None], [None, True, None])
    sent = store.admin.post(
        "/training-sets?features=shops:sales&full_feature_names=true",
        content=asked.read_bytes(),
        headers={"content-type": "text/csv"},
    )
    assert sent.text.splitlines()[0] == "shop,event_timestamp,label,shops__sales"
    assert [line.rpartition(",")[2] for line in sent.text.splitlines()[1:]] == ["1.5", "2.5", ""]
    wrong = features(store, "materialize", "shops", str(asked), "--timestamp", "event_timestamp")
    assert wrong.returncode == 1
    assert "none of the features" in wrong.stderr
    assert "no_such_view" in features(store, "materialize", "no_such_view", str(rows)).stderr
    assert "shops  by shop: sales, open, staff  2 entities" in features(store, "list").stdout


def test_skew_is_seen_over_rest_and_by_the_command(store: Store, tmp_path: Path, now: float) -> None:
    """Trained on a of 0 to 1 and asked about 50: the column is named, and that one value was not what the history says."""
    store.view("watched")
    rows = [{"driver_id": n, "a": 50.0 + n % 5, "b": (n % 50) / 50, "event_timestamp": now - 60} for n in range(50)]
    assert store.write("watched", *rows).status_code == 200
    reference = pa.table(
        {name: [(n * step % 100) / 100 for n in range(400)] for name, step in (("a", 7), ("b", 2), ("c", 13))}
    )
    pq.write_table(reference, tmp_path / "reference.parquet")
    inputs = [{"name": one, "datatype": "FP32", "nullable": True} for one in "abc"]
    metadata = {"runtime": "onnx", "lineage": {"feature_view": {"name": "watched"}}, "signature": {"inputs": inputs}}
    made = store.admin.post(
        "/registry/watched/versions",
        files={
            "artifact": ("watched.onnx", graph(1.0)),
            "reference": ("reference.parquet", (tmp_path / "reference.parquet").read_bytes()),
        },
        data={"metadata": json.dumps(metadata)},
    )
    assert made.status_code == 201, made.text
    none = store.admin.get("/registry/watched/versions/1/skew").json()
    assert (none["drifted"], none["columns"], none["window"]["rows"]) == (False, [], 0)
    asked: list[dict[str, Any]] = [{"driver_id": n, "c": (n % 50) / 50} for n in range(50)]
    assert store.predict("watched", *asked).status_code == 200
    late = {"driver_id": 7, "a": 0.5, "b": 0.5, "event_timestamp": now - 30}
    deadline = time.monotonic() + 30
    while (said := store.admin.get("/registry/watched/versions/1/skew").json())["window"]["rows"] < 50:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert said["consistency"] == {"view": "watched", "rows": 50, "unequal": {"a": 0.0, "b": 0.0}}
    assert store.write("watched", late).status_code == 200
    said = store.admin.get("/registry/watched/versions/1/skew").json()
    columns = {one["name"]: one for one in said["columns"]}
    assert set(columns) == {"a", "b", "c"}
    assert columns["a"]["reasons"] == ["psi", "ks"]
    assert not columns["b"]["drifted"]
    assert not columns["c"]["drifted"]
    assert said["drifted"]
    assert said["consistency"]["unequal"] == {"a": 0.02, "b": 0.02}
    told = features(store, "skew", "watched", "1", "--url", store.url, "--key", ADMIN_KEY)
    assert told.returncode == 1, told.stderr
    assert "a  psi" in told.stdout
    missing = store.admin.get("/registry/watched/versions/9/skew")
    assert missing.status_code == 404
