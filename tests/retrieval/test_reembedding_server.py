"""A vector store that is embedded anew, as admins and clients see it: the real process, its money, its kills."""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import func, select

from admin.cli import main
from gateway.database import connect
from retrieval.spaces import FIRST
from retrieval.tables import (
    collections,
    document_cuts,
    documents,
    passage_bodies,
    passage_embeddings,
    passages,
    reembeddings,
)
from tests.fixtures.server import ADMIN_KEY, ONCE, Json, Server
from tests.fixtures.upstream import ScriptHandle, Upstream
from tests.upstream.behaviour import Behaviour

pytestmark = pytest.mark.timeout(180)  # each waits for work that a busy machine does late


def _static(tokens: int) -> Json:
    return {"type": "static", "static": {"max_chunk_size_tokens": tokens, "chunk_overlap_tokens": 0}}


PRICE = {"input": 1.0}
CHUNKS, WIDER = _static(100), _static(200)
CHILDREN = "chunking_strategy.children.max_chunk_size_tokens"
GIVEN_UP = ("failed", "cancelled", "rolled_back", "finished")


class Site:
    """A server with two models that embed, and what tests do with it."""

    def __init__(self, upstream: Upstream, folder: Path, database: str | None = None) -> None:
        self.old, self.new = upstream.script(Behaviour()), upstream.script(Behaviour())
        models = [
            {"name": name, "deployments": [_deployment(name, script)], "retries": ONCE}
            for name, script in (("old", self.old), ("new", self.new))
        ]
        self.server = Server({"models": models, "retrieval": {"embedding_model": "old"}}, folder, environ=_in(database))
        self.database = database or f"sqlite:///{self.server.data / 'penstock.db'}"
        self.server.start()
        self._opened = ExitStack()

    def stop(self) -> None:
        self._opened.close()
        self.server.stop()

    def key(self, **fields: object) -> tuple[str, str]:
        """A new key: its id and its secret."""
        answer = self.server.admin.post("/keys", json={"name": "reembedding", **fields})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        self.server.await_key(made["key"], known=True)
        return made["id"], made["key"]

    def sdk(self, secret: str) -> openai.OpenAI:
        return self._opened.enter_context(
            openai.OpenAI(api_key=secret, base_url=self.server.base_url, max_retries=0, timeout=30)
        )

    def add(self, client: openai.OpenAI, store: str, text: str) -> str:
        file = client.files.create(file=("a.txt", text.encode()), purpose="assistants")
        client.vector_stores.files.create(store, file_id=file.id, chunking_strategy=CHUNKS)  # type: ignore[arg-type]
        done = client.vector_stores.files.poll(file.id, vector_store_id=store, poll_interval_ms=50)
        assert done.status == "completed", done.last_error
        return file.id

    def begin(self, store: str, **body: object) -> str:
        answer = self.post(store, "", {"embedding_model": "new", **body})
        assert answer.status_code == 201, answer.text
        id_: str = answer.json()["id"]
        return id_

    def post(self, store: str, path: str, body: object = None) -> Any:
        return self.server.admin.post(f"/collections/{store}/reembeddings{path}", json=body or {})

    def moved(self, store: str, one: str, path: str, body: object = None) -> Json:
        answer = self.post(store, f"/{one}/{path}", body)
        assert answer.status_code == 200, answer.text
        made: Json = answer.json()
        return made

    def now(self, store: str, one: str) -> Json:
        answer = self.server.admin.get(f"/collections/{store}/reembeddings/{one}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def until(self, store: str, one: str, wanted: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + 50
        while not wanted(found := self.now(store, one)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def reach(self, store: str, one: str, state: str) -> Json:
        found = self.until(store, one, lambda seen: seen["state"] == state or seen["state"] in GIVEN_UP)
        assert found["state"] == state, found
        return found


def _in(database: str | None) -> dict[str, str]:
    return {} if database is None else {"PENSTOCK_DATABASE_URL": database}


def _deployment(name: str, script: ScriptHandle) -> Json:
    return {"id": f"{name}-1", "base_url": script.base_url, "model": "m", "api_key": "sk-up", "price": PRICE}


@pytest.fixture(scope="module")
def site(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(upstream, tmp_path_factory.mktemp("reembedding"))
    yield made
    made.stop()


def search(client: openai.OpenAI, store: str, query: str) -> tuple[int, str, list[str]]:
    """By meaning alone: the version and the model that answered, and the files, best first."""
    weights = {"hybrid_search": {"embedding_weight": 1, "text_weight": 0}}
    page = client.vector_stores.search(
        store,
        query=query,
        ranking_options=weights,  # type: ignore[arg-type]
        extra_body={"explain": True},
    )
    embedding = (page.model_extra or {})["explain"]["embedding"]
    return embedding["version"], embedding["model"], [each.file_id for each in page.data]


def spoken(client: openai.OpenAI, store: str, query: str) -> list[str]:
    """The files of what is found by words alone."""
    weights = {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
    page = client.vector_stores.search(store, query=query, ranking_options=weights)  # type: ignore[arg-type]
    return [each.file_id for each in page.data]


def passages_of(site: Site, file_ids: Sequence[str]) -> list[int]:
    """How many each has, as is said of it and as there are where it is read."""
    engine = connect(site.database)
    there = select(func.count()).where(
        passages.c.document_id == documents.c.id, passages.c.edition == collections.c.edition
    )
    query = select(documents.c.source_id, documents.c.passages, there.scalar_subquery())
    with engine.connect() as tx:
        rows = tx.execute(query.join(collections).where(documents.c.source_id.in_(file_ids))).all()
    engine.dispose()
    assert all(said == number for _, said, number in rows)
    found = {id_: number for id_, number, _ in rows}
    return [found[id_] for id_ in file_ids]


def test_a_store_is_moved_to_another_model_and_back(site: Site) -> None:
    """Gate, canary by key, swap and rollback over REST; the one who was named pays for the vectors, who asks for its questions."""
    (payer, _), (_, mine), (friend_id, friend) = site.key(), *_team(site)
    client, other = site.sdk(mine), site.sdk(friend)
    store = client.vector_stores.create(name="moved").id
    files = {text: site.add(client, store, text) for text in ("alpha gate", "beta gate", "gamma gate")}
    gate = {"queries": [{"query": text, "relevant": [id_]} for text, id_ in files.items()], "max_loss": 0.01, "k": 1}
    one = site.begin(store, key_id=payer, gate=gate, dimensions=24, canary={"keys": [friend_id]})
    assert site.post(store, "", {"embedding_model": "new"}).json()["error"]["code"] == "reembedding_under_way"
    ready = site.reach(store, one, "canary")
    assert ready["progress"] == {"passages": 3, "embedded": 3, "documents": None, "cut": None}
    assert (ready["gate"]["verdict"], ready["gate"]["before"], ready["gate"]["after"]) == (
        "passed",
        {"recall@1": 1.0, "ndcg@10": 1.0},
        {"recall@1": 1.0, "ndcg@10": 1.0},
    )
    assert search(client, store, "beta gate") == (1, "old", [files["beta gate"], *_others(files, client, store)])
    assert search(other, store, "beta gate")[:2] == (2, "new")
    files["delta gate"] = site.add(client, store, "delta gate")
    assert search(other, store, "delta gate")[2][0] == files["delta gate"]
    assert site.moved(store, one, "promote")["state"] == "swapped"
    shown = site.server.admin.get(f"/collections/{store}").json()
    assert (shown["embedding_model"], shown["embedding_version"], shown["dimensions"]) == ("new", 2, 24)
    for text, id_ in files.items():
        version, model, found = search(client, store, text)
        assert (version, model, found[0], len(found)) == (2, "new", id_, 4)
    back = site.moved(store, one, "rollback", {"reason": "users said so"})
    assert (back["state"], back["reason"], back["reading"]) == ("rolled_back", "users said so", 1)
    assert search(client, store, "delta gate")[0] == 1
    assert search(client, store, "delta gate")[2][0] == files["delta gate"]
    spent = _spent(site, payer)
    assert set(spent) == {"new", "old"}, "the vectors, and the gate's questions to both"
    actions = {each["action"] for each in site.server.admin.get("/audit?limit=200").json()["data"]}
    assert {"reembedding.begin", "reembedding.promote", "reembedding.rollback"} <= actions


def test_a_store_is_cut_anew_and_back(site: Site) -> None:
    """Over REST, with the model that it has: who reads which passages, and what is told of a file that is kept as it is."""
    ((_, mine), (friend_id, friend)) = _team(site)
    client, other = site.sdk(mine), site.sdk(friend)
    store = client.vector_stores.create(name="cut").id
    words = " ".join(f"word{number}" for number in range(300))
    here, gone = site.add(client, store, f"omega {words}"), site.add(client, store, f"sigma {words}")
    for path in site.server.data.rglob(f"*{gone}*"):
        path.unlink()
    one = site.begin(store, embedding_model="old", chunking_strategy=WIDER, canary={"keys": [friend_id]})
    ready = site.reach(store, one, "canary")
    assert ready["progress"] == {"passages": 13, "embedded": 13, "documents": 2, "cut": 2}, "eight and five"
    assert ready["kept"] == [{"file_id": gone, "reason": "The content of the file is gone from the server's folder"}]
    assert (ready["before"]["edition"], ready["after"]["edition"]) == (1, 2)
    assert (ready["before"]["chunking_strategy"], ready["after"]["chunking_strategy"]) == (None, WIDER)
    assert [site.add(client, store, f"tau {words}")] == spoken(client, store, "tau") == spoken(other, store, "tau")
    for mover, by, longer in (
        (None, other, True),
        (None, client, False),
        ("promote", client, True),
        ("rollback", client, False),
    ):
        if mover is not None:
            site.moved(store, one, mover)
        for query, file_id in (("omega", here), ("sigma", gone)):
            (found,) = [each for each in _texts(by, store, query) if query in each]
            assert (len(found.split()) > 60) is (longer and file_id == here), (mover, query)
        if mover == "promote":
            shown = site.server.admin.get(f"/collections/{store}").json()
            assert (shown["chunking_strategy"], shown["passages"]) == (WIDER, 18)
            file = client.vector_stores.files.retrieve(gone, vector_store_id=store)
            assert file.chunking_strategy is not None
            assert file.chunking_strategy.to_dict() == CHUNKS
    assert site.server.admin.get(f"/collections/{store}").json()["chunking_strategy"] is None


def _texts(client: openai.OpenAI, store: str, query: str) -> list[str]:
    """What is found by words."""
    weights = {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
    page = client.vector_stores.search(store, query=query, ranking_options=weights)  # type: ignore[arg-type]
    return [part.text for each in page.data for part in each.content]


def _team(site: Site) -> tuple[tuple[str, str], tuple[str, str]]:
    org = site.server.admin.post("/orgs", json={"name": f"org {time.monotonic_ns()}"}).json()["id"]
    team = site.server.admin.post("/teams", json={"name": "team", "org_id": org}).json()["id"]
    return site.key(team_id=team), site.key(team_id=team)


def _others(files: Json, client: openai.OpenAI, store: str) -> list[str]:
    return [id_ for id_ in search(client, store, "beta gate")[2] if id_ != files["beta gate"]]


def _spent(site: Site, key_id: str) -> list[str]:
    """The models that the key paid for, once the ledger has been shipped."""
    deadline = time.monotonic() + 30
    while True:
        rows = site.server.admin.get("/requests", params={"key_id": key_id, "limit": 100}).json()["data"]
        found = [row["model"] for row in rows]
        if {"new", "old"} <= set(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_model_that_fails_leaves_the_store_as_it_was(site: Site) -> None:
    """Told with what the model said; once it is well again, somebody goes on, and nobody embeds twice."""
    _, secret = site.key()
    client = site.sdk(secret)
    store = client.vector_stores.create(name="failing").id
    file_id = site.add(client, store, "epsilon gate")
    site.new.becomes(Behaviour(status=500, error_message="the disk of vectors is full"))
    one = site.begin(store, max_attempts=2)
    failed = site.until(store, one, lambda seen: seen["state"] == "failed")
    assert "the disk of vectors is full" in failed["reason"]
    assert search(client, store, "epsilon gate") == (1, "old", [file_id])
    site.new.becomes(Behaviour())
    site.moved(store, one, "resume")
    site.reach(store, one, "ready")
    assert site.moved(store, one, "cancel")["state"] == "cancelled"
    assert site.post(store, f"/{one}/promote").status_code == 409


def test_the_command_line_does_the_same(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Start with questions, watch, swap, go back; a refusal is a line and a status."""
    _, secret = site.key()
    client = site.sdk(secret)
    store = client.vector_stores.create(name="by hand").id
    file_id = site.add(client, store, "zeta gate")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"query": "zeta gate", "relevant": [file_id]}))
    reach = ["by hand", "--url", site.server.url, "--key", ADMIN_KEY]

    def told(action: str, *options: str) -> str:
        status = main(["reembed", action, *reach, *options])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    assert "gate passed" in told("start", "--model", "new", "--questions", str(questions), "--wait")
    assert "version 1 is read" in told("status")
    assert "canary: 0% of keys, 1 by name" in told("canary", "--keys", "key_x")
    assert "version 2 is read" in told("promote")
    assert json.loads(told("rollback", "--reason", "no", "--json"))["reason"] == "no"
    assert main(["reembed", "promote", *reach]) == 1
    assert "rolled back" in capsys.readouterr().err
    assert "1 of 1 documents, 1 of 1 passages" in told("start", "--chunking", "headings", "--children", "--wait")
    assert "cancelled: 1 of 1 passages" in told("cancel", "--reason", "no") or "cancelled" in told("status")


def test_what_is_asked_for_wrongly_is_told(site: Site) -> None:
    """By the field, before anything is paid for."""
    (own, secret) = site.key()
    narrow, _ = site.key(models=["old"])
    client = site.sdk(secret)
    store = client.vector_stores.create(name="wrong").id
    for body, status, code, param in (
        ({"embedding_model": "none"}, 404, "model_not_found", "embedding_model"),
        ({"key_id": "key_none"}, 400, None, "key_id"),
        ({"key_id": narrow, "embedding_model": "new"}, 403, "model_access_denied", "embedding_model"),
        ({"gate": {"queries": []}}, 400, None, "gate.queries"),
        ({"gate": {"queries": [{"query": "x", "relevant": ["file-none"]}]}, "key_id": own}, 400, None, None),
        ({"canary": {"share": 2}}, 400, None, "canary.share"),
        ({"engine": "qdrant"}, 400, None, "engine"),
        ({"model": "new"}, 400, "unknown_parameter", "model"),
        ({"chunking_strategy": {"type": "static"}}, 400, None, "chunking_strategy"),
        ({"chunking_strategy": {"type": "none"}}, 400, None, "chunking_strategy.type"),
        ({"chunking_strategy": _static(50)}, 400, None, "chunking_strategy.static.max_chunk_size_tokens"),
        (
            {"chunking_strategy": {"type": "auto", "context": {"model": "none"}}},
            400,
            None,
            "chunking_strategy.context.model",
        ),
        ({"chunking_strategy": {"type": "auto", "context": {}}}, 400, None, "chunking_strategy.context.model"),
        ({"chunking_strategy": {**_static(200), "children": {"max_chunk_size_tokens": 200}}}, 400, None, CHILDREN),
    ):
        answer = site.post(store, "", {"embedding_model": "new", **body} if "model" not in body else body)
        assert answer.status_code == status, (body, answer.text)
        error = answer.json()["error"]
        assert code is None or error["code"] == code, (body, error)
        assert param is None or error["param"] == param, (body, error)
    assert site.post("vs_none", "", {"embedding_model": "new"}).status_code == 404
    assert site.server.admin.get(f"/collections/{store}/reembeddings").json()["data"] == []


def torment(site: Site, kills: int, seed: int, **body: object) -> None:
    """Kills in every state, while files come and go: what was acknowledged is found once in whatever version is read."""
    chance = random.Random(seed)
    _, secret = site.key()
    client = site.sdk(secret)
    store = client.vector_stores.create(name="tormented").id
    words = " ".join(f"word{number}" for number in range(2000))
    kept = [site.add(client, store, f"{name} {words}") for name in ("first", "second", "third")]
    before = passages_of(site, kept)
    one = site.begin(store, promote="auto", keep_s=3600, **body)
    for number in range(kills):
        time.sleep(chance.random() * 0.4)
        site.server.kill()
        site.server.start(with_key=False)
        site.server.await_key(secret, known=True)
        client = site.sdk(secret)
        kept.append(site.add(client, store, f"more{number} gate"))
    site.until(store, one, lambda seen: seen["state"] == "swapped" and not seen["behind"])
    for move, version in ((None, 2), ("rollback", 1)):
        if move is not None:
            site.moved(store, one, move)
            site.server.kill()
            site.server.start(with_key=False)
            site.server.await_key(secret, known=True)
            client = site.sdk(secret)
        for number in range(kills):
            read, _, found = search(client, store, f"more{number} gate")
            assert (read, found[0]) == (version, kept[3 + number])
            assert spoken(client, store, f"more{number}") == [kept[3 + number]]
        if "chunking_strategy" in body:
            now = passages_of(site, kept[:3])
            assert now == before if version == 1 else all(new < old for new, old in zip(now, before, strict=True))
    _require_tidy(site, store, one)
    assert {each.id for each in client.vector_stores.files.list(store, limit=100)} == set(kept)


def _require_tidy(site: Site, store: str, one: str) -> None:
    """Every passage once, each with its vector of the version that is read, and nothing of the other one is left."""
    engine = connect(site.database)
    mine = passages.c.collection_id == store
    deadline = time.monotonic() + 40
    while True:
        with engine.connect() as tx:
            left = tx.execute(select(func.count()).select_from(passage_embeddings)).scalar_one()
            left += tx.execute(select(func.count()).select_from(document_cuts)).scalar_one()
            left += tx.execute(select(func.count()).where(passages.c.edition != FIRST)).scalar_one()
            over = tx.execute(select(reembeddings.c.collected).where(reembeddings.c.id == one)).scalar_one()
        if over and not left:
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    with engine.connect() as tx:
        rows = tx.execute(select(passages.c.document_id, passages.c.ordinal).where(mine)).all()
        bodies = passages.join(passage_bodies, passage_bodies.c.passage_id == passages.c.id)
        bare = select(func.count()).select_from(bodies).where(mine, passage_bodies.c.vector == b"")
        assert tx.execute(bare).scalar_one() == 0
    engine.dispose()
    assert len(set(rows)) == len(rows) > 60
    assert {path.name for path in (site.server.data / "retrieval" / store).glob("words*.db")} <= {"words.db"}


def test_kills_lose_nothing(upstream: Upstream, tmp_path: Path) -> None:
    site = Site(upstream, tmp_path)
    site.new.becomes(Behaviour(headers_after_s=0.1))
    try:
        torment(site, 1, seed=1)
    finally:
        site.stop()


def test_kills_lose_nothing_of_either_cut(upstream: Upstream, tmp_path: Path, database_url: str) -> None:
    """While documents are cut anew, and after the swap, which goes back."""
    site = Site(upstream, tmp_path, database_url)
    site.new.becomes(Behaviour(headers_after_s=0.1))
    try:
        torment(site, 2, seed=2, chunking_strategy=WIDER)
    finally:
        site.stop()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_kills_lose_nothing(upstream: Upstream, tmp_path: Path) -> None:
    site = Site(upstream, tmp_path)
    site.new.becomes(Behaviour(headers_after_s=0.1))
    try:
        for seed in range(20):
            torment(site, 5, seed, **({"chunking_strategy": WIDER} if seed % 2 else {}))
    finally:
        site.stop()
