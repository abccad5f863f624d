"""Answers of endpoints that are billed by other units than a text's tokens: rerankings, moderations, sound, transcripts, pictures.

What it bills stands in the answer's `units`; what it says of that depends on the script (`usage: absent` says nothing).
"""

import base64
import io
import wave
from collections.abc import Callable, Iterator, Mapping
from math import ceil

from tests.upstream import answer
from tests.upstream.answer import Answer, Piece
from tests.upstream.asked import Asked, JsonObject
from tests.upstream.behaviour import Behaviour

TEXT = "hello from the tape"
PICTURE = base64.b64encode(b"\x89PNG scripted").decode()
SOUND = bytes(range(256)) * 4
TOKENS_PER_S = 10
TOKENS_PER_IMAGE = 1056
KINDS = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm", "opus": "audio/ogg"}


def rerank(version: int) -> Callable[[Asked, Behaviour], Answer]:
    def ranked(asked: Asked, behaviour: Behaviour) -> Answer:
        texts = [one if isinstance(one, str) else one["text"] for one in asked.fields["documents"]]
        wanted = set(asked.fields["query"].split())
        scores = [len(wanted & set(text.split())) / len(wanted) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -scores[index])[: asked.fields.get("top_n") or len(texts)]
        results: list[JsonObject] = [{"index": index, "relevance_score": scores[index]} for index in order]
        tokens = sum(len(text.split()) + len(wanted) for text in texts)
        units = ceil(len(texts) / 100)
        if version == 2:
            value: JsonObject = {"id": "rr-scripted", "results": results, "meta": {"api_version": {"version": "2"}}}
            if behaviour.usage != "absent":
                value["meta"]["billed_units"] = {"search_units": units}
            return answer.whole(200, value, units={"search_units": units})
        if asked.fields.get("return_documents", True):
            results = [{**result, "document": {"text": texts[result["index"]]}} for result in results]
        value = {"model": asked.model, "object": "list", "results": results}
        if behaviour.usage != "absent":
            value["usage"] = {"total_tokens": tokens, "prompt_tokens": tokens}
        if behaviour.by_token:
            return answer.whole(200, value, prompt_tokens=tokens)
        return answer.whole(200, value, units={"search_units": units})

    return ranked


def moderations(asked: Asked, behaviour: Behaviour) -> Answer:
    del behaviour
    given = asked.fields["input"]
    items = given if isinstance(given, list) else [given]
    texts = [item if isinstance(item, str) else item.get("text", "") for item in items]
    names = ("violence", "harassment")
    results = [
        {
            "flagged": "kill" in text,
            "categories": {name: name == "violence" and "kill" in text for name in names},
            "category_scores": dict.fromkeys(names, 0.25),
            "category_applied_input_types": {name: ["text"] for name in names},
        }
        for text in texts
    ]
    return answer.whole(200, {"id": "modr-scripted", "model": asked.model, "results": results})


