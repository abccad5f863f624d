"""Grounded chats: models with a collection attached, and `file_search` in a chat, with the unmodified SDK."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import CitationCharLocation

from tests.answers.conftest import PRICE, TEXTS, Grounded, heard
from tests.fixtures.server import ADMIN_KEY, Server, refused_port
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

SAYS = Behaviour(text="It closes in four seconds [1], they say [7].", prompt_tokens=20, completion_tokens=3)
QUESTION: list[Any] = [{"role": "user", "content": "How fast does the penstock gate close when the power fails?"}]


@pytest.fixture(scope="module")
def attached(grounded: Grounded) -> Iterator[str]:
    """A collection of the admin's, which models have attached by its name."""
    with openai.OpenAI(api_key=ADMIN_KEY, base_url=grounded.server.base_url, max_retries=0, timeout=50) as admin:
        yield grounded.store(admin, TEXTS, "handbook")


def tool(*stores: str, **fields: Any) -> Any:
    return {"type": "file_search", "vector_store_ids": list(stores), **fields}


def notes(message: Any) -> list[Any]:
    found: list[Any] = [one if isinstance(one, dict) else one.to_dict() for one in message.annotations or ()]
    return found


def test_a_model_with_a_collection_answers_from_it_and_cites(
    grounded: Grounded, client: openai.OpenAI, attached: str
) -> None:
    """The client asks a plain question: passages stand before it, and the answer says what it rests on."""
    model, handle = grounded.model(SAYS, retrieval={"collections": ["handbook"], "max_results": 2})
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "system", "content": "Be kind."}, *QUESTION]
    )
    message = answer.choices[0].message
    assert message.content == SAYS.text
    (note,) = notes(message)
    assert (note["type"], note["filename"]) == ("url_citation", "gates.md")
    link, text = note["url_citation"], str(message.content)
    assert (link["title"], text[link["start_index"] : link["end_index"]]) == ("gates.md", "[1]")
    assert link["url"] == f"/v1/vector_stores/{attached}/files/{note['file_id']}/content"
    assert str(message.content)[note["index"] :].startswith("[1]")
    assert note["citation"]["vector_store_id"] == attached
    assert note["citation"]["heading"] == ["Gates"]
    system, user = heard(handle, 0)["messages"]
    assert system["content"].startswith("Be kind.\n\nAnswer from the numbered passages")
    assert user["content"].count("<passage ") == 2
    assert user["content"].endswith(QUESTION[0]["content"])


@pytest.mark.parametrize("model", ["scripted", "quotes"])
def test_a_client_that_checks_every_field_reads_a_cited_answer(
    grounded: Grounded, client: openai.OpenAI, model: str
) -> None:
    """In chats OpenAI knows citations of links alone. A document with an address of its own is cited by that."""
    name = "strictly-quoted"
    if model == "quotes":
        grounded.create({"name": name, "deployments": [{"id": name, "provider": "quotes", "model": "quotes"}]})
    else:
        name, _ = grounded.model(SAYS)
    store = client.vector_stores.create(name="linked")
    file = client.files.create(file=("gates.md", TEXTS["gates.md"].encode()), purpose="assistants")
    address: dict[str, Any] = {"url": "https://plant.example/gates"}
    client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, attributes=address)
    strict = openai.OpenAI(
        api_key=client.api_key, base_url=grounded.server.base_url, max_retries=0, _strict_response_validation=True
    )
    with strict:
        answer = strict.chat.completions.create(model=name, messages=QUESTION, tools=[tool(store.id)])
    (note,) = answer.choices[0].message.annotations or []
    assert note.url_citation.url == address["url"]
    text = answer.choices[0].message.content or ""
    assert text[note.url_citation.start_index : note.url_citation.end_index] == "[1]"


@pytest.mark.parametrize("streamed", [False, True])
def test_anthropics_messages_have_its_citations(
    grounded: Grounded, client: openai.OpenAI, attached: str, streamed: bool
) -> None:
    """Its own shape, on the block that rests on them, each passage once; whole and as deltas before the block ends."""
    says = Behaviour(text="It closes in four seconds [1]. In four [1].", chunks=9)
    model, _ = grounded.model(says, retrieval={"collections": [attached]})
    with anthropic.Anthropic(
        base_url=grounded.server.url, api_key=client.api_key, max_retries=0, _strict_response_validation=True
    ) as other:
        asked: Any = {"model": model, "max_tokens": 99, "messages": QUESTION}
        if streamed:
            with other.messages.stream(**asked) as stream:
                kinds = [event.type for event in stream]
                answer = stream.get_final_message()
            assert kinds.count("citation") == 1
        else:
            answer = other.messages.create(**asked)
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == says.text
    (cited,) = block.citations or []
    assert isinstance(cited, CitationCharLocation)
    assert (cited.document_title, cited.cited_text) == ("gates.md", TEXTS["gates.md"])
    assert str(cited.file_id).startswith("file-")
    assert (cited.start_char_index, cited.end_char_index) == (0, len(TEXTS["gates.md"]))


