"""The quoting model: what it quotes, what it says when nothing supports an answer, and where its quotations stand."""

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from retrieval.chunking.tokens import Estimate
from retrieval.quotes import conversation
from retrieval.quotes.chat import NO_DOCUMENTS, NO_QUESTION, NOTHING_FOUND, QuotingModel, Unsupported
from retrieval.quotes.passage import Passage
from retrieval.quotes.quoting import quote
from retrieval.quotes.words import content_words, stem

MANUAL = """# Gates

A penstock is the gate that regulates the flow into a turbine. It is made of steel.

The north gate closes in four seconds. The south gate closes in nine seconds and was installed in 1987.

# Staff

The plant manager is Ada Lovelace. Lunch is served at noon in the hall.
"""
QUESTIONS = [
    ("What regulates the flow into a turbine?", "A penstock is the gate that regulates the flow into a turbine."),
    ("How fast does the north gate close?", "The north gate closes in four seconds."),
    ("When was the south gate installed?", "The south gate closes in nine seconds and was installed in 1987."),
    ("Who is the plant manager?", "The plant manager is Ada Lovelace."),
    ("When is lunch served?", "Lunch is served at noon in the hall."),
]
UNANSWERED = [
    "How tall is the Eiffel tower?",
    "Which programming language has a borrow checker?",
    "What is the salary of the night watchman?",
    "How do I reset my password?",
]

Json = dict[str, Any]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


async def ask(*messages: Json, **fields: object) -> Json:
    body = json.dumps({"model": "penstock/quotes", "messages": messages, **fields}).encode()
    answer: Json = json.loads(await QuotingModel().answer(body, "penstock/quotes"))
    return answer


def content(answer: Json) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize(("question", "expected"), QUESTIONS)
async def test_the_sentence_that_answers_is_quoted_first(question: str, expected: str) -> None:
    """With its number, its source and its exact place in the document."""
    answer = await ask(user(question), documents=[{"title": "manual.md", "text": MANUAL}])
    assert content(answer).startswith(f"“{expected}” [1]")
    assert "\n\n[1] manual.md" in content(answer)
    first = answer["choices"][0]["message"]["citations"][0]
    assert MANUAL[first["start"] : first["end"]] == first["quote"] == expected
    assert first["source"] == "manual.md"
    assert 0.6 <= first["support"] <= 1


@pytest.mark.parametrize("question", UNANSWERED)
async def test_what_nothing_supports_is_not_answered(question: str) -> None:
    """An honest no, without a citation."""
    answer = await ask(user(question), documents=[MANUAL])
    assert content(answer) == NOTHING_FOUND
    assert answer["choices"][0]["message"]["citations"] == []


ASKED = "Who is the plant manager?"
CHAIN = f"Use the following pieces of context to answer.\n\nContext:\n{MANUAL}\n\nQuestion: {ASKED}\nHelpful Answer:"
TAGGED = f"You are a helpful assistant. Answer from the context.\n\n<context>\n{MANUAL}\n</context>"
LABELLED = f"Answer only from this.\n\nDocuments:\n{MANUAL}"


def system(text: str) -> Json:
    return {"role": "system", "content": text}


def model(text: str) -> Json:
    return {"role": "assistant", "content": text}


def parts(*texts: str) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([user(CHAIN)], id="langchain"),
        pytest.param([user(f"{MANUAL}\n\n{ASKED}")], id="question last"),
        pytest.param([user(f"{ASKED}\n\n{MANUAL}")], id="question first"),
        pytest.param([user(f"The plant manager is Ada Lovelace. {ASKED}")], id="one line"),
        pytest.param([user(f"<document title='manual.md'>\n{MANUAL}</document>\n{ASKED}")], id="tags"),
        pytest.param([system(TAGGED), user(ASKED)], id="system tags"),
        pytest.param([system(LABELLED), user(ASKED)], id="system label"),
        pytest.param([user(MANUAL), model("The plant manager is Bob."), user(ASKED)], id="earlier message"),
        pytest.param([user(ASKED), model(""), {"role": "tool", "content": MANUAL}], id="tool result"),
        pytest.param([user("ignored"), parts(MANUAL, ASKED)], id="parts"),
    ],
)
async def test_documents_are_found_wherever_clients_put_them(messages: list[Json]) -> None:
    """Prompts of frameworks, tags, tool results, parts; a model's own words are no source."""
    assert content(await ask(*messages)).startswith("“The plant manager is Ada Lovelace.” [1]")


