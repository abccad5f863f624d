"""The first screen of a newcomer: what was found, what is missing, the admin key, and one line that works right now."""

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.providers import EMBEDDED, Provider

if TYPE_CHECKING:
    from admin.discovery import LocalServer

ADMIN_PREFIX = "sk-ps-admin-"
_SHOWN = "<document>A penstock is the gate that regulates the flow into a turbine.</document> What regulates the flow into a turbine?"
_NO_CHAT = ("embed", "rerank", "minilm", "penstock/quotes", "bge-", "e5-", "whisper", "tts", "moderation", "dall-e")


@dataclass(frozen=True, slots=True)
class AdminKey:
    """`path` is where the key is kept, None if the configuration gives it."""

    secret: str
    origin: Literal["generated", "file", "configuration"]
    path: Path | None = None

    def __repr__(self) -> str:
        """Without the secret."""
        return f"AdminKey(origin={self.origin!r}, path={self.path!r})"


@dataclass(frozen=True, slots=True)
class Group:
    """One line of what was found: `openai`, `OPENAI_API_KEY`, its names; `chat_model` is one to try."""

    name: str
    where: str
    models: tuple[str, ...]
    chat_model: str | None = None


@dataclass(frozen=True, slots=True)
class FirstRun:
    """What the screen shows. `url` is the server's own; `embedding_model` and `quoting_model` work without any other server."""

    version: str
    url: str
    docs: str
    groups: tuple[Group, ...]
    admin_key: AdminKey
    embedding_model: str | None = None
    quoting_model: str | None = None


def admin_key(data_dir: Path, configured: str | None) -> AdminKey:
    """The configured key, else the one in `data_dir`/admin-key, made on the first start with mode 600.

    Processes that start together agree: whoever locks the file first writes it. Raises OSError.
    """
    if configured:
        return AdminKey(configured, "configuration")
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "admin-key"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = file.read().strip()
        if known:
            return AdminKey(known, "file", path)
        secret = ADMIN_PREFIX + secrets.token_urlsafe(32)
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return AdminKey(secret, "generated", path)


def groups(
    configured: Sequence[str], providers: Iterable[Provider], servers: Iterable["LocalServer"], embedded: Sequence[str]
) -> tuple[Group, ...]:
    """The lines of the screen: models by name, then providers with a key, servers that answered, the embedded model."""
    found = [Group("configured", "file or database", tuple(configured), _chat(configured))] if configured else []
    found += [
        Group(provider.name, str(provider.env), (*provider.wildcards, f"{provider.name}/*"), provider.example)
        for provider in providers
    ]
    found += [Group(server.provider, server.base_url, server.models, _chat(server.models)) for server in servers]
    if embedded:
        found.append(Group(EMBEDDED, "in this process", tuple(embedded)))
    return tuple(found)


def _chat(names: Sequence[str]) -> str | None:
    return next((name for name in names if is_chat(name) and not name.endswith("*")), None)


def is_chat(name: str) -> bool:
    """A guess by the name: listings do not say what a model is for."""
    return not any(word in name.lower() for word in _NO_CHAT)


def local_url(host: str, port: int, *, tls: bool = False) -> str:
    """Where a person on this machine reaches the server: a wildcard address is no place to call."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{host}:{port}"


def render(seen: FirstRun) -> str:
    """The whole screen."""
    chat = next((group.chat_model for group in seen.groups if group.chat_model), None)
    blocks = [f"Penstock {seen.version} listens on {seen.url}", _found(seen.groups)]
    if chat is None:
        blocks.append(_missing(seen.embedding_model, seen.quoting_model))
    blocks.append(_key(seen.admin_key))
    if chat or seen.quoting_model or seen.embedding_model:
        blocks.append("Try it:\n" + _indented(_curl(seen, chat)))
    return "\n\n".join([*blocks, f"Docs: {seen.docs}"]) + "\n"


def _found(groups: tuple[Group, ...]) -> str:
    if not groups:
        return "No models yet."
    name, where = (max(len(getattr(group, field)) for group in groups) for field in ("name", "where"))
    rows = [f"{group.name:<{name}}  {group.where:<{where}}  {_some(group.models)}" for group in groups]
    return "Models:\n" + _indented("\n".join(rows))


def _some(names: tuple[str, ...], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _missing(embedding_model: str | None, quoting_model: str | None) -> str:
    works = f"; embeddings already work on {embedding_model}" if embedding_model else ""
    works += f"; {quoting_model} quotes from documents that you show it" if quoting_model else ""
    return (
        f"There is no chat model yet{works}. Two ways to add one, then start again:\n"
        "  1. a provider's key:  export OPENAI_API_KEY=…   (ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY, …)\n"
        "  2. a local server:    ollama pull llama3.2:1b   (or vLLM, llama.cpp, LM Studio, SGLang on their usual port)\n"
        "Any other OpenAI-compatible URL goes into penstock.yaml; `penstock config check` tells what is wrong with one."
    )


def _key(key: AdminKey) -> str:
    match key.origin:
        case "generated":
            return f"Admin key, shown only now and kept in {key.path} (mode 600):\n  {key.secret}"
        case "file":
            return f"Admin key: in {key.path}"
        case "configuration":
            return "Admin key: the one that you configured"


def _curl(seen: FirstRun, chat: str | None) -> str:
    """The key is read where it is kept, so that the line can be copied at any later time and shows no secret."""
    body: dict[str, object] = {"model": seen.embedding_model, "input": "A penstock feeds the turbine."}
    if chat is not None:
        body = {"model": chat, "messages": [{"role": "user", "content": "Say hello."}]}
    elif seen.quoting_model is not None:
        body = {"model": seen.quoting_model, "messages": [{"role": "user", "content": _SHOWN}]}
    path = "chat/completions" if "messages" in body else "embeddings"
    stored = seen.admin_key.path
    key = "$PENSTOCK_ADMIN_KEY" if stored is None else f"$(cat {shlex.quote(str(stored))})"
    return (
        f"curl {seen.url}/v1/{path} \\\n"
        f'  -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(body))}"
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