def test_a_stream_cites_as_it_goes(grounded: Grounded, client: openai.OpenAI, attached: str) -> None:
    """Annotations come as deltas, before the end, and the text is untouched."""
    model, _ = grounded.model(SAYS, retrieval={"collections": [attached]})
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == SAYS.text
    cited = [note for delta in deltas for note in (delta.model_extra or {}).get("annotations", [])]
    assert [note["filename"] for note in cited] == ["gates.md"]
    assert chunks[-1].usage is not None
    finish = [at for at, chunk in enumerate(chunks) if chunk.choices and chunk.choices[0].finish_reason]
    noted = [at for at, chunk in enumerate(chunks) if chunk.choices and (chunk.choices[0].delta.model_extra or {})]
    assert noted[0] < finish[0]


@pytest.mark.usefixtures("attached")
def test_responses_and_messages_are_grounded_too(grounded: Grounded, client: openai.OpenAI) -> None:
    """In the words of each API."""
    model, handle = grounded.model(SAYS, retrieval={"collections": ["handbook"]})
    made: Any = client.responses.create(model=model, input=QUESTION[0]["content"], instructions="Be kind.")
    assert [one.filename for one in made.output[0].content[0].annotations] == ["gates.md"]
    with client.responses.stream(model=model, input=QUESTION[0]["content"]) as stream:
        kinds = [event.type for event in stream]
    assert "response.output_text.annotation.added" in kinds
    with anthropic.Anthropic(base_url=grounded.server.url, api_key=client.api_key, max_retries=0, timeout=50) as other:
        said = other.messages.create(model=model, max_tokens=50, messages=QUESTION)
    assert said.content[0].type == "text"
    for number in range(3):
        asked = heard(handle, number)["messages"]
        assert "closes in four seconds when the power fails" in str(asked[-1]["content"])
        assert "Answer from the numbered passages" in str(asked[0]["content"])


@pytest.mark.usefixtures("attached")
def test_a_deployment_that_speaks_responses_is_cited_there(grounded: Grounded, client: openai.OpenAI) -> None:
    """Whole and streamed, in its own events."""
    model, _ = grounded.model(SAYS, native=True, retrieval={"collections": ["handbook"]})
    whole: Any = client.responses.create(model=model, input=QUESTION[0]["content"])
    with client.responses.stream(model=model, input=QUESTION[0]["content"]) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_response()
    for made in (whole, final):
        assert [one.filename for one in made.output[0].content[0].annotations] == ["gates.md"]
    assert kinds.count("response.output_text.annotation.added") == 1


@pytest.mark.usefixtures("attached")
def test_a_short_question_is_looked_up_with_the_one_before(grounded: Grounded, client: openai.OpenAI) -> None:
    model, handle = grounded.model(SAYS, retrieval={"collections": ["handbook"], "max_results": 1})
    talk: list[Any] = [
        {"role": "user", "content": "Tell me about sourdough bread"},
        {"role": "assistant", "content": "It rises."},
        {"role": "user", "content": [{"type": "text", "text": "And how long?"}]},
    ]
    client.chat.completions.create(model=model, messages=talk)
    said = heard(handle, 0)["messages"][-1]["content"]
    assert "takes a day to ferment" in said[0]["text"]
    assert said[1]["text"] == "And how long?"


