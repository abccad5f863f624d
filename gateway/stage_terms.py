"""What the stages before a dispatch are made of, where somebody wants them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Engine

from gateway.cache.ports import Store

if TYPE_CHECKING:  # made when the first model wants one
    from gateway.cache.meanings import Log
    from gateway.guards.judges import Classify, Post


class CacheTerms(msgspec.Struct, frozen=True):
    """Where answers are kept, made when the first model wants a cache; `max_bytes` of one of them.

    `embed` gives vectors of texts, as rows; `log` is where many processes tell each other of questions, for a store of many.
    """

    store: Callable[[Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]], Store]
    max_bytes: int
    embed: Callable[[Sequence[str]], Awaitable[Any]] | None = None
    log: Callable[[Store], "Log | None"] = lambda _: None


class ContentTerms(msgspec.Struct, frozen=True):
    """What is kept of requests and answers: `everybody`'s that does not say otherwise, redacted, up to `max_bytes` of each."""

    engine: Engine
    redact: Callable[[str], str]
    everybody: bool
    max_bytes: int


class GuardTerms(msgspec.Struct, frozen=True):
    """Whom guards and routers may ask, beside the models here: `post` speaks HTTP, `classify` is whatever serves classifiers."""

    post: "Post | None" = None
    classify: "Classify | None" = None
