"""Captures go out as CloudEvents, in each mode, as the official SDK reads them: whole, redacted, each with the id of its prediction."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from admin.webhooks import batched, enveloped
from tests.fixtures.server import Server
from tests.fixtures.swaps import ROWS, register

Heard = list[tuple[str, HTTPMessage]]
FORMATS = ("cloudevents", "cloudevents_binary", "cloudevents_batch")


@contextmanager
def receiver() -> Iterator[tuple[str, Heard]]:
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path.strip("/"), HTTPMessage(dict(self.headers.items()), body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def events(message: HTTPMessage) -> list[BaseCloudEvent]:
    """Those of one message; each of a batch is one in structured mode."""
    media = message.headers.get("content-type", message.headers.get("Content-Type", ""))
    if not media.startswith("application/cloudevents-batch+json"):
        return [from_http_event(message)]
    headers = {"content-type": "application/cloudevents+json"}
    return [from_http_event(HTTPMessage(headers, json.dumps(one).encode())) for one in json.loads(message.body)]


def test_captures_go_out_as_cloud_events(tmp_path: Path) -> None:
    """Every prediction once to each receiver; a column that is not to be kept is not told either."""
    with receiver() as (url, heard):
        hooks = [{"url": f"{url}/{each}", "events": ["prediction"], "format": each} for each in FORMATS]
        config = {"alerts": {"webhooks": hooks}, "predictions": {"capture": {"redact": {"secret": ["x"]}}}}
        server = Server(config, tmp_path).start()
        try:
            for model in ("open", "secret"):
                register(server, model, 2.0)
            body = {"instances": [list(row) for row in ROWS]}
            made = [server.post(f"/v1/predict/{model}", body).json()["id"] for model in ("open", "secret", "open")]
            found = await_events(heard, len(made))
        finally:
            server.stop()
    for of_one in found.values():
        assert sorted(one.get_id() for one in of_one) == sorted(made)
        for one in of_one:
            data: Mapping[str, Any] = one.get_data()  # type: ignore[assignment]  # it was JSON
            assert (one.get_type(), one.get_source(), data["version"]) == ("penstock.prediction.made", "/penstock", 1)
            assert one.get_time() is not None
            hidden = data["model"] == "secret"
            assert data["inputs"] == {"x": "[redacted]" if hidden else [list(row) for row in ROWS]}
            assert data["outputs"] == {"y": [[2 * row[0]] for row in ROWS]}


def await_events(heard: Heard, number: int) -> dict[str, list[BaseCloudEvent]]:
    """By format, once there are so many of each."""
    deadline = time.monotonic() + 60
    while True:
        found = {each: [one for path, sent in heard if path == each for one in events(sent)] for each in FORMATS}
        if all(len(of_one) >= number for of_one in found.values()):
            return found
        assert time.monotonic() < deadline, heard
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["cloudevents", "cloudevents_binary", "cloudevents_batch"])
def test_what_happens_has_an_id_of_its_own(form: Any) -> None:
    """A rollout that moves twice is two events, a prediction that is told twice is one."""
    moved = b'{"event":"rollout.promoted","rollout":"rol_1","at":"2026-01-02T03:04:05Z"}'
    made = b'{"event":"prediction.made","id":"req_1","at":"2026-01-02T03:04:05Z"}'
    for body, wanted in ((moved, "dlv_1"), (made, "req_1")):
        headers, sent = enveloped(form, "dlv_1", body)
        (one,) = events(HTTPMessage(headers, sent))
        assert one.get_id() == wanted
        assert one.get_data() == json.loads(body)
    headers, sent = batched([("a", moved), ("b", made)])
    assert [one.get_id() for one in events(HTTPMessage(headers, sent))] == ["a", "req_1"]
