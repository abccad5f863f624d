"""Feast itself, on SQLite and on Redis: its feature server asked by ours, its remote online store asking ours, its joins beside ours."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.redis import RedisServer
from tests.fixtures.server import ROOT, Server

PYTHON = ROOT / ".tools" / "feast" / "bin" / "python"

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PYTHON.exists(), reason="Feast is not installed: make test-integrations"),
]

Json = dict[str, Any]

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float32, Int64, String
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
batch = FileSource(path="data.parquet", timestamp_field="event_timestamp")
push = PushSource(name="drivers_push", batch_source=batch)
drivers = FeatureView(name="drivers", entities=[driver], ttl=timedelta(days=2), online=True, source=push,
    schema=[Field(name="rate", dtype=Float32), Field(name="trips", dtype=Int64), Field(name="city", dtype=String)])
"""
DATA = """
import json, random, sys
import pandas as pd
chance = random.Random(5)
start = pd.Timestamp.now(tz="UTC").floor("s") - pd.Timedelta(days=6)
rows = [{"driver_id": driver, "event_timestamp": start + pd.Timedelta(minutes=chance.randint(0, 8600)),
         "rate": chance.randint(0, 64) / 64, "trips": chance.randint(0, 9), "city": chance.choice(["Bern", "Zug"])}
        for driver in range(1, 6) for _ in range(12)]
rows += [{"driver_id": driver, "event_timestamp": start + pd.Timedelta(days=6) - pd.Timedelta(minutes=5), "rate": driver / 8,
          "trips": driver, "city": "Bern"} for driver in (1, 2)]
pd.DataFrame(rows).drop_duplicates(["driver_id", "event_timestamp"]).to_parquet("data.parquet")
asked = [{"driver_id": chance.randint(1, 7), "event_timestamp": start + pd.Timedelta(minutes=chance.randint(-100, 8700)), "label": n}
         for n in range(200)]
pd.DataFrame(asked).to_parquet("asked.parquet")
"""
HISTORY = """
import pandas as pd
from feast import FeatureStore
asked = pd.read_parquet("asked.parquet")
found = FeatureStore(".").get_historical_features(asked, ["drivers:rate", "drivers:trips", "drivers:city"]).to_df()
found.sort_values("label").to_parquet("found.parquet")
"""
COMPARE = """
import json
import pandas as pd
ours, theirs = (pd.read_parquet(name).sort_values("label").reset_index(drop=True) for name in ("ours.parquet", "found.parquet"))
rows = len(ours)
ours = ours[ours["label"].isin(theirs["label"])].reset_index(drop=True)  # Feast leaves some entities out
different = 0
for name in ("rate", "trips", "city"):
    mine, its = ours[name], theirs[name]
    different += int((~((mine == its) | (mine.isna() & its.isna()))).sum())
print(json.dumps({"rows": rows, "both": len(theirs), "different": different, "known": int(theirs["rate"].notna().sum())}))
"""
REMOTE = """
import json
import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode
store = FeatureStore(".")
now = pd.Timestamp.now(tz="UTC").floor("s")
frame = pd.DataFrame({"driver_id": [101, 102], "event_timestamp": [now, now - pd.Timedelta(days=3)], "rate": [0.5, 0.25],
                      "trips": [7, None], "city": ["Bern", "Zug"]}).astype({"trips": "Int64"})
store.write_to_online_store("drivers", frame)
late = frame.assign(event_timestamp=now - pd.Timedelta(days=1), rate=0.0).iloc[:1]
store.write_to_online_store("drivers", late)
read = lambda *ids: store.get_online_features(
    ["drivers:rate", "drivers:trips", "drivers:city"], [{"driver_id": one} for one in ids]).to_dict()
first = read(101, 102, 999)
store.push("drivers_push", frame.iloc[:1].assign(event_timestamp=now + pd.Timedelta(seconds=1), city="Chur"), to=PushMode.ONLINE)
print(json.dumps({"first": first, "pushed": read(101)["city"]}))
"""


def by_name(answer: Json) -> Json:
    """Feast's order of features is any."""
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


def config(folder: Path, online: Json, **more: Any) -> None:
    """JSON is YAML."""
    said = {
        "project": "drivers",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": "file"},
        "online_store": online,
        "entity_key_serialization_version": 3,
        **more,
    }
    (folder / "feature_store.yaml").write_text(json.dumps(said))


