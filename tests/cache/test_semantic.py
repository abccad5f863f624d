"""The cache by meaning on a real server: what is answered again, and what is not, however near it is."""

import time

import pytest

from tests.cache.conftest import Asker, Askers, outcome
from tests.fixtures.deployments import said
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

BOTH: Json = {"exact": {"ttl_s": 600}, "semantic": {"recheck": 0}}


@pytest.fixture(params=["comparing", "comparing_redis"])
def askers(request: pytest.FixtureRequest) -> Askers:
    """Each kind of store."""
    made: Askers = request.getfixturevalue(request.param)
    return made


def outcomes(asker: Asker, *texts: str) -> list[str | None]:
    return [outcome(asker.chat(text)) for text in texts]


def test_the_same_question_in_other_words_is_answered_again(askers: Askers) -> None:
    """At no cost, in either form, and as what it is: the header says so, and the record that nobody was asked."""
    asker = askers(cache=BOTH)
    assert outcomes(asker, "How do I reset my password?") == ["miss"]
    again = asker.chat("how can I reset my password")
    assert (outcome(again), again.headers["x-penstock-cost-usd"]) == ("semantic", "0.000000000")
    assert said(again).endswith("|How do I reset my password?")
    streamed = asker.chat("Please, how can I reset my password?", stream=True)
    assert (outcome(streamed), said(streamed)) == ("semantic", said(again))
    assert outcomes(asker, "How do I reset my password?") == ["hit"]
    assert asker.asked == 1


def test_what_is_near_and_not_the_same_is_asked(comparing: Askers) -> None:
    """Another number, name, unit, language, a negation."""
    asker = comparing(cache=BOTH)
    texts = (
        "How much does shipping to Canada cost for a 5 kg package?",
        "How much does shipping to Canada cost for a 15 kg package?",
        "How much does shipping to Canada cost for a 5 lb package?",
        "How much does shipping to Mexico cost for a 5 kg package?",
        "How much does shipping from Canada cost for a 5 kg package?",
        "How much does shipping to Canada not cost for a 5 kg package?",
        "Combien coûte l'envoi d'un colis de 5 kg au Canada ?",
    )
    assert set(outcomes(asker, *texts)) == {"miss"}
    assert set(outcomes(asker, *texts)) == {"hit"}
    assert outcomes(asker, "What does shipping a 5 kg package to Canada cost?") == ["semantic"]


def test_everything_else_of_the_request_has_to_be_the_same(comparing: Askers) -> None:
    """Instructions, history, tools, format, parameters, key, end user and namespace: another one is a partition of its own."""
    asker = comparing(cache=BOTH)
    first, other = "What is the capital of France?", "what's the capital of France"
    system: Json = {"role": "system", "content": "Be brief."}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

    def ask(
        text: str, *before: Json, key: str | None = None, headers: Json | None = None, **fields: object
    ) -> str | None:
        messages = [*before, {"role": "user", "content": text}]
        return outcome(asker.post("/v1/chat/completions", {"messages": messages, **fields}, key=key, **(headers or {})))

    assert [ask(first), ask(other)] == ["miss", "semantic"]
    history: list[Json] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert [ask(other, system), ask(other, *history), ask(other, system, *history)] == ["miss"] * 3
    assert [
        ask(other, tools=[tool]),
        ask(other, temperature=0.2),
        ask(other, response_format={"type": "json_object"}),
    ] == ["miss"] * 3
    assert ask(other, user="ann") == "miss"
    assert ask(other, key=asker.server.new_key()) == "miss"
    assert ask(other, headers={"x_penstock_cache_namespace": "n"}) == "miss"
    assert ask("Tell me the capital of France.", system, *history) == "semantic"


