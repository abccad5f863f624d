"""The quoting model behind OpenAI's chat: a request's bytes in, an answer's bytes out, whole or as events."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, final

import msgspec

from retrieval.chunking.tokens import Estimate
from retrieval.quotes import conversation, looking
from retrieval.quotes.passage import Answer, Passage, Quotation
from retrieval.quotes.quoting import Similar, quote

Search = Callable[[str], Awaitable[Sequence[Passage]]]
"""What a collection has about a question, best first."""

NO_DOCUMENTS: Final = (
    "There is nothing to quote from. I answer only with sentences of documents: put some into the conversation (in a message, "
    "as tool results, or in `documents`), or ask a model with a collection attached."
)
NOTHING_FOUND: Final = "Nothing in the documents supports an answer to this question."
NO_QUESTION: Final = "There is no question in the conversation."
_DONE: Final = b"data: [DONE]\n\n"
_SHOWN: Final = 3  # decimals of support

# What a client would wait for in vain. A value of these is no request for anything.
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (None, 1),
    "response_format": (None, {"type": "text"}),
    "logprobs": (None, False),
    "tool_choice": (None, "none", "auto"),
    "audio": (None,),
}


class Unsupported(Exception):
    """The request asks for what quoting cannot do. `param` is the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@final
class QuotingModel:
    """`similar` compares meanings, `search` asks an attached collection; without them words decide, and the conversation is all there is.

    `now` gives seconds since the epoch.
    """

    def __init__(
        self, similar: Similar | None = None, search: Search | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._similar = similar
        self._search = search
        self._now = now

    async def answer(self, body: bytes, model: str) -> bytes:
        """A `chat.completion`, or its events up to `[DONE]` if the request asks for a stream. Raises Unsupported."""
        request, asked = await asyncio.to_thread(_read, body)
        function = looking.wanted(request)
        if function is not None and asked.question:
            return await asyncio.to_thread(self._looked_up, request, function, asked.question, model)
        passages = list(asked.passages)
        if self._search is not None and asked.question:
            passages += await self._search(asked.question)
        answer = await quote(asked.question, passages, self._similar) if passages else Answer((), 0)
        return await asyncio.to_thread(self._told, request, asked.question, passages, answer, model)

    def _told(
        self, request: Mapping[str, Any], question: str, passages: Sequence[Passage], answer: Answer, model: str
    ) -> bytes:
        """Blocks: tokens are counted in all that was read."""
        called = looking.function_of(request) is not None
        searched = called or self._search is not None or isinstance(request.get("documents"), list)
        numbers = _numbers(passages, answer.quotations)
        written = _written(question, passages, answer, numbers, searched=searched, listed=not called)
        reply = _Reply(written, list(zip(numbers, answer.quotations, strict=True)), model, int(self._now()))
        most = request.get("max_completion_tokens") or request.get("max_tokens")
        usage = _usage(request["messages"], passages, reply.limit(most if isinstance(most, int) else None))
        return reply.as_asked(request, usage)

    def _looked_up(self, request: Mapping[str, Any], function: str, question: str, model: str) -> bytes:
        """A call of the function that searches instead of an answer."""
        reply = _Reply([], (), model, int(self._now()))
        reply.call(function, looking.arguments(question))
        return reply.as_asked(request, _usage(request["messages"], (), question))


def _read(body: bytes) -> tuple[dict[str, Any], conversation.Asked]:
    request = _request(body)
    documents = request.get("documents")
    return request, conversation.read(request["messages"], documents if isinstance(documents, list) else ())


def _request(body: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(body)
    except (
        msgspec.DecodeError,
        RecursionError,
    ) as error:  # what a proxy does not read, as half a character in a message
        raise Unsupported(f"The body is not valid JSON: {error}", "messages") from None
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise Unsupported("messages must be a list", "messages")
    if not all(isinstance(message, dict) for message in request["messages"]):
        raise Unsupported("each message must be an object", "messages")
    function = looking.function_of(request)
    for name, plain in _PLAIN.items():
        if name == "tool_choice" and function is not None and looking.chosen(request, function):
            continue
        if request.get(name) not in plain:
            raise Unsupported(f"This model answers by quoting; it cannot serve {name}={request[name]!r}"[:200], name)
    return request


def _numbers(passages: Sequence[Passage], quotations: Sequence[Quotation]) -> list[int]:
    """By which each quotation is cited: the number that its passage is shown under, and behind all of those its turn, where it has none.

    Where two passages are shown under one number, none of them says which is meant.
    """
    shown = {(passage.number, passage.text) for passage in passages if passage.number is not None}
    known = {number for number, _ in shown}
    if len(known) < len(shown):
        return list(range(1, len(quotations) + 1))
    free = count(max(known, default=0) + 1)
    return [next(free) if each.passage.number is None else each.passage.number for each in quotations]


def _written(
    question: str,
    passages: Sequence[Passage],
    answer: Answer,
    numbers: Sequence[int],
    *,
    searched: bool,
    listed: bool,
) -> list[str]:
    """The answer in pieces, as a stream sends them: each quotation, then, if `listed`, where it stands.

    `searched`: there are documents elsewhere.
    """
    if not question:
        return [NO_QUESTION]
    if not passages:
        return [NOTHING_FOUND if searched else NO_DOCUMENTS]
    if not answer.quotations:
        return [NOTHING_FOUND]
    pieces = [
        f"{chr(10) * 2 if place else ''}“{' '.join(each.text.split())}” [{number}]"
        for place, (number, each) in enumerate(zip(numbers, answer.quotations, strict=True))
    ]
    if not listed:
        return pieces
    places = dict.fromkeys(
        f"[{number}] {_place(each)}" for number, each in zip(numbers, answer.quotations, strict=True)
    )
    return [*pieces, "\n\n" + "\n".join(places)]


def _place(quotation: Quotation) -> str:
    passage = quotation.passage
    parts = [passage.source]
    parts += [f"page {passage.page}"] if passage.page is not None else []
    parts += [f"line {passage.line}"] if passage.line is not None else []
    parts += [" > ".join(passage.heading)] if passage.heading else []
    return ", ".join(parts)


@final
class _Reply:
    def __init__(
        self, pieces: list[str], quotations: Sequence[tuple[int, Quotation]], model: str, created: int
    ) -> None:
        """Quotations with the numbers by which they are cited."""
        self._pieces = pieces
        self._quotations = quotations
        self._finish = "stop"
        self._calls: list[dict[str, Any]] = []
        self._frame = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": created, "model": model}

    def limit(self, tokens: int | None) -> str:
        """Cuts after so many tokens, in the middle of a quotation if need be. Gives the text."""
        text = "".join(self._pieces)
        ends = Estimate().ends(text)
        if tokens is not None and 0 <= tokens < len(ends):
            text = text[: ends[tokens - 1]] if tokens else ""
            self._pieces, self._finish = [text], "length"
        return text

    def call(self, function: str, arguments: str) -> None:
        """It says nothing, and wants this to be called."""
        self._finish = "tool_calls"
        called = {"name": function, "arguments": arguments}
        self._calls = [{"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": called}]

    def as_asked(self, request: Mapping[str, Any], usage: Mapping[str, int]) -> bytes:
        if not request.get("stream"):
            return self.whole(usage)
        options = request.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return b"".join(self.events(usage if wants_usage else None))

    def whole(self, usage: Mapping[str, int]) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._pieces), "refusal": None}
        message |= {"content": None, "tool_calls": self._calls} if self._calls else self._sources()
        choice = {"index": 0, "message": message, "finish_reason": self._finish, "logprobs": None}
        return msgspec.json.encode({**self._frame, "object": "chat.completion", "choices": [choice], "usage": usage})

    def events(self, usage: Mapping[str, int] | None) -> Iterator[bytes]:
        yield self._event({"role": "assistant", "content": ""})
        for piece in self._pieces:
            yield self._event({"content": piece})
        for place, call in enumerate(self._calls):
            yield self._event({"tool_calls": [{"index": place, **call}]})
        yield self._event({} if self._calls else self._sources(), self._finish)
        if usage is not None:
            yield self._line({"choices": [], "usage": usage})
        yield _DONE

    def _event(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        return self._line({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]})

    def _line(self, fields: Mapping[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode({**self._frame, "object": "chat.completion.chunk", **fields}) + b"\n\n"

    def _sources(self) -> dict[str, Any]:
        """Beside OpenAI's fields: where each quotation stands, for programs."""
        return {"citations": [_citation(number, each) for number, each in self._quotations]}


def _citation(number: int, quotation: Quotation) -> dict[str, Any]:
    passage = quotation.passage
    return {
        "index": number,
        "source": passage.source,
        "quote": quotation.text,
        "start": quotation.start,
        "end": quotation.end,
        "page": passage.page,
        "line": passage.line,
        "heading": list(passage.heading),
        "passage_id": passage.id,
        "document_id": passage.document_id,
        "support": round(quotation.support, _SHOWN),
    }


def _usage(messages: Sequence[Mapping[str, Any]], passages: Sequence[Passage], text: str) -> Mapping[str, int]:
    """By estimate: nobody pays for them. What was read counts once, whether it stood in a message or in a collection."""
    measure = Estimate()
    said = sum(len(measure.ends(str(message.get("content") or ""))) for message in messages)
    read = sum(len(measure.ends(passage.text)) for passage in passages if passage.id is not None)
    written = len(measure.ends(text))
    return {"prompt_tokens": said + read, "completion_tokens": written, "total_tokens": said + read + written}
