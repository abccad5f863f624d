"""The exact cache on a real server: who gets what, what is kept, what is asked anew, and what it costs."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from anthropic.types import MessageParam
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall, ChatCompletionMessageParam

from tests.cache.conftest import EXACT, Asker, Askers, outcome
from tests.fixtures.deployments import said
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import ADMIN_KEY, Json, Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour, ToolCall

GOOD = Behaviour(text="one two three", prompt_tokens=7, completion_tokens=3)


@pytest.fixture(params=["local", "redis"])
def askers(request: pytest.FixtureRequest) -> Askers:
    """Each kind of store."""
    made: Askers = request.getfixturevalue(f"{request.param}_cache")
    return made


def outcomes(asker: Asker, *bodies: Json) -> list[str | None]:
    return [outcome(asker.chat(**body)) for body in bodies]


def record(asker: Asker, answer: httpx.Response) -> Json:
    deadline = time.monotonic() + 20
    while True:
        found: list[Json] = asker.server.admin.get("/requests", params={"limit": 200}).json()["data"]
        own = [one for one in found if one["id"] == answer.headers["x-request-id"]]
        if own:
            return own[0]
        assert time.monotonic() < deadline, "the record was never shipped"
        time.sleep(0.05)


def test_the_same_request_is_asked_once_and_costs_nothing_the_second_time(askers: Askers) -> None:
    """The same bytes come back, one upstream call is made, and the books say hit: a request, tokens that were cached, no cost."""
    asker = askers(GOOD)
    first, second = asker.chat(), asker.chat()
    assert (outcome(first), outcome(second), asker.asked) == ("miss", "hit", 1)
    assert first.content == second.content
    assert (second.headers["x-penstock-cost-usd"], second.headers["x-penstock-model"]) == ("0.000000000", asker.model)
    assert int(second.headers["age"]) >= 0
    said_of = record(asker, second)
    assert (said_of["status"], said_of["cost_nanousd"], said_of["deployment"], said_of["provider"]) == (
        200,
        0,
        "cache",
        "cache",
    )
    assert (said_of["prompt_tokens"], said_of["cached_tokens"], said_of["completion_tokens"]) == (7, 7, 3)
    assert record(asker, first)["cost_nanousd"] == 13_000_000


def test_without_a_cache_nothing_is_said_of_one(askers: Askers) -> None:
    """A model may be left out of what the root names."""
    asker = askers(GOOD, cache=False)
    assert outcomes(asker, {}, {}) == [None, None]
    assert asker.asked == 2


def test_whatever_changes_the_answer_is_part_of_the_key(local_cache: Askers) -> None:
    """Messages, parameters and tools are; how the answer travels, and the order of the fields, are not."""
    asker = local_cache(GOOD)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    different: list[Json] = [
        {}, {"text": "hello "}, {"temperature": 0.5}, {"max_tokens": 9}, {"seed": 3}, {"tools": [tool]},
        {"stop": ["x"]}, {"n": 1}, {"response_format": {"type": "json_object"}}, {"user": "ann"}, {"metadata": {"a": "b"}},
    ]  # fmt: skip
    assert set(outcomes(asker, *different)) == {"miss"}
    assert set(outcomes(asker, *different)) == {"hit"}
    same: list[Json] = [{"stream": True}, {"store": False}, {"service_tier": "flex"}, {"temperature": None}]
    assert set(outcomes(asker, *same)) == {"hit"}
    body = b'{"messages": [{"content": "hello", "role": "user"}], "model": "%b"}' % asker.model.encode()
    assert outcome(asker.server.post("/v1/chat/completions", body)) == "hit"


def test_a_body_that_can_be_read_in_two_ways_is_asked_as_it_was_understood(local_cache: Askers) -> None:
    """Of two equal names the last one counts, and no other goes upstream: an answer to the first would be kept for the last."""
    asker = local_cache()
    said_twice = '{"model": "%s", "messages": [{"role": "user", "content": "bad"}], "messages": [{"role": "user", "content": "good"}]}'
    answer = asker.server.post("/v1/chat/completions", said_twice % asker.model)
    assert said(answer).endswith("|good")
    assert '"bad"' not in asker.handle.entries()[0].body
    assert outcome(asker.chat("good")) == "hit"
    assert outcome(asker.chat("bad")) == "miss"


def test_keys_users_and_namespaces_share_nothing_unless_they_are_told_to(askers: Askers) -> None:
    """By default a key's end users are apart; `scope: team` lets the keys of a team share, and nobody else."""
    asker = askers(GOOD)
    other = asker.server.new_key()
    assert [outcome(asker.chat(key=key)) for key in (None, other, None, other)] == ["miss", "miss", "hit", "hit"]
    assert outcomes(asker, {"user": "a"}, {"user": "b"}, {"user": "a"}) == ["miss", "miss", "hit"]
    named = {"x_penstock_cache_namespace": "blue"}
    assert [outcome(asker.chat(headers=named)) for _ in range(2)] == ["miss", "hit"]
    admin = asker.server.admin
    org = admin.post("/orgs", json={"name": "o"}).json()["id"]
    teams = [admin.post("/teams", json={"name": name, "org_id": org}).json()["id"] for name in ("t", "u")]
    shared = askers(GOOD, cache={**EXACT, "scope": "team"})
    keys = [asker.server.new_key(team_id=team) for team in (teams[0], teams[0], teams[1])] + [asker.server.new_key()]
    assert [outcome(shared.chat(key=key)) for key in keys] == ["miss", "hit", "miss", "miss"]