def test_a_question_with_a_picture_is_no_question_of_words(comparing: Askers) -> None:
    """Only a user's text is compared; what stands beside it is not looked at, so it is asked."""
    asker = comparing(cache=BOTH)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

    def ask(text: str) -> str | None:
        content = [{"type": "text", "text": text}, picture]
        return outcome(asker.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}))

    assert [ask("What is in this?"), ask("What's in this?"), ask("What is in this?")] == ["miss", "miss", "hit"]


def test_messages_and_responses_have_a_meaning_as_well(comparing: Askers) -> None:
    """Each in its own partition, as its answers are in other words."""
    asker = comparing(cache=BOTH)
    for path, fields in (("/v1/messages", {"max_tokens": 9}), ("/v1/responses", {})):
        found: list[str | None] = []
        for text in ("Why is the sky blue?", "why is the sky blue, please?"):
            asked = {"input": text} if path == "/v1/responses" else {"messages": [{"role": "user", "content": text}]}
            found.append(outcome(asker.post(path, {**asked, **fields})))
        assert found == ["miss", "semantic"], path


def test_freshness_binds_what_was_found_by_meaning(comparing: Askers) -> None:
    """no-cache asks, max-age=0 asks; a model without a cache by meaning has none."""
    asker = comparing(cache=BOTH)
    outcomes(asker, "Who painted the Mona Lisa?")
    time.sleep(0.01)
    for control in ("no-cache", "max-age=0"):
        assert outcome(asker.chat("Please, who painted the Mona Lisa?", headers={"cache_control": control})) == "miss"
    plain = comparing()
    assert outcomes(plain, "Who painted the Mona Lisa?", "Please, who painted the Mona Lisa?") == ["miss", "miss"]


def judged(asker: Asker, *, wait_s: float = 30) -> dict[str, float]:
    """The model's verdicts, once there is one."""
    deadline = time.monotonic() + wait_s
    prefix = f'penstock_cache_judged_total{{model="{asker.model}",verdict="'
    while True:
        lines = asker.server.http.get("/metrics").text.splitlines()
        found = {
            line[len(prefix) :].split('"')[0]: float(line.split()[-1]) for line in lines if line.startswith(prefix)
        }
        if sum(found.values()):
            return found
        assert time.monotonic() < deadline, "no hit was judged"
        time.sleep(0.05)


@pytest.mark.parametrize(("fresh", "verdict"), [("It lies in Africa.", "right"), ("A cake with cream is 40.", "wrong")])
def test_some_hits_are_asked_again_and_judged(comparing: Askers, fresh: str, verdict: str) -> None:
    """In the background, at nobody's cost; what the answers say counts, not how they say it."""
    check: Json = {"exact": {}, "semantic": {"recheck": 1}}
    asker = comparing(Behaviour(text="It is located in Africa."), Behaviour(text=fresh), cache=check)
    assert outcomes(asker, "Where is Kenya?", "where's Kenya") == ["miss", "semantic"]
    assert judged(asker)[verdict] == 1
    copy = asker.handle.entries()[1]
    assert '"where\'s Kenya"' in copy.body
    assert asker.asked == 2


def test_a_model_can_be_the_judge(comparing: Askers) -> None:
    """It is asked whether both answers tell the same."""
    judge = comparing(Behaviour(text="NO"), cache=False)
    check: Json = {"exact": {}, "semantic": {"recheck": 1, "judge": judge.model}}
    asker = comparing(Behaviour(text="It is located in Africa."), Behaviour(text="It lies in Africa."), cache=check)
    assert outcomes(asker, "Where is Kenya?", "where's Kenya") == ["miss", "semantic"]
    assert judged(asker)["wrong"] == 1
    assert "It lies in Africa." in judge.handle.entries()[0].body


def test_without_vectors_the_exact_cache_goes_on(comparing: Askers) -> None:
    """What is too long to be compared is kept and found as it is."""
    asker = comparing(cache=BOTH)
    long = "word " * 400
    assert outcomes(asker, long, long, f"{long} ") == ["miss", "hit", "miss"]
