"""How Bedrock reports usage: Converse in one way, `invoke` in that of each model's maker and in headers that all of them share."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from gateway import bodies, errors, wire
from gateway.bodies import NULL
from gateway.usage import from_anthropic, from_openai, usage
from gateway.usage_reports import AnthropicUsage
from gateway.used import Usage
from gateway.wire import present

_HEADER: Final = b"x-amzn-bedrock-"


class ConverseUsage(msgspec.Struct, gc=False, rename="camel"):
    """`inputTokens` leaves out what was read from the cache and written to it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_read_input_token_count: int | None = None  # Nova's names in `invoke`
    cache_write_input_token_count: int | None = None

    @property
    def used(self) -> Usage:
        read = self.cache_read_input_tokens or self.cache_read_input_token_count or 0
        written = self.cache_write_input_tokens or self.cache_write_input_token_count or 0
        return _used(self.input_tokens, self.output_tokens, read, written)


class Metrics(msgspec.Struct, gc=False, rename="camel"):
    """`amazon-bedrock-invocationMetrics`, in the last chunk of any model's stream."""

    input_token_count: int | None = None
    output_token_count: int | None = None
    cache_read_input_token_count: int | None = None
    cache_write_input_token_count: int | None = None

    @property
    def used(self) -> Usage:
        return _used(
            self.input_token_count,
            self.output_token_count,
            self.cache_read_input_token_count or 0,
            self.cache_write_input_token_count or 0,
        )


class _Result(msgspec.Struct, gc=False, rename="camel"):
    token_count: int | None = None


class _Body(msgspec.Struct, gc=False):
    usage: Raw = NULL
    titan_input: int | None = msgspec.field(default=None, name="inputTextTokenCount")
    titan_results: list[_Result] = msgspec.field(default_factory=list, name="results")
    llama_input: int | None = msgspec.field(default=None, name="prompt_token_count")
    llama_output: int | None = msgspec.field(default=None, name="generation_token_count")


_body: Final = msgspec.json.Decoder(_Body)
_anthropic: Final = msgspec.json.Decoder(AnthropicUsage)
_converse: Final = msgspec.json.Decoder(ConverseUsage)
_openai: Final = msgspec.json.Decoder(bodies.Usage)


def from_body(body: bytes) -> Usage | None:
    """What a whole answer says, if it does. Raises UpstreamError for one that is no JSON object."""
    try:
        read = _body.decode(body)
        if present(read.usage):
            return _reported(read.usage)
    except msgspec.ValidationError:
        wire.read_answer(body)
        return None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None
    if read.titan_input is not None:
        return usage(read.titan_input, sum(result.token_count or 0 for result in read.titan_results))
    if read.llama_input is not None:
        return usage(read.llama_input, read.llama_output or 0)
    return None


def from_headers(headers: Mapping[bytes, bytes]) -> Usage | None:
    """What the head of an `invoke` says."""
    told = _number(headers, b"input-token-count")
    if told is None:
        return None
    read = _number(headers, b"cache-read-input-token-count") or 0
    written = _number(headers, b"cache-write-input-token-count") or 0
    return _used(told, _number(headers, b"output-token-count"), read, written)


def _reported(report: Raw) -> Usage | None:
    said = bytes(report)
    if b'"inputTokens"' in said:
        return _converse.decode(report).used
    if b'"input_tokens"' in said:
        return from_anthropic(_anthropic.decode(report))
    if b'"prompt_tokens"' in said:
        return from_openai(_openai.decode(report))
    return None


def _used(input_: int | None, output: int | None, read: int, written: int) -> Usage:
    whole = (input_ or 0) + max(read, 0) + max(written, 0)
    return usage(whole, output or 0, cached_read=read, cache_write=written)


def _number(headers: Mapping[bytes, bytes], name: bytes) -> int | None:
    value = headers.get(_HEADER + name, b"")
    return int(value) if value.isdigit() and len(value) < 16 else None
