"""Answers from documents behind guards: they read the passages as well, and no budget loses them."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.answers.conftest import Grounded, heard
from tests.fixtures.server import ADMIN_KEY
from tests.upstream.behaviour import Behaviour

SAYS = Behaviour(text="Ask them [1].")
QUESTION: list[Any] = [{"role": "user", "content": "Who looks after the gate? I am ada@example.org"}]
TEXT = "Write to keeper@example.com about the gate."


@pytest.fixture(scope="module")
def handbook(grounded: Grounded) -> Iterator[str]:
    with openai.OpenAI(api_key=ADMIN_KEY, base_url=grounded.server.base_url, max_retries=0, timeout=50) as admin:
        yield grounded.store(admin, {"gate.txt": TEXT}, "guarded")


def guard(grounded: Grounded, name: str, **fields: Any) -> str:
    made = grounded.server.admin.post("/guards", json={"name": name, **fields})
    assert made.status_code == 201, made.text
    return name


@pytest.mark.parametrize(("action", "own"), [("redact", "[EMAIL]"), ("mask_restore", "[EMAIL_1]")])
def test_guards_read_the_passages(
    grounded: Grounded, client: openai.OpenAI, handbook: str, action: str, own: str
) -> None:
    """What is masked in them does not come back, and is not taken for what the client wrote."""
    name = guard(grounded, f"passages-{action}", kind="pii", action=action)
    model, handle = grounded.model(SAYS, retrieval={"collections": [handbook]}, guards=[name])
    client.chat.completions.create(model=model, messages=QUESTION)
    asked = heard(handle, 0)["messages"][-1]["content"]
    assert "Write to [EMAIL] about the gate." in asked
    assert asked.endswith(f"I am {own}")


def test_a_passage_that_is_refused_is_not_sent(grounded: Grounded, client: openai.OpenAI, handbook: str) -> None:
    deny = [{"name": "keeper", "pattern": "keeper@"}]
    name = guard(grounded, "no-keeper", kind="patterns", deny=deny, stage="parallel")
    model, handle = grounded.model(SAYS, retrieval={"collections": [handbook]}, guards=[name])
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=QUESTION)
    assert caught.value.code == "content_policy_violation"
    assert handle.entries() == []


def test_a_model_that_answers_because_of_a_budget_has_the_passages_too(grounded: Grounded, handbook: str) -> None:
    """The guards of the first model stood between: what they undo is not lost."""
    name = guard(grounded, "of-the-dear", kind="pii", action="redact")
    _, handle = grounded.model(SAYS)
    free = [{"id": "free", "base_url": handle.base_url, "model": "x", "price": {"input": 0, "output": 0}}]
    grounded.create({"name": "free", "deployments": free})
    dear, unused = grounded.model(SAYS, retrieval={"collections": [handbook]}, guards=[name])
    admin = grounded.server.admin
    made = admin.post("/keys", json={"name": "poor"}).json()
    limit = {"limit_usd": 0.001, "period": "total", "on_exceeded": "fallback", "fallback_model": "free"}
    answer = admin.post("/budgets", json={"scope": {"kind": "key", "id": made["id"]}, **limit})
    assert answer.status_code == 201, answer.text
    grounded.server.new_key()  # made after the budget: where it is known, that is in force
    with openai.OpenAI(api_key=made["key"], base_url=grounded.server.base_url, max_retries=0, timeout=50) as poor:
        poor.chat.completions.create(model=dear, messages=QUESTION, max_tokens=50)
    assert "about the gate." in heard(handle, 0)["messages"][-1]["content"]
    assert unused.entries() == []


def test_a_shadow_without_documents_of_its_own_gets_the_passages_as_guards_left_them(
    grounded: Grounded, client: openai.OpenAI, handbook: str
) -> None:
    """Else it would be compared on another question. They were read before they were sent."""
    name = guard(grounded, "of-the-shadowed", kind="pii", action="redact")
    shadow, heard_of = grounded.model(SAYS)
    model, _ = grounded.model(
        SAYS, retrieval={"collections": [handbook]}, guards=[name], shadow={"model": shadow, "share": 1.0}
    )
    client.chat.completions.create(model=model, messages=QUESTION)
    heard_of.wait(lambda entries: len(entries) == 1)
    asked = heard(heard_of, 0)["messages"][-1]["content"]
    assert "Write to [EMAIL] about the gate." in asked
    assert asked.endswith("I am [EMAIL]")