def test_a_client_says_how_fresh_it_wants_its_answer(askers: Askers) -> None:
    """no-cache renews what is kept, no-store keeps nothing, max-age=0 is a miss, a time to live of its own ends sooner."""
    asker = askers(Behaviour(text="old"), Behaviour(text="new"))
    assert [said(asker.chat()), said(asker.chat())] == ["old", "old"]
    renewed = asker.chat(headers={"cache_control": "no-cache"})
    assert (outcome(renewed), said(renewed), said(asker.chat())) == ("miss", "new", "new")
    assert outcome(asker.chat("x", headers={"cache_control": "no-store"})) == "miss"
    assert outcome(asker.chat("x")) == "miss"
    assert outcome(asker.chat("x", headers={"cache_control": "max-age=500"})) == "hit"
    time.sleep(0.01)
    assert outcome(asker.chat("x", headers={"cache_control": "max-age=0"})) == "miss"
    assert outcome(asker.chat("y", headers={"x_penstock_cache_ttl_s": "0.05"})) == "miss"
    time.sleep(0.06)
    assert outcome(asker.chat("y")) == "miss"
    refused = asker.chat(headers={"x_penstock_cache_ttl_s": "soon"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-penstock-cache-ttl-s")
    refused = asker.chat(headers={"x_penstock_cache_namespace": "n" * 129})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-penstock-cache-namespace")


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_whole_is_not_kept(local_cache: Askers, stream: bool) -> None:
    """Errors, answers that ended at their limit or were filtered, calls whose arguments are cut off, answers above the size."""
    asker = local_cache(
        Behaviour(status=400),
        Behaviour(finish_reason="length"),
        Behaviour(finish_reason="content_filter"),
        Behaviour(tool_calls=(ToolCall("f", '{"a": '),)),
        Behaviour(text="x" * 70_000),
        GOOD,
    )
    assert [outcome(asker.chat(stream=stream)) for _ in range(7)] == [
        None,
        "miss",
        "miss",
        "miss",
        "miss",
        "miss",
        "hit",
    ]


def test_a_stream_that_breaks_is_not_kept(local_cache: Askers) -> None:
    """Nor is one whose client left before its end."""
    asker = local_cache(Behaviour(fault="fin", fault_after=2), GOOD)
    broken = asker.chat(stream=True)
    assert '"error"' in broken.text
    assert [outcome(asker.chat(stream=True)) for _ in range(2)] == ["miss", "hit"]


def test_an_answer_of_a_model_that_stood_in_is_not_kept(local_cache: Askers) -> None:
    """It would still be given when the model itself is well again."""
    second = local_cache(Behaviour(text="second"), cache=False)
    asker = local_cache(
        Behaviour(status=500), Behaviour(status=500), Behaviour(status=500), GOOD, fallbacks=[second.model]
    )
    assert said(asker.chat()) == "second"
    deadline = time.monotonic() + 30
    while said(answer := asker.chat()) == "second":  # as long as it is left alone
        assert outcome(answer) == "miss"
        assert time.monotonic() < deadline
    assert said(asker.chat()) == "one two three"


def test_tools_that_the_provider_runs_are_never_left_out(local_cache: Askers) -> None:
    """A search or a server that is called does something beside answering."""
    asker = local_cache(GOOD)
    assert outcomes(asker, {"web_search_options": {"a": 1}}, {"web_search_options": {"a": 1}}) == [None, None]
    assert outcomes(asker, {"tools": [{"type": "mcp"}]}, {"tools": [{"type": "mcp"}]}) == [None, None]


def test_drawn_answers_are_only_kept_where_that_is_wanted(local_cache: Askers) -> None:
    """`sampled: false` keeps those at temperature 0 alone; embeddings are never drawn."""
    asker = local_cache(GOOD, cache={"exact": {"sampled": False}})
    assert outcomes(asker, {}, {}, {"temperature": 0}, {"temperature": 0}) == [None, None, "miss", "hit"]
    assert [outcome(asker.post("/v1/embeddings", {"input": "a"})) for _ in range(2)] == ["miss", "hit"]


def test_entries_fall_when_what_answers_changes(local_cache: Askers) -> None:
    """Another model behind the name is another answer; another weight is not."""
    asker = local_cache(GOOD)
    admin = asker.server.admin
    assert outcomes(asker, {}, {}) == ["miss", "hit"]
    admin.patch(f"/deployments/{asker.model}", json={"weight": 3}).raise_for_status()
    assert outcomes(asker, {}) == ["hit"]
    admin.patch(f"/deployments/{asker.model}", json={"model": "scripted-2"}).raise_for_status()
    assert outcomes(asker, {}, {}) == ["miss", "hit"]


def test_entries_fall_when_a_prompt_gets_another_version(local_cache: Askers) -> None:
    """What the prompt puts before the messages is part of what was asked, and so is its version."""
    asker = local_cache(GOOD)
    prompts = asker.server.admin
    body: Json = {"messages": [{"role": "system", "content": "Be brief."}], "params": {}, "weight": 1}
    prompts.post("/prompts", json={"name": "brief", **body}).raise_for_status()
    asked: Json = {"prompt": {"id": "brief"}}
    assert outcomes(asker, asked, asked) == ["miss", "hit"]
    prompts.post("/prompts/brief/versions", json={**body, "weight": 1}).raise_for_status()
    assert outcomes(asker, {"prompt": {"id": "brief", "version": 2}}, {"prompt": {"id": "brief", "version": 1}}) == [
        "miss",
        "hit",
    ]


def test_a_hit_counts_as_a_request_and_not_against_tokens(local_cache: Askers) -> None:
    """Requests per minute bind hits as well, tokens do not; an empty budget still gives what costs nothing."""
    asker = local_cache(Behaviour(text="x", prompt_tokens=500, completion_tokens=100))
    key = asker.server.new_key(limits={"rpm": 4, "tpm": 5000}, budget={"limit_usd": 0.9, "period": "total"})
    first, second = (asker.chat(key=key, max_tokens=20) for _ in range(2))
    assert (outcome(first), outcome(second)) == ("miss", "hit")
    assert second.headers["x-ratelimit-remaining-requests"] == "2"
    assert int(second.headers["x-ratelimit-remaining-tokens"]) >= int(first.headers["x-ratelimit-remaining-tokens"])
    assert asker.chat("else", key=key, max_tokens=20).json()["error"]["code"] == "budget_exceeded"
    assert [outcome(asker.chat(key=key, max_tokens=20)) for _ in range(2)] == ["hit", "hit"]
    assert asker.chat(key=key, max_tokens=20).json()["error"]["code"] == "rate_limit_exceeded"


def test_every_endpoint_is_answered_again_in_its_own_words(local_cache: Askers) -> None:
    """Completions, responses, messages, embeddings and rerankings."""
    asker = local_cache(GOOD)
    hello = [{"role": "user", "content": "hello"}]
    calls: list[tuple[str, Json]] = [
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {"messages": hello, "max_tokens": 9}),
        ("/v1/embeddings", {"input": ["hello", "there"]}),
    ]
    for path, body in calls:
        first, second = asker.post(path, body), asker.post(path, body)
        assert (first.status_code, outcome(first), outcome(second)) == (200, "miss", "hit"), path
        ours = ("id", "created_at", "completed_at", "output")
        told = [{name: value for name, value in one.json().items() if name not in ours} for one in (first, second)]
        assert told[0] == told[1], path
    assert asker.asked == len(calls)
    response = asker.post("/v1/responses", {"input": "hello"}).json()
    assert response["output"][0]["content"][0]["text"] == "one two three"
    found = asker.server.http.get(
        f"/v1/responses/{response['id']}", headers={"authorization": f"Bearer {asker.server.key}"}
    )
    assert found.json()["output"] == response["output"]
    rank = Behaviour(body='{"results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}]}')
    ranker = local_cache(rank, deployment={"provider": "cohere"})
    for version, expected in (("v1", "miss"), ("v1", "hit"), ("v2", "miss"), ("v2", "hit")):
        assert outcome(ranker.post(f"/{version}/rerank", {"query": "q", "documents": ["a", "b"]})) == expected


@pytest.mark.parametrize("kept_as_stream", [False, True])
def test_the_sdk_reads_a_replayed_answer_in_either_form(askers: Askers, kept_as_stream: bool) -> None:
    """A stream of what was whole, a whole of what was a stream, with the usage that there was, and valid events byte by byte."""
    call = ToolCall("weather", '{"city": "Lyon"}')
    asker = askers(Behaviour(tool_calls=(call,), prompt_tokens=7, completion_tokens=3))
    asker.chat(stream=kept_as_stream)
    with openai.OpenAI(api_key=asker.server.key, base_url=asker.server.base_url, max_retries=0) as client:
        hello: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
        whole: ChatCompletion = client.chat.completions.create(model=asker.model, messages=hello)
        with client.chat.completions.stream(
            model=asker.model, messages=hello, stream_options={"include_usage": True}
        ) as stream:
            told = stream.get_final_completion()
    for answer in (whole, told):
        (choice,) = answer.choices
        assert choice.message.tool_calls is not None
        (used,) = choice.message.tool_calls
        assert isinstance(used, ChatCompletionMessageFunctionToolCall)
        assert answer.usage is not None
        assert (choice.finish_reason, used.id, used.function.name) == ("tool_calls", "call_0", "weather")
        assert json.loads(used.function.arguments) == {"city": "Lyon"}
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert asker.asked == 1
    events = asker.chat(stream=True).content.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    for event in events[:-2]:
        assert event.startswith(b"data: {")
        chunk = json.loads(event[6:])
        assert (chunk["object"], "usage" in chunk, bool(chunk["choices"])) == ("chat.completion.chunk", False, True)


def test_the_sdk_reads_a_replayed_response(local_cache: Askers) -> None:
    """Under an id of its own, in either form."""
    asker = local_cache(GOOD)
    with openai.OpenAI(api_key=asker.server.key, base_url=asker.server.base_url, max_retries=0) as client:
        ids = set()
        for _ in range(2):
            with client.responses.stream(model=asker.model, input="hello") as stream:
                told = stream.get_final_response()
            whole = client.responses.create(model=asker.model, input="hello")
            assert (told.output_text, whole.output_text) == ("one two three",) * 2
            ids |= {told.id, whole.id}
    assert (len(ids), asker.asked) == (4, 1)


def test_anthropics_sdk_reads_a_replayed_message(local_cache: Askers) -> None:
    """In either form, with its usage."""
    asker = local_cache(Behaviour(text="one two three", prompt_tokens=7, completion_tokens=3))
    hello: list[MessageParam] = [{"role": "user", "content": "hello"}]
    with anthropic.Anthropic(api_key=asker.server.key, base_url=asker.server.url, max_retries=0) as client:
        for _ in range(2):
            whole = client.messages.create(model=asker.model, messages=hello, max_tokens=9)
            with client.messages.stream(model=asker.model, messages=hello, max_tokens=9) as stream:
                told = stream.get_final_message()
            for message in (whole, told):
                assert [block.text for block in message.content if block.type == "text"] == ["one two three"]
                assert (message.usage.input_tokens, message.usage.output_tokens, message.stop_reason) == (
                    7,
                    3,
                    "end_turn",
                )
    assert asker.asked == 1


def test_replicas_share_what_is_in_redis(
    upstream: Upstream, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An answer that one server keeps is given by the other, to the same request and to the same question in other words."""
    handle = upstream.script(Behaviour())
    model = {"name": "shared", "deployments": [{"id": "shared", "base_url": handle.base_url, "model": "scripted"}]}
    cache: Json = {"exact": {}, "semantic": {"recheck": 0}}
    config = {"models": [model], "cache": cache, "redis_url": redis_server.url}
    servers = [Server(config, tmp_path_factory.mktemp(f"replica-{number}")) for number in range(2)]
    try:
        one, two = (Asker(server.start(with_key=False), "shared", handle) for server in servers)
        for asker in (one, two):
            asker.server.key = ADMIN_KEY  # whoever else has a key has it in one of the two databases alone
        assert outcome(one.chat("How do I reset my password?")) == "miss"
        _until("hit", two, "How do I reset my password?")
        number = 0
        while True:  # both have to open their model first, and Redis has to hear of the question
            number += 1
            one.chat(f"How tall is tower {number}?")
            time.sleep(0.1)
            if outcome(two.chat(f"Please, how tall is tower {number}?")) == "semantic":
                break
            assert number < 200, "no question was shared"
    finally:
        for server in servers:
            server.stop()


def _until(wanted: str, asker: Asker, text: str, *, key: str | None = None) -> None:
    """What it asks itself is not kept, so that only another one's answer can be a hit."""
    deadline = time.monotonic() + 20
    while outcome(asker.chat(text, key=key, headers={"cache_control": "no-store"})) != wanted:
        assert time.monotonic() < deadline, f"never a {wanted}"


def test_a_hundred_equal_calls_at_the_same_time_make_one_upstream_call(askers: Askers) -> None:
    """Half of them streams; each gets a whole answer."""
    asker = askers(Behaviour(text="one two three", headers_after_s=0.5))
    waiting = [asker.send("now", stream=bool(number % 2)) for number in range(100)]
    answers = [_read(one) for one in waiting]
    assert all(answer.startswith(b"HTTP/1.1 200") and b"three" in answer for answer in answers)
    assert asker.asked == 1
    assert sum(b"x-penstock-cache: miss" in answer for answer in answers) == 1


def test_a_leader_that_leaves_fails_nobody(local_cache: Askers) -> None:
    """The next in line asks, and the others go on waiting for it."""
    asker = local_cache(Behaviour(headers_after_s=40), GOOD)
    leader = asker.send("now")
    asker.handle.wait(lambda entries: len(entries) == 1)
    followers = [asker.send("now") for _ in range(10)]
    asker.until_waiting(10)
    leader.close()
    assert all(b"one two three" in _read(one) for one in followers)
    assert asker.asked == 2


def test_a_leader_that_fails_fails_nobody_either(local_cache: Askers) -> None:
    """It gets its own error; after a second one in a row nobody waits for a third."""
    held = Behaviour(status=400, held_after=-1)
    asker = local_cache(held, held, GOOD)
    leader = asker.send("now")
    asker.handle.wait(lambda entries: len(entries) == 1)
    followers = [asker.send("now") for _ in range(5)]
    asker.until_waiting(5)
    asker.handle.let_go()
    answers = [_read(one) for one in (leader, *followers)]
    assert [answer.startswith(b"HTTP/1.1 400") for answer in answers].count(True) == 2
    assert sum(b"one two three" in answer for answer in answers) == 4


def test_what_was_kept_outlives_the_process(own_cache: Callable[[Json], Askers], tmp_path: Path) -> None:
    """Also one that was killed. Files that are damaged cost hits, and give no wrong answer."""
    folder = tmp_path / "data" / "cache"
    asker = own_cache({"cache": EXACT})(Behaviour())
    key = asker.server.key
    texts = [f"text {number}" for number in range(60)]

    def outcome_of(text: str) -> str | None:
        answer = asker.chat(text, key=key)
        assert said(answer).endswith(f"|{text}")
        return outcome(answer)

    for text in texts:
        outcome_of(text)
    deadline = time.monotonic() + 20
    while sum(path.stat().st_size for path in folder.glob("*/*.cache")) < 60 * 300:
        assert time.monotonic() < deadline, "not everything was written"
        time.sleep(0.02)
    asker.server.kill()
    (path,) = folder.glob("*/*.cache")
    assert path.stat().st_mode & 0o077 == 0
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] + bytes(255 - byte for byte in whole[half:]))
    asker.server.start()
    _until("hit", asker, texts[0], key=key)  # the first may come before the disk was read
    assert outcome_of(texts[0]) == "hit"
    assert {outcome_of(text) for text in texts[-20:]} == {"miss"}


