"""Monitors as admins see them: a real process, a collection in it, and questions that change."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fixtures.server import ONCE, Json, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

pytestmark = pytest.mark.timeout(120)

TEXTS = [f"The gate number {number} closes by itself." for number in range(40)]


class Site:
    def __init__(self, upstream: Upstream, folder: Path) -> None:
        script = upstream.script(Behaviour())
        where = {"id": "m-1", "base_url": script.base_url, "model": "m", "api_key": "sk-up"}
        models = [{"name": "m", "deployments": [where], "retries": ONCE}]
        self.server = Server({"models": models, "retrieval": {"embedding_model": "m"}}, folder).start()
        self.client = openai.OpenAI(
            api_key=self.server.new_key(), base_url=self.server.base_url, max_retries=0, timeout=50
        )

    def store(self, name: str) -> str:
        made = self.client.vector_stores.create(name=name)
        files = [self.client.files.create(file=("a.txt", text.encode()), purpose="assistants").id for text in TEXTS]
        batch = self.client.vector_stores.file_batches.create_and_poll(made.id, file_ids=files, poll_interval_ms=50)
        assert batch.file_counts.completed == len(TEXTS), batch
        return made.id

    def ask(self, store: str, *texts: str) -> None:
        for text in texts:
            self.client.vector_stores.search(store, query=text)

    def created(self, **body: Any) -> Json:
        answer = self.server.admin.post("/monitors", json=body)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made

    def until(self, path: str, wanted: Any) -> Any:
        deadline = time.monotonic() + 40
        while not wanted(found := self.server.admin.get(path).json()):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def site(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(upstream, tmp_path_factory.mktemp("monitors"))
    yield made
    made.client.close()
    made.server.stop()


def test_questions_that_come_near_the_corpus_all_at_once_are_a_drift(site: Site) -> None:
    """Made by the store's name, watching after the first window; the next one asks for what is written there, word by word."""
    store = site.store("watched")
    monitor = site.created(target={"kind": "collection", "name": "watched"}, window={"rows": 40}, alpha=0.01)
    path = f"/monitors/{monitor['id']}"
    assert (monitor["state"], monitor["target"]["id"], monitor["tests"]) == ("waiting", store, ["mmd", "ks"])
    site.ask(store, *(f"question {number}" for number in range(40)))
    site.until(path, lambda seen: seen["state"] == "watching")
    site.ask(store, *TEXTS)
    shown = site.until(path, lambda seen: "queries" in seen["drifted"])
    assert shown["drifted"] == {"queries": True}
    (window,) = site.server.admin.get(f"{path}/windows?stream=queries").json()["data"]
    assert (window["rows"], window["stream"], window["drifted"], window["embedding_version"]) == (
        40,
        "queries",
        True,
        1,
    )
    nearest = next(each for each in window["columns"] if each["column"] == "nearest")
    assert nearest["drifted"]
    assert nearest["p_value"] < nearest["threshold"] == 0.005
    changed = site.server.admin.patch(path, json={"alpha": 0.05, "tests": ["ks"], "on_drift": [], "renew": True})
    assert changed.status_code == 200, changed.text
    body = changed.json()
    assert (body["alpha"], body["tests"], body["on_drift"], body["state"]) == (0.05, ["ks"], [], "waiting")
    assert monitor["id"] in [each["id"] for each in site.server.admin.get("/monitors").json()["data"]]
    assert site.server.admin.delete(path).json() == {"id": monitor["id"], "deleted": True}
    for gone in (path, f"{path}/windows"):
        assert site.server.admin.get(gone).json()["error"]["code"] == "monitor_not_found"


def test_what_is_asked_for_wrongly_is_told(site: Site) -> None:
    for name in ("twin", "twin"):
        site.client.vector_stores.create(name=name)
    target = {"kind": "collection", "name": "twin"}
    for body, status, code in (
        ({"target": target}, 400, "ambiguous_collection"),
        ({"target": {"kind": "collection", "name": "nobody"}}, 404, "collection_not_found"),
        ({"target": {"kind": "model", "name": "m"}}, 400, None),
        ({"target": target, "window": {"rows": 3}}, 400, None),
        ({"target": target, "alpha": 0}, 400, None),
        ({"target": target, "tests": ["psi"]}, 400, None),
        ({"target": target, "on_drift": [{"action": "retrain"}]}, 400, None),
    ):
        answer = site.server.admin.post("/monitors", json=body)
        assert answer.status_code == status, (body, answer.text)
        error = answer.json()["error"]
        assert error["param"], error
        assert code is None or error["code"] == code
