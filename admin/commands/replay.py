"""`penstock replay`: asks recorded requests again, of another model, route, prompt or index, and says what is different.

Whoever runs it pays: the key is the command's, never that of whoever asked first.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from admin.commands.documents import Failed, ask, server
from admin.replay.difference import Difference, Side, Summary, difference, summary
from admin.replay.judge import verdict
from admin.replay.recording import PATHS, Recording, Reply, asked

FRESH: Final = {
    "cache-control": "no-cache, no-store",
    "x-penstock-tags": "replay",
}  # a cache would answer with what was answered
PAGE: Final = 100
SHOWN: Final = 10

Json = Mapping[str, Any]


def run(arguments: argparse.Namespace) -> int:
    """Raises Failed."""
    changes = dict(_change(text) for text in arguments.set or ())
    if arguments.answers is not None:
        recordings = _read(Path(arguments.answers))
        if arguments.judge is None:
            return _tell(arguments, recordings, [difference(one) for one in recordings if one.again is not None])
        with server(arguments) as client:
            return _tell(arguments, recordings, _compared(client, arguments, recordings))
    if arguments.against is None and not changes:
        raise Failed("nothing to compare with: --against MODEL, --set FIELD=VALUE, or --answers FILE")
    with server(arguments) as client:
        recordings = list(_recorded(client, arguments))
        if not recordings:
            raise Failed(
                "no such request is recorded: recording content is off unless records.content.enabled or a key's metadata say so"
            )
        with ThreadPoolExecutor(arguments.concurrency) as pool:
            recordings = list(pool.map(lambda one: _again(client, one, arguments.against, changes), recordings))
        if arguments.save is not None:
            Path(arguments.save).write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in recordings))
        return _tell(arguments, recordings, _compared(client, arguments, recordings))


def _compared(client: httpx.Client, arguments: argparse.Namespace, recordings: Sequence[Recording]) -> list[Difference]:
    done = [one for one in recordings if one.again is not None]
    if arguments.judge is None:
        return [difference(one) for one in done]

    def judged(one: Recording) -> Difference:
        return difference(one, verdict(one, lambda messages: _judge(client, arguments.judge, messages)))

    with ThreadPoolExecutor(arguments.concurrency) as pool:
        return list(pool.map(judged, done))


def _recorded(client: httpx.Client, arguments: argparse.Namespace) -> Iterator[Recording]:
    """Newest first, up to the limit: those whose words are there."""
    named = {"since": "since", "model": "model", "key_id": "key_id", "tag": "tag", "session": "session", "text": "text"}
    params = {name: str(value) for name, own in named.items() if (value := getattr(arguments, own)) is not None}
    left, after = int(arguments.limit), None
    while left > 0:
        page = _admin(client, "requests", {**params, "limit": str(PAGE), **({} if after is None else {"after": after})})
        for row in page["data"]:
            if (
                left > 0
                and row["endpoint"] in PATHS
                and "replay" not in (row["tags"] or ())
                and _within(row, arguments)
            ):
                content = _admin(client, f"requests/{row['id']}", {})["content"]
                if content is not None and content["request"]:
                    left -= 1
                    yield _recording(row, content)
        after = page["next"]
        if after is None:
            return


def _within(row: Json, arguments: argparse.Namespace) -> bool:
    return arguments.until is None or str(row["at"]) < str(arguments.until)


def _recording(row: Json, content: Json) -> Recording:
    reply = Reply(
        status=row["status"],
        text=content["answer"],
        latency_ms=row["latency_ms"],
        cost_nanousd=row["cost_nanousd"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
    )
    return Recording(row["id"], row["endpoint"], content["request"], reply, row["model"])


def _again(client: httpx.Client, recording: Recording, model: str | None, changes: Json) -> Recording:
    """As it was, without an answer, where it cannot be asked again."""
    try:
        body = asked(recording, model, changes)
    except (ValueError, TypeError):
        return recording
    began = time.monotonic()
    headers = {"content-type": "application/json", **FRESH}
    try:
        answer = client.post(PATHS[recording.endpoint], content=body, headers=headers)
    except httpx.HTTPError as error:
        raise Failed(f"the server at {client.base_url} went away: {error}") from error
    latency_ms = (time.monotonic() - began) * 1000
    return msgspec.structs.replace(recording, again=_reply(answer, latency_ms))


def _reply(answer: httpx.Response, latency_ms: float) -> Reply:
    cost = answer.headers.get("x-penstock-cost-usd")
    prompt, completion = _tokens(answer)
    return Reply(
        status=answer.status_code,
        text=answer.text,
        latency_ms=round(latency_ms, 3),
        cost_nanousd=None if cost is None else int(Decimal(cost) * 1_000_000_000),
        prompt_tokens=prompt,
        completion_tokens=completion,
    )


def _tokens(answer: httpx.Response) -> tuple[int | None, int | None]:
    """OpenAI's names, and those of `/v1/responses` and `/v1/messages`."""
    try:
        used = answer.json().get("usage") or {}
    except (ValueError, AttributeError):
        return None, None
    return (
        used.get("prompt_tokens", used.get("input_tokens")),
        used.get("completion_tokens", used.get("output_tokens")),
    )