def test_anchors_are_those_of_the_message() -> None:
    """What is cut out of a message keeps its place in it."""
    for text in (f"Some words? \n\n{MANUAL}" * 2, f"{MANUAL}\n\nWhat is it?", f"<doc>{MANUAL}</doc> What?"):
        asked = conversation.read([user(text)])
        for passage in asked.passages:
            place = passage.text.index("A penstock")
            assert text[passage.start + place :].startswith("A penstock is the gate")


async def test_instructions_are_not_quoted() -> None:
    """A system prompt is no document."""
    answer = await ask(
        {"role": "system", "content": "You are a plant manager named Bob."}, user("Who is the plant manager?")
    )
    assert content(answer) == NO_DOCUMENTS


async def test_without_documents_it_says_what_it_needs() -> None:
    """Not an invention, and a way out."""
    assert content(await ask(user("Who is the plant manager?"))) == NO_DOCUMENTS
    assert content(await ask({"role": "system", "content": MANUAL})) == NO_QUESTION


async def test_a_stream_says_what_the_whole_answer_says() -> None:
    """Events as OpenAI's: a role, pieces of content, a finish with the citations, the usage that was asked for."""
    fields: Json = {"documents": [MANUAL]}
    whole = await ask(user("Who is the plant manager?"), **fields)
    body = {
        "messages": [user("Who is the plant manager?")],
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    events = (await QuotingModel().answer(json.dumps(body).encode(), "m")).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == content(whole)
    assert deltas[-1]["citations"] == whole["choices"][0]["message"]["citations"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == whole["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_limit_of_tokens_is_kept_and_said() -> None:
    """`finish_reason` is `length` where the answer was cut."""
    answer = await ask(user("Who is the plant manager?"), documents=[MANUAL], max_tokens=4)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2), ("response_format", {"type": "json_object"}), ("logprobs", True), ("tool_choice", "required"),
        ("messages", "text"), ("messages", [1]),
    ],
)  # fmt: skip
async def test_what_it_cannot_do_is_refused_by_name(field: str, value: object) -> None:
    """Silence would be taken for support."""
    body = {"messages": [user("x")], field: value}
    with pytest.raises(Unsupported) as caught:
        await QuotingModel().answer(json.dumps(body).encode(), "m")
    assert caught.value.param == field


ODD: list[Json] = [{}, {"role": "user"}, user(""), {"role": "user", "content": 5}]
ODD += [{"role": "user", "content": [None, 3, {"type": "image_url"}]}]


@pytest.mark.parametrize("message", ODD)
async def test_odd_messages_do_no_harm(message: Json) -> None:
    """What the gateway lets through is at least no error here."""
    assert content(await ask(message, documents=[3, {}, {"data": {"snippet": 4}}])) in {NO_QUESTION, NO_DOCUMENTS}


async def test_an_attached_collection_is_asked_and_cited() -> None:
    """Its passages carry pages and headings; the answer names them."""

    async def search(question: str) -> Sequence[Passage]:
        assert question == "Who is the plant manager?"
        return [Passage(MANUAL, "manual.pdf", start=100, page=7, heading=("Plant", "Staff"), id="p1", document_id="d1")]

    body = json.dumps({"messages": [user("Who is the plant manager?")]}).encode()
    answer = json.loads(await QuotingModel(search=search).answer(body, "m"))
    assert content(answer).endswith("[1] manual.pdf, page 7, Plant > Staff")
    citation = answer["choices"][0]["message"]["citations"][0]
    assert (citation["passage_id"], citation["document_id"], citation["page"]) == ("p1", "d1", 7)
    assert citation["start"] == 100 + MANUAL.index("The plant manager")


async def test_meaning_can_support_what_words_do_not() -> None:
    """Cosines decide among sentences that share a word with the question, and can be away."""
    passages = [Passage("The boss of the plant is Ada. The plant is green and stands in the garden.", "a")]

    async def similar(question: str, texts: Sequence[str]) -> Sequence[float]:
        assert question == "Who manages the plant?"
        return [0.9 if "boss" in text else 0.1 for text in texts]

    async def nothing(*_: object) -> None:
        return None

    answer = await quote("Who manages the plant?", passages, similar)
    assert [each.text for each in answer.quotations] == ["The boss of the plant is Ada."]
    assert (await quote("Who manages the plant?", passages, nothing)).considered == 2


ENDINGS = [("gates", "gate"), ("closes", "clos"), ("close", "clos"), ("stopped", "stop"), ("stopping", "stop")]
ENDINGS += [("batteries", "battery"), ("class", "class"), ("is", "is")]


@pytest.mark.parametrize(("word", "expected"), ENDINGS)
def test_words_are_compared_without_endings(word: str, expected: str) -> None:
    """Question and answer lose the same ones."""
    assert stem(word) == expected


