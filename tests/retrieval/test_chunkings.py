"""How files are cut, as clients ask for it: by the `openai` SDK against the real process, with the embedding model that is built in."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

SUBJECTS = {
    "Boilers": "The boiler is lit at dawn, and its pressure is read from a brass gauge. ",
    "Orchards": "An orchard of apples wants pruning in winter, before the sap begins to rise. ",
    "Violins": "A violin is tuned in fifths, and its bow is rubbed with rosin. ",
}
HANDBOOK = "# Handbook\n\n" + "\n\n".join(f"## {name}\n\n{text * 12}" for name, text in SUBJECTS.items())
CODE = "import os\n\n\n" + "\n\n\n".join(
    f"def {name}(value):\n"
    + "".join(f"    value = value + {n} * len(os.sep)\n" for n in range(40))
    + "    return value"
    for name in ("first", "second", "third")
)

Added = Callable[..., Any]
Searched = Callable[..., Json]


@pytest.fixture(scope="module")
def server(documents_server: Server) -> Server:
    return documents_server


@pytest.fixture(scope="module")
def routes(server: Server, upstream: Upstream) -> Routes:
    return Routes(server, upstream)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=server.new_key(), base_url=server.base_url, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def store(client: openai.OpenAI) -> str:
    return client.vector_stores.create(name="cut").id


@pytest.fixture
def add(client: openai.OpenAI, store: str) -> Added:
    def added(text: str, name: str = "a.md", *, file_id: str | None = None, **strategy: object) -> Any:
        """Once it is read, or is known not to be readable."""
        id_ = file_id or client.files.create(file=(name, text.encode()), purpose="assistants").id
        return client.vector_stores.files.create_and_poll(
            id_,
            vector_store_id=store,
            chunking_strategy=strategy,  # type: ignore[arg-type]
            poll_interval_ms=50,
        )

    return added


@pytest.fixture
def search(server: Server, client: openai.OpenAI, store: str) -> Searched:
    def searched(query: str, **fields: object) -> Json:
        bearer = {"authorization": f"Bearer {client.api_key}"}
        answer = server.http.post(f"/v1/vector_stores/{store}/search", headers=bearer, json={"query": query, **fields})
        assert answer.status_code == 200, answer.text
        page: Json = answer.json()
        return page

    return searched


def texts(page: Json) -> list[str]:
    return [each["content"][0]["text"] for each in page["data"]]


def test_headings_are_where_a_file_is_cut(add: Added, search: Searched) -> None:
    file = add(HANDBOOK, type="headings")
    assert file.chunking_strategy.to_dict() == {
        "type": "headings",
        "headings": {"max_chunk_size_tokens": 224, "chunk_overlap_tokens": 0},
    }, "as large as the model reads"
    found = texts(search("What is rubbed with rosin?"))
    assert found[0].startswith("## Violins")
    assert all(sum(f"## {name}" in text for name in SUBJECTS) <= 1 for text in found)


def test_a_function_is_a_passage_of_code(add: Added, search: Searched) -> None:
    add(CODE, "a.py", type="code", code={"max_chunk_size_tokens": 900})
    found = texts(search("def second"))
    names = ("first", "second", "third")
    assert sorted(next(name for name in names if f"def {name}(" in text) for text in found) == sorted(names)
    assert all(sum(f"def {name}(" in text for name in names) == 1 for text in found)


def test_sentences_stay_whole(add: Added, search: Searched) -> None:
    add("".join(SUBJECTS.values()) * 8, type="sentences", sentences={"max_chunk_size_tokens": 100})
    found = texts(search("violin"))
    assert len(found) > 2
    assert all(text[0] in "TA" and text.endswith(".") for text in found)


def test_a_new_subject_begins_a_passage(add: Added, search: Searched) -> None:
    """By the model that embeds the store."""
    add(" ".join(text * 8 for text in SUBJECTS.values()), type="semantic")
    found = texts(search("violin"))
    words = ("boiler", "orchard", "violin")
    others = [sorted(text.count(word) for word in words)[:-1] for text in found]
    assert all(sum(counts) <= 1 for counts in others), "a sentence is read with those around it"


@pytest.mark.parametrize("base", ["auto", "headings"])
def test_children_are_searched_and_their_passages_are_shown(add: Added, search: Searched, base: str) -> None:
    """Each of them once, and as many as are wanted: a store of five children of one passage has other passages as well."""
    kinds: dict[str, object] = {"auto": {}, "headings": {"headings": {"max_chunk_size_tokens": 400}}}
    file = add(HANDBOOK, type=base, children={"max_chunk_size_tokens": 40}, **kinds[base])  # type: ignore[arg-type]
    assert file.chunking_strategy.to_dict()["children"] == {"max_chunk_size_tokens": 40}
    page = search("a violin is tuned in fifths", max_num_results=3, ranking_options={"score_threshold": 0.0})
    shown = texts(page)
    assert len(shown) == len(set(shown)) == (3 if base == "headings" else len(shown))
    for each in page["data"]:
        citation, matched = each["citation"], each["content"][0]["matched"]
        assert each["content"][0]["text"] == HANDBOOK[citation["start"] : citation["end"]]
        assert citation["start"] <= matched["start"] < matched["end"] <= citation["end"]
        assert HANDBOOK.count("\n", 0, citation["start"]) + 1 == citation["line"]
    best = page["data"][0]
    assert "violin" in HANDBOOK[best["content"][0]["matched"]["start"] : best["content"][0]["matched"]["end"]]
    assert len(shown[0]) > 400
    (one,) = search("a violin is tuned in fifths", max_num_results=1)["data"]
    assert one["content"] == best["content"]


def test_children_with_what_stands_behind_a_search(add: Added, search: Searched) -> None:
    """Highlights are of what is shown, neighbours of what was found; a group has each passage once."""
    add(HANDBOOK, type="headings", headings={"max_chunk_size_tokens": 400}, children={"max_chunk_size_tokens": 40})
    (best, *_) = search("rosin", highlight=True, neighbors={"before": 1, "after": 1})["data"]
    content = best["content"][0]
    spans = [content["text"][each["start"] : each["end"]] for each in content["highlights"]]
    assert spans == ["rosin"] * 12
    assert content["matched"]["start"] >= content["context"]["start"]
    (group,) = search("violin boiler orchard", group={"size": 3})["data"]
    assert len({each["text"] for each in group["content"]}) == len(group["content"]) == 3


@pytest.fixture
def teller(routes: Routes) -> Route:
    return routes(Behaviour(text="This is about the zeppelin hangar at Friedrichshafen."))


def test_a_model_says_where_a_passage_stands(add: Added, search: Searched, server: Server, teller: Route) -> None:
    """It is found by that, shown without it, and asked once for each passage, however often the file is added."""
    text = SUBJECTS["Boilers"] * 3
    file = add(text, type="auto", context={"model": teller.name})
    assert file.status == "completed", file.last_error
    assert file.chunking_strategy.to_dict()["context"] == {"model": teller.name}
    (one,) = search("zeppelin Friedrichshafen", ranking_options={"score_threshold": 0.2})["data"]
    assert one["content"][0]["text"] == text.strip()
    assert teller.asked == [1]
    (entry,) = teller.places[0].handle.entries()
    system, user = json.loads(entry.body)["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert text in system["content"], "the same for all passages: a provider's cache of prompts holds it"
    assert f"<passage>\n{text.strip()}\n</passage>" in user["content"]
    add("", file_id=file.id, type="auto", context={"model": teller.name})
    assert teller.asked == [1]
    add("", file_id=file.id, type="auto")
    assert search("zeppelin Friedrichshafen", ranking_options={"score_threshold": 0.2})["data"] == []
    assert teller.asked == [1]
    rows = _records(server, teller)
    assert rows, "the key pays for it"


def _records(server: Server, route: Route) -> list[Json]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        rows: list[Json] = server.admin.get("/requests", params={"model": route.name}).json()["data"]
        if rows:
            return rows
        time.sleep(0.1)
    return []


def test_a_file_whose_context_cannot_be_had_fails_and_says_why(add: Added, routes: Routes) -> None:
    broken = routes(Behaviour(status=400, error_message="no such thing"))
    file = add("A boiler.", type="auto", context={"model": broken.name})
    assert file.status == "failed"
    assert file.last_error is not None
    assert "no such thing" in file.last_error.message


@pytest.mark.parametrize(
    ("strategy", "param", "message"),
    [
        ({"type": "lines"}, "chunking_strategy.type", "semantic"),
        ({"type": "static"}, "chunking_strategy", "`static`"),
        ({"type": "auto", "headings": {"max_chunk_size_tokens": 200}}, "chunking_strategy", "`headings` belongs"),
        (
            {"type": "headings", "headings": {"max_chunk_size_tokens": 99}},
            "chunking_strategy.headings.max_chunk_size_tokens",
            "4096",
        ),
        (
            {"type": "code", "code": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 101}},
            "chunking_strategy.code.chunk_overlap_tokens",
            "half",
        ),
        (
            {"type": "auto", "children": {"max_chunk_size_tokens": 800}},
            "chunking_strategy.children.max_chunk_size_tokens",
            "799",
        ),
        ({"type": "auto", "children": {"size": 1}}, "chunking_strategy.children.size", "not permitted"),
        ({"type": "auto", "context": {"model": "nobody"}}, "chunking_strategy.context.model", "nobody"),
        ({"type": "auto", "context": {}}, "chunking_strategy.context.model", "name one"),
    ],
)
def test_what_cannot_be_done_is_told(
    client: openai.OpenAI, store: str, strategy: Json, param: str, message: str
) -> None:
    file = client.files.create(file=("a.txt", b"A boiler."), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match=message) as told:
        client.vector_stores.files.create(store, file_id=file.id, chunking_strategy=strategy)  # type: ignore[arg-type]
    assert told.value.param == param
    assert not client.vector_stores.files.list(store).data


def test_a_key_that_may_not_use_the_model_is_told(server: Server, teller: Route) -> None:
    key = server.new_key(models=["text-embedding-minilm"])
    with httpx.Client(base_url=server.base_url, headers={"authorization": f"Bearer {key}"}) as other:
        made = other.post("/vector_stores", json={"name": "mine"}).json()
        file = other.post("/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"A boiler.")}).json()
        strategy = {"type": "auto", "context": {"model": teller.name}}
        body = {"file_id": file["id"], "chunking_strategy": strategy}
        answer = other.post(f"/vector_stores/{made['id']}/files", json=body)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["param"] == "chunking_strategy.context.model"
