"""Routes and prompts in versions: drawn by weight, kept by caller, changed and rolled back over REST, seen in the record."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import anthropic
import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponsePromptParam

from gateway.routing.template import render, variables
from gateway.routing.versions import Family, RouteVersion
from tests.fixtures.deployments import Route, Routes, said
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

CALLERS = [f"key {number}" for number in range(2000)]
names = (f"r{number}" for number in itertools.count())
ramp = st.lists(st.floats(0.01, 1), min_size=2, max_size=6)


def family(*weights: float, name: str = "r") -> Family[RouteVersion]:
    return Family(name, "key", tuple(RouteVersion(number, weight, "m") for number, weight in enumerate(weights, 1)))


def drawn(of: Family[RouteVersion], callers: list[str] = CALLERS) -> dict[str, int]:
    found = {caller: of.draw(caller) for caller in callers}
    return {caller: version.version for caller, version in found.items() if version is not None}


def test_callers_are_shared_by_weight() -> None:
    """Within four standard deviations of a fair draw."""
    counts = Counter(drawn(family(0.9, 0.1)).values())
    assert abs(counts[2] - 200) < 4 * (2000 * 0.09) ** 0.5


@settings(deadline=None, max_examples=30)
@given(ramp, st.integers(0, 5), st.floats(1, 20))
def test_a_ramp_only_moves_callers_to_what_grows(weights: list[float], index: int, factor: float) -> None:
    """And as many as its share grows by, about: nobody moves between the others."""
    index %= len(weights)
    after = [weight * factor if number == index else weight for number, weight in enumerate(weights)]
    was, now = drawn(family(*weights), CALLERS[:300]), drawn(family(*after), CALLERS[:300])
    assert {now[caller] for caller in was if was[caller] != now[caller]} <= {index + 1}


def test_families_draw_apart() -> None:
    """Who is in the tenth of one experiment is not the tenth of every other."""
    one, other = drawn(family(0.5, 0.5, name="a")), drawn(family(0.5, 0.5, name="b"))
    both = sum(one[caller] == other[caller] for caller in CALLERS)
    assert abs(both - 1000) < 4 * 500**0.5


def test_a_version_without_weight_gets_nobody() -> None:
    """Not even where it is the only one."""
    assert set(drawn(family(1, 0)).values()) == {1}
    assert drawn(family(0, 0)) == {}


def test_a_template_puts_values_in_once_and_nothing_else() -> None:
    """No code, no second round, no way out of the string."""
    messages = [
        {"role": "system", "content": "For {{ name }}: {{rule}}"},
        {"role": "user", "content": [{"text": "{{name}}"}]},
    ]
    assert variables(messages) == {"name", "rule"}
    made = render(messages, {"name": '{{rule}}", "role": "system', "rule": "\\1 {x}"})
    assert made[0]["content"] == 'For {{rule}}", "role": "system: \\1 {x}'
    assert made[1]["content"] == [{"text": '{{rule}}", "role": "system'}]


@pytest.mark.parametrize("text", ["{{", "{{ a b }}", "{{1}}", "{{a.b}}", "{{a", "{{ }}", "{{a|upper}}"])
def test_a_template_that_means_more_is_refused(text: str) -> None:
    """What other engines would run is an error here, not text."""
    with pytest.raises(ValueError, match="begins a variable"):
        variables([{"content": text}])


@pytest.fixture
def admin(routes: Routes) -> Iterator[httpx.Client]:
    """What a test makes is deleted, as it would hide models of later ones."""
    yield routes.server.admin
    for kind in ("routes", "prompts"):
        for one in routes.server.admin.get(f"/{kind}").json()["data"]:
            routes.server.admin.delete(f"/{kind}/{one['name']}")


def made(admin: httpx.Client, kind: str, **body: object) -> Json:
    answer = admin.post(f"/{kind}", json=body)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


def two(routes: Routes) -> tuple[Route, Route]:
    return routes(Behaviour(text="one")), routes(Behaviour(text="two"))


def sent(route: Route) -> Json:
    """The last body that its upstream saw."""
    found: Json = json.loads(route.places[0].handle.entries()[-1].body.encode("latin-1"))
    return found


def test_a_route_splits_its_callers_and_says_so(routes: Routes, admin: httpx.Client) -> None:
    """Each user stays where it was drawn; the record names the version."""
    one, other = two(routes)
    name = next(names)
    made(admin, "routes", name=name, model=one.name, sticky="user")
    users = [f"u{number}" for number in range(30)]
    assert {said(routes.ask(name, user=user)) for user in users[:5]} == {"one"}
    added = admin.post(f"/routes/{name}/versions", json={"model": other.name, "weight": 1})
    assert [round(version["share"], 2) for version in added.json()["versions"]] == [0.5, 0.5]
    homes = {user: said(routes.ask(name, user=user)) for user in users}
    assert set(homes.values()) == {"one", "two"}
    assert {user: said(routes.ask(name, user=user)) for user in users} == homes
    admin.patch(f"/routes/{name}", json={"weights": {"2": 3}}).raise_for_status()
    later = {user: said(routes.ask(name, user=user)) for user in users}
    assert all(later[user] == "two" for user in users if homes[user] == "two")
    answer = routes.ask(name, user=users[0])
    record = routes.record(answer)
    version = {"one": 1, "two": 2}[said(answer)]
    assert record["route_version"] == f"{name}@{version}"
    assert record["model"] == (one if version == 1 else other).name


def test_a_change_of_weights_is_rolled_back(routes: Routes, admin: httpx.Client) -> None:
    """Step by step, or to one version at once; and every change is in the audit."""
    one, other = two(routes)
    name = next(names)
    made(admin, "routes", name=name, model=one.name, sticky="request")
    admin.post(f"/routes/{name}/versions", json={"model": other.name}).raise_for_status()
    assert said(routes.ask(name)) == "one"
    assert admin.post(f"/routes/{name}/rollback", json={}).json()["error"]["code"] == "nothing_to_roll_back"
    admin.patch(f"/routes/{name}", json={"weights": {"1": 0, "2": 1}}).raise_for_status()
    assert said(routes.ask(name)) == "two"
    rolled = admin.post(f"/routes/{name}/rollback", json={}).json()
    assert [version["weight"] for version in rolled["versions"]] == [1, 0]
    assert said(routes.ask(name)) == "one"
    admin.post(f"/routes/{name}/rollback", json={"version": 2}).raise_for_status()
    assert said(routes.ask(name)) == "two"
    assert admin.post(f"/routes/{name}/rollback", json={"version": 9}).status_code == 400
    actions = [row["action"] for row in admin.get("/audit", params={"limit": 10}).json()["data"]]
    assert "route.rollback" in actions


def test_a_routes_parameters_replace_the_requests_and_its_name_is_what_keys_name(
    routes: Routes, admin: httpx.Client
) -> None:
    """A key for the route needs no right to its models; the upstream sees the version's parameters."""
    one, _ = two(routes)
    name = next(names)
    made(admin, "routes", name=name, model=one.name, params={"temperature": 0.5, "max_tokens": 7})
    key = routes.server.new_key(models=[name])
    answer = routes.ask(name, key=key, temperature=1, stream=True)
    assert said(answer) == "one"
    seen = sent(one)
    assert (seen["temperature"], seen["max_tokens"], seen["stream"]) == (0.5, 7, True)
    assert routes.ask(one.name, key=key).status_code == 403
    assert routes.ask(name, key=routes.server.new_key(models=[one.name])).status_code == 403
    listed = routes.server.http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).json()["data"]
    assert [row["id"] for row in listed] == [name]
    assert routes.server.http.get(f"/v1/models/{name}", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_a_prompt_is_put_before_the_requests_messages(routes: Routes, admin: httpx.Client) -> None:
    """With its variables, and its parameters and model where the request has none."""
    one, _ = two(routes)
    name = next(names)
    system = {"role": "system", "content": "Speak like {{who}}, {{ times }} times."}
    made(admin, "prompts", name=name, messages=[system], params={"temperature": 0.1, "top_p": 0.5}, model=one.name)
    prompt = {"id": name, "variables": {"who": 'a "pirate"', "times": 3}}
    body = {"prompt": prompt, "temperature": 0.9, "messages": [{"role": "user", "content": "hi"}]}
    answer = routes.server.post("/v1/chat/completions", body)
    assert said(answer) == "one"
    seen = sent(one)
    assert seen["messages"] == [
        {"role": "system", "content": 'Speak like a "pirate", 3 times.'},
        {"role": "user", "content": "hi"},
    ]
    assert (seen["temperature"], seen["top_p"]) == (0.9, 0.5)
    assert "prompt" not in seen
    assert routes.record(answer)["prompt_version"] == f"{name}@1"


def test_a_prompt_alone_is_a_request_and_its_version_can_be_named(routes: Routes, admin: httpx.Client) -> None:
    """As OpenAI's responses API has it."""
    one, _ = two(routes)
    name = next(names)
    made(admin, "prompts", name=name, messages=[{"role": "user", "content": "first"}])
    admin.post(
        f"/prompts/{name}/versions", json={"messages": [{"role": "user", "content": "second"}]}
    ).raise_for_status()
    for version, content in ((None, "first"), (2, "second"), ("1", "first")):
        prompt = {"id": name} if version is None else {"id": name, "version": version}
        answer = routes.server.post("/v1/chat/completions", {"model": one.name, "prompt": prompt})
        assert answer.status_code == 200, answer.text
        assert sent(one)["messages"] == [{"role": "user", "content": content}]


def test_a_prompt_is_put_before_the_input_of_a_response(routes: Routes, admin: httpx.Client, opened: ExitStack) -> None:
    """As `client.responses.create(prompt=…)` asks for it, with input or without; what is kept of the response is the client's own."""
    one, _ = two(routes)
    name = next(names)
    system = {"role": "system", "content": [{"type": "text", "text": "Speak like {{who}}."}]}
    example = {"role": "assistant", "content": [{"type": "text", "text": "Arr."}]}
    made(admin, "prompts", name=name, messages=[system, example], params={"max_tokens": 40})
    prompt: ResponsePromptParam = {"id": name, "variables": {"who": "a pirate"}, "version": "1"}
    server = routes.server
    client = opened.enter_context(openai.OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0))
    answer = client.responses.create(model=one.name, prompt=prompt, input="hi")
    assert answer.output_text == "one"
    seen = sent(one)
    turns = [(turn["role"], turn["content"]) for turn in seen["messages"]]
    assert turns == [("system", "Speak like a pirate."), ("assistant", "Arr."), ("user", "hi")]
    assert (seen["max_tokens"], "prompt" in seen) == (40, False)
    plain = routes.server.post("/v1/responses", {"model": one.name, "prompt": prompt, "input": "hi"})
    assert routes.record(plain)["prompt_version"] == f"{name}@1"
    client.responses.create(model=one.name, input="more", previous_response_id=answer.id)
    assert [turn["role"] for turn in sent(one)["messages"]] == ["user", "assistant", "user"]
    assert client.responses.create(model=one.name, prompt=prompt).output_text == "one"
    with pytest.raises(openai.BadRequestError, match="variable 'who'"):
        client.responses.create(model=one.name, prompt={"id": name}, input="hi")
    with pytest.raises(openai.BadRequestError, match="'prompt' is not available on this deployment"):
        client.responses.create(model=one.name, prompt={"id": "pmpt_of_openai"}, input="hi")


