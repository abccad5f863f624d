"""Routers in the real server: a classic model from the registry reads the question, and the model for its label answers."""

import itertools
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from gateway.routers.policy import Router, chosen
from tests.fixtures.deployments import Route, Routes, price, said
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour

_NUMBERS = itertools.count(1)
EASY, HARD, ODD = "What is the capital of France?", "Prove that the theorem holds.", "Colourless ideas sleep."
CHAT, STREAM = "/v1/chat/completions", {"stream": True}
tensor, node, array = onnx.helper.make_tensor_value_info, onnx.helper.make_node, onnx.numpy_helper.from_array


def linear(words: Mapping[str, str], most: float) -> bytes:
    """Text [n] to the probability of each of `words`' labels [n, labels]: the softmax of which of their words are in it, up to `most`."""
    steps = []
    for number, pattern in enumerate(words.values()):
        steps += [
            node("RegexFullMatch", ["text"], [f"in{number}"], pattern=f"(?s).*({pattern}).*"),
            node("Cast", [f"in{number}"], [f"flag{number}"], to=onnx.TensorProto.FLOAT),
            node("Reshape", [f"flag{number}", "column"], [f"column{number}"]),
        ]
    steps += [
        node("Concat", [f"column{number}" for number in range(len(words))], ["seen"], axis=1),
        node("MatMul", ["seen", "weights"], ["scores"]),
        node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    weight = np.log(most * (len(words) - 1) / (1 - most))
    held = [
        array(np.array([-1, 1], np.int64), "column"),
        array((np.eye(len(words)) * weight).astype(np.float32), "weights"),
    ]
    return graph(steps, held, len(words))


def slow(steps: int = 200_000) -> bytes:
    """Text [n] to two probabilities, some tenths of a second later: a loop that only counts."""
    body = onnx.helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["so_far", "step"], ["more"])],
        "body",
        [
            tensor("at", onnx.TensorProto.INT64, []),
            tensor("go", onnx.TensorProto.BOOL, []),
            tensor("so_far", onnx.TensorProto.FLOAT, []),
        ],
        [tensor("on", onnx.TensorProto.BOOL, []), tensor("more", onnx.TensorProto.FLOAT, [])],
        [array(np.array(1e-9, np.float32), "step")],
    )
    made = [
        node("Loop", ["steps", "", "nothing"], ["counted"], body=body),
        node("RegexFullMatch", ["text"], ["in"], pattern=".*"),
        node("Cast", ["in"], ["flag"], to=onnx.TensorProto.FLOAT),
        node("Reshape", ["flag", "column"], ["yes"]),
        node("Mul", ["yes", "counted"], ["no"]),
        node("Concat", ["yes", "no"], ["probabilities"], axis=1),
    ]
    held = [
        array(np.array(steps, np.int64), "steps"),
        array(np.array(0, np.float32), "nothing"),
        array(np.array([-1, 1], np.int64), "column"),
    ]
    return graph(made, held, 2)


def graph(steps: list[onnx.NodeProto], held: list[onnx.TensorProto], labels: int) -> bytes:
    asked = [tensor("text", onnx.TensorProto.STRING, ["n"])]
    given = [tensor("probabilities", onnx.TensorProto.FLOAT, ["n", labels])]
    made = onnx.helper.make_graph(steps, "classifier", asked, given, held)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    artefact: bytes = model.SerializeToString()
    return artefact


def registered(routes: Routes, artefact: bytes, *labels: str) -> str:
    """The name of a new classic model."""
    name = f"classifier{next(_NUMBERS)}"
    answer = routes.server.admin.post(
        f"/registry/{name}/versions",
        files={"artifact": (f"{name}.onnx", artefact)},
        data={"metadata": json.dumps({"runtime": "onnx", "classes": labels})},
    )
    assert answer.status_code == 201, answer.text
    return name


@pytest.fixture(scope="module")
def difficulty(routes: Routes) -> str:
    """`easy` for capitals, `hard` for proofs, `rude` for insults, each to 0.9; what is nothing of these is all of them to a third."""
    words = {"easy": "capital", "hard": "[Tt]heorem", "rude": "idiot"}
    return registered(routes, linear(words, 0.9), *words)