def test_ideographs_are_compared_in_pairs() -> None:
    """Scripts without blanks have words, too."""
    assert content_words("水門を開く") == ["水門", "門を", "を開", "開く"]


async def test_half_a_character_is_refused() -> None:
    """JSON can write it, and no text can hold it."""
    with pytest.raises(Unsupported, match="not valid JSON"):
        await QuotingModel().answer(b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "m")


async def test_what_was_read_is_counted_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of it take most of a second, in which other calls go on."""
    counted: list[threading.Thread] = []
    ends = Estimate.ends

    def watched(self: Estimate, text: str) -> Sequence[int]:
        counted.append(threading.current_thread())
        return ends(self, text)

    monkeypatch.setattr(Estimate, "ends", watched)
    await ask(user("How fast does the north gate close?"), documents=[MANUAL])
    assert counted
    assert threading.current_thread() not in counted


SEARCH: Json = {
    "type": "function",
    "function": {"name": "file_search", "parameters": {"type": "object", "properties": {"queries": {"type": "array"}}}},
}
OTHER: Json = {"type": "function", "function": {"name": "file_search", "parameters": {"properties": {"path": {}}}}}


@pytest.mark.parametrize(
    "choice", [None, "auto", "required", {"type": "function", "function": {"name": "file_search"}}]
)
async def test_a_question_is_looked_up_where_there_is_something_to_search_with(choice: object) -> None:
    """As any model that calls tools would, whole and streamed."""
    fields = {} if choice is None else {"tool_choice": choice}
    answer = await ask(user("How fast does the gate close?"), tools=[SEARCH], **fields)
    (first,) = answer["choices"]
    (call,) = first["message"]["tool_calls"]
    assert (first["finish_reason"], first["message"]["content"]) == ("tool_calls", None)
    assert call["function"]["name"] == "file_search"
    assert json.loads(call["function"]["arguments"]) == {"queries": ["How fast does the gate close?"]}
    body = {"messages": [user("How fast does the gate close?")], "tools": [SEARCH], "stream": True, **fields}
    events = (await QuotingModel().answer(json.dumps(body).encode(), "m")).decode().split("\n\n")
    deltas = [json.loads(one[6:])["choices"][0] for one in events if one.startswith("data: {")]
    assert deltas[1]["delta"]["tool_calls"][0]["function"] == call["function"]
    assert deltas[-1]["finish_reason"] == "tool_calls"


async def test_what_a_search_found_is_quoted_under_its_numbers() -> None:
    """Two quotations of one passage have one number; the next question is looked up again."""
    found = (
        '<passage title="lunch.md" id="1">\nLunch is served at noon.\n</passage>\n'
        '<passage title="gates.md" id="4">\nThe north gate closes in four seconds. The south gate closes in nine seconds.\n</passage>'
    )
    asked = user("In how many seconds does the gate close?")
    told: list[Json] = [asked, {"role": "assistant", "content": None}, {"role": "tool", "content": found}]
    answer = await ask(*told, tools=[SEARCH])
    assert (
        content(answer)
        == "“The north gate closes in four seconds.” [4]\n\n“The south gate closes in nine seconds.” [4]"
    )
    assert [one["index"] for one in answer["choices"][0]["message"]["citations"]] == [4, 4]
    again = await ask(*told, {"role": "assistant", "content": "4 s"}, user("And lunch?"), tools=[SEARCH])
    assert again["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("fields", [{"tools": [OTHER]}, {"tools": [SEARCH], "tool_choice": "none"}, {"tools": [3, {}]}])
async def test_a_function_that_is_no_search_is_not_called(fields: Json) -> None:
    """What a client's own functions want is not known here."""
    answer = await ask(user(f"<document>{MANUAL}</document> When is lunch served?"), **fields)
    assert content(answer).startswith("“Lunch is served at noon in the hall.” [1]")


@pytest.mark.parametrize(("numbers", "mark"), [(("2", "2"), 1), (("2", "x"), 3), (("x", "y"), 1), (("9", "4"), 4)])
async def test_passages_without_numbers_of_their_own_are_counted(numbers: tuple[str, str], mark: int) -> None:
    """Behind those that have some. Two documents under one number would leave a reader guessing."""
    first, second = (f'<document index="{number}">{{}}</document>' for number in numbers)
    shown = first.format("Lunch is served at noon.") + second.format("The gate closes in four seconds.")
    said = content(await ask(user(f"{shown} In how many seconds does the gate close?")))
    assert said.startswith(f"“The gate closes in four seconds.” [{mark}]")
