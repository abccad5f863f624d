"""What was asked and answered: kept only for those who want it, redacted, found again, and forgotten."""

import json

import pytest
from sqlalchemy import Engine, insert

from gateway.contents import store
from gateway.contents.redaction import redact
from gateway.contents.store import Search
from gateway.database import appending, reading
from gateway.guards.masking import Vault
from gateway.tables import request_contents
from tests.fixtures.deployments import Routes, said
from tests.fixtures.server import Json, Server
from tests.telemetry.until import until
from tests.upstream.behaviour import Behaviour

PEM = "PRIVATE" + " KEY"  # in two parts: no file here looks as if it had one
ASKED = "Which turbine suits a low head?"
ANSWER = Behaviour(text="A Kaplan turbine, said ann@example.org", chunks=5, prompt_tokens=7, completion_tokens=5)


def guard(server: Server, name: str, **fields: str) -> None:
    deny = [{"name": "project", "pattern": "Project [A-Z][a-z]+"}]
    answer = server.admin.post("/guards", json={"name": name, "kind": "patterns", "deny": deny, **fields})
    assert answer.status_code == 201, answer.text


def listed(server: Server, **params: str) -> list[Json]:
    answer = server.admin.get("/requests", params=params)
    assert answer.status_code == 200, answer.text
    data: list[Json] = answer.json()["data"]
    return data


def test_who_wants_it_finds_what_was_said(routes: Routes) -> None:
    """By text, session and tag; a stream is put together; what looks like a secret or a person is gone."""
    server, route = routes.server, routes(ANSWER)
    key = server.new_key(metadata={"record_content": True})
    headers = {"x-penstock-session": "visit-1", "x-penstock-tags": "blue,green"}
    text = f"{ASKED} My key is sk-proj-abcdefghijklmnop1234 and my card 4111 1111 1111 1111"
    answer = routes.ask(route, key=key, headers=headers, text=text, stream=True)
    id_ = answer.headers["x-request-id"]
    assert [each["id"] for each in until(lambda: listed(server, text="kaplan TURBINE"))] == [id_]
    assert [each["id"] for each in until(lambda: listed(server, text="low head", session="visit-1"))] == [id_]
    assert listed(server, session="visit-1", text="francis") == []
    assert listed(server, text="100%_") == []
    assert [each["id"] for each in listed(server, tag="green")] == [id_]
    assert listed(server, tag="red") == []
    said = server.admin.get(f"/requests/{id_}").json()["content"]
    assert said["session"] == "visit-1"
    assert json.loads(said["answer"])["choices"][0]["message"]["content"] == "A Kaplan turbine, said [email]"
    asked = json.loads(said["request"])["messages"][0]["content"]
    assert asked == f"{ASKED} My key is [api_key] and my card [card]"


def test_nobody_elses_words_are_kept(routes: Routes) -> None:
    """It is off, and a key that says nothing of it has nothing kept."""
    server, route = routes.server, routes(Behaviour())
    loud = server.new_key(metadata={"record_content": True})
    quiet = routes.ask(route, text="something quiet")
    routes.ask(route, key=loud, text="something loud")
    until(lambda: listed(server, text="something loud"))
    record = routes.record(quiet)
    assert server.admin.get(f"/requests/{record['id']}").json()["content"] is None
    assert listed(server, text="something quiet") == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_guards_masked_is_not_kept(routes: Routes, stream: bool) -> None:
    """Neither as the client wrote it nor as it got it back; the client's own patterns are the guard's, not ours."""
    server = routes.server
    guard(server, f"masks-{stream}", action="mask_restore")
    route = routes(Behaviour(text="I know [PROJECT_1]", chunks=3), guards=[f"masks-{stream}"])
    key = server.new_key(metadata={"record_content": True})
    answer = routes.ask(route, key=key, text="What is Project Heron?", stream=stream)
    assert said(answer) == "I know Project Heron"
    id_ = answer.headers["x-request-id"]
    kept = until(lambda: server.admin.get(f"/requests/{id_}").json().get("content"))
    assert "Heron" not in json.dumps(kept)
    assert json.loads(kept["request"])["messages"][0]["content"] == "What is [PROJECT_1]?"
    assert json.loads(kept["answer"])["choices"][0]["message"]["content"] == "I know [PROJECT_1]"


