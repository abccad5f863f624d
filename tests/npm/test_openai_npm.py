"""The unmodified `openai` package of npm, run by node against the real process."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour, ToolCall
from tests.upstream.units_dialect import SOUND, TEXT

HERE = Path(__file__).parent
OSLO = '{"city":"Oslo"}'
TRANSCRIPT = ["transcript.text.delta", "transcript.text.done"]
# What comes of each call in methods.mjs.
METHODS: dict[str, Any] = {
    "chat.completions.create": "-|hello there",
    "chat.completions.create stream": "-|hello there",
    "chat.completions.parse": "Oslo",
    "chat.completions.runTools": "cold in Oslo",
    "chat.completions.stream": "-|hello there",
    "completions.create": "-|once",
    "completions.create stream": "-|once",
    "embeddings.create": 8,
    "models.list": True,
    "models.retrieve": "chat",
    "moderations.create": True,
    "audio.speech.create": 3 * len(SOUND),
    "audio.speech.create stream": True,
    "audio.transcriptions.create": TEXT,
    "audio.transcriptions.create stream": TRANSCRIPT,
    "audio.translations.create": TEXT,
    "images.createVariation": 1,
    "images.edit": 1,
    "images.edit stream": ["image_edit.completed", "image_edit.completed"],
    "images.generate": 2,
    "images.generate stream": ["image_generation.partial_image", "image_generation.completed"],
    "responses.cancel": "cancelled",
    "responses.create": "-|hi",
    "responses.create stream": ["response.created", "response.completed"],
    "responses.delete": True,
    "responses.inputItems.list": 1,
    "responses.parse": "Oslo",
    "responses.retrieve": "-|hi",
    "responses.retrieve stream": ["response.created", "response.completed"],
    "responses.stream": OSLO,
    "conversations.create": "conversation",
    "conversations.delete": True,
    "conversations.items.create": 1,
    "conversations.items.delete": 1,
    "conversations.items.list": 2,
    "conversations.items.retrieve": "two",
    "conversations.retrieve": "conversation",
    "conversations.update": "b",
    "realtime.clientSecrets.create": True,
    "files.content": "abc",
    "files.create": "processed",
    "files.delete": True,
    "files.list": True,
    "files.retrieve": "a.txt",
    "files.waitForProcessing": "processed",
    "uploads.cancel": "cancelled",
    "uploads.complete": 3,
    "uploads.create": "pending",
    "uploads.parts.create": "upload.part",
    "batches.cancel": True,
    "batches.create": "validating",
    "batches.list": True,
    "batches.retrieve": "batch",
    "vectorStores.create": "vector_store",
    "vectorStores.delete": True,
    "vectorStores.list": True,
    "vectorStores.retrieve": "docs",
    "vectorStores.search": ["abc"],
    "vectorStores.update": "b",
    "vectorStores.files.content": "abc",
    "vectorStores.files.create": "vector_store.file",
    "vectorStores.files.createAndPoll": "completed",
    "vectorStores.files.delete": True,
    "vectorStores.files.list": 3,
    "vectorStores.files.poll": "completed",
    "vectorStores.files.retrieve": "completed",
    "vectorStores.files.update": 2024,
    "vectorStores.files.upload": "a.txt",
    "vectorStores.files.uploadAndPoll": "completed",
    "vectorStores.fileBatches.cancel": "cancelled",
    "vectorStores.fileBatches.create": 2,
    "vectorStores.fileBatches.createAndPoll": 1,
    "vectorStores.fileBatches.listFiles": 2,
    "vectorStores.fileBatches.poll": 2,
    "vectorStores.fileBatches.retrieve": 2,
    "vectorStores.fileBatches.uploadAndPoll": 2,
}

pytestmark = [
    pytest.mark.npm,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="node and npm are not installed"),
]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed. Its scripts do not run: the package needs none."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "check.mjs", "methods.mjs"):
        shutil.copy(HERE / name, folder / name)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_npm_package_works_unmodified(package: Path, server: Server, scripts: Scripts) -> None:
    """Chat, streams, tools, structured output, embeddings, completions, models and errors."""
    tools = scripts(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Oslo"}'),)))
    broken = scripts(Behaviour(chunks=9, gap_s=0.01, fault="fin", fault_after=4))
    structured = scripts(Behaviour(text='{"city":"Oslo"}'))
    models = (tools.model, broken.model, structured.model)
    command = ["node", "check.mjs", server.base_url, server.key, *models]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["chat"] == seen["stream"] == "ann|hello there"
    assert (seen["usage"], seen["lastUsage"], seen["usageUnasked"]) == (4, 2, False)
    assert seen["requestId"] is True
    assert seen["deployment"] == "chat"
    assert seen["tool"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert seen["streamedTool"] == '{"city":"Oslo"}'
    assert seen["structured"] == {"city": "Oslo"}
    assert seen["sameAsFloats"] is True
    assert seen["completion"] == "ann|once"
    assert {"chat", "embed"} <= set(seen["models"])
    assert seen["broken"].startswith("-|hello there")
    assert seen["errors"][:3] == [
        ["AuthenticationError", 401, "invalid_api_key"],
        ["NotFoundError", 404, "model_not_found"],
        ["BadRequestError", 400, "invalid_type"],
    ]
    assert seen["errors"][3][0] == "APIError"


@pytest.fixture(scope="module")
def methods(package: Path, server: Server, scripts: Scripts) -> Any:
    """What came of every method, all of them called at once by one program. Its key is its own, and so are its lists."""
    call = Behaviour(tool_calls=(ToolCall("weather", OSLO),))
    held = scripts(Behaviour(held_after=-1))
    given = {
        "baseURL": server.base_url,
        "apiKey": server.new_key(),
        "tools": scripts(call, Behaviour(text="Cold.")).model,
        "caller": scripts(call).model,
        "slow": scripts(Behaviour(chunks=500, gap_s=0.1, headers_after_s=2)).model,
        "held": held.model,
        "city": scripts(Behaviour(text=OSLO)).model,
    }
    command = ["node", "methods.mjs", json.dumps(given)]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    held.upstream.let_go()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_method_of_the_program_is_forgotten_here(methods: Any) -> None:
    assert sorted(methods) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_the_npm_package_works(methods: Any, name: str) -> None:
    """Each that docs/openai.md claims, streaming and not."""
    assert methods[name] == METHODS[name]
