"""What one call used, in one canonical form: whatever dialect reported it, and whatever was wrong with the report.

The parts follow OpenAI's convention: cached and written tokens are part of the input, reasoning and audio part of what they belong to.
A report that breaks this is put right here and flagged, so that nothing behind it has to ask. Putting right never makes a call cheaper:
parts are cut, wholes are not, and the cheapest part is cut first.
"""

import msgspec

from gateway.bodies import Usage as OpenAIUsage
from gateway.usage_reports import AnthropicUsage, GeminiUsage, Modality, ResponsesUsage, TranscriptionUsage
from gateway.used import Usage

MOST = 1 << 40  # of anything in one call; more is nonsense that would overflow a ledger's column


UNITS = ("images", "seconds", "characters", "search_units")  # what is billed beside tokens and calls


def units_of(used: Usage) -> dict[str, float] | None:
    """Those that a call used; None where it was text alone."""
    return {unit: value for unit in UNITS if (value := getattr(used, unit))} or None


def usage(
    input_: int = 0,
    output: int = 0,
    *,
    cached_read: int = 0,
    cache_write: int = 0,
    cache_write_1h: int = 0,
    reasoning: int = 0,
    audio_input: int = 0,
    audio_output: int = 0,
    image_input: int = 0,
    image_output: int = 0,
    images: int = 0,
    requests: int = 1,
    seconds: float = 0.0,
    characters: int = 0,
    search_units: int = 0,
) -> Usage:
    """A usage that keeps the invariants, from numbers that may not."""
    parts = (cached_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output, image_input, image_output)
    others = (images, requests, characters, search_units)
    asked = (input_, output, *parts, *others)
    bounded = [min(max(value, 0), MOST) for value in asked]
    whole_in, whole_out, read, write, hour, thought, audio_in, audio_out, image_in, image_out, *rest = bounded
    write = min(write, whole_in)
    read = min(read, whole_in - write)  # a read costs less than a write: it gives way
    hour = min(hour, write)
    audio_in = min(audio_in, whole_in)
    image_in = min(image_in, whole_in - audio_in)
    audio_out = min(audio_out, whole_out)
    image_out = min(image_out, whole_out - audio_out)
    thought = min(thought, whole_out - audio_out - image_out)
    long = seconds if 0 <= seconds <= MOST else 0.0  # also what is not a number
    kept = (whole_in, whole_out, read, write, hour, thought, audio_in, audio_out, image_in, image_out, *rest)
    return Usage(
        input=whole_in,
        output=whole_out,
        cached_read=read,
        cache_write=write,
        cache_write_1h=hour,
        reasoning=thought,
        audio_input=audio_in,
        audio_output=audio_out,
        image_input=image_in,
        image_output=image_out,
        images=rest[0],
        requests=rest[1],
        seconds=long,
        characters=rest[2],
        search_units=rest[3],
        adjusted=kept != asked or long != seconds,
    )


def of_tokens(input_: int, output: int) -> Usage:
    """What nearly every call uses: nothing but tokens of text."""
    if 0 <= input_ <= MOST and 0 <= output <= MOST:
        return Usage(input_, output)
    return usage(input_, output)


def from_openai(report: OpenAIUsage) -> Usage:
    """Chat, completions and embeddings in OpenAI's dialect, with what compatible servers add to it or leave out of it.

    Some count reasoning beside the completion and not in it (xAI, Gemini's compatible endpoint): then the total is larger than both
    together, and the rest was generated.
    """
    prompt = report.prompt_tokens or 0
    completion = report.completion_tokens or 0
    total = report.total_tokens or 0
    hidden = total - prompt - completion
    if hidden and not (hidden > 0 and prompt > 0 and completion > 0):
        hidden = 0
    if _plain(report):
        return of_tokens(prompt, completion + hidden)
    before, after = report.prompt_tokens_details, report.completion_tokens_details
    cached = report.cache_read_input_tokens or report.prompt_cache_hit_tokens or 0
    written = report.cache_creation_input_tokens or 0
    audio_in = audio_out = reasoning = image_in = 0
    if before is not None:
        cached = before.cached_tokens or cached
        written = before.cache_write_tokens or before.cache_creation_tokens or written
        audio_in, image_in = before.audio_tokens or 0, before.image_tokens or 0
    if after is not None:
        reasoning, audio_out = after.reasoning_tokens or 0, after.audio_tokens or 0
    return usage(
        prompt,
        completion + hidden,
        cached_read=cached,
        cache_write=written,
        reasoning=reasoning,
        audio_input=audio_in,
        audio_output=audio_out,
        image_input=image_in,
    )