@pytest.mark.parametrize("stage", ["before", "parallel"])
def test_what_guards_refuse_is_not_kept(routes: Routes, stage: str) -> None:
    """The record says that it was refused, and by whom."""
    server = routes.server
    guard(server, f"blocks-{stage}", action="block", stage=stage)
    route = routes(Behaviour(), guards=[f"blocks-{stage}"])
    key = server.new_key(metadata={"record_content": True})
    answer = routes.ask(route, key=key, text="What is Project Heron?")
    assert answer.status_code == 400, answer.text
    id_ = answer.headers["x-request-id"]
    kept = until(lambda: server.admin.get(f"/requests/{id_}").json().get("content"))
    assert "Heron" not in json.dumps(kept)


def test_what_is_masked_is_hidden_in_json_too() -> None:
    """In the answer's JSON, and in the JSON of a call's arguments inside it."""
    vault = Vault()
    place = vault.mask('a "b" \\ c', "name")
    text = json.dumps({"content": 'a "b" \\ c', "arguments": json.dumps({"x": 'a "b" \\ c'})})
    assert json.loads(vault.hide(text)) == {"content": place, "arguments": json.dumps({"x": place})}


def test_a_request_that_is_not_there_is_a_404(routes: Routes) -> None:
    """In OpenAI's shape."""
    answer = routes.server.admin.get("/requests/req_nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_what_is_old_is_forgotten(engine: Engine) -> None:
    """And only that."""

    def row(number: int) -> Json:
        about = {"key_id": "key_1", "team_id": "team_1" if number % 2 else None, "org_id": None, "session": None}
        return {"id": f"req_{number:04}", "at": float(number), "request": f"asked {number}", "answer": "Yes", **about}

    with appending(engine) as tx:
        tx.execute(insert(request_contents), [row(number) for number in range(1200)])
        assert store.forget(tx, 1100.0) == 1100
    with reading(engine) as tx:
        assert len(store.found(tx, Search(text="yes"), 1000)) == 100
        assert store.found(tx, Search(text="asked 1150"), 10) == ["req_1150"]
        assert store.found(tx, Search(team_id="team_1"), 2, "req_1198") == ["req_1197", "req_1195"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to Ann.Lee+x@mail.example.co.uk now", "write to [email] now"),
        ("AKIA" + "IOSFODNN7EXAMPLE", "[api_key]"),
        ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: [bearer]"),
        ("postgres://joe:hunter2@db/x", "postgres://[credentials]@db/x"),
        ("4111-1111-1111-1111 and 4111-1111-1111-1112", "[card] and 4111-1111-1111-1112"),
        ("DE89 3704 0044 0532 0130 00", "[iban]"),
        ("call +49 170 1234567", "call [phone]"),
        ("078-05-1120 from 192.168.0.1", "[ssn] from [ip]"),
        (f"-----BEGIN RSA {PEM}-----\\nabc\\n-----END RSA {PEM}----- rest", "[private_key] rest"),
        ("the 3 turbines of 1912 cost 12,000", "the 3 turbines of 1912 cost 12,000"),
    ],
)
def test_forms_are_taken_out(text: str, left: str) -> None:
    """Keys, addresses, numbers of cards and accounts; plain words and numbers stay."""
    assert redact(text) == left


def test_json_stays_json() -> None:
    """Whatever is taken out of it."""
    texts = [
        'password: "hunter22", ok',
        "api_key=abc12345",
        'say "token": "abcdefgh"',
        "mail a@b.org\n4111111111111111",
    ]
    body = json.dumps({"messages": [{"content": text} for text in texts], "password": "hunter22"})
    assert len(json.loads(redact(body))["messages"]) == 4
    assert "hunter22" not in redact(body)