class Desk:
    """A router with a small and a large model behind it, all of them of one test."""

    def __init__(
        self, routes: Routes, classifier: str, *, spec: Json | None = None, small: Json | None = None, **router: Any
    ) -> None:
        self.routes = routes
        self.small = routes(Behaviour(text="small"), **(small or {}))
        self.large = routes(Behaviour(text="large"))
        self.name = f"auto{next(_NUMBERS)}"
        labels = {"easy": self.small.name, "hard": self.large.name}
        self.router = {
            "classifier": classifier,
            "labels": labels,
            "otherwise": self.large.name,
            "timeout_s": 30,
        } | router
        answer = routes.server.admin.post("/models", json={"name": self.name, "router": self.router, **(spec or {})})
        assert answer.status_code == 201, answer.text

    def ask(self, text: str = EASY, *, key: str | None = None, **fields: Any) -> httpx.Response:
        return self.routes.ask(self.name, text=text, key=key, **fields)

    def change(self, route: Route, **spec: Any) -> None:
        answer = self.routes.server.admin.patch(f"/models/{route.name}", json=spec)
        assert answer.status_code == 200, answer.text

    @property
    def asked(self) -> tuple[int, int]:
        """How often each of the two."""
        return self.small.asked[0], self.large.asked[0]


@pytest.fixture(scope="module")
def desk(routes: Routes, difficulty: str) -> Desk:
    """For what leaves it as it was."""
    return Desk(routes, difficulty)


def messages(text: str) -> Json:
    return {"messages": [{"role": "user", "content": text}]}


BODIES: dict[str, tuple[str, Any]] = {
    "chat": (CHAT, messages),
    "completions": ("/v1/completions", lambda text: {"prompt": text}),
    "responses": ("/v1/responses", lambda text: {"input": text}),
    "messages": ("/v1/messages", lambda text: messages(text) | {"max_tokens": 50}),
}