def test_a_question_is_looked_up_as_it_means_in_its_conversation(grounded: Grounded, opened: ExitStack) -> None:
    """A model makes it stand alone, on the same bill; where that fails, and for a first question, it is searched for as it stands."""
    client = opened.enter_context(grounded.client())
    store = grounded.store(client, {name: TEXTS[name] for name in ("gates.md", "bread.md")}, "rewritten")
    asked = "sourdough bread wild yeast"
    writer, writing = grounded.model(Behaviour(text=asked))
    attached = {"collections": [store], "max_results": 1, "rewrite_query": True, "rewrite_model": writer}
    model, handle = grounded.model(SAYS, retrieval=attached)
    narrow = opened.enter_context(grounded.client(models=[model]))
    talk: Any = [
        {"role": "user", "content": "What rises in a day?"},
        {"role": "assistant", "content": "Sourdough does."},
        {"role": "user", "content": "And with what?"},
    ]
    tag = f"rewrite{time.monotonic_ns()}"
    narrow.chat.completions.create(model=model, messages=talk, extra_headers={"x-penstock-tags": tag})
    told = heard(writing, 0)["messages"][1]["content"]
    assert told == "user: What rises in a day?\n\nassistant: Sourdough does.\n\nuser: And with what?"
    assert "wild yeast" in heard(handle, 0)["messages"][-1]["content"]
    assert heard(handle, 0)["messages"][-1]["content"].endswith("And with what?")
    narrow.chat.completions.create(model=model, messages=talk[:1])
    assert len(writing.entries()) == 1
    writing.becomes(Behaviour(status=500))
    narrow.chat.completions.create(model=model, messages=talk)
    assert len(writing.entries()) == 2
    assert "<passage " in heard(handle, 2)["messages"][-1]["content"]
    deadline = time.monotonic() + 20
    while grounded.spend(tag)["requests"] < 3:  # the answer, the question made anew, its vector
        assert time.monotonic() < deadline, grounded.spend(tag)
        time.sleep(0.05)


def test_a_key_needs_the_model_and_nothing_else(grounded: Grounded, attached: str) -> None:
    """An admin has attached the collection: who may ask the model sees it, but for documents whose labels it does not hold."""
    model, handle = grounded.model(SAYS, retrieval={"collections": ["handbook"]})
    with openai.OpenAI(api_key=ADMIN_KEY, base_url=grounded.server.base_url, max_retries=0, timeout=50) as admin:
        file = admin.files.create(file=("pin.txt", b"The pin of the penstock gate is 4711."), purpose="assistants")
        admin.vector_stores.files.create_and_poll(
            file.id, vector_store_id=attached, extra_body={"access_labels": ["secret"]}
        )
    asked: list[Any] = [{"role": "user", "content": "What is the pin of the penstock gate?"}]
    with grounded.client(models=[model], routes=["/v1/chat/completions"]) as narrow:
        narrow.chat.completions.create(model=model, messages=asked)
        with pytest.raises(openai.PermissionDeniedError):
            narrow.embeddings.create(model="text-embedding-minilm", input="x")
    with grounded.client(models=[model], metadata={"access_labels": ["secret"]}) as holder:
        holder.chat.completions.create(model=model, messages=asked)
    said = [str(heard(handle, number)["messages"][-1]["content"]) for number in (0, 1)]
    assert ["four seconds" in one for one in said] == [True, True]
    assert ["4711" in one for one in said] == [False, True]


@pytest.mark.usefixtures("attached")
def test_a_name_means_the_admins_collection_and_nobody_elses(grounded: Grounded, client: openai.OpenAI) -> None:
    """Who calls a store of its own by the same name puts nothing into anybody's answers."""
    grounded.store(client, {"lie.txt": "The penstock gate closes in nine hours."}, "handbook")
    model, handle = grounded.model(SAYS, retrieval={"collections": ["handbook"]})
    client.chat.completions.create(model=model, messages=QUESTION)
    assert "nine hours" not in str(heard(handle, 0))


@pytest.mark.usefixtures("attached")
def test_where_every_model_is_down_the_answer_is_quoted(grounded: Grounded, client: openai.OpenAI) -> None:
    """Marked in the head and in the body, with citations of the same files; or not, if an admin does not want that."""
    with refused_port() as port:
        gone = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "x"}
        for name, last in (("down", True), ("down-for-good", False)):
            grounded.create(
                {
                    "name": name,
                    "deployments": [{"id": f"{name}-a", **gone}],
                    "retries": {"attempts": 0},
                    "retrieval": {"collections": ["handbook"], "last_resort": last},
                }
            )
        raw = client.chat.completions.with_raw_response.create(model="down", messages=QUESTION)
        answer = raw.parse()
        message = answer.choices[0].message
        assert "closes in four seconds when the power fails" in str(message.content)
        assert raw.headers["x-penstock-model"] == answer.model == "penstock/quotes"
        assert "x-penstock-fallback" in raw.headers
        mark = {"fallback": "penstock/quotes", "instead_of": "down"}
        assert (answer.model_extra or {})["penstock"] == mark
        whole = client.responses.create(model="down", input=QUESTION[0]["content"])
        *_, last_event = client.responses.create(model="down", input=QUESTION[0]["content"], stream=True)
        assert last_event.type == "response.completed"
        for one in (whole, last_event.response, client.responses.retrieve(whole.id)):
            assert (one.model_extra or {})["penstock"] == mark
        assert [note["filename"] for note in notes(message)][:1] == ["gates.md"]
        chunks = list(client.chat.completions.create(model="down", messages=QUESTION, stream=True))
        last_chunk = chunks[-1]
        assert (last_chunk.model_extra or {})["penstock"]["fallback"] == "penstock/quotes"
        cited = (last_chunk.choices[0].delta.model_extra or {})["annotations"]
        assert cited[0]["filename"] == "gates.md"
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="down-for-good", messages=QUESTION)
        assert caught.value.status_code in {502, 503}


