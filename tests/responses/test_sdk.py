"""The unmodified `openai` SDK: every method of responses and conversations, on deployments that speak chat and on ones that speak it themselves."""

import openai
import pytest

from tests.fixtures.deployments import Routes
from tests.upstream.behaviour import Behaviour

NATIVE = {"responses": True}


@pytest.mark.parametrize("deployment", [{}, NATIVE, {"provider": "anthropic"}])
def test_create_answers(routes: Routes, client: openai.OpenAI, deployment: dict[str, object]) -> None:
    """Text, status and usage."""
    route = routes(Behaviour(text="Hi there."), deployment=deployment)
    made = client.responses.create(model=route.name, input="hello", instructions="Be brief.", metadata={"a": "b"})
    assert (made.output_text, made.status, made.metadata) == ("Hi there.", "completed", {"a": "b"})
    assert made.usage is not None
    assert made.usage.output_tokens == 2