def feast(folder: Path, *arguments: str) -> str:
    environ = {"PATH": f"{PYTHON.parent}:/usr/bin:/bin", "HOME": str(folder), "FEAST_USAGE": "False", "IS_TEST": "True"}
    done = subprocess.run(
        [str(PYTHON), *arguments], cwd=folder, env=environ, text=True, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def applied(folder: Path) -> None:
    (folder / "definitions.py").write_text(DEFINITIONS)
    feast(folder, "-c", DATA)
    feast(folder, str(PYTHON.with_name("feast")), "apply")


@pytest.fixture(params=["sqlite", "redis"])
def online(request: pytest.FixtureRequest, new_redis: Callable[..., RedisServer]) -> Json:
    if request.param == "sqlite":
        return {"type": "sqlite", "path": "online.db"}
    with socket.socket() as probe:  # Feast knows no Unix sockets
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    new_redis("--port", str(port), "--bind", "127.0.0.1")
    return {"type": "redis", "connection_string": f"127.0.0.1:{port}"}


@pytest.fixture
def feature_server(online: Json, tmp_path: Path) -> Iterator[str]:
    """`feast serve` with everything materialised."""
    config(tmp_path, online)
    applied(tmp_path)
    feast(
        tmp_path,
        "-c",
        "from datetime import datetime, timedelta, timezone; from feast import FeatureStore; now = datetime.now(timezone.utc)\n"
        "FeatureStore('.').materialize(now - timedelta(days=10), now)",
    )
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    command = [str(PYTHON.with_name("feast")), "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environ = {"PATH": f"{PYTHON.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "FEAST_USAGE": "False"}
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, (tmp_path / "serve.log").read_text()[-3000:]
        time.sleep(0.2)
    yield url
    os.killpg(process.pid, 15)
    process.wait(30)


def penstock(folder: Path, **config: Any) -> Server:
    folder.mkdir(exist_ok=True)
    return Server(config, folder).start()


VIEW: Json = {
    "name": "drivers",
    "entities": [{"name": "driver_id"}],
    "features": [
        {"name": "rate", "datatype": "FP32"},
        {"name": "trips", "datatype": "INT64"},
        {"name": "city", "datatype": "BYTES"},
    ],
    "ttl_s": 2 * 86_400,
}


def test_our_answer_is_that_of_a_feature_server_of_feast(feature_server: str, tmp_path: Path) -> None:
    """The same question to both, ours with its view at Feast: the same names, values and times. Ages alone we look at."""
    server = penstock(tmp_path / "ours", features={"feast": {"main": {"url": feature_server, "timeout_s": 30}}})
    try:
        made = server.admin.post("/features", json={**VIEW, "source": {"kind": "feast", "server": "main"}})
        assert made.status_code == 201, made.text
        asked = {"features": ["drivers:rate", "drivers:trips"], "entities": {"driver_id": [1, 2, 99]}}
        theirs = httpx.post(f"{feature_server}/get-online-features", json=asked, timeout=30).json()
        answer = server.post("/get-online-features", asked)
        assert answer.status_code == 200, answer.text
        ours = answer.json()
    finally:
        server.stop()
    for name, said in by_name(theirs).items():  # of nobody whom it knows, Feast on Redis says "present", of 1970
        mine = by_name(ours)[name]
        assert (mine["values"], mine["event_timestamps"]) == (said["values"], said["event_timestamps"])
        assert mine["statuses"][:2] == said["statuses"][:2]
    assert by_name(ours)["rate"]["values"] == [0.125, 0.25, None]


def test_feast_reads_and_writes_through_us(tmp_path: Path) -> None:
    """Its remote online store, with a virtual key as its token: written, pushed and read back by Feast's own client."""
    server = penstock(tmp_path / "ours")
    try:
        view = {**VIEW, "source": {"kind": "native", "push": "drivers_push"}}
        assert server.admin.post("/features", json=view).status_code == 201
        key = server.new_key(routes=["/get-online-features", "/push", "/write-to-online-store"])
        config(tmp_path, {"type": "remote", "path": server.url}, auth={"type": "oidc", "token": key})
        (tmp_path / "definitions.py").write_text(DEFINITIONS)
        feast(tmp_path, "-c", DATA)
        feast(
            tmp_path,
            "-c",
            "from feast import FeatureStore; import definitions as d; FeatureStore('.').apply([d.driver, d.push, d.drivers])",
        )
        said = json.loads(feast(tmp_path, "-c", REMOTE).splitlines()[-1])
    finally:
        server.stop()
    assert said["first"]["driver_id"] == [101, 102, 999]
    assert said["first"]["rate"] == [0.5, None, None], (
        "the late one did not take its place; of the others, one is too old"
    )
    assert said["first"]["trips"] == [7, None, None]
    assert said["pushed"] == ["Chur"]


def test_a_training_set_is_that_of_get_historical_features(tmp_path: Path) -> None:
    config(tmp_path, {"type": "sqlite", "path": "online.db"})
    applied(tmp_path)
    feast(tmp_path, "-c", HISTORY)
    server = penstock(tmp_path / "ours")
    try:
        assert server.admin.post("/features", json=VIEW).status_code == 201
        parquet = {"content-type": "application/vnd.apache.parquet"}
        rows = (tmp_path / "data.parquet").read_bytes()
        wrote = server.admin.post("/features/drivers/rows", content=rows, headers=parquet)
        assert wrote.status_code == 200, wrote.text
        asked = (tmp_path / "asked.parquet").read_bytes()
        made = server.admin.post("/training-sets?feature_view=drivers", content=asked, headers=parquet)
        assert made.status_code == 200, made.text
    finally:
        server.stop()
    (tmp_path / "ours.parquet").write_bytes(made.content)
    said = json.loads(feast(tmp_path, "-c", COMPARE))
    assert said["rows"] == 200
    assert said["both"] > 150
    assert said["different"] == 0
    assert said["known"] > 30