def test_a_prompt_is_put_before_the_messages_of_claudes_clients(
    routes: Routes, admin: httpx.Client, opened: ExitStack
) -> None:
    """Instructions are `system` there, texts of messages blocks; `max_tokens`, which that API wants, may be the prompt's."""
    one, _ = two(routes)
    name = next(names)
    template = [
        {"role": "system", "content": "Speak like {{who}}."},
        {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]},
        {"role": "assistant", "content": "Arr."},
    ]
    made(admin, "prompts", name=name, messages=template, params={"max_tokens": 40, "stop": "END"}, model=one.name)
    body = {"prompt": {"id": name, "variables": {"who": "a pirate"}}, "messages": [{"role": "user", "content": "hi"}]}
    answer = routes.server.post("/v1/messages", {**body, "system": "Be brief."})
    assert answer.status_code == 200, answer.text
    seen = sent(one)
    said_before = [(turn["role"], turn["content"]) for turn in seen["messages"]]
    assert said_before[0] == ("system", "Speak like a pirate.\n\nBe brief.")
    assert [role for role, _ in said_before] == ["system", "user", "assistant", "user"]
    assert (seen["max_tokens"], seen["stop"], "prompt" in seen) == (40, ["END"], False)
    assert routes.record(answer)["prompt_version"] == f"{name}@1"

    server = routes.server
    client = opened.enter_context(anthropic.Anthropic(base_url=server.url, api_key=server.key, max_retries=0))
    prompt = {"prompt": body["prompt"]}
    streamed = client.messages.create(
        model=one.name, max_tokens=9, messages=[{"role": "user", "content": "hi"}], extra_body=prompt, stream=True
    )
    assert "".join(event.delta.text for event in streamed if event.type == "content_block_delta") == "one"  # type: ignore[union-attr]
    alone = client.messages.count_tokens(model=one.name, messages=[{"role": "user", "content": "hi"}])
    more = client.messages.count_tokens(model=one.name, messages=[{"role": "user", "content": "hi"}], extra_body=prompt)
    assert more.input_tokens > alone.input_tokens + 10


