"""What fails before the client has seen content is tried elsewhere: another deployment, the same one again, another model."""

import pytest

from tests.fixtures.deployments import Routes, said, whole
from tests.fixtures.server import refused_port
from tests.upstream.behaviour import Behaviour

GOOD = Behaviour(text="all is well")
BEFORE_CONTENT = {
    "429": (Behaviour(status=429), "rate_limited"),
    "500": (Behaviour(status=500), "server"),
    "503": (Behaviour(status=503), "overloaded"),
    "401": (Behaviour(status=401), "credentials"),
    "a reset": (Behaviour(fault="rst"), "cut"),
    "an empty 200": (Behaviour(body=""), "malformed"),
    "JSON cut off": (Behaviour(body='{"id": "x", "choices": ['), "malformed"),
    "a page": (Behaviour(content_type="text/html", body="<html></html>"), "malformed"),
    "an error inside a 200": (Behaviour(body='{"error": {"message": "overheated"}}'), "server"),
    "half an answer": (Behaviour(framing="length", length_excess=100), "cut"),
}
STREAMS = {
    "an error event at once": (Behaviour(fault="error_event", fault_after=0), "server"),
    "a cut before the first token": (Behaviour(fault="fin", fault_after=1), "cut"),
    "silence after the head": (Behaviour(fault="silence", fault_after=0), "timeout"),
    "no answer": (Behaviour(fault="silence"), "timeout"),
}
NOT_OF_STREAMS = ("half an answer", "an error inside a 200")  # a stream says [DONE] in time; an object is no event
CASES = [
    *((fault, False) for fault in (*BEFORE_CONTENT, "no answer")),
    *((fault, True) for fault in (*BEFORE_CONTENT, *STREAMS) if fault not in NOT_OF_STREAMS),
]
TIMEOUTS = {"first_token_s": 1.0, "stall_s": 1.0, "total_s": 20, "attempt_s": 1.0}


@pytest.mark.parametrize(("fault", "stream"), CASES)
def test_the_next_deployment_answers(routes: Routes, fault: str, stream: bool) -> None:
    """The client sees one whole answer, and in the headers that it took two tries."""
    bad, failure = (BEFORE_CONTENT | STREAMS)[fault]
    route = routes(bad, GOOD, **({"timeouts": TIMEOUTS} if failure == "timeout" else {}))
    answer = routes.ask(route, stream=stream)
    assert answer.status_code == 200, answer.text
    assert said(answer) == "all is well"
    assert whole(answer) is stream
    assert answer.headers["x-penstock-attempts"] == "2"
    assert answer.headers["x-penstock-deployment"] == route.places[1].id
    assert route.asked == [1, 1]
    if stream and fault in BEFORE_CONTENT:
        return  # recorded as those that do not stream
    trail = routes.record(answer)["trail"]
    assert [(one["deployment"], one["failure"]) for one in trail] == [
        (route.places[0].id, failure),
        (route.places[1].id, None),
    ]


def test_an_address_that_refuses_costs_no_retry(routes: Routes) -> None:
    """Nothing was sent, so every other deployment is tried even where retries are off."""
    with refused_port() as port:
        nowhere = f"http://127.0.0.1:{port}/v1"
        route = routes(nowhere, nowhere, GOOD, retries={"attempts": 0})
        answer = routes.ask(route)
    assert said(answer) == "all is well"
    assert answer.headers["x-penstock-attempts"] == "3"
    assert len(routes.records(answer)) == 1  # nothing was sent there, so nothing is settled for it


def test_a_single_deployment_is_tried_again(routes: Routes) -> None:
    """Twice more by default."""
    route = routes((Behaviour(status=500), Behaviour(status=502), GOOD))
    answer = routes.ask(route)
    assert said(answer) == "all is well"
    assert answer.headers["x-penstock-attempts"] == "3"