def test_a_redis_that_hangs_or_is_gone_is_a_miss(
    own_cache: Callable[[Json], Askers], new_redis: Callable[..., RedisServer]
) -> None:
    """No call waits for it beyond its deadline, and hits are back when it is."""
    redis = new_redis()
    askers = own_cache({"cache": EXACT, "redis_url": redis.url})
    asker = askers(GOOD)
    assert outcomes(asker, {}, {}) == ["miss", "hit"]
    redis.pause()
    assert [asker.chat(f"other {number}").status_code for number in range(5)] == [200] * 5
    redis.resume()
    deadline = time.monotonic() + 30
    number = 0
    while True:  # a new request each time, as memory would answer an old one
        number += 1
        asker.chat(f"back {number}")
        if int(redis.cli("EXISTS", *_keys(redis)) or 0) > 1:
            break
        assert time.monotonic() < deadline, "nothing was kept any more"
        time.sleep(0.1)


def _keys(redis: RedisServer) -> list[str]:
    return redis.cli("KEYS", "penstock:cache:*").split() or ["none"]


def _read(raw: socket.socket) -> bytes:
    """The whole answer."""
    received = b""
    while part := raw.recv(65_536):
        received += part
    raw.close()
    return received


def test_a_provider_that_is_passed_through_answers_itself(local_cache: Askers) -> None:
    """What was kept for a model of the same name is not its answer."""
    asker = local_cache(GOOD)
    assert outcomes(asker, {}, {}) == ["miss", "hit"]
    body: Json = {"messages": [{"role": "user", "content": "hello"}]}
    answer = asker.post("/openai/v1/chat/completions", body)
    assert (answer.status_code, outcome(answer), asker.asked) == (200, None, 2)
