"""A question becomes several: rewritten, asked in other ways, answered by guess (HyDE), by a chat model on the account of who asks.

None of it is needed for an answer: what does not come in time, or is refused, is left out and told so.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Sequence
from typing import Final

import msgspec
import structlog

from retrieval.access import Caller
from retrieval.asking import Expansion, Question, Stage
from retrieval.errors import RetrievalError
from retrieval.ports import Writer

log = structlog.stdlib.get_logger(__name__)

MAX_CHARACTERS: Final = 1000  # of a query that a model writes
MAX_PASSAGE: Final = 4000  # of an answer that it makes up

_REWRITE: Final = (
    "Rewrite the user's message as one query for a search engine over documents: keep every name, number and condition, resolve what is "
    "vague, leave out greetings and requests about the form of the answer. Reply with the query alone, in the user's language."
)
_STANDALONE: Final = (
    "Below is a conversation. Rewrite its last message of the user as one query for a search engine over documents that can be understood "
    "without the rest: put names, numbers and conditions from before in the place of words such as 'it' and 'there'. Answer nothing. Reply "
    "with the query alone, in the user's language."
)
_MORE: Final = (
    "Write {count} different queries for a search engine over documents that together find what answers the user's message: other words, "
    "narrower and broader. One query on each line and nothing else, in the user's language."
)
_HYDE: Final = (
    "Write a short passage, of at most a hundred words, as it could stand in a document that answers the user's message. Reply with the "
    "passage alone, in the user's language."
)
_MARK: Final = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,2}[.):])\s+")
_THOUGHT: Final = re.compile(r"<think>.*?</think>", re.DOTALL)


class Expanded(msgspec.Struct, frozen=True):
    question: Question
    stages: Sequence[Stage]


async def expanded(writer: Writer | None, question: Question, payer: Caller) -> Expanded:
    """Raises BadRequest, Forbidden for a model that is named and not to be had."""
    wanted = question.expansion
    if wanted is None:
        return Expanded(question, ())
    names = [
        name
        for name, asked in (("rewrite_query", wanted.rewrite), ("multi_query", wanted.more), ("hyde", wanted.hyde))
        if asked
    ]
    if writer is None:
        return Expanded(question, [_skipped(name, "no chat model can be asked here") for name in names])
    if wanted.model is not None:
        writer.require(wanted.model, payer.key_id)
    model = wanted.model or writer.default()
    if model is None:
        reason = "no chat model is named: set `expand.model` or retrieval.chat_model"
        return Expanded(question, [_skipped(name, reason) for name in names])
    if wanted.hyde and question.dense <= 0:
        made = await _asked(writer, question, wanted, [name for name in names if name != "hyde"], model, payer)
        return Expanded(made.question, [*made.stages, _skipped("hyde", "nothing is searched by meaning", model)])
    return await _asked(writer, question, wanted, names, model, payer)


async def standalone(
    writer: Writer | None, payer: Caller, conversation: str, model: str | None, timeout_s: float
) -> str | None:
    """A conversation's last question as a query that needs no other; None where that cannot be had, which is told in the log."""
    model = model or (None if writer is None else writer.default())
    if writer is None or model is None:
        return None
    writing = writer.write(_STANDALONE, conversation, model, payer, 200)
    stage, written = await _within("standalone", model, timeout_s, writing, 1)
    if not written:
        log.info("question.not_rewritten", model=model, reason=stage.reason)
    return written[0] if written else None


async def _asked(
    writer: Writer, question: Question, wanted: Expansion, names: Sequence[str], model: str, payer: Caller
) -> Expanded:
    text = "\n".join(question.queries)
    tasks = {
        "rewrite_query": (_REWRITE, 200),
        "multi_query": (_MORE.format(count=wanted.more), 100 * max(1, wanted.more)),
        "hyde": (_HYDE, 300),
    }

    async def one(name: str) -> tuple[Stage, Sequence[str]]:
        instruction, tokens = tasks[name]
        writing = writer.write(instruction, text, model, payer, tokens)
        return await _within(name, model, wanted.timeout_s, writing, wanted.more if name == "multi_query" else 1)

    found = dict(zip(names, await asyncio.gather(*(one(name) for name in names)), strict=True))
    rewritten = found["rewrite_query"][1] if "rewrite_query" in found else ()
    more = found["multi_query"][1] if "multi_query" in found else ()
    queries = list(dict.fromkeys((*(rewritten or question.queries), *more)))
    meanings = found["hyde"][1] if "hyde" in found else ()
    stages = [stage for stage, _ in found.values()]
    return Expanded(msgspec.structs.replace(question, queries=queries, meanings=meanings), stages)


async def _within(
    name: str, model: str, timeout_s: float, writing: Awaitable[str], most: int
) -> tuple[Stage, Sequence[str]]:
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            text = await writing
    except TimeoutError:
        return _skipped(name, f"no answer within {timeout_s:g} s", model, began), ()
    except RetrievalError as error:
        return _skipped(name, error.message, model, began), ()
    written = passage(text) if name == "hyde" else queries_in(text)[:most]
    if not written:
        return _skipped(name, "the model wrote nothing", model, began), ()
    return Stage(name, "done", None, model, _ms(began), written), written


def queries_in(text: str) -> list[str]:
    """One on each line, without numbers, dashes and quotes around them. Pure."""
    lines = (_MARK.sub("", line).strip().strip("\"'`\u201c\u201d").strip() for line in _plain(text).splitlines())
    return list(dict.fromkeys(line[:MAX_CHARACTERS] for line in lines if any(map(str.isalnum, line))))


def passage(text: str) -> list[str]:
    """All of it, or nothing. Pure."""
    plain = _plain(text).strip()[:MAX_PASSAGE]
    return [plain] if any(map(str.isalnum, plain)) else []


def _plain(text: str) -> str:
    return _THOUGHT.sub("", text).replace("\0", "").encode("utf-8", "replace").decode()


def _skipped(name: str, reason: str, model: str | None = None, began: float | None = None) -> Stage:
    return Stage(name, "skipped", reason, model, 0.0 if began is None else _ms(began))


def _ms(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 1)
