"""`penstock eval` against a running server: what it prints, what it demands, and the answers of models."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from admin.cli import main
from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

TEXTS = {
    "gate.md": "The gate of the dam opens slowly.",
    "river.md": "A river flows to the sea and takes sand along.",
    "bread.md": "Sourdough rises with wild yeast.",
}
QUESTIONS = [
    {"query": "how does the gate open?", "relevant": ["gate.md"]},
    {"query": "where does sand go?", "relevant": [{"id": "river.md", "grade": 2}]},
    {"query": "what makes dough rise?", "relevant": ["bread.md"]},
]

Evaluate = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def key(documents_server: Server) -> str:
    """With a collection `eval`."""
    secret = documents_server.new_key()
    bearer = {"authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=documents_server.base_url, headers=bearer, timeout=60, trust_env=False) as client:
        ids = [
            client.post("/files", files={"file": (name, text)}, data={"purpose": "assistants"}).json()["id"]
            for name, text in TEXTS.items()
        ]
        made = client.post("/vector_stores", json={"name": "eval", "file_ids": ids}).json()
        deadline = time.monotonic() + 50
        while client.get(f"/vector_stores/{made['id']}").json()["status"] != "completed":
            assert time.monotonic() < deadline, "the collection was not read"
            time.sleep(0.05)
    return secret


@pytest.fixture(scope="module")
def routes(documents_server: Server, upstream: Upstream) -> Routes:
    return Routes(documents_server, upstream)


@pytest.fixture
def evaluate(
    documents_server: Server,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Evaluate:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(each) for each in QUESTIONS))

    def run(*arguments: str, questions: Path = file) -> tuple[int, str]:
        where = ["--collection", "eval", "--url", documents_server.url, "--key", key]
        status = main(["eval", str(questions), *where, *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_searches_stand_side_by_side(evaluate: Evaluate) -> None:
    status, said = evaluate("--run", "hybrid", "--run", "bm25", "--run", 'few={"max_num_results": 1}')
    assert status == 0
    assert "| search | recall@5 | recall@10 | mrr@10 | ndcg@10 |" in said
    assert "| hybrid | 1.000 (1.000 to 1.000) |" in said
    assert "3 questions" in said
    assert said.count("p95 ") == 3


def test_numbers_for_machines_and_a_gate(evaluate: Evaluate) -> None:
    """The exit status says whether what was demanded holds."""
    status, said = evaluate("--json", "--measures", "ndcg@3,mrr@3", "--require", "ndcg@3=0.9", "--no-worse")
    report = json.loads(said)
    assert (status, report["passed"], report["questions"]) == (0, True, 3)
    (run,) = report["runs"]
    assert run["means"]["ndcg@3"]["value"] == 1.0
    assert 0 < run["latency_ms"]["p50"] <= run["latency_ms"]["p95"]
    none = '{"filters": {"type": "exists", "key": "nothing"}}'
    status, said = evaluate("--run", "hybrid", "--run", f"none={none}", "--require", "recall@5=0.5")
    assert status == 1
    assert "FAILED  none: recall@5 0.0000 >= 0.5" in said


def test_a_reranker_s_absence_is_counted(evaluate: Evaluate, routes: Routes) -> None:
    broken: Route = routes(Behaviour(status=500), deployment={"price": {"per_search_unit": 0}}, retries={"attempts": 0})
    status, said = evaluate("--run", f"rerank:{broken.name}")
    assert status == 0
    assert "rerank was left out 3 times" in said


@pytest.mark.parametrize(
    ("answer", "cited", "supported"),
    [("The gate of the dam opens slowly [1].", 1.0, 1 / 3), ("The moon is made of cheese.", 0.0, 0.0)],
)
def test_sentences_of_a_model_are_held_against_what_they_cite(
    evaluate: Evaluate, routes: Routes, answer: str, cited: float, supported: float
) -> None:
    """It says the same to every question, and for one of them the first passage says it too."""
    model, judge = routes(Behaviour(text=answer)), routes(Behaviour(text="Yes."))
    models = ["--answers", model.name, "--judge", judge.name, "--require-supported", "0.9"]
    status, said = evaluate("--json", *models)
    report: dict[str, Any] = json.loads(said)["answers"]
    assert (report["answers"], report["claims"], report["silent"]) == (3, 3, 0)
    assert report["cited"]["value"] == cited
    assert report["supported"]["value"] == pytest.approx(supported)
    assert (report["judged"] is not None) == bool(cited)
    assert status == 1


def test_what_is_quoted_word_by_word_is_supported(evaluate: Evaluate, documents_server: Server) -> None:
    """Quotations are held against the passages that they are of, by the numbers under which those were shown."""
    made = {"name": "quoter", "deployments": [{"id": "quoter", "provider": "quotes", "model": "quotes"}]}
    assert documents_server.admin.post("/models", json=made).status_code == 201
    status, said = evaluate("--json", "--answers", "quoter", "--require-supported", "1")
    report: dict[str, Any] = json.loads(said)["answers"]
    assert (status, report["supported"]["value"], report["claims"] > 0) == (0, 1.0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "fancy"], "there are hybrid, bm25"),
        (["--run", "mine={"], "not valid JSON"),
        (["--run", "mine=[]"], "a JSON object"),
        (["--run", "hybrid", "--run", "hybrid"], "the same name"),
        (["--run", 'mine={"colour": 1}'], "colour"),
        (["--measures", "precision@5"], "precision@5"),
        (["--measures", "recall@100"], "at most 50"),
        (["--require", "recall@5"], "a measure and a number"),
        (["--require", "recall@7=1"], "measured are"),
        (["--collection", "nowhere"], "no collection 'nowhere'"),
        (["--answers", "nobody"], "nobody"),
    ],
)
def test_a_mistake_is_one_line(evaluate: Evaluate, arguments: list[str], message: str) -> None:
    status, said = evaluate(*arguments)
    assert status == 1
    assert message in said
    assert said.startswith("penstock: ")


def test_a_broken_file_is_named_with_its_line(evaluate: Evaluate, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"query": "a", "relevant": ["x"]}\n{"query": "a"}')
    status, said = evaluate(questions=broken)
    assert status == 1
    assert f"{broken}: line 2: " in said
