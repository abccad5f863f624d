"""The one path holds for every endpoint: who may call, where a call goes, what a client sees when something breaks."""

import socket
import time

import httpx
import pytest

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.raw import Raw
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour
from tests.upstream.units_dialect import SOUND, recording

FREE = {"price": {"input": 0, "output": 0}}
SAY = {"input": "hello", "voice": "alloy"}
TAPE = {"file": ("tape.wav", recording(0.5), "audio/wav")}
JSON_PATHS = ("/v1/rerank", "/v2/rerank", "/v1/moderations", "/v1/audio/speech", "/v1/images/generations")
FORM_PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")


def speak(routes: Routes, route: Route, **fields: object) -> httpx.Response:
    return routes.server.post("/v1/audio/speech", {"model": route.name, **SAY, **fields})


def upload(routes: Routes, path: str, data: Json, files: object = None, *, key: str | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or routes.server.key}"}
    return routes.server.http.post(path, data=data, files=files or TAPE, headers=headers)  # type: ignore[arg-type]


def recorded(routes: Routes, route: Route) -> Json:
    """The record of a call whose answer never came whole, once it is shipped."""
    deadline = time.monotonic() + 20
    while True:
        found = [one for one in routes.settled(1) if one["model"] == route.name]
        if found:
            return found[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Who may call


@pytest.mark.parametrize("path", [*JSON_PATHS, *FORM_PATHS])
def test_nobody_calls_without_a_key_or_with_another_s_method(routes: Routes, path: str) -> None:
    assert routes.server.http.post(path, content=b"{}").status_code == 401
    answer = routes.server.http.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_key_has_its_routes_and_models(routes: Routes) -> None:
    """A key for sound alone draws nothing, and one for other models speaks not."""
    route = routes(Behaviour(), deployment=FREE)
    sound = routes.server.new_key(routes=["/v1/audio/*"])
    other = routes.server.new_key(models=["other"])
    body = {"model": route.name, **SAY}
    assert routes.server.post("/v1/audio/speech", body, key=sound).status_code == 200
    denied = routes.server.post("/v1/images/generations", {"model": route.name, "prompt": "x"}, key=sound)
    assert denied.json()["error"]["code"] == "route_access_denied"
    assert routes.server.post("/v1/audio/speech", body, key=other).json()["error"]["code"] == "model_access_denied"
    assert upload(routes, FORM_PATHS[0], {"model": route.name}, key=other).status_code == 403


# Where it goes


def test_a_deployment_that_does_not_serve_it_is_passed_over(routes: Routes) -> None:
    """By its own kinds or by its provider; the order says nothing against that."""
    route = routes(Behaviour(), Behaviour(), deployment=FREE)
    chats = route.places[0]
    changed = routes.server.admin.patch(f"/deployments/{chats.id}", json={"kinds": ["chat", "completion", "embedding"]})
    assert changed.json()["kinds"] == ["chat", "completion", "embedding"]
    deadline = time.monotonic() + 10
    while speak(routes, route).headers["x-penstock-deployment"] != route.places[1].id:
        assert time.monotonic() < deadline
    assert routes.ask(route).headers["x-penstock-deployment"] == chats.id


def test_a_model_without_such_a_deployment_says_so(routes: Routes) -> None:
    """400, with what to do; and what cannot chat does not chat."""
    groq = routes(Behaviour(), deployment={**FREE, "provider": "groq"})
    answer = routes.server.post("/v1/moderations", {"model": groq.name, "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_endpoint")
    assert upload(routes, FORM_PATHS[0], {"model": groq.name}).status_code == 200
    tapes = routes(Behaviour(), deployment={**FREE, "kinds": ["transcription"]})
    assert routes.ask(tapes).json()["error"]["code"] == "unsupported_endpoint"
    assert tapes.asked == [0]


def test_a_model_that_stands_in_is_asked_with_the_same_form(routes: Routes) -> None:
    """The name in the form is that of the deployment which answers."""
    second = routes(Behaviour(), deployment={**FREE, "model": "other"})
    first = routes(Behaviour(status=500), deployment=FREE, fallbacks=[second.name], retries={"attempts": 0})
    answer = upload(routes, FORM_PATHS[0], {"model": first.name, "language": "en"})
    assert (answer.status_code, answer.headers["x-penstock-model"]) == (200, second.name)
    body = second.places[0].handle.ended().body
    assert 'name="model"\r\n\r\nother\r\n' in body
    assert 'name="language"\r\n\r\nen\r\n' in body


def test_a_large_upload_goes_through_unchanged(routes: Routes) -> None:
    """Eight megabytes, of which only the model's name is another."""
    route = routes(Behaviour(), deployment=FREE)
    files = {"file": ("a.mp3", bytes(range(256)) * 32_768, "audio/mpeg")}
    answer = upload(routes, FORM_PATHS[0], {"model": route.name, "response_format": "text"}, files)
    assert answer.status_code == 200
    entry = route.places[0].handle.ended()
    sent = int(answer.request.headers["content-length"])
    assert entry.body_bytes == sent - len(route.name) + len("scripted")


def test_the_faster_of_two_attempts_speaks(routes: Routes) -> None:
    """A second attempt for a slow one; both are settled, and the client hears one of them."""
    price = {"price": {"per_character": 15e-6}}
    slow = Behaviour(held_after=-1)
    route = routes(slow, Behaviour(), deployment=price, hedge={"after_s": 0.05, "max_share": 1})
    answer = speak(routes, route)
    assert answer.headers["x-penstock-deployment"] == route.places[1].id
    assert len(answer.content) == 3 * len(SOUND)
    assert [one["cost_nanousd"] for one in routes.records(answer)] == [75_000, 75_000]


# What a client sees


def test_sound_goes_on_as_it_comes(routes: Routes) -> None:
    """The first piece is there long before the last; the head has the upstream's type and what it cost."""
    route = routes(Behaviour(chunks=4, held_after=3), deployment=FREE)
    headers = {"authorization": f"Bearer {routes.server.key}"}
    body = {"model": route.name, **SAY}
    with routes.server.http.stream("POST", "/v1/audio/speech", json=body, headers=headers) as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        assert answer.headers["x-penstock-deployment"] == route.places[0].id
        pieces, sound = answer.iter_raw(), b""
        while len(sound) < 3 * len(SOUND):
            sound += next(pieces)
        route.places[0].handle.let_go()
        sound += b"".join(pieces)
    assert len(sound) == 4 * len(SOUND)


def test_broken_sound_is_no_success(routes: Routes) -> None:
    """There is no place for an error in it: the connection breaks before the last chunk, and the call is billed."""
    route = routes(Behaviour(chunks=4, fault="fin", fault_after=2), deployment={"price": {"per_character": 15e-6}})
    with pytest.raises(httpx.RemoteProtocolError):
        speak(routes, route)
    record = recorded(routes, route)
    assert (record["error_code"], record["cost_nanousd"]) == ("upstream_error", 75_000)


@pytest.mark.parametrize(
    "fault",
    [Behaviour(done=False), Behaviour(fault="fin", fault_after=2), Behaviour(fault="error_event", fault_after=2)],
)
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/images/generations"])
def test_a_stream_that_ends_early_says_so_in_band(routes: Routes, path: str, fault: Behaviour) -> None:
    """After the first event an error is an event; nothing that looks like an end comes after it."""
    route = routes(fault, deployment=FREE)
    more = {**SAY, "stream_format": "sse"} if "speech" in path else {"prompt": "x", "stream": True, "partial_images": 3}
    answer = routes.server.post(path, {"model": route.name, **more})
    assert answer.status_code == 200
    assert answer.text.rstrip().split("\n")[-1].startswith('data: {"error":')
    assert ".done" not in answer.text
    assert ".completed" not in answer.text


def test_a_failure_before_the_first_event_is_tried_elsewhere(routes: Routes) -> None:
    route = routes(Behaviour(fault="error_event", fault_after=0), Behaviour(), deployment=FREE)
    answer = speak(routes, route, stream_format="sse")
    assert answer.headers["x-penstock-deployment"] == route.places[1].id
    assert answer.text.rstrip().split("\n")[-1].startswith('data: {"type":"speech.audio.done"')


def test_a_stream_that_an_upstream_does_not_make_is_answered_whole(routes: Routes) -> None:
    """As whisper-1 does: `stream` is ignored, and the client gets the object that came."""
    route = routes(Behaviour(body='{"text": "hello"}', content_type="application/json"), deployment=FREE)
    answer = upload(routes, FORM_PATHS[0], {"model": route.name, "stream": "true"})
    assert (answer.status_code, answer.json()) == (200, {"text": "hello"})


def test_a_large_answer_comes_whole(routes: Routes) -> None:
    """Also one whose first segment unpacks to more than is read ahead."""
    picture = "A" * 3_000_000
    body = '{"created": 1, "data": [{"b64_json": "' + picture + '"}]}'
    for gzip in ("never", "always"):
        route = routes(Behaviour(body=body, gzip=gzip), deployment=FREE)
        answer = routes.server.post("/v1/images/generations", {"model": route.name, "prompt": "x"})
        assert answer.json()["data"][0]["b64_json"] == picture


def test_an_error_inside_a_200_is_an_error(routes: Routes) -> None:
    route = routes(Behaviour(body='{"error": {"message": "no voice"}}'), deployment=FREE, retries={"attempts": 0})
    for answer in (
        speak(routes, route),
        upload(routes, FORM_PATHS[0], {"model": route.name}),
        routes.server.post("/v1/moderations", {"model": route.name, "input": "x"}),
        routes.server.post("/v1/images/generations", {"model": route.name, "prompt": "x"}),
    ):
        assert (answer.status_code, "no voice" in answer.text) == (502, True)


def test_who_leaves_cancels_the_upstream_and_pays(routes: Routes) -> None:
    """The upstream stops at once; the characters are billed."""
    route = routes(Behaviour(chunks=50, gap_s=0.1), deployment={"price": {"per_character": 15e-6}})
    body = b'{"model":"%b","input":"hello","voice":"v"}' % route.name.encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {routes.server.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    with Raw(routes.server) as raw:
        raw.send(head.encode() + body)
        raw.more()
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert route.places[0].handle.ended(timeout_s=5).outcome == "client_left"
    record = recorded(routes, route)
    assert (record["cost_nanousd"], record["usage_source"]) == (75_000, "counted")


# Bad input


@pytest.mark.parametrize("path", JSON_PATHS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}", b'{"model": 1}', b"[" * 5000])
def test_a_body_that_is_no_request_is_refused(routes: Routes, path: str, body: bytes) -> None:
    answer = routes.server.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/moderations", {"input": []}, "input"),
        ("/v1/moderations", {"input": 3}, "input"),
        ("/v1/audio/speech", {"input": ""}, "input"),
        ("/v1/audio/speech", {"input": "x", "stream_format": "wav"}, "stream_format"),
        ("/v1/images/generations", {"prompt": "x", "n": 11}, "n"),
        ("/v1/images/generations", {"prompt": "x", "n": 0}, "n"),
        ("/v1/images/generations", {"prompt": "x", "partial_images": 4}, "partial_images"),
        ("/v1/images/generations", {"prompt": "x", "output_format": "svg"}, "output_format"),
    ],
)
def test_a_bad_field_is_named(routes: Routes, path: str, fields: Json, param: str) -> None:
    """What could not be metered is refused as well."""
    answer = routes.server.post(path, {"model": "m", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", FORM_PATHS)
def test_an_upload_that_is_no_form_is_refused(routes: Routes, path: str) -> None:
    for kind, body in (
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"--x\r\n"),
        ("multipart/form-data", b""),
    ):
        headers = {"authorization": f"Bearer {routes.server.key}", "content-type": kind}
        answer = routes.server.http.post(path, content=body, headers=headers)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] in {"unsupported_content_type", "invalid_form"}


@pytest.mark.parametrize(
    ("path", "data", "files", "param"),
    [
        ("/v1/audio/transcriptions", {}, TAPE, "model"),
        ("/v1/audio/transcriptions", {"model": "m"}, {"other": ("a", b"x")}, "file"),
        ("/v1/audio/transcriptions", {"model": "m", "stream": "maybe"}, TAPE, "stream"),
        ("/v1/audio/transcriptions", {"model": ["a", "b"]}, TAPE, "model"),
        ("/v1/audio/translations", {"model": "m", "stream": "true"}, TAPE, "stream"),
        ("/v1/images/edits", {"model": "m"}, {"image": ("a", b"x")}, "prompt"),
        ("/v1/images/edits", {"model": "m", "prompt": "x"}, {"mask": ("a", b"x")}, "image"),
        ("/v1/images/edits", {"model": "m", "prompt": "x", "n": "many"}, {"image": ("a", b"x")}, "n"),
        ("/v1/images/variations", {"model": "m", "n": "1e9"}, {"image": ("a", b"x")}, "n"),
    ],
)
def test_a_bad_field_of_a_form_is_named(routes: Routes, path: str, data: Json, files: object, param: str) -> None:
    answer = upload(routes, path, data, files)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_an_unknown_model_is_a_404(routes: Routes) -> None:
    assert speak(routes, Route("nobody", [])).json()["error"]["code"] == "model_not_found"
    assert routes.server.post("/v1/moderations", {"input": "x"}).json()["error"]["code"] == "model_not_found"
