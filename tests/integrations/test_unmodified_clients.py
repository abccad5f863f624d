"""Programs that know nothing of Penstock, told its address: LangChain and Simon Willison's `llm`, over all native APIs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import ROOT, Json
from tests.upstream.behaviour import Behaviour, ToolCall

CLIENTS = ROOT / ".tools" / "clients" / "bin"
UPSTREAMS: dict[str, Json] = {
    "openai": {},
    "anthropic": {"provider": "anthropic", "model": "claude-sonnet-4-5"},
    "gemini": {"provider": "gemini", "model": "gemini-3-flash-preview"},
}
TEXT = "the river turns"
TOLD = Behaviour(text=TEXT, prompt_tokens=7, completion_tokens=3)
CALLED = Behaviour(tool_calls=(ToolCall("weather", '{"city": "Ulm"}'),))
OBJECT = Behaviour(text='{"name": "Ulm", "people": 128000}')

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not CLIENTS.exists(), reason="the clients are not installed: make test-integrations"),
]

# Each prints one line of JSON. `ChatOpenAI` finds address and key in the environment, as its users have them.
LANGCHAIN = """
import json, sys
import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

class City(BaseModel):
    name: str
    people: int

@tool
def weather(city: str) -> str:
    "The weather in a city."
    return "rain"

model = ChatOpenAI(model=sys.argv[2], max_retries=0)
"""
PROGRAMS = {
    "invoke": """
said = model.invoke("hello")
print(json.dumps([said.content, said.usage_metadata["input_tokens"], said.usage_metadata["output_tokens"]]))
""",
    "stream": """
parts = list(model.stream("hello", stream_usage=True))
usage = [part.usage_metadata for part in parts if part.usage_metadata]
print(json.dumps(["".join(part.content for part in parts), usage[-1]["input_tokens"], usage[-1]["output_tokens"]]))
""",
    "tools": """
said = model.bind_tools([weather]).invoke("How is the weather in Ulm?")
print(json.dumps([[call["name"], call["args"]] for call in said.tool_calls]))
""",
    "structured": """
city = model.with_structured_output(City).invoke("Tell me about Ulm.")
print(json.dumps([city.name, city.people]))
""",
    "batch": """
print(json.dumps([said.content for said in model.batch(["hello"] * 5)]))
""",
    "broken": """
parts = []
try:
    for part in model.stream("hello"):
        parts.append(part.content)
except openai.APIError as error:
    print(json.dumps(["".join(parts), type(error).__name__, error.code]))
""",
    "embeddings": """
vectors = OpenAIEmbeddings(model=sys.argv[2], check_embedding_ctx_length=False).embed_documents(["one", "two"])
print(json.dumps([len(vectors), len(vectors[0])]))
""",
}


@pytest.fixture(params=UPSTREAMS)
def upstream_api(request: pytest.FixtureRequest) -> str:
    api: str = request.param
    return api


def made(routes: Routes, api: str, *behaviours: Behaviour) -> Route:
    return routes(behaviours, deployment=UPSTREAMS[api])


def langchain(routes: Routes, program: str, route: Route) -> Any:
    """What the program printed."""
    environment = {"OPENAI_API_BASE": routes.server.base_url, "OPENAI_API_KEY": routes.server.key}
    command = [str(CLIENTS / "python"), "-c", LANGCHAIN + PROGRAMS[program], "-", route.name]
    return json.loads(run(command, environment))


def run(command: list[str], environment: dict[str, str]) -> str:
    """Its output; a program that fails says why."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_langchain_calls_and_streams(routes: Routes, upstream_api: str) -> None:
    """The same words and the same counts both ways."""
    route = made(routes, upstream_api, TOLD)
    assert langchain(routes, "invoke", route) == [TEXT, 7, 3]
    assert langchain(routes, "stream", route) == [TEXT, 7, 3]


def test_langchain_calls_tools(routes: Routes, upstream_api: str) -> None:
    """`bind_tools`."""
    assert langchain(routes, "tools", made(routes, upstream_api, CALLED)) == [["weather", {"city": "Ulm"}]]


