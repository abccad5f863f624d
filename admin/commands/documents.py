"""What `penstock ingest` and `penstock search` share: a running server, and the collection that is meant."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from admin.commands.configuration import loaded
from admin.first_run import admin_key
from admin.settings import Settings

Json = Mapping[str, Any]


class Failed(Exception):
    """The server cannot be reached, or says no; the message is for people."""


@contextmanager
def server(arguments: argparse.Namespace, plane: str = "/v1/") -> Iterator[httpx.Client]:
    """A client for one plane of the server that is meant. Raises ConfigError, OSError."""
    settings = loaded(arguments).settings
    with httpx.Client(
        base_url=f"{_url(arguments, settings)}{plane}",
        headers={"authorization": f"Bearer {_secret(arguments, settings)}"},
        timeout=120,
        trust_env=False,
        verify=settings.server.tls_cert is None or arguments.url is not None,
    ) as client:
        yield client


def ask(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """The answer's JSON. Raises Failed."""
    try:
        answer = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise Failed(f"no server at {client.base_url}: {error}. Start one with `penstock serve`.") from error
    if answer.is_error:
        raise Failed(_told(answer))
    return answer.json()


def chunking_of(arguments: argparse.Namespace) -> Json | None:
    """What is said of how files are cut, if anything is."""
    kind, tokens = arguments.chunking or "auto", arguments.chunk_tokens
    said: dict[str, Any] = {"type": kind}
    if tokens is not None:
        said["type"] = kind = "static" if kind == "auto" else kind
        said[kind] = {"max_chunk_size_tokens": tokens, "chunk_overlap_tokens": 0}
    if arguments.children:
        said["children"] = {}
    if arguments.context:
        said["context"] = {"model": arguments.context}
    return said if len(said) > 1 or arguments.chunking else None


def pages(client: httpx.Client, path: str, **params: str) -> Iterator[Json]:
    """Every row of a list, on either plane, which name their cursors differently. Raises Failed."""
    after: dict[str, str] = {}
    while True:
        page = ask(client, "GET", path, params={"limit": "100", **params, **after})
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["next"] if "next" in page else page["last_id"]}


def collection(client: httpx.Client, wanted: str) -> Json | None:
    """By its id, else the oldest one of that name. Raises Failed."""
    found = [store for store in pages(client, "vector_stores", order="asc") if wanted in (store["id"], store["name"])]
    return found[0] if found else None


def _url(arguments: argparse.Namespace, settings: Settings) -> str:
    if arguments.url is not None:
        return str(arguments.url).rstrip("/").removesuffix("/v1")
    host = settings.server.host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    scheme = "http" if settings.server.tls_cert is None else "https"
    return f"{scheme}://{host}:{settings.server.port}"


def _secret(arguments: argparse.Namespace, settings: Settings) -> str:
    if arguments.key is not None:
        return str(arguments.key)
    configured = None if settings.admin_key is None else settings.admin_key.get_secret_value()
    return admin_key(settings.data_dir, configured).secret


def _told(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered with {answer.status_code}"