def _plain(report: OpenAIUsage) -> bool:
    """Whether a report speaks of nothing but tokens of text, as most do."""
    before, after = report.prompt_tokens_details, report.completion_tokens_details
    return not (
        (before is not None and (before.cached_tokens or before.audio_tokens or before.image_tokens))
        or (before is not None and (before.cache_write_tokens or before.cache_creation_tokens))
        or (after is not None and (after.reasoning_tokens or after.audio_tokens))
        or report.cache_read_input_tokens
        or report.prompt_cache_hit_tokens
        or report.cache_creation_input_tokens
    )


def from_responses(report: ResponsesUsage) -> Usage:
    """OpenAI's Responses API and its image models."""
    before = report.input_tokens_details or report.input_token_details
    after = report.output_tokens_details
    return usage(
        report.input_tokens or 0,
        report.output_tokens or 0,
        cached_read=(before.cached_tokens or 0) if before else 0,
        cache_write=(before.cache_write_tokens or 0) if before else 0,
        audio_input=(before.audio_tokens or 0) if before else 0,
        image_input=(before.image_tokens or 0) if before else 0,
        reasoning=(after.reasoning_tokens or 0) if after else 0,
        image_output=(after.image_tokens or 0) if after else 0,
    )


def from_anthropic(report: AnthropicUsage) -> Usage:
    """Anthropic's `input_tokens` leaves out what was read from the cache and written to it; ours has both."""
    read, write = report.cache_read_input_tokens or 0, report.cache_creation_input_tokens or 0
    kept = report.cache_creation
    hour = (kept.ephemeral_1h_input_tokens or 0) if kept is not None else 0
    if kept is not None:
        write = max(write, hour + (kept.ephemeral_5m_input_tokens or 0))
    searches = report.server_tool_use.web_search_requests or 0 if report.server_tool_use is not None else 0
    after = report.output_tokens_details
    broken = min(report.input_tokens or 0, read, write, hour) < 0
    made = usage(
        max(report.input_tokens or 0, 0) + max(read, 0) + max(write, 0),
        report.output_tokens or 0,
        cached_read=read,
        cache_write=write,
        cache_write_1h=hour,
        reasoning=(after.thinking_tokens or 0) if after is not None else 0,
        search_units=searches,
    )
    return msgspec.structs.replace(made, adjusted=True) if broken else made


def from_gemini(report: GeminiUsage) -> Usage:
    """Gemini counts thoughts beside the candidates and prompts of tools beside the prompt."""
    thoughts = report.thoughts_token_count or 0
    return usage(
        (report.prompt_token_count or 0) + (report.tool_use_prompt_token_count or 0),
        (report.candidates_token_count or 0) + thoughts,
        cached_read=report.cached_content_token_count or 0,
        reasoning=thoughts,
        audio_input=_modality(report.prompt_tokens_details, "AUDIO"),
        audio_output=_modality(report.candidates_tokens_details, "AUDIO"),
        image_input=_modality(report.prompt_tokens_details, "IMAGE"),
        image_output=_modality(report.candidates_tokens_details, "IMAGE"),
    )


def from_embeddings(tokens: int) -> Usage:
    return usage(tokens)


def from_rerank(search_units: int, tokens: int = 0) -> Usage:
    """Cohere bills search units (a query with up to 100 documents), Voyage and Jina tokens."""
    return usage(tokens, search_units=search_units)


def from_images(images: int, report: ResponsesUsage | None = None) -> Usage:
    """Models that bill by the image report nothing, those that bill by the token do."""
    return (
        usage(images=images)
        if report is None
        else msgspec.structs.replace(from_responses(report), images=max(images, 0))
    )


def from_transcription(report: TranscriptionUsage) -> Usage:
    """Audio to text: billed by duration (whisper) or by token."""
    before = report.input_token_details
    return usage(
        report.input_tokens or 0,
        report.output_tokens or 0,
        audio_input=(before.audio_tokens or 0) if before else 0,
        seconds=report.seconds or 0.0,
    )


def from_speech(characters: int) -> Usage:
    """Text to audio: nothing is reported, the request's characters are billed."""
    return usage(characters=characters)


def _modality(details: list[Modality] | None, name: str) -> int:
    return sum(part.token_count or 0 for part in details or () if part.modality == name)
