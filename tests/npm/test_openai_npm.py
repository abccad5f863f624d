"""The unmodified `openai` package of npm, run by node against the real process."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour, ToolCall

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.npm,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="node and npm are not installed"),
]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed. Its scripts do not run: the package needs none."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "check.mjs"):
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