@pytest.mark.parametrize("fields", [{}, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("endpoint", BODIES)
def test_the_model_for_the_label_answers(desk: Desk, endpoint: str, fields: Json) -> None:
    """And its name is in the answer's head."""
    path, body = BODIES[endpoint]
    for text, route, word in ((EASY, desk.small, "small"), (HARD, desk.large, "large")):
        answer = desk.routes.server.post(path, {"model": desk.name, **body(text), **fields})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-penstock-model"] == route.name
        assert answer.headers["x-penstock-deployment"] == route.places[0].id
        assert word in answer.text
        assert json.loads(route.places[0].handle.entries()[-1].body)["model"] == "scripted"


def test_the_record_says_which_label_it_was_and_how_sure(desk: Desk) -> None:
    """What nobody is sure of goes to the usual model; each call costs what its model costs."""
    answers = []
    for text, route, why in (
        (EASY, desk.small, "easy 0.900"),
        (HARD, desk.large, "hard 0.900"),
        (ODD, desk.large, "otherwise (easy 0.333)"),
        ("You idiot", desk.large, "otherwise (rude 0.900, which has no model)"),
        ("   ", desk.large, "otherwise (there is no question)"),
    ):
        answer = desk.ask(text)
        assert answer.status_code == 200, answer.text
        answers.append((answer, route, why, price(route.places[0].handle.entries()[-1])))
    for answer, route, why, cost in answers:
        record = desk.routes.record(answer)
        assert (record["model"], record["router"], record["cost_nanousd"]) == (route.name, f"{desk.name}: {why}", cost)


def test_no_call_fails_because_of_its_classifier(routes: Routes) -> None:
    """One that is not there, one that is late, and one that says no labels of texts."""
    numbers = graph(
        [node("Shape", ["text"], ["size"]), node("Cast", ["size"], ["probabilities"], to=onnx.TensorProto.FLOAT)], [], 2
    )
    answers = []
    for desk, why in (
        (Desk(routes, "nobody"), "LookupError"),
        (Desk(routes, registered(routes, slow(), "easy", "hard"), timeout_s=0.001), "nothing within 0.001 s"),
        (Desk(routes, registered(routes, numbers, "easy", "hard")), ""),
    ):
        answer = desk.ask(EASY, stream=True)
        assert said(answer) == "large", answer.text
        answers.append((answer, f"{desk.name}: otherwise ({why}"))
    for answer, why in answers:
        record = routes.record(answer)
        assert record["router"].startswith(why), record


def test_a_key_needs_the_routers_name_and_not_its_models(desk: Desk) -> None:
    server = desk.routes.server
    for models, auto, small in (([desk.name], 200, 403), ([desk.small.name], 403, 200)):
        key = server.new_key(models=models)
        assert desk.ask(key=key).status_code == auto
        assert desk.routes.ask(desk.small, key=key).status_code == small
    key = server.new_key(models=[desk.name])
    listed = server.http.get("/v1/models", headers={"authorization": f"Bearer {key}"}).json()["data"]
    assert [(one["id"], one["pricing"]) for one in listed] == [(desk.name, {"input": 1000.0, "output": 2000.0})]


def test_an_alias_and_a_group_are_the_routers_own(routes: Routes, difficulty: str) -> None:
    alias = f"alias{next(_NUMBERS)}"
    Desk(routes, difficulty, spec={"aliases": [alias], "groups": [f"of-{alias}"]})
    key = routes.server.new_key(models=[f"group:of-{alias}"])
    answer = routes.ask(alias, text=EASY, key=key)
    assert said(answer) == "small"


def test_money_is_that_of_the_model_that_answers(routes: Routes, difficulty: str) -> None:
    """A budget of the large model ends what is hard, and nothing else."""
    desk = Desk(routes, difficulty)
    scope = {"kind": "model", "id": desk.large.name}
    body = {"scope": scope, "period": "total", "limit_usd": 0.000001}
    assert routes.server.admin.post("/budgets", json=body).status_code == 201
    key = routes.server.new_key()
    refused = desk.ask(HARD, key=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded"), refused.text
    answer = desk.ask(EASY, key=key)
    assert said(answer) == "small"
    assert desk.asked == (1, 0)


def test_what_stands_before_a_model_stands_before_what_is_chosen(routes: Routes, difficulty: str) -> None:
    """Its cache, which calls by its own name share, its fallbacks and its shadow."""
    copy = routes(Behaviour(text="copy"))
    small = {"cache": {"exact": {}, "scope": "org"}, "shadow": {"model": copy.name, "share": 1}}
    desk = Desk(routes, difficulty, small=small)
    first, again, direct = desk.ask(EASY), desk.ask(EASY), routes.ask(desk.small, text=EASY)
    assert [said(one) for one in (first, again, direct)] == ["small"] * 3
    assert desk.asked == (1, 0)
    deadline = time.monotonic() + 20
    while not copy.asked[0]:
        assert time.monotonic() < deadline, "nothing was copied"
        time.sleep(0.05)
    broken = routes(Behaviour(status=500), retries={"attempts": 0}, fallbacks=[desk.large.name])
    desk = Desk(routes, difficulty, labels={"easy": broken.name})
    answer = desk.ask(EASY)
    assert (answer.status_code, answer.headers["x-penstock-fallback"]) == (200, "server"), answer.headers


def test_guards_of_the_router_and_of_what_it_chose_are_asked(routes: Routes, difficulty: str) -> None:
    """Those of the model that was not chosen are not."""
    names = [f"word{next(_NUMBERS)}" for _ in range(3)]
    for name, word in zip(names, ("France", "theorem", "secret"), strict=True):
        body = {"name": name, "kind": "patterns", "words": [word]}
        assert routes.server.admin.post("/guards", json=body).status_code == 201
    desk = Desk(routes, difficulty, spec={"guards": [names[2]]})
    desk.change(desk.large, guards=names[:2])
    assert said(desk.ask(EASY)) == "small"
    assert desk.ask(HARD).json()["error"]["code"] == "content_policy_violation"
    assert desk.ask(f"{EASY} It is secret.").json()["error"]["code"] == "content_policy_violation"
    assert said(routes.ask(desk.small, text="A secret")) == "small"
    assert desk.asked == (2, 0)


def test_a_conversation_with_a_session_stays_with_its_model(routes: Routes, difficulty: str) -> None:
    """By what was said first; without a session, or where the router wants none, each question is looked at."""
    desk = Desk(routes, difficulty)
    turns = [("user", EASY), ("assistant", "Paris."), ("user", HARD)]
    body = {"model": desk.name, "messages": [{"role": role, "content": text} for role, text in turns]}
    bearer = {"authorization": f"Bearer {routes.server.key}"}

    def asked(**headers: str) -> httpx.Response:
        return routes.server.http.post(CHAT, json=body, headers={**bearer, **headers})

    session = {"x-penstock-session": "s1"}
    assert said(asked()) == "large"
    stays = asked(**session)
    assert said(stays) == "small"
    assert routes.record(stays)["router"] == f"{desk.name}: easy 0.900; session"
    answer = routes.server.admin.patch(f"/models/{desk.name}", json={"affinity": "none"})
    assert answer.status_code == 200, answer.text
    assert said(asked(**session)) == "large"


def test_a_route_may_lead_to_a_router(routes: Routes, difficulty: str) -> None:
    """So it is the subject of a rollout, as any model."""
    desk = Desk(routes, difficulty)
    name = f"route{next(_NUMBERS)}"
    assert routes.server.admin.post("/routes", json={"name": name, "model": desk.name}).status_code == 201
    answer = routes.ask(name, text=EASY)
    routes.server.admin.delete(f"/routes/{name}")
    assert said(answer) == "small"
    record = routes.record(answer)
    assert (record["route_version"], record["router"]) == (f"{name}@1", f"{desk.name}: easy 0.900")


def test_what_is_no_chat_is_refused(desk: Desk) -> None:
    answer = desk.routes.server.post("/v1/embeddings", {"model": desk.name, "input": "hello"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_endpoint"), answer.text


def test_a_router_that_leads_nowhere_is_refused(desk: Desk) -> None:
    """And nothing of it is kept; what stands in the way is named."""
    admin, name = desk.routes.server.admin, f"auto{next(_NUMBERS)}"
    small, other = desk.small.name, desk.name
    for router, beside, param, told in (
        ({"otherwise": "nobody"}, {}, "router.otherwise", 'no model "nobody"'),
        ({"labels": {"easy": "nobody"}}, {}, "router.labels.easy", 'no model "nobody"'),
        ({"otherwise": name}, {}, "router.otherwise", "is a router"),
        ({"labels": {"easy": other}}, {}, "router.labels.easy", "is a router"),
        ({"otherwise": f"me-{name}"}, {"aliases": [f"me-{name}"]}, "router.otherwise", "is a router"),
        ({}, {"fallbacks": [small], "strategy": "cost"}, "router", "fallbacks, strategy"),
        ({}, {"deployments": [{"id": f"{name}-a", "base_url": "http://127.0.0.1:9/v1"}]}, "router", "deployments"),
        ({"labels": {}}, {}, "router.labels", "at least 1"),
        ({"threshold": 1.5}, {}, "router.threshold", "1"),
        ({"timeout_s": 0}, {}, "router.timeout_s", "0"),
    ):
        spec = {"name": name, "router": {"classifier": "c", "labels": {"easy": small}, "otherwise": small} | router}
        answer = admin.post("/models", json=spec | beside)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
        assert told in answer.json()["error"]["message"]
    assert admin.get(f"/models/{name}").status_code == 404


def test_a_change_that_would_make_a_router_lead_nowhere_is_refused(routes: Routes, difficulty: str) -> None:
    admin = routes.server.admin
    desk = Desk(routes, difficulty)
    behind = routes(Behaviour())
    router = {"classifier": difficulty, "labels": {"x": behind.name}, "otherwise": behind.name}
    for path, change, told in (
        (f"/models/{desk.small.name}", {"router": router}, "deployments"),
        (f"/models/{behind.name}", {"fallbacks": [desk.name]}, "is a router"),
        (f"/models/{desk.name}", {"router": desk.router | {"otherwise": desk.name}}, "is a router"),
        (f"/models/{desk.name}", {"strategy": "cost"}, "strategy"),
    ):
        answer = admin.patch(path, json=change)
        assert (answer.status_code, told in answer.text) == (400, True), answer.text
    answer = admin.delete(f"/models/{desk.small.name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_in_use"), answer.text
    deployment = {"id": f"{desk.name}-a", "model": desk.name, "base_url": "http://127.0.0.1:9/v1"}
    assert admin.post("/deployments", json=deployment).status_code == 400
    for id_ in (place.id for place in desk.small.places):
        assert admin.delete(f"/deployments/{id_}").status_code == 200
    answer = admin.patch(f"/models/{desk.small.name}", json={"router": router, "retries": None})
    assert (answer.status_code, f"The router '{desk.name}' leads to" in answer.text) == (400, True), answer.text
    assert admin.patch(f"/models/{desk.name}", json={"router": desk.router | {"threshold": 0.95}}).status_code == 200
    assert said(desk.ask(EASY)) == "large"
    assert admin.delete(f"/models/{desk.name}").status_code == 200


@pytest.mark.parametrize(
    ("probabilities", "model"),
    [
        ({"a": 0.6, "b": 0.4}, "A"),
        ({"a": 0.59, "b": 0.41}, "usual"),
        ({"c": 0.9, "a": 0.1}, "usual"),
        ({"a": float("nan"), "b": 0.1}, "usual"),
        ({}, "usual"),
    ],
)
def test_a_label_counts_from_the_threshold_on(probabilities: dict[str, float], model: str) -> None:
    router = Router("c", {"a": "A", "b": "B"}, "usual", 0.6, 1)
    assert chosen(router, probabilities)[0] == model