def test_the_first_error_is_the_one_that_is_told(routes: Routes) -> None:
    """Of two deployments and a model that stands in, all of them down."""
    second = routes(Behaviour(status=503, error_message="third"), retries={"attempts": 0})
    route = routes(
        Behaviour(status=500, error_message="first"),
        Behaviour(status=503, error_message="second"),
        retries={"attempts": 1},
        fallbacks=[second.name],
    )
    answer = routes.ask(route)
    assert answer.status_code == 502
    assert "first" in answer.json()["error"]["message"]
    assert answer.headers["x-penstock-model"] == route.name
    assert answer.headers["x-penstock-deployment"] == route.places[0].id
    assert answer.headers["x-penstock-attempts"] == "3"
    assert "x-penstock-fallback" not in answer.headers
    assert (route.asked, second.asked) == ([1, 1], [1])


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_stands_in(routes: Routes, stream: bool) -> None:
    """A key that may use the model need not be allowed to use those that the admin put behind it."""
    second = routes(GOOD)
    route = routes(
        Behaviour(status=500), retries={"attempts": 1, "base_s": 0}, fallbacks=["no-such-model", second.name]
    )
    key = routes.server.new_key(models=[route.name])
    assert routes.ask(second, key=key).status_code == 403
    answer = routes.ask(route, key=key, stream=stream)
    assert said(answer) == "all is well"
    assert answer.headers["x-penstock-model"] == second.name
    assert answer.headers["x-penstock-fallback"] == "server"
    assert answer.headers["x-penstock-attempts"] == "3"
    record = routes.record(answer)
    assert (record["model"], record["deployment"]) == (second.name, second.places[0].id)


def test_fallbacks_of_fallbacks_end(routes: Routes) -> None:
    """Two models that name each other are tried once each."""
    first = routes(Behaviour(status=500), retries={"attempts": 0})
    second = routes(Behaviour(status=503), retries={"attempts": 0}, fallbacks=[first.name])
    routes.server.admin.patch(f"/models/{first.name}", json={"fallbacks": [second.name, first.name]})
    answer = routes.ask(first)
    assert answer.status_code == 502
    assert (first.asked, second.asked) == ([1], [1])


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_value"), (409, None), (413, None), (422, None)])
def test_a_wrong_request_is_not_tried_again(routes: Routes, status: int, code: str | None) -> None:
    """It would be wrong everywhere."""
    second = routes(GOOD)
    route = routes(Behaviour(status=status, error_code=code), GOOD, fallbacks=[second.name])
    answer = routes.ask(route)
    assert answer.status_code == status
    assert (route.asked, second.asked) == ([1, 0], [0])


def test_a_prompt_that_is_too_long_goes_to_a_model_that_takes_it(routes: Routes) -> None:
    """Only there: the general fallbacks have nothing to do with it."""
    wide, other = routes(GOOD), routes(GOOD)
    route = routes(
        Behaviour(status=400, error_code="context_length_exceeded"),
        context_fallbacks=[wide.name],
        fallbacks=[other.name],
    )
    answer = routes.ask(route)
    assert answer.headers["x-penstock-model"] == wide.name
    assert answer.headers["x-penstock-fallback"] == "context"
    assert (wide.asked, other.asked) == ([1], [0])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, '{"error": {"message": "The decoder prompt (length 5) is longer than the maximum model length of 4."}}'),
        (
            400,
            '{"code": "invalid-argument", "error": "This model\'s maximum prompt length is 4 but the request has 5"}',
        ),
        (400, '{"error": {"message": "The input (5 tokens) is longer than the model\'s context length (4 tokens)."}}'),
        (
            400,
            '{"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it"}}',
        ),
        (400, '{"error": {"message": "Please reduce the length of the messages or completion."}}'),
        (400, '{"error": {"code": "3051", "message": "Prompt too large for model with 4 maximum context length"}}'),
        (400, '{"error": {"message": "Your request exceeded model token limit: 4"}}'),
        (422, '{"error": "`inputs` tokens + `max_new_tokens` must be <= 4", "error_type": "validation"}'),
    ],
    ids=["vllm", "xai", "sglang", "llamacpp", "groq", "mistral", "moonshot", "tgi"],
)
def test_every_providers_words_for_a_long_prompt_are_understood(routes: Routes, status: int, body: str) -> None:
    """Where it has no code for it; without a model for it, the client is told OpenAI's code."""
    wide = routes(GOOD)
    long = Behaviour(status=status, body=body)
    assert routes.ask(routes(long, context_fallbacks=[wide.name])).headers["x-penstock-fallback"] == "context"
    told = routes.ask(routes(long)).json()["error"]
    assert (told["type"], told["code"]) == ("invalid_request_error", "context_length_exceeded")


def test_a_prompt_that_one_deployment_refuses_goes_to_a_wider_one(routes: Routes) -> None:
    """Of the same model, before any other stands in, at no cost of a retry; one that takes no more is not asked."""
    narrow = Behaviour(status=400, error_code="context_length_exceeded")
    other = routes(GOOD)
    spec = {"context_fallbacks": [other.name], "retries": {"attempts": 0}}
    route = routes(narrow, GOOD, GOOD, deployment={"max_input_tokens": 1000}, **spec)
    wide = route.places[2].id
    routes.server.admin.patch(f"/deployments/{wide}", json={"max_input_tokens": 9000}).raise_for_status()
    answer = routes.ask(route)
    assert (answer.headers["x-penstock-deployment"], answer.headers["x-penstock-attempts"]) == (wide, "2")
    assert route.asked == [1, 0, 1]
    unknown = routes(narrow, GOOD, context_fallbacks=[other.name])
    assert routes.ask(unknown).headers["x-penstock-model"] == other.name
    assert unknown.asked == [1, 0]