def speech(asked: Asked, behaviour: Behaviour) -> Answer:
    characters = len(asked.fields["input"])
    tokens = 3 * characters
    units = {"characters": characters}
    pieces = [SOUND[:-1] + bytes([number]) for number in range(behaviour.chunks or 3)]
    if asked.stream:
        usage = {"input_tokens": characters, "output_tokens": tokens, "total_tokens": characters + tokens}
        done: JsonObject = {"type": "speech.audio.done", "usage": usage}
        if behaviour.usage == "absent":
            done["usage"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        events = [
            *({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces),
            *([done] if behaviour.done else ()),
        ]
        return _events(events, behaviour, units, characters if behaviour.by_token else 0, tokens)
    kind = KINDS.get(asked.fields.get("response_format", "mp3"), "audio/mpeg")
    return Answer(200, kind, iter([Piece(piece) for piece in pieces]), streams=True, units=units)


def transcription(asked: Asked, behaviour: Behaviour) -> Answer:
    seconds = _seconds(asked.fields["file"])
    units: dict[str, float] = {} if behaviour.by_token else {"seconds": seconds}
    tokens = ceil(seconds * TOKENS_PER_S)
    usage: JsonObject = {"type": "duration", "seconds": seconds}
    if behaviour.by_token:
        details = {"audio_tokens": tokens, "text_tokens": 0}
        usage = {"type": "tokens", "input_tokens": tokens, "output_tokens": 4, "total_tokens": tokens + 4}
        usage["input_token_details"] = details
    said = {} if behaviour.usage == "absent" else {"usage": usage}
    prompt, output = (tokens, 4) if behaviour.by_token else (0, 0)
    if asked.stream:
        words = TEXT.split()
        done = {"type": "transcript.text.done", "text": TEXT, **said}
        events = [
            *({"type": "transcript.text.delta", "delta": f"{word} "} for word in words),
            *([done] if behaviour.done else ()),
        ]
        return _events(events, behaviour, units, prompt, output)
    segment = {"id": 0, "start": 0.0, "end": seconds, "text": TEXT}
    match asked.fields.get("response_format", "json"):
        case "json":
            value: JsonObject = {"text": TEXT, **said}
        case "verbose_json":
            value = {"task": "transcribe", "language": "english", "duration": seconds, "text": TEXT, **said}
            value["segments"] = [{**segment, "seek": 0, "tokens": [1], "temperature": 0.0, "avg_logprob": -0.1}]
            value["segments"][0] |= {"compression_ratio": 1.0, "no_speech_prob": 0.0}
        case "diarized_json":
            value = {"task": "transcribe", "duration": seconds, "text": TEXT, **said}
            value["segments"] = [
                {
                    "id": "s",
                    "type": "transcript.text.segment",
                    "start": 0.0,
                    "end": seconds,
                    "text": TEXT,
                    "speaker": "A",
                }
            ]
        case "srt":
            return _text(f"1\n00:00:00,000 --> 00:00:{seconds:06.3f}\n{TEXT}\n\n".replace(".", ","), units)
        case "vtt":
            return _text(f"WEBVTT\n\n00:00.000 --> 00:{seconds:06.3f}\n{TEXT}\n\n", units)
        case _:
            return _text(f"{TEXT}\n", units)
    return answer.whole(200, value, prompt_tokens=prompt, tokens=output, units=units)


def images(asked: Asked, behaviour: Behaviour) -> Answer:
    count = int(asked.fields.get("n") or 1)
    text = len(str(asked.fields.get("prompt", "")).split())
    shown = sum(isinstance(value, bytes) for value in asked.fields.values())
    made = count * TOKENS_PER_IMAGE
    usage: JsonObject = {"input_tokens": text + shown * 100, "output_tokens": made}
    usage["total_tokens"] = usage["input_tokens"] + made
    usage["input_tokens_details"] = {"text_tokens": text, "image_tokens": shown * 100}
    prompt, output = (usage["input_tokens"], made) if behaviour.by_token else (0, 0)
    units: dict[str, float] = {} if behaviour.by_token else {"images": count}
    said = {"usage": usage} if behaviour.by_token and behaviour.usage != "absent" else {}
    if asked.stream:
        name = "image_edit" if shown else "image_generation"
        look = {"b64_json": PICTURE, "background": "opaque", "created_at": 1, "output_format": "png", "quality": "high"}
        look["size"] = "1024x1024"
        partial = [
            {"type": f"{name}.partial_image", "partial_image_index": index, **look}
            for index in range(int(asked.fields.get("partial_images") or 0))
        ]
        done = [{"type": f"{name}.completed", **look, **said}] if behaviour.done else []
        return _events([*partial, *done], behaviour, units, prompt, output, named=True)
    data = [{"b64_json": PICTURE, "revised_prompt": None} for _ in range(count)]
    return answer.whole(200, {"created": 1, "data": data, **said}, prompt_tokens=prompt, tokens=output, units=units)


ROUTES: dict[str, Callable[[Asked, Behaviour], Answer]] = {
    "rerank": rerank(1),
    "v2/rerank": rerank(2),
    "moderations": moderations,
    "audio/speech": speech,
    "audio/transcriptions": transcription,
    "audio/translations": transcription,
    "images/generations": images,
    "images/edits": images,
    "images/variations": images,
}


def recording(seconds: float) -> bytes:
    """A WAV file of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * int(seconds * 8000))
    return made.getvalue()


def _seconds(recorded: bytes) -> float:
    """What a model would hear: a WAV file's length, else a second for each thousand bytes."""
    if recorded[:4] != b"RIFF":
        return len(recorded) / 1000
    with wave.open(io.BytesIO(recorded)) as file:
        return float(file.getnframes() / file.getframerate())


def _text(text: str, units: Mapping[str, float]) -> Answer:
    return Answer(200, "text/plain; charset=utf-8", iter((Piece(text.encode()),)), units=units)


def _events(
    events: list[JsonObject],
    behaviour: Behaviour,
    units: Mapping[str, float],
    prompt: int,
    tokens: int,
    *,
    named: bool = False,
) -> Answer:
    def made() -> Iterator[Piece]:
        for number, event in enumerate(events):
            last = number == len(events) - 1
            yield Piece(answer.event(event, event["type"] if named else None), tokens if last and prompt else 0)

    failure = answer.event({"error": {"message": behaviour.error_message, "type": "server_error"}})
    return Answer(200, answer.EVENT_STREAM, made(), prompt, failure, streams=True, units=units)
