"""One usage type for every dialect: nothing negative, parts within wholes, no report makes a call cheaper by contradicting itself."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import bodies
from gateway import usage as canonical
from gateway.usage import MOST, usage
from gateway.usage_reports import AnthropicUsage, GeminiUsage, ResponsesUsage, TranscriptionUsage
from gateway.used import COUNTS, NOTHING, Usage

ANY = st.integers(-(2**70), 2**70)
COUNT = st.integers(0, 10**9)
PARTS = (
    "cached_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
)


def kept(value: Usage) -> bool:
    return (
        all(getattr(value, name) >= 0 for name in COUNTS)
        and value.cached_read + value.cache_write <= value.input
        and value.cache_write_1h <= value.cache_write
        and value.audio_input + value.image_input <= value.input
        and value.reasoning + value.audio_output + value.image_output <= value.output
    )


@given(
    st.tuples(ANY, ANY),
    st.fixed_dictionaries(dict.fromkeys((*PARTS, "images", "requests", "characters", "search_units"), ANY)),
)
def test_invariants_hold_whatever_is_reported(wholes: tuple[int, int], parts: dict[str, int]) -> None:
    """Parts are cut to their wholes and wholes are never cut below what was said; every change is flagged."""
    made = usage(*wholes, **parts)
    assert kept(made)
    assert (made.input, made.output) == tuple(min(max(whole, 0), MOST) for whole in wholes)
    said = dict(zip(("input", "output"), wholes, strict=True)) | parts
    assert made.adjusted == any(getattr(made, name) != value for name, value in said.items())


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_duration_that_is_none_counts_nothing_and_is_flagged(seconds: float) -> None:
    """A float from an upstream must not poison a sum."""
    made = usage(seconds=seconds)
    assert (made.seconds, made.adjusted) == (0.0, True)


@given(COUNT, COUNT, COUNT, COUNT)
def test_openai_and_anthropic_mean_the_same(plain: int, read: int, write: int, output: int) -> None:
    """Anthropic's input leaves out what the cache was read and written; OpenAI's has it."""
    theirs = canonical.from_anthropic(
        AnthropicUsage(plain, output, cache_read_input_tokens=read, cache_creation_input_tokens=write)
    )
    details = bodies.PromptDetails(cached_tokens=read, cache_write_tokens=write)
    ours = canonical.from_openai(bodies.Usage(plain + read + write, output, prompt_tokens_details=details))
    assert theirs == ours
    assert not ours.adjusted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}', usage(9, 3)),
        (b'{"prompt_tokens":9,"total_tokens":9}', usage(9)),
        (b'{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":null}', usage(9, 3)),
        # xAI: reasoning stands beside the completion
        (
            b'{"prompt_tokens":9,"completion_tokens":3,"total_tokens":112,"completion_tokens_details":{"reasoning_tokens":100}}',
            usage(9, 103, reasoning=100),
        ),
        # Gemini's compatible endpoint: thoughts are only in the total
        (b'{"prompt_tokens":9,"completion_tokens":3,"total_tokens":50}', usage(9, 41)),
        # DeepSeek
        (b'{"prompt_tokens":9,"completion_tokens":3,"prompt_cache_hit_tokens":5}', usage(9, 3, cached_read=5)),
        # a cache read that is larger than the prompt
        (
            b'{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":50}}',
            msgspec.structs.replace(usage(9, 3, cached_read=9), adjusted=True),
        ),
    ],
)
def test_dialects_of_openais_shape(body: bytes, expected: Usage) -> None:
    """What compatible servers add, leave out or count apart."""
    assert canonical.from_openai(msgspec.json.decode(body, type=bodies.Usage)) == expected


def test_the_other_shapes() -> None:
    """Responses, images, transcriptions, speech, rerank, Gemini."""
    responses = msgspec.json.decode(
        b'{"input_tokens":100,"input_tokens_details":{"cached_tokens":40},"output_tokens":30,"output_tokens_details":{"reasoning_tokens":20}}',
        type=ResponsesUsage,
    )
    assert canonical.from_responses(responses) == usage(100, 30, cached_read=40, reasoning=20)
    gemini = msgspec.json.decode(
        b'{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":7,"cachedContentTokenCount":4,"toolUsePromptTokenCount":2,'
        b'"promptTokensDetails":[{"modality":"TEXT","tokenCount":7},{"modality":"AUDIO","tokenCount":3}]}',
        type=GeminiUsage,
    )
    assert canonical.from_gemini(gemini) == usage(12, 12, cached_read=4, reasoning=7, audio_input=3)
    assert canonical.from_images(2) == usage(images=2)
    assert canonical.from_transcription(TranscriptionUsage(seconds=2.5)) == usage(seconds=2.5)
    assert canonical.from_speech(11) == usage(characters=11)
    assert canonical.from_rerank(1) == usage(search_units=1)
    hour = msgspec.json.decode(
        b'{"input_tokens":1,"output_tokens":2,"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":10,'
        b'"ephemeral_1h_input_tokens":20}}',
        type=AnthropicUsage,
    )
    assert canonical.from_anthropic(hour) == usage(31, 2, cache_write=30, cache_write_1h=20)


@given(st.lists(st.tuples(COUNT, COUNT, COUNT), max_size=6))
def test_a_sum_keeps_the_invariants(calls: list[tuple[int, int, int]]) -> None:
    """Attempts of one request add up to a usage like any other."""
    total = NOTHING
    for input_, output, cached in calls:
        total += usage(input_, output, cached_read=cached)
    assert kept(total)
    assert total.requests == len(calls)
