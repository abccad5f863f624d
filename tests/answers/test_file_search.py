"""`file_search` in `/v1/responses`: the unmodified SDK, a model that calls, a search here, citations in what it says."""

import time
from typing import Any

import openai
import pytest

from tests.answers.conftest import PRICE, Grounded, heard, searching
from tests.upstream.behaviour import Behaviour, ToolCall

KINDS = pytest.mark.parametrize("native", [False, True], ids=["chat", "native"])
SAYS = Behaviour(text="It closes in four seconds 【1】. That is quick.", prompt_tokens=20, completion_tokens=3)
ASK = searching("How fast does the gate close?")


def tool(*stores: str, **fields: Any) -> Any:
    return {"type": "file_search", "vector_store_ids": list(stores), **fields}


@KINDS
def test_a_search_is_made_here_and_what_is_said_of_it_is_cited(
    grounded: Grounded, client: openai.OpenAI, store: str, native: bool
) -> None:
    """Two turns and a search are one response, in OpenAI's shapes."""
    model, handle = grounded.model(ASK, SAYS, native=native)
    response = client.responses.create(model=model, input="How fast?", tools=[tool(store)])
    call, message = response.output
    assert call.type == "file_search_call"
    assert (call.status, call.queries, call.results) == ("completed", ["How fast does the gate close?"], None)
    assert call.id.startswith("fs_")
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text"
    assert part.text == "It closes in four seconds. That is quick."
    note = part.annotations[0]
    assert note.type == "file_citation"
    assert (note.filename, part.text[: note.index]) == ("gates.md", "It closes in four seconds")
    assert client.files.retrieve(note.file_id).filename == "gates.md"
    assert set(note.to_dict()) == {"type", "index", "file_id", "filename"}
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (30, 8)
    told = heard(handle, 1)["input"][-1]["output"] if native else heard(handle, 1)["messages"][-1]["content"]
    assert "closes in four seconds when the power fails" in told
    assert client.responses.retrieve(response.id).output == response.output
    found = client.responses.retrieve(response.id, include=["file_search_call.results"]).output[0]
    assert found.type == "file_search_call"
    assert found.results