def test_a_prompt_does_not_go_where_it_surely_cannot_fit(routes: Routes) -> None:
    """The windows of a model's deployments are looked at before the call; the record says so."""
    route = routes(GOOD, GOOD, deployment={"max_input_tokens": 100})
    wide = route.places[1].id
    routes.server.admin.patch(f"/deployments/{wide}", json={"max_input_tokens": 9000}).raise_for_status()
    long = "word " * 500
    answer = routes.ask(route, text=long)
    assert (answer.headers["x-penstock-deployment"], answer.headers["x-penstock-attempts"]) == (wide, "1")
    assert route.asked == [0, 1]
    assert "1 too small for the prompt" in routes.record(answer)["route"]
    assert routes.ask(route).headers["x-penstock-deployment"] == route.places[0].id


def test_a_window_is_for_each_of_several_texts(routes: Routes) -> None:
    """A batch of embeddings is not one long prompt."""
    wide = routes(GOOD)
    route = routes(GOOD, deployment={"max_input_tokens": 100}, context_fallbacks=[wide.name])
    for texts, model in ((["word " * 20] * 50, route.name), ("word " * 1000, wide.name)):
        answer = routes.server.post("/v1/embeddings", {"model": route.name, "input": texts})
        assert answer.headers["x-penstock-model"] == model


@pytest.mark.parametrize("stream", [False, True])
def test_a_deployment_whose_model_is_gone_is_passed_over(routes: Routes, stream: bool) -> None:
    """A 404 for a model that the configuration names is nobody's request: the next one is asked, then a model that stands in."""
    gone = Behaviour(status=404, error_message="The model `scripted` does not exist.")
    other = routes(GOOD)
    route = routes(gone, GOOD, retries={"attempts": 0})
    answer = routes.ask(route, stream=stream)
    assert (said(answer), answer.headers["x-penstock-attempts"]) == ("all is well", "2")
    assert [one["failure"] for one in routes.record(answer)["trail"]] == ["missing", None]
    alone = routes(gone, fallbacks=[other.name])
    assert routes.ask(alone, stream=stream).headers["x-penstock-fallback"] == "missing"
    nothing = routes.ask(routes(gone), stream=stream)
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "model_not_found")
    assert nothing.headers["x-penstock-attempts"] == "1"


def test_a_404_that_the_client_caused_is_the_clients(routes: Routes) -> None:
    """It named the model itself, by a wildcard, or something else that is not there."""
    wild = routes(Behaviour(status=404), GOOD, deployment={"model": "*"})
    assert routes.ask(wild).status_code == 404
    file = routes(Behaviour(status=404, error_message="No such File object", error_param="file_id"), GOOD)
    assert routes.ask(file).status_code == 404
    assert (wild.asked, file.asked) == ([1, 0], [1, 0])


def test_refused_content_goes_to_a_model_that_takes_it(routes: Routes) -> None:
    """`content_fallbacks`, and without them the refusal is the client's."""
    free = routes(GOOD)
    refusing = Behaviour(status=400, error_code="content_policy_violation")
    answer = routes.ask(routes(refusing, content_fallbacks=[free.name]))
    assert answer.headers["x-penstock-model"] == free.name
    assert answer.headers["x-penstock-fallback"] == "content"
    assert routes.ask(routes(refusing, fallbacks=[free.name])).status_code == 400


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            403,
            '{"error": {"code": 403, "message": "m requires moderation on X. Your input was flagged for \\"violence\\"."}}',
        ),
        (403, '{"code": "denied", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}'),
        (400, '{"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}'),
        (400, '{"error": {"message": "The request was rejected because it was considered high risk"}}'),
    ],
    ids=["openrouter", "xai", "deepseek", "moonshot"],
)
def test_content_that_a_provider_does_not_want_says_nothing_of_its_key(routes: Routes, status: int, body: str) -> None:
    """Whatever status it chose: one client's prompt must not take the key from all the others."""
    free = routes(GOOD)
    route = routes((Behaviour(status=status, body=body), Behaviour(status=status, body=body), GOOD))
    assert routes.ask(route, headers={"x-penstock-retries": "0"}).json()["error"]["code"] == "content_policy_violation"
    routes.server.admin.patch(f"/models/{route.name}", json={"content_fallbacks": [free.name]}).raise_for_status()
    assert routes.ask(route).headers["x-penstock-fallback"] == "content"
    health = routes.server.admin.get(f"/deployments/{route.places[0].id}").json()["health"]
    assert health is None
    assert said(routes.ask(route)) == "all is well"


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "Project `p` does not have access to model `m`", "code": "model_not_found"}}',
        '{"error": {"message": "The model `m` is blocked at the project level.", "code": "model_permission_blocked_project"}}',
    ],
    ids=["openai", "groq"],
)
def test_a_key_without_one_model_keeps_the_others(routes: Routes, body: str) -> None:
    """A 403 about a model is as good as a 404 of it: by a wildcard the client's own, else the next deployment's turn."""
    no_access = Behaviour(status=403, body=body)
    answer = routes.ask(routes(no_access, GOOD))
    assert (said(answer), answer.headers["x-penstock-attempts"]) == ("all is well", "2")
    assert [one["failure"] for one in routes.record(answer)["trail"]] == ["missing", None]
    wild = routes((no_access, GOOD), deployment={"model": "*"})
    assert routes.ask(wild).status_code == 404
    assert routes.server.admin.get(f"/deployments/{wild.places[0].id}").json()["health"] is None
    assert said(routes.ask(wild)) == "all is well"