def _judge(client: httpx.Client, model: str, messages: Sequence[Json]) -> str | None:
    body = {"model": model, "messages": list(messages), "temperature": 0}
    answer = client.post(PATHS["chat"], json=body, headers={"x-penstock-tags": "replay"})
    try:
        return str(answer.json()["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError):
        return None


def _admin(client: httpx.Client, path: str, params: Mapping[str, str]) -> Any:
    base = str(client.base_url).rstrip("/").removesuffix("/v1")
    return ask(client, "GET", f"{base}/admin/v1/{path}", params=params)


def _read(path: Path) -> list[Recording]:
    try:
        return [msgspec.json.decode(line, type=Recording) for line in path.read_bytes().splitlines() if line]
    except msgspec.DecodeError as error:
        raise Failed(f"{path} was not written by `penstock replay --save`: {error}") from None


def _change(text: str) -> tuple[str, Any]:
    """`prompt.version=3`, `temperature=0`, `model="x"`: JSON, or else a text."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise Failed(f"--set {text}: expected FIELD=VALUE")
    try:
        return path, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return path, value


def _tell(arguments: argparse.Namespace, recordings: Sequence[Recording], differences: Sequence[Difference]) -> int:
    told = summary(recordings, differences)
    if arguments.json:
        print(json.dumps({"summary": msgspec.to_builtins(told), "requests": msgspec.to_builtins(differences)}))
    else:
        print(_table(told))
        print(_most_different(differences))
    return 0


def _table(told: Summary) -> str:
    then, now = told.then, told.now
    rows = [
        ("", "then", "now"),
        ("answered", str(then.answered), str(now.answered)),
        ("cost USD", f"{then.cost_usd:.6f}", f"{now.cost_usd:.6f}"),
        *(_row(name, then, now, field) for name, field in _FIELDS),
    ]
    lines = [f"{name:<22}{before:>14}{after:>14}" for name, before, after in rows]
    shares = (
        ("same text", told.same_text),
        ("same structure", told.same_structure),
        ("likeness of the words", told.likeness),
    )
    lines += [f"{name:<22}{'' if share is None else f'{share:.1%}':>14}" for name, share in shares]
    if told.judged is not None:
        lines.append("judged                " + ", ".join(f"{count} {word}" for word, count in told.judged.items()))
    if told.skipped:
        lines.append(f"{told.skipped} of {told.requests} could not be asked again")
    return "\n".join(lines)


_FIELDS: Final = (
    ("latency p50 ms", "latency_p50_ms"),
    ("latency p95 ms", "latency_p95_ms"),
    ("tokens of an answer", "completion_tokens"),
    ("characters of one", "characters"),
)


def _row(name: str, then: Side, now: Side, field: str) -> tuple[str, str, str]:
    before, after = getattr(then, field), getattr(now, field)
    return name, "–" if before is None else f"{before:.1f}", "–" if after is None else f"{after:.1f}"


def _most_different(differences: Sequence[Difference]) -> str:
    worst = sorted(
        (one for one in differences if not one.same_text), key=lambda one: (one.same_structure, one.likeness)
    )
    lines = [
        f"{one.id}  {one.likeness:>6.1%} alike  {one.latency_ms:>+9.0f} ms  {(one.cost_nanousd or 0) / 1e9:>+12.6f} USD"
        + ("" if one.same_structure else "  another structure")
        + ("" if one.verdict is None else f"  {one.verdict}")
        for one in worst[:SHOWN]
    ]
    return "\n".join(["", "most different:", *lines]) if lines else ""
