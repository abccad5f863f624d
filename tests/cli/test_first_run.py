"""The first screen, and the admin key behind it."""

import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from admin.discovery import LocalServer
from admin.first_run import AdminKey, FirstRun, Group, admin_key, groups, is_chat, local_url, render
from gateway.providers import PROVIDERS

OPENAI = Group("openai", "OPENAI_API_KEY", ("gpt-*", "o1", "o3", "chatgpt-*", "openai/*"), "gpt-4o-mini")
EMBEDDED = Group("embedded", "in this process", ("penstock/minilm",))
KEPT = AdminKey("sk-ps-admin-secret", "file", Path("/data dir/admin-key"))


def screen(*groups: Group, key: AdminKey = KEPT) -> str:
    embedding = "penstock/minilm" if EMBEDDED in groups else None
    return render(FirstRun("0.1.0", "http://127.0.0.1:4000", "http://127.0.0.1:4000/docs", groups, key, embedding))


def curl(text: str) -> tuple[str, dict[str, object]]:
    words = shlex.split(text[text.index("  curl ") :].partition("\n\n")[0].replace("\\\n", ""))
    return words[1], json.loads(words[words.index("-d") + 1])


def test_what_was_found_is_listed() -> None:
    """Providers with their variable, a few of their names, and how many more."""
    text = screen(OPENAI, EMBEDDED)
    assert "  openai    OPENAI_API_KEY   gpt-*, o1, o3, chatgpt-* and 1 more\n" in text
    assert "listens on http://127.0.0.1:4000" in text


def test_everything_found_becomes_a_line() -> None:
    """In the order in which a newcomer should try them; patterns and embedding models are nothing to chat with."""
    server = LocalServer("ollama", "http://127.0.0.1:11434/v1", ("nomic-embed-text", "llama3.2:1b"))
    found = groups(["gpt-*", "chat"], [PROVIDERS["openai"]], [server], ["penstock/minilm"])
    assert [(group.name, group.chat_model) for group in found] == [
        ("configured", "chat"),
        ("openai", "gpt-4o-mini"),
        ("ollama", "llama3.2:1b"),
        ("embedded", None),
    ]
    assert groups([], [], [], []) == ()


def test_the_line_to_try_is_a_chat_if_there_is_a_chat_model() -> None:
    """A name that the provider has, not a pattern."""
    url, body = curl(screen(EMBEDDED, OPENAI))
    assert url == "http://127.0.0.1:4000/v1/chat/completions"
    assert body["model"] == "gpt-4o-mini"


def test_without_a_chat_model_embeddings_work_and_two_ways_out_are_shown() -> None:
    """The newcomer sees the main job work, and how to get more."""
    text = screen(EMBEDDED)
    assert "There is no chat model yet; embeddings already work on penstock/minilm" in text
    assert "export OPENAI_API_KEY=" in text
    assert "ollama pull" in text
    url, body = curl(text)
    assert url.endswith("/v1/embeddings")
    assert body["model"] == "penstock/minilm"


def test_without_a_chat_model_the_line_to_try_quotes() -> None:
    """It shows a document and asks about it, so that the first answer is one."""
    seen = FirstRun("0.1.0", "http://127.0.0.1:4000", "x", (EMBEDDED,), KEPT, "penstock/minilm", "penstock/quotes")
    text = render(seen)
    assert "penstock/quotes quotes from documents that you show it" in text
    url, body = curl(text)
    assert url.endswith("/v1/chat/completions")
    assert body["model"] == "penstock/quotes"


def test_with_nothing_at_all_no_line_is_promised() -> None:
    """A line that cannot work is worse than none."""
    text = screen()
    assert "No models yet." in text
    assert "curl" not in text


def test_the_key_is_printed_only_when_it_is_new() -> None:
    """Later only the place is shown; the line to try reads it from there."""
    new = AdminKey("sk-ps-admin-secret", "generated", Path("/d/admin-key"))
    assert screen(OPENAI, key=new).count("sk-ps-admin-secret") == 1
    assert "sk-ps-admin-secret" not in screen(OPENAI)
    assert "sk-ps-admin-secret" not in screen(OPENAI, key=AdminKey("sk-ps-admin-secret", "configuration"))
    assert "Bearer $PENSTOCK_ADMIN_KEY" in screen(OPENAI, key=AdminKey("x", "configuration"))
    assert "sk-ps-admin-secret" not in repr(new)


def test_the_line_survives_a_shell(tmp_path: Path) -> None:
    """Spaces and quotes in paths and model names do not break out."""
    key = admin_key(tmp_path / "it's here", None)
    text = screen(Group("vllm", "x", ("m",), "it's $(touch broken)"), key=key)
    line = text[text.index("  curl ") :].partition("\n\n")[0]
    (tmp_path / "curl").write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (tmp_path / "curl").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", line], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    arguments = json.loads(done.stdout)
    assert f"Authorization: Bearer {key.secret}" in arguments
    assert json.loads(arguments[-1])["model"] == "it's $(touch broken)"


def test_an_admin_key_is_made_once_with_mode_600(tmp_path: Path) -> None:
    """And found again at the next start."""
    first, second = admin_key(tmp_path / "data", None), admin_key(tmp_path / "data", None)
    assert (first.origin, second.origin) == ("generated", "file")
    assert first.secret == second.secret
    assert first.secret.startswith("sk-ps-admin-")
    assert first.path is not None
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert first.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_configured_key_leaves_no_file(tmp_path: Path) -> None:
    """What is managed elsewhere is not copied."""
    key = admin_key(tmp_path, "given")
    assert (key.secret, key.origin, list(tmp_path.iterdir())) == ("given", "configuration", [])


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    """One of them makes it, the others read it."""
    script = f"import pathlib, admin.first_run as f; k = f.admin_key(pathlib.Path({str(tmp_path)!r}), None); print(k.origin, k.secret)"
    root = Path(__file__).parents[2]

    def start(_: int) -> list[str]:
        done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.split()

    with ThreadPoolExecutor(4) as pool:
        origins, secrets = zip(*pool.map(start, range(4)), strict=True)
    assert sorted(origins) == ["file", "file", "file", "generated"]
    assert len(set(secrets)) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3.2:1b", True), ("gpt-4o", True), ("nomic-embed-text", False), ("BAAI/bge-m3", False),
        ("penstock/minilm", False), ("penstock/quotes", False),
    ],
)  # fmt: skip
def test_chat_models_are_told_by_name(name: str, expected: bool) -> None:
    """A listing does not say what a model is for."""
    assert is_chat(name) is expected


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:4"), ("::", "http://[::1]:4"), ("::1", "http://[::1]:4"), ("box", "http://box:4")],
)  # fmt: skip
def test_the_shown_url_can_be_called(host: str, url: str) -> None:
    """A wildcard address cannot."""
    assert local_url(host, 4) == url