def test_an_answer_that_its_upstream_broke_off_is_no_answer(routes: Routes) -> None:
    """OpenRouter's way to say in a 200 that a provider failed half-way. What only speaks of it is an answer."""
    broken = '{"choices": [{"finish_reason": "error", "message": {"content": "half"}, "error": {"code": 502}}]}'
    answer = routes.ask(routes(Behaviour(body=broken), GOOD))
    assert (said(answer), answer.headers["x-penstock-attempts"]) == ("all is well", "2")
    words = 'look for "finish_reason":"error" in it'
    assert said(routes.ask(routes(Behaviour(text=words)))) == words


def test_when_no_key_is_left_the_error_says_so(routes: Routes) -> None:
    """Credentials are the operator's business, never a 401 to the client; no wait, no repetition."""
    route = routes(Behaviour(status=401), Behaviour(status=403), retries={"attempts": 0})
    answer = routes.ask(route)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_credentials_exhausted"
    assert route.asked == [1, 1]


def test_deployments_with_the_same_refused_key_are_out_together(routes: Routes) -> None:
    """The third deployment has a key of its own; the second would only be refused again."""
    route = routes(Behaviour(status=401), GOOD, GOOD)
    first, second, third = (place.id for place in route.places)
    url = route.places[0].handle.base_url
    routes.server.admin.patch(f"/deployments/{second}", json={"base_url": url, "api_key": f"sk-{first}"})
    answer = routes.ask(route)
    assert answer.headers["x-penstock-deployment"] == third
    assert route.places[0].asked == 1


def test_retry_after_is_honoured(routes: Routes) -> None:
    """The same deployment is left alone for as long as it asks, by its own clock."""
    route = routes((Behaviour(status=429, headers=(("retry-after-ms", "150"),)), GOOD))
    assert said(routes.ask(route)) == "all is well"
    first, second = route.places[0].handle.entries()
    assert second.arrived_at - first.arrived_at >= 0.149  # timers count in whole milliseconds


def test_a_moment_to_come_back_is_a_wait_by_the_upstreams_clock(routes: Routes) -> None:
    """Whatever ours says; the client gets seconds, too."""
    moments = (("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:29:10 GMT"))
    answer = routes.ask(routes(Behaviour(status=429, headers=moments)))
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["x-penstock-attempts"]) == (
        429,
        "70",
        "1",
    )
    strange = routes(
        Behaviour(status=429, headers=(("date", "noon"), ("retry-after", "tomorrow GMT"))), retries={"attempts": 0}
    )
    assert routes.ask(strange).headers["retry-after"] == "tomorrow GMT"


def test_a_longer_wait_than_the_model_allows_is_the_clients_decision(routes: Routes) -> None:
    """The upstream's own 429 is passed on, with its retry-after."""
    route = routes((Behaviour(status=429, headers=(("retry-after", "30"),)), GOOD))
    answer = routes.ask(route)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "30"
    assert route.asked == [1]


def test_all_tries_share_one_deadline(routes: Routes) -> None:
    """Ten retries of a silent upstream end when the request's time is over."""
    route = routes(
        Behaviour(fault="silence"),
        retries={"attempts": 10, "base_s": 0.01},
        timeouts={"attempt_s": 0.3, "total_s": 2.0},
    )
    answer = routes.ask(route)
    assert answer.status_code == 504
    assert 2 <= route.asked[0] <= 8