def test_a_collection_that_is_not_there_is_nobodys_bad_request(grounded: Grounded, client: openai.OpenAI) -> None:
    model, handle = grounded.model(SAYS, retrieval={"collections": ["nowhere"]})
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=QUESTION)
    assert (caught.value.status_code, caught.value.code) == (503, "retrieval_unavailable")
    assert "nowhere" in caught.value.message
    assert not handle.entries()


def test_the_tool_searches_the_callers_own_stores(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """By id or by name; the model is asked once, without the tool, and other tools stay."""
    own: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    for named in (store, "docs"):
        model, handle = grounded.model(SAYS)
        answer = client.chat.completions.create(model=model, messages=QUESTION, tools=[own, tool(named)])
        assert notes(answer.choices[0].message)[0]["filename"] == "gates.md"
        assert [one["type"] for one in heard(handle, 0)["tools"]] == ["function"]
    model, handle = grounded.model(SAYS)
    client.chat.completions.create(model=model, messages=QUESTION, tools=[tool(store)], tool_choice="required")
    assert not {"tools", "tool_choice"} & set(heard(handle, 0))


def test_mistakes_in_the_tool_are_named(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """And a store of somebody else is not there."""
    model, handle = grounded.model(SAYS)

    def refused(one: openai.OpenAI, status: int, param: str, **fields: Any) -> None:
        tools: Any = [{**tool(store), **fields}]
        with pytest.raises(openai.APIStatusError) as caught:
            one.chat.completions.create(model=model, messages=QUESTION, tools=tools)
        assert (caught.value.status_code, caught.value.param) == (status, param)

    refused(client, 404, "tools[0].vector_store_ids", vector_store_ids=["vs_0"])
    refused(client, 400, "tools[0].filters.type", filters={"type": "?", "key": "a", "value": 1})
    refused(client, 400, "tools[0].max_num_results", max_num_results=0)
    with grounded.client() as stranger:
        refused(stranger, 404, "tools[0].vector_store_ids")
        refused(stranger, 404, "tools[0].vector_store_ids", vector_store_ids=["docs"])
    assert not handle.entries()


@pytest.mark.usefixtures("attached")
def test_one_answer_has_one_bill(grounded: Grounded, client: openai.OpenAI) -> None:
    """The answer and the vectors of the question, on the caller's key and under the tag of the request."""
    model, _ = grounded.model(SAYS, retrieval={"collections": ["handbook"]})
    client.chat.completions.create(model=model, messages=QUESTION, extra_headers={"x-penstock-tags": "grounded-bill"})
    deadline = time.monotonic() + 20
    while (row := grounded.spend("grounded-bill"))["requests"] < 2:
        assert time.monotonic() < deadline, row
        time.sleep(0.05)
    assert row["cost_usd"] == pytest.approx((20 * PRICE["input"] + 3 * PRICE["output"]) / 1e6)


def test_the_vectors_of_the_question_are_on_the_bill(
    grounded: Grounded, client: openai.OpenAI, upstream: Upstream
) -> None:
    """Where a model that embeds has a price, an answer costs that as well."""
    where = {"id": "priced-a", "base_url": upstream.base_url, "model": "m", "api_key": "x", "price": {"input": 500}}
    grounded.create({"name": "priced", "deployments": [where]})
    store = client.vector_stores.create(name="priced", extra_body={"embedding_model": "priced"})
    file = client.files.create(file=("a.txt", TEXTS["gates.md"].encode()), purpose="assistants")
    client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    model, _ = grounded.model(SAYS)
    tags = {"x-penstock-tags": "priced-bill"}
    client.chat.completions.create(model=model, messages=QUESTION, tools=[tool(store.id)], extra_headers=tags)
    deadline = time.monotonic() + 20
    while (row := grounded.spend("priced-bill"))["requests"] < 2:
        assert time.monotonic() < deadline, row
        time.sleep(0.05)
    assert row["cost_usd"] > (20 * PRICE["input"] + 3 * PRICE["output"]) / 1e6


def test_a_model_without_provider_answers_from_a_collection(
    grounded: Grounded, client: openai.OpenAI, attached: str
) -> None:
    """The model that quotes, with a collection attached, and without any passage in it."""
    quotes = {"id": "q", "provider": "quotes", "model": "quotes"}
    grounded.create({"name": "quoted", "deployments": [quotes], "retrieval": {"collections": ["handbook"]}})
    answer = client.chat.completions.create(model="quoted", messages=QUESTION)
    message = answer.choices[0].message
    assert "[1] gates.md, " in str(message.content)
    assert notes(message)[0]["filename"] == "gates.md"
    assert "penstock" not in (answer.model_extra or {})
    nothing: Any = {"type": "eq", "key": "topic", "value": "nothing"}
    empty = client.chat.completions.create(
        model="quoted",
        messages=QUESTION,
        tools=[tool(attached, filters=nothing)],
        extra_headers={"authorization": f"Bearer {ADMIN_KEY}"},
    )
    assert empty.choices[0].message.content == "Nothing in the documents supports an answer to this question."


@pytest.mark.usefixtures("attached")
def test_one_call_at_a_time_is_enough(grounded: Grounded) -> None:
    """The question is embedded before the model is asked, never beside it."""
    with grounded.client(limits={"parallel": 1}) as narrow:
        grounded.store(narrow, {"a.txt": TEXTS["gates.md"]}, "narrow")
        model, _ = grounded.model(SAYS)
        answer = narrow.chat.completions.create(model=model, messages=QUESTION, tools=[tool("narrow")])
        assert notes(answer.choices[0].message)


def test_a_shadow_is_asked_with_the_same_passages(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """And without the tool, which it would not know."""
    other, seen = grounded.model(SAYS)
    model, _ = grounded.model(SAYS, shadow={"model": other, "share": 1})
    client.chat.completions.create(model=model, messages=QUESTION, tools=[tool(store)])
    (entry,) = seen.wait(lambda entries: len(entries) == 1)
    assert b"four seconds when the power fails" in entry.body.encode()
    assert "tools" not in heard(seen, 0)


def test_an_attachment_is_set_changed_and_taken_back_over_rest(grounded: Grounded) -> None:
    model, _ = grounded.model(SAYS)
    admin = grounded.server.admin
    wanted = {"collections": ["handbook"], "max_results": 3}
    changed = admin.patch(f"/models/{model}", json={"retrieval": wanted})
    assert changed.status_code == 200, changed.text
    assert (
        admin.get(f"/models/{model}").json()["retrieval"] | wanted == admin.get(f"/models/{model}").json()["retrieval"]
    )
    assert admin.patch(f"/models/{model}", json={"retrieval": None}).json()["retrieval"] is None
    wrong = admin.patch(f"/models/{model}", json={"retrieval": {"collections": []}})
    assert wrong.status_code in {400, 422}


@pytest.mark.usefixtures("attached")
def test_a_body_that_is_none_is_refused_as_ever(grounded: Grounded) -> None:
    model, handle = grounded.model(SAYS, retrieval={"collections": ["handbook"]})
    key = grounded.server.new_key()
    bodies: list[Any] = [
        {"model": model, "messages": [{"role": "user", "content": None}]},
        {"model": model, "messages": [{"role": "assistant", "content": "x"}]},
        {"model": model, "messages": [{"role": "user", "content": 7}]},
        {"model": model, "messages": [{"role": "user", "content": [{"type": "text"}, 7]}]},
    ]
    for body in bodies:
        answer: httpx.Response = grounded.server.post("/v1/chat/completions", body, key=key)
        assert answer.status_code == 200, answer.text  # nothing to look up: the upstream decides
    assert len(handle.entries()) == len(bodies)


def test_documents_that_nobody_has_are_not_there_either(tmp_path: Path) -> None:
    """On a server without any, too: an answer that only looks as if it rested on documents is worse than none."""
    server = Server({"models": []}, tmp_path).start()
    body = server.ask("penstock/quotes", "<document>A penstock is a gate.</document> What is a penstock?")
    own = {"type": "function", "function": {"name": "file_search"}}
    for tools, status in (([own], 200), ([own, tool("docs")], 404), ([own], 200)):
        answer = server.post("/v1/chat/completions", {**body, "tools": tools})
        assert answer.status_code == status, answer.text
        if status == 404:
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("vector_store_not_found", "tools[1].vector_store_ids")
    server.stop()
