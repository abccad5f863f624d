"""Conversations: events go both ways as they are, and every answer is held before it is made and settled when it ends."""

import json
import time
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus

from tests.fixtures.deployments import Route
from tests.fixtures.server import Json
from tests.realtime.conftest import NEVER_LONG, Talks
from tests.upstream.behaviour import Behaviour
from tests.upstream.realtime_dialect import SILENCE, VOICE


def said(talk_heard: list[dict[str, object]]) -> str:
    return "".join(str(one["delta"]) for one in talk_heard if one["type"] == "response.output_text.delta")


def await_end(route: Route) -> str:
    return route.places[0].handle.ended().outcome


# What goes through


def test_answers_are_metered_one_by_one(talks: Talks) -> None:
    """Two answers of one conversation, two settlements to the token, with what came from the cache at its own price."""
    route = talks(Behaviour(text="one two three", cached_tokens=4), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        assert talk.hear("session.created")["session"]["type"] == "realtime"
        talk.say("conversation.item.create", item={"type": "message", "role": "user", "content": []})
        assert talk.answer()["status"] == "completed"
        assert said(talk.heard) == "one two three"
        talk.answer()
    records = talks.of(route, 2)
    for record in records:
        assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (10, 3, "provider")
        assert record["cost_nanousd"] == 6 * 1_000_000 + 4 * 100_000 + 3 * 2_000_000
        assert (record["endpoint"], record["status"], record["stream"]) == ("realtime", 200, True)
    entry = route.places[0].handle.ended()
    assert entry.units["responses"] == 2
    assert entry.header("authorization") == f"Bearer sk-{route.places[0].id}"
    assert talks.server.key not in f"{entry.headers}{entry.path}{entry.body}"
    assert entry.path.endswith("/realtime?model=scripted")


def test_sound_has_its_own_price(talks: Talks) -> None:
    """And sound that came from the cache has the cache's."""
    route = talks(Behaviour(sound=True, chunks=3, cached_tokens=4), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.answer()
    (record,) = talks.of(route, 1)
    assert record["cost_nanousd"] == 6 * 5_000_000 + 4 * 100_000 + 3 * 9_000_000


def test_a_model_is_called_what_it_is_called_there(talks: Talks) -> None:
    """In `session.update` as well; it cannot be another one."""
    route = talks(Behaviour(), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.say("session.update", session={"type": "realtime", "model": route.name, "instructions": "hi"})
        assert talk.hear("session.updated")["session"]["model"] == "scripted"
        talk.say("session.update", event_id="mine", session={"type": "realtime", "model": "dearer"})
        error = talk.hear("error")["error"]
        assert (error["param"], error["event_id"]) == ("session.model", "mine")
    assert "dearer" not in route.places[0].handle.ended().body


def test_an_answer_that_is_not_given_costs_nothing(talks: Talks) -> None:
    """The error is the upstream's own; an id that the client never gave is not shown to it."""
    route = talks(Behaviour(fault="error_event", error_message="not now"), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.say("response.create")
        error = talk.hear("error")["error"]
        assert (error["message"], error["event_id"]) == ("not now", None)
        talk.say("response.create", event_id="mine")
        assert talk.hear("error")["error"]["event_id"] == "mine"
    for record in talks.of(route, 2):
        assert (record["cost_nanousd"], record["status"]) == (0, 400)


def test_nonsense_is_answered_and_goes_nowhere(talks: Talks) -> None:
    route = talks(Behaviour(), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        for odd in ("{", "[]", '{"no":"type"}', '{"type":7}'):
            talk.socket.send(odd)
            assert talk.hear("error")["error"]["code"] == "invalid_event"
        talk.say("session.update", session={"model": []})
        assert talk.hear("error")["error"]["param"] == "session.model"
        server = {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://evil.example/mcp"}]}
        for fields in ({"type": "session.update", "session": server}, {"type": "response.create", "response": server}):
            talk.socket.send(json.dumps(fields))
            assert talk.hear("error")["error"]["code"] == "mcp_server_not_registered"
        talk.socket.send(b"\x00\x01")
        assert talk.hear("error")["error"]["code"] == "invalid_event"
        talk.answer()
    assert [json.loads(line)["type"] for line in route.places[0].handle.ended().body.splitlines()] == [
        "response.create"
    ]


def test_who_falls_silent_is_answered_and_billed(talks: Talks) -> None:
    """The upstream hears by itself when somebody has finished; what they said is written down at the writer's price."""
    route = talks(Behaviour(vad=True, sound=True, chunks=2), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        writer = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
        talk.say("session.update", session={"type": "realtime", "audio": writer})
        talk.hear("session.updated")
        for audio in (VOICE, VOICE, SILENCE):
            talk.say("input_audio_buffer.append", audio=audio)
        talk.hear("response.done")
    records = {record["endpoint"]: record for record in talks.of(route, 2)}
    assert records["realtime"]["completion_tokens"] == 2
    written = records["realtime_transcription"]
    assert (written["prompt_tokens"], written["completion_tokens"], written["usage_source"]) == (13, 4, "provider")
    assert 0 < written["cost_nanousd"] < records["realtime"]["cost_nanousd"]


def test_an_answer_that_nobody_asked_for_is_billed_too(talks: Talks) -> None:
    route = talks(Behaviour(unasked=True), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        talk.hear("response.done")
    (record,) = talks.of(route, 1)
    assert (record["completion_tokens"], record["usage_source"]) == (2, "provider")


# Who may talk


def test_browsers_show_their_key_as_a_subprotocol(talks: Talks) -> None:
    route = talks(Behaviour(), deployment=NEVER_LONG)
    offered = ["realtime", f"openai-insecure-api-key.{talks.server.key}", "openai-beta.realtime-v1"]
    with talks.talk(route, additional_headers={}, subprotocols=offered) as talk:
        assert talk.socket.subprotocol == "realtime"
        talk.answer()
    entry = route.places[0].handle.ended()
    assert entry.header("openai-beta") == "realtime=v1"
    assert talks.server.key not in f"{entry.headers}"
    assert talks.server.key not in talks.server.output


@pytest.mark.parametrize("path", ["/v1/realtime", "/openai/v1/realtime"])
def test_a_handshake_is_refused_as_any_request(talks: Talks, path: str) -> None:
    """With a status and the error of the contract, before anything is sent anywhere."""
    route = talks(Behaviour(), deployment=NEVER_LONG)
    other = talks.server.new_key(models=["other"])
    narrow = talks.server.new_key(routes=["/v1/chat/*"])
    for key, query, code in (
        ("sk-ps-nobody", f"?model={route.name}", "invalid_api_key"),
        (None, "", "missing_required_parameter"),
        (None, "?model=nobody", "model_not_found"),
        (other, f"?model={route.name}", "model_access_denied"),
        (narrow, f"?model={route.name}", "route_access_denied"),
    ):
        with pytest.raises(InvalidStatus) as refused, talks.talk(route, key=key, path=path + query):
            pass
        assert json.loads(refused.value.response.body)["error"]["code"] == code
    plain = talks.server.http.get(f"{path}?model=x", headers={"authorization": f"Bearer {talks.server.key}"})
    assert plain.json()["error"]["code"] == "upgrade_required"
    assert route.asked == [0]


def test_another_deployment_takes_the_conversation(talks: Talks) -> None:
    """Where the first one refuses its handshake; if all do, the client is told the first reason."""
    route = talks(Behaviour(status=503), Behaviour(), deployment=NEVER_LONG)
    with talks.talk(route) as talk:
        assert talk.socket.response is not None
        assert talk.socket.response.headers["x-penstock-deployment"] == route.places[1].id
        talk.answer()
    wrong = talks(Behaviour(status=400, error_message="no such model"), deployment=NEVER_LONG)
    with pytest.raises(InvalidStatus) as refused, talks.talk(wrong):
        pass
    assert refused.value.response.status_code == 400
    assert "no such model" in json.loads(refused.value.response.body)["error"]["message"]


def test_our_own_limit_says_nothing_of_a_deployment(talks: Talks) -> None:
    """Who is turned away by it does not have the deployment taken for ill."""
    route = talks(Behaviour(), deployment={**NEVER_LONG, "limits": {"parallel": 1}})
    with talks.talk(route) as talk:
        talk.hear("session.created")
        for _ in range(6):
            with pytest.raises(InvalidStatus) as refused, talks.talk(route):
                pass
            assert json.loads(refused.value.response.body)["error"]["code"] == "deployment_limit"
        assert talks.server.admin.get(f"/deployments/{route.places[0].id}").json()["health"] is None


def test_a_conversation_counts_as_a_request_after_its_end(talks: Talks) -> None:
    """For a minute, as any other; its end takes nobody else's request out of the count."""
    route = talks(Behaviour(), deployment={**NEVER_LONG, "limits": {"rpm": 2}})
    for _ in range(2):
        with talks.talk(route) as talk:
            talk.answer()
        await_end(route)
    with pytest.raises(InvalidStatus) as refused, talks.talk(route):
        pass
    assert json.loads(refused.value.response.body)["error"]["code"] == "deployment_limit"


def test_a_secret_for_a_browser(talks: Talks) -> None:
    """It stands for the key that asked for it, for its model, with its session, until it expires or the key does."""
    route = talks(Behaviour(), deployment=NEVER_LONG)
    body = {
        "expires_after": {"seconds": 60},
        "session": {"type": "realtime", "model": route.name, "instructions": "be kind"},
    }
    key = talks.server.new_key()
    made = talks.server.post("/v1/realtime/client_secrets", body, key=key).json()
    assert made["value"].startswith("ek_")
    assert 50 <= made["expires_at"] - time.time() <= 61
    offered = ["realtime", f"openai-insecure-api-key.{made['value']}"]
    with talks.talk(route, additional_headers={}, subprotocols=offered, path="/v1/realtime") as talk:
        assert talk.hear("session.updated")["session"]["instructions"] == "be kind"
        talk.answer()
    with pytest.raises(InvalidStatus), talks.talk("other", key=made["value"]):
        pass
    assert talks.server.post("/v1/chat/completions", talks.server.ask(route.name), key=made["value"]).status_code == 401
    with pytest.raises(InvalidStatus), talks.talk(route, key=made["value"][:-2] + "AA"):
        pass
    found = next(
        one
        for one in talks.server.admin.get("/keys?limit=200").json()["data"]
        if one["id"] == talks.of(route, 1)[0]["key_id"]
    )
    talks.server.admin.delete(f"/keys/{found['id']}")
    talks.server.await_key(key, known=False)
    with pytest.raises(InvalidStatus), talks.talk(route, key=made["value"]):
        pass


def test_secrets_are_for_what_their_maker_may_do(talks: Talks) -> None:
    path = "/v1/realtime/client_secrets"
    other = talks.server.new_key(models=["other"])
    route = talks(Behaviour(), deployment=NEVER_LONG)
    denied = talks.server.post(path, {"session": {"model": route.name}}, key=other)
    assert denied.json()["error"]["code"] == "model_access_denied"
    assert talks.server.http.post(path, content=b"{}").status_code == 401
    long = talks.server.post(path, {"expires_after": {"seconds": 100_000}})
    assert long.json()["error"]["param"] == "expires_after.seconds"
    tools = {"tools": [{"type": "mcp", "server_label": "x"}]}
    for place, body, param in (
        (path, {"session": tools}, "session.tools[0]"),
        ("/v1/realtime/sessions", tools, "tools[0]"),
    ):
        assert talks.server.post(place, body).json()["error"]["param"] == param
    beta = talks.server.post("/v1/realtime/sessions", {"model": route.name, "voice": "alloy"}).json()
    assert (beta["voice"], beta["client_secret"]["value"][:3]) == ("alloy", "ek_")
    calls = talks.server.post("/v1/realtime/calls", {})
    assert (calls.status_code, calls.json()["error"]["code"]) == (403, "unmetered_path")


# What there is to spend


def test_where_the_budget_ends_the_conversation_does(talks: Talks) -> None:
    """With an event that says so, and a reason in the closing frame; not a token is passed by."""
    route = talks(Behaviour(prompt_tokens=800, completion_tokens=90), deployment=NEVER_LONG)
    key = talks.budget(7)  # a worst case is up to 5.9, an answer costs 0.98
    with talks.talk(route, key=key) as talk:
        talk.say("session.update", session={"type": "realtime", "output_modalities": ["text"]})
        answers = 0
        event: Json = {"type": ""}
        while event["type"] != "error":
            talk.say("response.create")
            while (event := json.loads(talk.socket.recv(timeout=15)))["type"] not in {"response.done", "error"}:
                pass
            answers += event["type"] == "response.done"
        assert (event["error"]["code"], event["error"]["type"]) == ("budget_exceeded", "insufficient_quota")
        assert talk.end() == (1008, "budget_exceeded")
    assert answers >= 1
    assert await_end(route) == "finished"
    spent = sum(record["cost_nanousd"] or 0 for record in talks.of(route, answers + 1))
    assert spent == answers * (800 * 1_000_000 + 90 * 2_000_000) <= 7_000_000_000


def test_a_limit_that_is_lifted_is_lifted_for_the_hold_too(talks: Talks) -> None:
    """Before the upstream has said so: the answer that is asked for meanwhile may be that long."""
    route = talks(Behaviour(prompt_tokens=1, completion_tokens=1), deployment=NEVER_LONG)
    text = {"type": "realtime", "output_modalities": ["text"]}
    with talks.talk(route, key=talks.budget(0.75)) as talk:  # the prompt is about 0.64, a long answer 0.2
        talk.say("session.update", session={**text, "max_output_tokens": 1}).hear("session.updated")
        talk.answer()
        talk.say("session.update", session={**text, "max_output_tokens": "inf"}).say("response.create")
        assert talk.end() == (1008, "budget_exceeded")


def test_an_answer_in_the_making_is_cancelled_when_nothing_is_left(talks: Talks) -> None:
    """Somebody speaks up while an answer is made; the next one does not fit, so the first is stopped, heard out and billed."""
    route = talks(Behaviour(chunks=500, gap_s=0.05), deployment=NEVER_LONG)
    with talks.talk(route, key=talks.budget(5)) as talk:
        talk.say("response.create")
        talk.hear("response.output_text.delta")
        talk.say("response.create", response={"conversation": "none"})
        assert talk.end() == (1008, "budget_exceeded")
        assert [one["error"]["code"] for one in talk.heard if one["type"] == "error"] == ["budget_exceeded"]
    made = next(record for record in talks.of(route, 2) if record["status"] == 200)
    assert made["usage_source"] == "provider"
    assert 0 < made["completion_tokens"] < 500
    entry = route.places[0].handle.ended()
    assert '"response.cancel"' in entry.body
    assert entry.completion_tokens == made["completion_tokens"]


def test_speech_that_cannot_be_answered_is_not_heard(talks: Talks) -> None:
    """What was said is thrown away before the upstream answers it by itself."""
    route = talks(Behaviour(vad=True), deployment=NEVER_LONG)
    with talks.talk(route, key=talks.budget(0.01)) as talk:
        talk.say("input_audio_buffer.append", audio=VOICE)
        assert talk.end() == (1008, "budget_exceeded")
    assert '"input_audio_buffer.clear"' in route.places[0].handle.ended().body


def test_a_rate_limit_is_told_and_the_conversation_goes_on(talks: Talks) -> None:
    route = talks(Behaviour(), deployment=NEVER_LONG)
    key = talks.server.new_key(limits={"rpm": 1})
    with talks.talk(route, key=key) as talk:
        talk.answer()
        talk.say("response.create", event_id="second")
        error = talk.hear("error")["error"]
        assert (error["code"], error["event_id"]) == ("rate_limit_exceeded", "second")
        talk.say("conversation.item.create", item={"type": "message"})
        talk.hear("conversation.item.added")


def test_answers_at_the_same_time_are_limited(talks: Talks) -> None:
    route = talks(Behaviour(chunks=100, gap_s=0.05), deployment=NEVER_LONG)
    key = talks.server.new_key(limits={"parallel": 1})
    with talks.talk(route, key=key) as talk:
        talk.say("response.create")
        talk.hear("response.created")
        talk.say("response.create", response={"conversation": "none"})
        assert talk.hear("error")["error"]["code"] == "rate_limit_exceeded"


def test_a_revoked_key_ends_what_it_began(talks: Talks) -> None:
    route = talks(Behaviour(chunks=500, gap_s=0.05), deployment=NEVER_LONG)
    key = talks.server.new_key(name="revoked soon")
    with talks.talk(route, key=key) as talk:
        talk.say("response.create")
        talk.hear("response.output_text.delta")
        keys = talks.server.admin.get("/keys?limit=200").json()["data"]
        talks.server.admin.delete(f"/keys/{next(one['id'] for one in keys if one['name'] == 'revoked soon')}")
        assert talk.end() == (1008, "invalid_api_key")
    (record,) = talks.of(route, 1)
    assert 0 < record["completion_tokens"] < 500


def test_a_name_may_have_any_letters(talks: Talks) -> None:
    """It is a part of a query here and there."""
    route = talks(Behaviour(), deployment={**NEVER_LONG, "model": "a/b&c=d #1"})
    with talks.talk(route, path=f"/v1/realtime?model={quote(route.name)}&x=y") as talk:
        talk.answer()
    assert route.places[0].handle.ended().path.endswith("?model=a%2Fb%26c%3Dd%20%231")
