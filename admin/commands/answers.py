"""`penstock eval --answers`: a chat model answers from what a search found, and each sentence is held against what it cites."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import httpx
import msgspec

from admin.commands.documents import Failed, ask
from retrieval.evaluation.grounding import Claim, Grounding, ground
from retrieval.evaluation.intervals import Mean, mean
from retrieval.evaluation.questions import Question

PASSAGES: Final = 6
_ANSWER: Final = (
    "Answer the question from the numbered documents alone. Behind each sentence cite the documents that say it, as in [2] or [1, 3]. "
    "If they do not say it, say that you do not know."
)
_JUDGE: Final = (
    "You are given a passage and a claim. Reply with the one word yes if the passage says what the claim says, in whatever words, and with "
    "the one word no if any part of the claim is not in it."
)


class Grounded(msgspec.Struct, frozen=True):
    """Means over answers that claim something. `judged`: the share of cited claims that the judge says hold; None without one."""

    model: str
    answers: int
    claims: int
    silent: int
    cited: Mean
    supported: Mean
    judged: Mean | None

    def line(self) -> str:
        parts = [f"cited {_shown(self.cited)}", f"supported {_shown(self.supported)}"]
        if self.judged is not None:
            parts.append(f"by the judge {_shown(self.judged)}")
        return f"{self.model}: {self.claims} claims in {self.answers} answers, {self.silent} claim nothing; {', '.join(parts)}"


class Asked:
    """Of one model, over one collection. `fields` are those of the search."""

    def __init__(
        self, client: httpx.Client, store: Mapping[str, Any], model: str, judge: str | None, fields: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._store = store
        self._model = model
        self._judge = judge
        self._fields = fields

    async def all(self, questions: Sequence[Question]) -> Grounded:
        """Raises Failed."""
        found: list[tuple[Grounding, float | None]] = []
        for number, question in enumerate(questions, 1):
            found.append(await self._one(question))
            if sys.stderr.isatty():
                print(f"\r{self._model}: {number} of {len(questions)}", end="", file=sys.stderr, flush=True)
        said = [each for each, _ in found if each.claims]
        judged = [share for _, share in found if share is not None]
        return Grounded(
            self._model,
            len(found),
            sum(len(each.claims) for each in said),
            len(found) - len(said),
            mean([each.cited for each in said] or [0.0]),
            mean([each.supported for each in said] or [0.0]),
            mean(judged) if judged else None,
        )

    async def _one(self, question: Question) -> tuple[Grounding, float | None]:
        filters = {} if question.filters is None else {"filters": question.filters}
        body = {"max_num_results": PASSAGES, **self._fields, **filters, "query": question.query}
        page = await self._ask(f"vector_stores/{self._store['id']}/search", body)
        passages = [each["content"][0]["text"] for each in page["data"]]
        names = [each["filename"] for each in page["data"]]
        shown = "\n".join(
            f'<document index="{number}" title="{name}">\n{text}\n</document>'
            for number, (name, text) in enumerate(zip(names, passages, strict=True), 1)
        )
        answer = await self._said(self._model, _ANSWER, f"{shown}\n\nQuestion: {question.query}")
        found = await ground(answer, passages, self._similar)
        return found, await self._judgement(found, passages)

    async def _judgement(self, found: Grounding, passages: Sequence[str]) -> float | None:
        """The share of the cited claims that hold; None where nothing is cited, or nobody judges."""
        cited = [claim for claim in found.claims if claim.cites]
        if self._judge is None or not cited:
            return None
        held = [await self._holds(self._judge, claim, passages) for claim in cited]
        return sum(held) / len(held)

    async def _holds(self, judge: str, claim: Claim, passages: Sequence[str]) -> bool:
        passage = "\n\n".join(passages[number - 1] for number in claim.cites)
        verdict = await self._said(judge, _JUDGE, f"Passage:\n{passage}\n\nClaim: {claim.text}")
        return verdict.strip().lower().lstrip("*\"'").startswith("yes")

    async def _similar(self, text: str, others: Sequence[str]) -> Sequence[float]:
        """Cosines by the model that embeds the collection."""
        body = {"model": self._store["embedding_model"], "input": [text, *others], "encoding_format": "float"}
        rows = (await self._ask("embeddings", body))["data"]
        first, *rest = (row["embedding"] for row in sorted(rows, key=lambda row: row["index"]))
        return [_cosine(first, each) for each in rest]

    async def _said(self, model: str, instruction: str, text: str) -> str:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        answer = await self._ask("chat/completions", {"model": model, "messages": messages})
        try:
            message = answer["choices"][0]["message"]
            if message.get("citations") == []:  # the model that quotes says that nothing supports an answer
                return ""
            return str(message["content"] or "")
        except (KeyError, IndexError, TypeError):
            raise Failed(f"{model} answered without a message") from None

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        return await asyncio.to_thread(partial(ask, self._client, "POST", path, json=body))


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    lengths = sum(a * a for a in first) * sum(b * b for b in second)
    return float(dot / lengths**0.5) if lengths else 0.0


def _shown(value: Mean) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