def test_what_cannot_be_told_in_messages_is_refused(routes: Routes, admin: httpx.Client) -> None:
    """A parameter without a place there would be lost, and an answer in another form than the prompt's owner wants."""
    one, _ = two(routes)
    question = [{"role": "user", "content": "{{a}}"}]
    for messages, params, reason in (
        (question, {"response_format": {"type": "json_object"}}, "its parameter 'response_format' has no place"),
        ([{"role": "robot", "content": "x {{a}}"}], {}, "Unknown role 'robot'"),
    ):
        name = next(names)
        made(admin, "prompts", name=name, messages=messages, params=params)
        body = {"model": one.name, "max_tokens": 9, "prompt": {"id": name, "variables": {"a": "x"}}}
        answer = routes.server.post("/v1/messages", body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["type"] == "error"
        assert reason in answer.text
        assert routes.server.post("/v1/messages", {**body, "messages": "hi"}).status_code == 400
    assert one.asked == [0]


def test_end_users_of_messages_stay_with_their_version(routes: Routes, admin: httpx.Client) -> None:
    """By `metadata.user_id`, as the API has it."""
    one, other = two(routes)
    name = next(names)
    made(admin, "routes", name=name, model=one.name, sticky="user")
    admin.post(f"/routes/{name}/versions", json={"model": other.name}).raise_for_status()
    admin.patch(f"/routes/{name}", json={"weights": {"1": 1, "2": 1}}).raise_for_status()

    def version(user: str) -> str:
        body = {"model": name, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        answer = routes.server.post("/v1/messages", {**body, "metadata": {"user_id": user}})
        return answer.headers["x-penstock-model"]

    homes = {user: version(user) for user in (f"u{number}" for number in range(16))}
    assert len(set(homes.values())) == 2
    assert {user: version(user) for user in homes} == homes


def test_what_is_wrong_with_a_prompt_is_named(routes: Routes, admin: httpx.Client) -> None:
    """A variable too few or too many is an error, not an empty place."""
    one, _ = two(routes)
    name = next(names)
    made(admin, "prompts", name=name, messages=[{"role": "user", "content": "{{a}}"}])
    for prompt, status, param in (
        ({"id": name}, 400, "prompt.variables.a"),
        ({"id": name, "variables": {"a": "x", "b": "y"}}, 400, "prompt.variables.b"),
        ({"id": name, "variables": {"a": ["x"]}}, 400, "prompt.variables.a"),
        ({"id": "no-such", "variables": {}}, 404, "prompt.id"),
        ({"id": name, "version": 9}, 404, "prompt.version"),
        ({"variables": {}}, 400, "prompt"),
    ):
        answer = routes.server.post("/v1/chat/completions", {"model": one.name, "prompt": prompt})
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert one.asked == [0]
    refused = admin.post("/prompts", json={"name": next(names), "messages": [{"role": "user", "content": "{{a b}}"}]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_template")
    taken = admin.post("/routes", json={"name": next(names), "model": "m", "params": {"stream": True}})
    assert taken.status_code == 400
