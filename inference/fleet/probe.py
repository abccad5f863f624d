"""What an engine is asked over HTTP: a real generation, whether it is alive, to sleep, to wake, to take an adapter in."""

from typing import Any, Final, final

import httpx

from inference.fleet import command
from inference.fleet.settings import EngineSpec, LoraSpec

ALIVE_S: Final = 10.0
CHANGE_S: Final = 300.0  # to load an adapter, to sleep, to wake


class ProbeError(Exception):
    """An engine that does not answer as it should, in words."""


@final
class Probe:
    """One client for all engines. No proxies: they are on this machine."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(trust_env=False, timeout=ALIVE_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def generates(self, spec: EngineSpec, url: str) -> None:
        """Raises ProbeError unless it makes a token, or a vector."""
        name = command.target(spec)
        match command.check(spec):
            case "http":
                await self._ask("GET", url + spec.ready.path, spec.ready.answer_s)
            case "chat":
                body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
                said = await self._ask("POST", f"{url}/v1/chat/completions", spec.ready.answer_s, body)
                _require(isinstance(said, dict) and said.get("choices"), "no choices")
            case "completion":
                body = {"model": name, "prompt": "Hi", "max_tokens": 1}
                said = await self._ask("POST", f"{url}/v1/completions", spec.ready.answer_s, body)
                _require(isinstance(said, dict) and said.get("choices"), "no choices")
            case "embedding":
                body = {"model": name, "input": "Hi"}
                said = await self._ask("POST", f"{url}/v1/embeddings", spec.ready.answer_s, body)
                _require(isinstance(said, dict) and said.get("data"), "no vectors")

    async def alive(self, spec: EngineSpec, url: str) -> None:
        """Cheap, and answered while it is busy. A program without such a page is alive as well. Raises ProbeError."""
        try:
            answer = await self._http.get(url + spec.ready.path, timeout=min(ALIVE_S, max(2.0, 3 * spec.check_s)))
        except httpx.HTTPError as error:
            raise ProbeError(_told(error)) from error
        _require(answer.status_code < 500, f"{spec.ready.path} answers {answer.status_code}")

    async def sleep(self, url: str) -> None:
        """Level 1: weights go to the machine's memory, the cache is dropped. Raises ProbeError."""
        await self._ask("POST", f"{url}/sleep?level=1", CHANGE_S)

    async def wake(self, url: str) -> None:
        await self._ask("POST", f"{url}/wake_up", CHANGE_S)

    async def asleep(self, url: str) -> bool:
        said = await self._ask("GET", f"{url}/is_sleeping", ALIVE_S)
        return isinstance(said, dict) and bool(said.get("is_sleeping"))

    async def load(self, url: str, lora: LoraSpec) -> None:
        await self._ask(
            "POST", f"{url}/v1/load_lora_adapter", CHANGE_S, {"lora_name": lora.name, "lora_path": lora.path}
        )

    async def unload(self, url: str, name: str) -> None:
        await self._ask("POST", f"{url}/v1/unload_lora_adapter", CHANGE_S, {"lora_name": name})

    async def _ask(self, method: str, url: str, timeout_s: float, body: object = None) -> Any:
        try:
            answer = await self._http.request(method, url, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise ProbeError(_told(error)) from error
        _require(answer.status_code < 300, f"{httpx.URL(url).path} answers {answer.status_code}: {answer.text[:200]}")
        try:
            return answer.json()
        except ValueError:
            return None


def _require(holds: object, words: str) -> None:
    if not holds:
        raise ProbeError(words)


def _told(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
