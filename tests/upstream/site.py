"""Finds the answer to a request: the control routes, the script that is meant, and the dialect of the path."""

import asyncio
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from tests.upstream import (
    answer,
    anthropic_dialect,
    asked,
    bedrock_dialect,
    gemini_dialect,
    openai_dialect,
    responses_dialect,
    units_dialect,
)
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked
from tests.upstream.behaviour import PLAIN, Behaviour, Script
from tests.upstream.journal import KEPT_BODY_BYTES, Entry, Journal

ROUTES: dict[str, Callable[[Asked, Behaviour], Answer]] = {
    "chat/completions": openai_dialect.chat,
    "completions": openai_dialect.completion,
    "embeddings": openai_dialect.embeddings,
    "responses": responses_dialect.responses,
    "models": lambda _asked, _behaviour: openai_dialect.models(),
    **units_dialect.ROUTES,
    "messages": anthropic_dialect.messages,
    "messages/count_tokens": lambda question, _behaviour: anthropic_dialect.count_tokens(question),
}

PLACES = re.compile(r"/v1/|/openai/deployments/[^/]+/|^/(?=v2/)")  # what stands before a route; the second is Azure's

_script = msgspec.json.Decoder(Script)


class Request(NamedTuple):
    """One whole request. Header names in lower case."""

    connection: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    old: bool

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Reaction(NamedTuple):
    """What to do about a request; `entry` is None for the control routes, which nobody bills."""

    answer: Answer
    behaviour: Behaviour
    entry: Entry | None


class Site:
    """Scripts by id. An id is named by a path `/s/<id>/v1/…` or by the `model` of the body."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)  # by script; what is held waits for it
        self._scripts: dict[str, list[Behaviour]] = {}

    def react(self, request: Request) -> Reaction:
        path, _, query = request.path.partition("?")
        if path.startswith("/__"):
            return Reaction(self._control(request, path, query), PLAIN, None)
        script = ""
        if path.startswith("/s/"):
            script, _, rest = path[3:].partition("/")
            path = "/" + rest
        question = asked.read(request.body, request.header("content-type"))
        if not script and question.model in self._scripts:
            script = question.model
        behaviour = self._next(script)
        entry = self._entry(request, script)
        self.journal.add(entry)
        made = _answer(path, question, behaviour)
        entry.units = dict(made.units)
        return Reaction(made, behaviour, entry)

    def talk(self, request: Request) -> tuple[Behaviour, Entry]:
        """A conversation is asked for; the query may have the model."""
        path = request.path
        script = path[3:].partition("/")[0] if path.startswith("/s/") else ""
        named = re.search(r"[?&](?:model|deployment)=([^&]+)", path)
        if not script and named is not None and unquote(named[1]) in self._scripts:
            script = unquote(named[1])
        entry = self._entry(request, script)
        self.journal.add(entry)
        return self._next(script), entry

    def _next(self, script: str) -> Behaviour:
        waiting = self._scripts.get(script)
        if not waiting:
            return PLAIN
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def _entry(self, request: Request, script: str) -> Entry:
        body = request.body
        self.journal.numbers += 1
        return Entry(
            number=self.journal.numbers,
            script=script,
            connection=request.connection,
            method=request.method,
            path=request.path,
            headers=request.headers,
            body_bytes=len(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            body=body.decode("latin-1") if len(body) <= KEPT_BODY_BYTES else "",
            arrived_at=time.monotonic(),
        )

    def _control(self, request: Request, path: str, query: str) -> Answer:
        match request.method, path:
            case "POST", "/__script__":
                script = _script.decode(request.body)
                self._scripts[script.id] = list(script.behaviours)
                return answer.whole(200, {"id": script.id})
            case "POST", "/__let_go__":
                self.gates[query.removeprefix("script=")].set()
                return answer.whole(200, {})
            case "GET", "/__log__":
                wanted = query.removeprefix("script=") if query else None
                return answer.whole(200, self.journal.of(wanted))
            case "GET", "/__bill__":
                return answer.whole(200, self.journal.bills[query.removeprefix("script=")])
            case _:
                return answer.whole(404, {"error": f"no control route {request.method} {path}"})


def _answer(path: str, question: Asked, behaviour: Behaviour) -> Answer:
    of_gemini, of_bedrock = gemini_dialect.asked(path, question), bedrock_dialect.asked(path, question)
    question = of_gemini or of_bedrock or question
    if behaviour.body is not None:
        kind = answer.EVENT_STREAM if question.stream and behaviour.status == 200 else answer.JSON
        pieces: Iterable[Piece] = (Piece(behaviour.body.encode()),) if behaviour.body else ()
        return Answer(behaviour.status, kind, iter(pieces))
    if behaviour.status != 200:
        dialect = anthropic_dialect if path.endswith("/messages") else openai_dialect
        made = dialect.error(behaviour) if of_gemini is None else gemini_dialect.error(behaviour)
        return answer.whole(behaviour.status, made if of_bedrock is None else bedrock_dialect.error(behaviour))
    if of_gemini is not None:
        return gemini_dialect.respond(path, of_gemini, behaviour)
    if of_bedrock is not None:
        return bedrock_dialect.respond(path, of_bedrock, behaviour)
    route = ROUTES.get(PLACES.split(path, 1)[-1])
    if route is None:
        return answer.whole(404, {"error": {"message": f"no route {path}", "type": "invalid_request_error"}})
    return route(question, behaviour)
