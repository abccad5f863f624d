"""A server that tells a collector everything, and what came of it."""

import secrets

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fixtures.collector import Collector
from tests.fixtures.deployments import Routes
from tests.fixtures.server import Json, Server
from tests.telemetry.until import until


class Watched:
    """A server that tells a collector everything."""

    def __init__(self, server: Server, routes: Routes, collector: Collector) -> None:
        self.server = server
        self.routes = routes
        self.collector = collector

    def ask(self, model: str, text: str = "hello", *, parent: str = "", **fields: object) -> tuple[int, str]:
        """Status and trace id of a chat."""
        trace = secrets.token_hex(16)
        headers = {"authorization": f"Bearer {self.server.key}", "traceparent": parent or f"00-{trace}-{'ab' * 8}-01"}
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        answer = self.server.http.post("/v1/chat/completions", json=body, headers=headers)
        return answer.status_code, trace

    def spans(self, trace: str, count: int, requests: int = 1) -> dict[str, list[Span]]:
        """Of a trace, by kind, once there are so many, and of so many requests: each tells all of its spans at once."""

        def there(collector: Collector) -> list[Span] | None:
            spans = collector.trace(trace)
            served = sum(span.kind == Span.SPAN_KIND_SERVER for span in spans)
            return spans if len(spans) >= count and served >= requests else None

        found = self.collector.wait(there)
        kinds: dict[str, list[Span]] = {}
        for span in sorted(found, key=lambda span: span.start_time_unix_nano):
            kinds.setdefault(Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(), []).append(span)
        return kinds

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.server.key}"}

    def store(self, model: str, text: str = "A dam.") -> str:
        """The id of a vector store with one file that is read, embedded by a model."""
        post = self.server.http.post
        file = post(
            "/v1/files",
            files={"file": ("a.txt", text.encode())},
            data={"purpose": "assistants"},
            headers=self.bearer,
        )
        fields: Json = {"name": "x", "embedding_model": model, "file_ids": [file.json()["id"]]}
        made = post("/v1/vector_stores", json=fields, headers=self.bearer)
        assert made.status_code == 200, made.text
        store: str = made.json()["id"]
        get = self.server.http.get
        until(lambda: get(f"/v1/vector_stores/{store}", headers=self.bearer).json()["file_counts"]["completed"] == 1)
        return store
