"""Langfuse: a trace and a generation for each request, by its ingestion API (`POST /api/public/ingestion`, read 2026-11)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, final

import msgspec

from admin.telemetry import conventions
from admin.telemetry.account import Account
from admin.telemetry.feed import Refused, Unacceptable
from admin.telemetry.sinks.posting import AGAIN, Poster

PATH: Final = "/api/public/ingestion"


class Fault(msgspec.Struct):
    """Of one event."""

    id: str
    status: int = 0


class Told(msgspec.Struct):
    """The answer, a 207: what became of each event."""

    errors: list[Fault] = []


_told = msgspec.json.Decoder(Told)


@final
class Langfuse:
    """Event ids are made of the request's, so that a batch that comes twice is one there."""

    name = "langfuse"

    def __init__(self, url: str, public_key: str, secret_key: str, timeout_s: float, *, content: bool) -> None:
        self._url = url.rstrip("/") + PATH
        self._content = content
        self._poster = Poster(timeout_s, {"content-type": "application/json"}, (public_key, secret_key))

    def deliver(self, batch: Sequence[Account]) -> None:
        events = [event for account in batch if account.recorded for event in self._events(account)]
        if not events:
            return
        answer = self._poster.send("POST", self._url, msgspec.json.encode({"batch": events}), {})
        try:
            faults = _told.decode(answer.content).errors
        except msgspec.DecodeError:
            raise Unacceptable("the answer is not Langfuse's") from None
        if any(fault.status in AGAIN for fault in faults):
            raise Refused(f"{len(faults)} events were not taken now")
        if faults:
            raise Unacceptable(f"{len(faults)} events were refused with {faults[0].status}")

    def tick(self) -> None: ...

    def close(self) -> None:
        self._poster.close()

    def _events(self, account: Account) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        trace, began = f"{account.trace:032x}", _time(account.at)
        operation = conventions.operation(account.endpoint)
        metadata = {
            "request_id": account.id,
            "key_id": account.key_id,
            "team_id": account.team_id,
            "deployment": account.deployment,
            "provider": account.provider,
            "status": account.status,
            "attempts": account.attempts,
            "overhead_ms": round(account.overhead_ms, 3),
            "route_version": account.route_version,
            "prompt_version": account.prompt_version,
        }
        told = {name: value for name, value in metadata.items() if value is not None}
        said = {"input": _read(account.request_text), "output": _read(account.answer_text)} if self._content else {}
        generation = {
            "id": f"{account.span:016x}",
            "traceId": trace,
            "name": operation,
            "startTime": began,
            "endTime": _time(account.ended),
            "model": account.model,
            "usageDetails": _usage(account),
            "level": "ERROR" if account.failed else "WARNING" if account.error_code else "DEFAULT",
            "statusMessage": account.error_code,
            "metadata": told,
            **said,
        }
        if account.first_token_ms is not None:
            generation["completionStartTime"] = _time(account.at + account.first_token_ms / 1000)
        if account.cost_nanousd is not None:
            generation["costDetails"] = {"total": account.cost_nanousd / 1_000_000_000}
        about = {
            "id": trace,
            "timestamp": began,
            "name": operation,
            "userId": account.user,
            "sessionId": account.session,
            "tags": list(account.tags),
            "metadata": told,
            **said,
        }
        return (
            {"id": f"{account.id}-trace", "type": "trace-create", "timestamp": began, "body": about},
            {"id": f"{account.id}-call", "type": "generation-create", "timestamp": began, "body": generation},
        )


def _usage(account: Account) -> Mapping[str, int]:
    """Langfuse counts cached tokens beside the others, not among them."""
    if account.prompt_tokens is None:
        return {}
    cached, output = account.cached_tokens or 0, account.completion_tokens or 0
    usage = {"input": account.prompt_tokens - cached, "output": output, "total": account.prompt_tokens + output}
    return usage | ({"input_cached_tokens": cached} if cached else {})


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read(text: str | None) -> object:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
