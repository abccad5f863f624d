"""A distilled model behind OpenAI's chat: `gateway.in_process.Local`. Where it is not sure it says so, and the model's fallbacks answer."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import structlog

from gateway import errors
from inference.distil.labels import last_text, written
from inference.distil.recipe import FACTS, MARK, Student
from inference.errors import InferenceError, ModelNotFound

if TYPE_CHECKING:
    from admin.predictions.late import LatePredictions
    from inference.ports import Bundle

log = structlog.stdlib.get_logger(__name__)

Vectors = Callable[[Sequence[str]], Awaitable[Any]]
"""Texts to float32 `[texts, dimensions]`."""

EMBEDDING: Final = "penstock/minilm"  # what makes the vectors, by its public name
# What it does not do. A value of these is no request for anything.
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {"n": (None, 1), "logprobs": (None, False), "audio": (None,)}


@final
class DistilledModels:
    """`late` are the classic models; `redact` is what recorded texts went through before anybody learnt from them."""

    def __init__(self, late: Callable[[], "LatePredictions"], vectors: Vectors, redact: Callable[[str], str]) -> None:
        self._late = late
        self._vectors = vectors
        self._redact = redact

    async def answer(self, endpoint: str, body: bytes, model: str, target: str) -> bytes:
        """`target`: a classic model, or `name@alias`. Raises GatewayError; Unsure where another model should answer."""
        if endpoint != "chat":
            raise errors.BadRequest(f"The model '{model}' answers chats; it cannot answer this", param="model")
        asked = msgspec.json.decode(body)
        text = last_text(asked) if isinstance(asked, Mapping) else None
        if text is None or asked.get("tools") or any(asked.get(name) not in some for name, some in _PLAIN.items()):
            raise errors.Unsure(f"The model '{model}' answers a user's text with a label, and nothing else")
        try:
            bundle, student, label, sure = await self._decided(text, target)
        except ModelNotFound as error:
            raise errors.Overloaded(f"The model '{model}' is not there: {error.message}") from error
        except InferenceError as error:
            raise errors.UpstreamFailed(f"The model '{model}' failed: {error.message}") from error
        if sure < student.threshold:
            why = f"The model '{model}' is sure to {sure:.3f}, and answers from {student.threshold:.3f} on"
            raise errors.Unsure(why)
        content = written(label, student.field)
        return _reply(asked, content, model, f"{MARK}{bundle.model}:{bundle.version}", sure)

    async def _decided(self, text: str, target: str) -> "tuple[Bundle, Student, str | float, float]":
        """The bundle, what it knows of itself, its label, and how sure it is."""
        from inference.serving.frame import Frame  # noqa: PLC0415 — NumPy comes with it
        from inference.serving.outputs import kept  # noqa: PLC0415 — as above

        made = (await self._late().ready()).predictions
        name, _, alias = target.partition("@")
        bundle = made.library.bundle(name, alias=alias or None)
        facts = bundle.metadata.get(FACTS)
        if facts is None:
            raise ModelNotFound(f"the classic model '{name}' was not distilled", param="model")
        student = msgspec.convert(facts, Student)
        rows = await self._vectors([await asyncio.to_thread(self._redact, text)])
        [column] = bundle.signature.inputs
        outputs = kept(bundle, await made.fleet.run(bundle, Frame({column.name: rows}, 1)), 1)
        said = outputs["predictions"][0]
        if student.kind == "regressor":
            return bundle, student, float(said), 1.0
        label = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return bundle, student, label, float(outputs["probabilities"][0].max())


def _reply(asked: Mapping[str, Any], content: str, model: str, mark: str, sure: float) -> bytes:
    """Whole, or as the events of a stream up to `[DONE]`. Nobody pays for tokens, so those are by estimate."""
    frame = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
    frame |= {"system_fingerprint": mark}
    said = sum(len(str(message.get("content") or "")) for message in asked["messages"]) // 4 + 1
    usage = {"prompt_tokens": said, "completion_tokens": len(content) // 4 + 1}
    usage["total_tokens"] = sum(usage.values())
    if not asked.get("stream"):
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        fields = {**frame, "object": "chat.completion", "choices": [choice], "usage": usage}
        return msgspec.json.encode({**fields, "confidence": round(sure, 4)})
    frame["object"] = "chat.completion.chunk"
    pieces: list[tuple[Mapping[str, Any], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": content}, None),
        ({}, "stop"),
    ]
    chunks: list[Mapping[str, Any]] = [
        {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}
        for delta, finish in pieces
    ]
    options = asked.get("stream_options")
    if isinstance(options, Mapping) and options.get("include_usage"):
        chunks.append({**frame, "choices": [], "usage": usage})
    return b"".join(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