def test_what_was_found_is_shown_to_whoever_asks_for_it(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """With scores, texts and attributes; as many as were asked for."""
    model, _ = grounded.model(ASK, SAYS)
    tools = [tool(store, max_num_results=2)]
    response = client.responses.create(model=model, input="?", tools=tools, include=["file_search_call.results"])
    call = response.output[0]
    assert call.type == "file_search_call"
    assert call.results is not None
    assert [one.filename for one in call.results][:1] == ["gates.md"]
    assert len(call.results) == 2
    best = call.results[0]
    assert best.text is not None
    assert "four seconds" in best.text
    assert best.attributes == {"topic": "water", "year": 2024}
    assert best.score is not None
    assert 0 < best.score <= 1


@KINDS
def test_a_stream_tells_of_the_search_and_of_each_citation(
    grounded: Grounded, client: openai.OpenAI, store: str, native: bool
) -> None:
    """The three events of a search, no mark in any piece of the text, and numbers without a gap."""
    says = Behaviour(text="It closes in four seconds 【1】. That is quick 【99】 [1].", chunks=11)
    model, _ = grounded.model(ASK, says, native=native)
    with client.responses.stream(model=model, input="How fast?", tools=[tool(store)]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    wanted = ["response.created", "response.in_progress", "response.output_item.added"]
    wanted += ["response.file_search_call.in_progress", "response.file_search_call.searching"]
    wanted += ["response.file_search_call.completed", "response.output_item.done", "response.output_item.added"]
    assert kinds[: len(wanted)] == wanted
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")] == list(range(len(kinds)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "It closes in four seconds. That is quick 【99】 [1]."
    assert text == final.output_text
    assert all(event.text == text for event in events if event.type == "response.output_text.done")
    added: list[Any] = [event for event in events if event.type == "response.output_text.annotation.added"]
    message = final.output[1]
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text"
    assert [_plain(event.annotation) for event in added] == [one.to_dict() for one in part.annotations]
    assert [event.annotation_index for event in added] == [0, 1]
    cited = [text[: one.index] for one in part.annotations if one.type == "file_citation"]
    assert cited == ["It closes in four seconds", "It closes in four seconds. That is quick 【99】 "]


def test_the_next_request_remembers_what_was_found(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """By its id, with the tool and without it; the passages stay at hand, and can be cited."""
    model, handle = grounded.model(ASK, SAYS, Behaviour(text="Four 【1】"), Behaviour(text="still four"))
    first = client.responses.create(model=model, input="How fast?", tools=[tool(store)])
    second = client.responses.create(model=model, input="again?", previous_response_id=first.id, tools=[tool(store)])
    assert second.output_text == "Four"
    message: Any = second.output[0]
    assert message.content[0].annotations[0].filename == "gates.md"
    third = client.responses.create(model=model, input="sure?", previous_response_id=first.id)
    assert third.output_text == "still four"
    for number in (2, 3):
        roles = [one["role"] for one in heard(handle, number)["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant", "user"]
        assert "four seconds" in heard(handle, number)["messages"][2]["content"]


def test_several_stores_are_searched_and_filters_hold(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    other = grounded.store(client, {"cats.txt": "Cats close the gate with their paws in nine seconds."}, "cats")
    model, _ = grounded.model(ASK, SAYS)
    shown: Any = {"include": ["file_search_call.results"], "model": model, "input": "?"}
    both: Any = client.responses.create(**shown, tools=[tool(store, other)]).output[0]
    assert {"gates.md", "cats.txt"} <= {one.filename for one in both.results}
    filters = {
        "type": "and",
        "filters": [{"type": "eq", "key": "topic", "value": "water"}, {"type": "lt", "key": "year", "value": 2022}],
    }
    model, _ = grounded.model(ASK, SAYS)
    shown["model"] = model
    few: Any = client.responses.create(**shown, tools=[tool(store, filters=filters)]).output[0]
    assert [one.filename for one in few.results] == ["turbines.txt"]


@pytest.mark.parametrize(
    ("changes", "param", "status"),
    [
        ({"vector_store_ids": ["vs_nothere"]}, "tools[0].vector_store_ids", 404),
        ({"vector_store_ids": []}, "tools[0].vector_store_ids", 400),
        ({"max_num_results": 51}, "tools[0].max_num_results", 400),
        ({"filters": {"type": "like", "key": "a", "value": "b"}}, "tools[0].filters.type", 400),
        ({"ranking_options": {"score_threshold": 2}}, "tools[0].ranking_options.score_threshold", 400),
        ({"ranking_options": {"ranker": "nobody"}}, "tools[0].ranking_options.ranker", 400),
        ({"ranking_options": {"ranker": ""}}, "tools[0].ranking_options.ranker", 400),
        ({"max_results": 3}, "tools[0]", 400),
    ],
)
def test_a_mistake_is_named_before_anything_is_asked(
    grounded: Grounded, client: openai.OpenAI, store: str, changes: Any, param: str, status: int
) -> None:
    model, handle = grounded.model(SAYS)
    tools: Any = [{**tool(store), **changes}]
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(model=model, input="?", tools=tools)
    assert (caught.value.status_code, caught.value.param) == (status, param)
    assert not handle.entries()


def test_a_store_of_somebody_else_is_not_there(grounded: Grounded, store: str) -> None:
    """Whatever the filter says; nor is a document whose label the key does not hold."""
    model, handle = grounded.model(ASK, SAYS)
    with grounded.client() as stranger:
        for filters in (None, {"type": "eq", "key": "key_id", "value": "admin"}):
            with pytest.raises(openai.NotFoundError, match=store):
                stranger.responses.create(
                    model=model, input="?", tools=[tool(store, **({"filters": filters} if filters else {}))]
                )
    assert not handle.entries()


def test_access_labels_hold_inside_an_answer(grounded: Grounded) -> None:
    """Two keys of one team search one store: each finds what its labels let it."""
    org = grounded.server.admin.post("/orgs", json={"name": "works"}).json()["id"]
    team = grounded.server.admin.post("/teams", json={"name": "works", "org_id": org}).json()["id"]
    metadata = {"access_labels": ["secret"]}
    with grounded.client(team_id=team, metadata=metadata) as boss, grounded.client(team_id=team) as worker:
        id_ = grounded.store(boss, {"pay.txt": "The boss earns nine thousand."}, "pay", access_labels=["secret"])
        for one, count in ((boss, 1), (worker, 0)):
            model, handle = grounded.model(searching("earns?"), SAYS)
            made: Any = one.responses.create(
                model=model, input="?", tools=[tool(id_)], include=["file_search_call.results"]
            )
            assert len(made.output[0].results) == count
            assert ("nine thousand" in heard(handle, 1)["messages"][-1]["content"]) is bool(count)


def test_a_store_that_is_deleted_between_rounds_is_the_models_to_hear(grounded: Grounded) -> None:
    """The response goes on: one search failed, and the model says what it makes of that."""
    with grounded.client() as mine:
        id_ = grounded.store(mine, {"a.txt": "Alpha is the first letter."}, "gone")
        held = Behaviour(text="", tool_calls=(ToolCall("file_search", '{"queries": ["alpha"]}'),), held_after=-1)
        model, handle = grounded.model(ASK, held, SAYS)
        made = mine.responses.create(model=model, input="?", tools=[tool(id_)], background=True)
        handle.wait(lambda entries: len(entries) == 2)
        mine.vector_stores.delete(id_)
        handle.let_go()
        final = _ended(mine, made.id)
    assert final.status == "completed"
    assert [(one.type, one.status) for one in final.output] == [
        ("file_search_call", "completed"),
        ("file_search_call", "failed"),
        ("message", "completed"),
    ]
    assert id_ in heard(handle, 2)["messages"][-1]["content"]


def test_a_model_that_searches_for_ever_is_told_to_speak(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """By the number of turns, and by the client's own bound."""
    model, handle = grounded.model(ASK)
    response = client.responses.create(model=model, input="?", tools=[tool(store)])
    assert response.status == "completed"
    assert len(handle.entries()) < 20
    assert heard(handle, -1)["tool_choice"] == "none"
    model, handle = grounded.model(ASK, ASK, SAYS)
    response = client.responses.create(model=model, input="?", tools=[tool(store)], max_tool_calls=1)
    assert heard(handle, 1)["tool_choice"] == "none"


def test_arguments_that_are_none_are_the_models_to_mend(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    bad = Behaviour(text="", tool_calls=(ToolCall("file_search", '{"queries": 7}'),))
    single = Behaviour(text="", tool_calls=(ToolCall("file_search", '{"query": "gate"}'),))
    model, handle = grounded.model(bad, single, SAYS)
    response = client.responses.create(model=model, input="?", tools=[tool(store)])
    assert [getattr(one, "status", "") for one in response.output] == ["failed", "completed", "completed"]
    assert heard(handle, 1)["messages"][-1]["content"].startswith("Error: Give the queries as")


def test_functions_of_the_client_stand_beside_it(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """One of the same name too; and a choice of the tool is a choice of the function."""
    own: Any = {"type": "function", "name": "file_search", "parameters": {"type": "object", "properties": {}}}
    called = Behaviour(
        text="", tool_calls=(ToolCall("file_search_2", '{"queries": ["gate"]}'), ToolCall("file_search", "{}"))
    )
    model, handle = grounded.model(called)
    choice: Any = {"type": "file_search"}
    response = client.responses.create(model=model, input="?", tools=[own, tool(store)], tool_choice=choice)
    assert [one.type for one in response.output] == ["file_search_call", "function_call"]
    assert heard(handle, 0)["tool_choice"] == {"type": "function", "function": {"name": "file_search_2"}}


def test_one_answer_has_one_bill(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """Both turns and the vectors of the question are booked on the key, under the tag of the request."""
    model, _ = grounded.model(ASK, SAYS)
    raw = client.responses.with_raw_response.create(
        model=model, input="?", tools=[tool(store)], extra_headers={"x-penstock-tags": "the-bill"}
    )
    cost = (30 * PRICE["input"] + 8 * PRICE["output"]) / 1e6
    assert float(raw.headers["x-penstock-cost-usd"]) == pytest.approx(cost)
    deadline = time.monotonic() + 20
    while (row := grounded.spend("the-bill"))["requests"] < 3:
        assert time.monotonic() < deadline, row
        time.sleep(0.05)
    assert row["requests"] == 3
    assert row["cost_usd"] == pytest.approx(cost)


def test_a_client_that_leaves_stops_it(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """In the second round: the upstream's call ends, and what came is kept as what it is."""
    slow = Behaviour(text="It closes in four seconds 【1】. And so on and on.", chunks=10, held_after=3)
    model, handle = grounded.model(ASK, slow)
    stream = client.responses.create(model=model, input="?", tools=[tool(store)], stream=True)
    id_ = ""
    for event in stream:
        if event.type == "response.created":
            id_ = event.response.id
        if event.type == "response.output_text.delta":
            break
    stream.close()
    handle.wait(lambda entries: len(entries) == 2 and entries[1].ended_at is not None)
    assert _ended(client, id_).status == "cancelled"


def test_text_is_left_alone_where_nothing_was_found(grounded: Grounded, client: openai.OpenAI, store: str) -> None:
    """A number in brackets is no citation of a passage that is not there."""
    model, _ = grounded.model(Behaviour(text="a[1] 【1】"))
    response: Any = client.responses.create(model=model, input="?", tools=[tool(store)])
    assert response.output_text == "a[1] 【1】"
    assert response.output[0].content[0].annotations == []


@pytest.mark.parametrize("streamed", [False, True])
def test_the_model_that_quotes_searches_as_well(
    grounded: Grounded, client: openai.OpenAI, store: str, streamed: bool
) -> None:
    """Where there is no other model at all, the tool works all the same, with citations of the right passages."""
    name = f"quoting{streamed}"
    grounded.create({"name": name, "deployments": [{"id": name, "provider": "quotes", "model": "quotes"}]})
    asked: Any = {"model": name, "input": "How fast does the penstock gate close?", "tools": [tool(store)]}
    response: Any
    if streamed:
        with client.responses.stream(**asked) as stream:
            response = stream.until_done().get_final_response()
    else:
        response = client.responses.create(**asked)
    call, message = response.output
    assert (call.type, call.status, call.queries) == ("file_search_call", "completed", [asked["input"]])
    part = message.content[0]
    assert part.text.startswith("“The penstock gate closes in four seconds when the power fails.” [")
    assert [one.filename for one in part.annotations] == ["gates.md"]
    assert part.text[part.annotations[0].index] == "["


def _plain(annotation: Any) -> Any:
    return annotation if isinstance(annotation, dict) else annotation.to_dict()


def _ended(client: openai.OpenAI, id_: str) -> Any:
    deadline = time.monotonic() + 30
    while True:
        try:
            found = client.responses.retrieve(id_)
        except openai.NotFoundError:
            found = None
        if found is not None and found.status not in {"queued", "in_progress"}:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