def test_langchain_gets_structures(routes: Routes, upstream_api: str) -> None:
    """`with_structured_output`, which asks for a JSON schema."""
    assert langchain(routes, "structured", made(routes, upstream_api, OBJECT)) == ["Ulm", 128000]


def test_langchain_asks_several_questions_at_once(routes: Routes) -> None:
    """From threads, over one client."""
    assert langchain(routes, "batch", made(routes, "openai", TOLD)) == [TEXT] * 5


def test_langchain_hears_of_a_stream_that_broke(routes: Routes, upstream_api: str) -> None:
    """As an exception after the first words; never as a short answer."""
    broken = Behaviour(text=TEXT, chunks=3, fault="fin", fault_after=3)
    said, error, code = langchain(routes, "broken", made(routes, upstream_api, broken))
    assert said
    assert TEXT.startswith(said)
    assert (error, code) == ("APIError", "upstream_error")


def test_langchain_embeds(routes: Routes) -> None:
    """Without its own tokeniser, which would have to be downloaded."""
    assert langchain(routes, "embeddings", made(routes, "openai", Behaviour())) == [2, 8]


class Llm:
    """The command, with a configuration folder of its own that names one model."""

    def __init__(self, routes: Routes, route: Route, folder: Path) -> None:
        model: Json = {"model_id": "penstock", "model_name": route.name, "api_base": routes.server.base_url}
        model |= {"supports_schema": True, "supports_tools": True, "api_key_name": "penstock"}
        (folder / "extra-openai-models.yaml").write_text(json.dumps([model]))  # YAML knows JSON
        (folder / "keys.json").write_text(json.dumps({"penstock": routes.server.key}))
        self._environment = {"LLM_USER_PATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)}

    def __call__(self, *words: str) -> str:
        return run([str(CLIENTS / "llm"), *words], self._environment)


def test_llm_asks_and_goes_on(routes: Routes, upstream_api: str, tmp_path: Path) -> None:
    """Streamed, whole, and with `-c`, which sends what was said before."""
    route = made(routes, upstream_api, TOLD)
    llm = Llm(routes, route, tmp_path)
    assert llm("-m", "penstock", "hello").strip() == TEXT
    assert llm("-m", "penstock", "--no-stream", "hello").strip() == TEXT
    assert llm("-c", "and then?").strip() == TEXT
    asked = route.places[0].handle.entries()[-1].body
    assert "hello" in asked
    assert TEXT in asked
    assert "and then?" in asked


def test_llm_fills_a_schema(routes: Routes, upstream_api: str, tmp_path: Path) -> None:
    """`--schema`."""
    llm = Llm(routes, made(routes, upstream_api, OBJECT), tmp_path)
    found = llm("-m", "penstock", "--schema", "name, people int", "Tell me about Ulm.")
    assert json.loads(found) == {"name": "Ulm", "people": 128000}


def test_llm_runs_a_tool(routes: Routes, upstream_api: str, tmp_path: Path) -> None:
    """The model calls it, the program runs it and sends what came of it, the model answers."""
    route = made(routes, upstream_api, CALLED, TOLD)
    llm = Llm(routes, route, tmp_path)
    function = 'def weather(city: str) -> str:\n    return "rain in " + city\n'
    assert TEXT in llm("-m", "penstock", "--functions", function, "How is the weather in Ulm?")
    asked = [entry.body for entry in route.places[0].handle.entries()]
    assert len(asked) == 2
    assert "rain in Ulm" in asked[1]


def test_llm_says_what_went_wrong(routes: Routes, tmp_path: Path) -> None:
    """The gateway's words reach the person at the terminal."""
    route = made(routes, "openai", Behaviour(status=400, error_message="no such style", error_code="invalid_value"))
    llm = Llm(routes, route, tmp_path)
    with pytest.raises(AssertionError, match="no such style"):
        llm("-m", "penstock", "hello")
