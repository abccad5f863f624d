"""The unmodified `openai` SDK for moderations, sound, transcripts and pictures, against the real process."""

from collections.abc import Iterator

import openai
import pytest

from tests.fixtures.server import Scripts, Server
from tests.upstream import asked
from tests.upstream.behaviour import Behaviour
from tests.upstream.units_dialect import SOUND, TEXT, recording

TAPE = ("tape.wav", recording(2.5), "audio/wav")
DEPRECATED = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # in the SDK, for whisper-1 and dall-e-2; the paths are there
PICTURE = ("a.png", b"\x89PNG", "image/png")


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=0, timeout=20) as client:
        yield client


def test_moderations_come_back_typed(client: openai.OpenAI, scripts: Scripts) -> None:
    """One result for each text."""
    answer = client.moderations.create(model=scripts(Behaviour()).model, input=["be kind", "kill"])
    assert [result.flagged for result in answer.results] == [False, True]


def test_speech_arrives_whole_and_in_pieces(client: openai.OpenAI, scripts: Scripts) -> None:
    """The bytes that the upstream made, at once or as they come."""
    scripted = scripts(Behaviour(chunks=5))
    sound = b"".join(SOUND[:-1] + bytes([number]) for number in range(5))
    whole = client.audio.speech.create(model=scripted.model, voice="alloy", input="hello", response_format="pcm")
    assert whole.content == sound
    assert whole.response.headers["content-type"] == "audio/pcm"
    streaming = client.audio.speech.with_streaming_response
    with streaming.create(model=scripted.model, voice="alloy", input="hello") as streamed:
        assert b"".join(streamed.iter_bytes()) == sound
    with streaming.create(model=scripted.model, voice="alloy", input="hello", stream_format="sse") as events:
        assert b"".join(events.iter_bytes()).count(b"speech.audio.delta") == 5


@pytest.mark.parametrize("kind", ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"])
def test_a_recording_is_written_down_in_every_format(client: openai.OpenAI, scripts: Scripts, kind: str) -> None:
    """Objects where OpenAI has objects, texts where it has texts."""
    scripted = scripts(Behaviour())
    answer: object = client.audio.transcriptions.create(
        model=scripted.model,
        file=TAPE,
        response_format=kind,
        timestamp_granularities=["word", "segment"],  # type: ignore[call-overload]
    )
    assert TEXT in (answer if isinstance(answer, str) else answer.text)  # type: ignore[attr-defined]
    entry = scripted.upstream.ended()
    form = asked.read(entry.body.encode("latin-1"), entry.header("content-type") or "").fields
    assert form["model"] == scripted.upstream.id
    assert form["timestamp_granularities[]"] == ["word", "segment"]
    assert form["file"] == TAPE[1]


def test_a_transcript_streams(client: openai.OpenAI, scripts: Scripts) -> None:
    """Deltas, then the whole with its usage."""
    events = list(client.audio.transcriptions.create(model=scripts(Behaviour()).model, file=TAPE, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 4 + ["transcript.text.done"]


@DEPRECATED
def test_a_translation(client: openai.OpenAI, scripts: Scripts) -> None:
    answer = client.audio.translations.create(model=scripts(Behaviour()).model, file=TAPE)
    assert answer.text == TEXT


@DEPRECATED
def test_pictures_are_made_changed_and_varied(client: openai.OpenAI, scripts: Scripts) -> None:
    """As many as were asked for."""
    model = scripts(Behaviour()).model
    made = client.images.generate(model=model, prompt="a gate", n=2)
    edited = client.images.edit(model=model, prompt="a gate", image=[PICTURE, PICTURE], n=3)
    varied = client.images.create_variation(model=model, image=PICTURE)
    assert [len(answer.data or []) for answer in (made, edited, varied)] == [2, 3, 1]


def test_partial_pictures_stream(client: openai.OpenAI, scripts: Scripts) -> None:
    """Named events, in order, for pictures that are made and that are changed."""
    model = scripts(Behaviour(by_token=True)).model
    made = client.images.generate(model=model, prompt="a gate", stream=True, partial_images=2)
    partial, done = "image_generation.partial_image", "image_generation.completed"
    assert [event.type for event in made] == [partial, partial, done]
    edited = list(client.images.edit(model=model, prompt="a gate", image=PICTURE, stream=True))
    assert [event.type for event in edited] == ["image_edit.completed"]


def test_errors_are_the_sdk_s_own(client: openai.OpenAI, scripts: Scripts) -> None:
    """A refusal of the upstream's, and one of ours."""
    refused = scripts(Behaviour(status=400, error_message="too loud", error_code="loud"))
    with pytest.raises(openai.BadRequestError, match="too loud"):
        client.audio.speech.create(model=refused.model, voice="alloy", input="hello")
    with pytest.raises(openai.NotFoundError):
        client.images.generate(model="nobody", prompt="a gate")
