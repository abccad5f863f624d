"""Answers whose provider does not say what they used: what they and their prompts say is counted here, once they are whole.

Of a stream that takes its events. They are kept while it is not known that a deployment tells its usage at the end, as nearly all do.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, final

from gateway.answer_length import BYTES_PER_TOKEN, written, written_tokens
from gateway.dialect import Stream
from gateway.dialects.events import EventReader
from gateway.front import FrontStream
from gateway.record import Record
from gateway.sse import ChatStream
from gateway.token_count import TokenCounter
from gateway.usage import of_tokens

MOST_BYTES: Final = 1024 * 1024  # of an answer, or a prompt; more is not counted

Counts = tuple[int | None, int | None]  # of the prompt and of the answer


@final
class Unreported:
    """One per process."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._telling: set[str] = set()

    def began(self, deployment: str, stream: Stream) -> ChatStream | None:
        """What an upstream of OpenAI's dialect is going to say, whatever API the client speaks; kept, if it may have to be counted."""
        chat = stream.chat if isinstance(stream, FrontStream) else stream
        if not isinstance(chat, ChatStream):
            return None
        if deployment not in self._telling:
            chat.keep(MOST_BYTES)
        return chat

    def ended(self, deployment: str, chat: ChatStream) -> bool:
        """Whether nothing of a complete stream is to be counted."""
        if chat.usage is not None:
            self._telling.add(deployment)
            return True
        self._telling.discard(deployment)
        return not chat.keeping

    def forget(self, alive: Callable[[str], bool]) -> None:
        """Drops what is known of deployments that are gone."""
        self._telling = {one for one in self._telling if alive(one)}

    async def whole(self, record: Record, model: str, asked: bytes, answer: bytes) -> None:
        """Notes what a complete answer used. `model`: the deployment's name for it; `asked`: the body that was sent to it."""
        estimate = written_tokens(answer)
        record.received = max(1, estimate)  # for a client that leaves meanwhile
        prompt, output = await self._counts(model, asked, (answer,))
        _note(record, asked, prompt, estimate if output is None else output, counted=output is not None)

    async def stream(self, record: Record, model: str, asked: bytes, events: bytes) -> None:
        """Notes what a complete stream used, given as it came, if it can be counted."""
        reader = EventReader()
        payloads = [one for one in (*reader.feed(events), *reader.close()) if one != b"[DONE]"]
        prompt, output = await self._counts(model, asked, payloads)
        if output is not None:
            _note(record, asked, prompt, output, counted=True)

    async def _counts(self, model: str, asked: bytes, answers: Sequence[bytes]) -> Counts:
        size = max(len(asked), sum(map(len, answers)))
        if size > MOST_BYTES:
            return None, None
        counting = partial(self._counted, model, asked, answers)
        return await self._counter.soon(counting, size, model, nearest=True)

    def _counted(self, model: str, asked: bytes, answers: Sequence[bytes]) -> Counts:
        texts: Iterable[str] | None = written(answers)
        return self._counter.prompt(asked, model), None if texts is None else self._counter.nearest(texts, model)


def _note(record: Record, asked: bytes, prompt: int | None, output: int, *, counted: bool) -> None:
    """Never more than what was held for it: a vocabulary that is not the model's own may find more than there can be."""
    counted = counted and prompt is not None
    if prompt is None:
        prompt = -(-len(asked) // BYTES_PER_TOKEN)
    if counted and record.ticket is not None:
        need = record.ticket.offer.need
        prompt, output = min(prompt, need.prompt_tokens), min(output, need.output_tokens)
    record.usage, record.usage_source = of_tokens(prompt, output), "counted" if counted else "estimated"
