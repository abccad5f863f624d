"""What is read of events, without a socket."""

import msgspec
import pytest
from msgspec import Raw

from gateway.errors import BadRequest
from gateway.realtime.events import Report, Terms, most_output, no_servers, session_named, terms, tokens_of, told


@pytest.mark.parametrize(
    ("session", "after"),
    [
        ({}, Terms()),
        ({"audio": {"input": {"turn_detection": None}}}, Terms(speaks_up=False)),
        ({"turn_detection": None}, Terms(speaks_up=False)),
        ({"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}, Terms()),
        ({"audio": {"input": {"turn_detection": {"create_response": False}}}}, Terms(speaks_up=False)),
        ({"type": "transcription", "audio": {"input": {"turn_detection": {}}}}, Terms(speaks_up=False)),
        ({"max_output_tokens": 7}, Terms(most_output=7)),
        ({"max_response_output_tokens": "inf"}, Terms()),
        ({"input_audio_transcription": {"model": "whisper-1"}}, Terms(transcriber="whisper-1")),
        ({"audio": {"input": {"transcription": {"model": "m"}}}}, Terms(transcriber="m")),
        ({"output_modalities": ["text"]}, Terms(text_only=True)),
        ({"modalities": ["audio", "text"]}, Terms()),
        ({"audio": 7}, Terms()),
    ],
)
def test_a_session_is_read_in_both_of_its_shapes(session: object, after: Terms) -> None:
    assert terms(Raw(msgspec.json.encode(session)), Terms()) == after


def test_what_a_session_leaves_out_stays_as_it_was() -> None:
    before = Terms(speaks_up=False, transcriber="m")
    assert terms(Raw(b"{}"), before) == before


def test_a_limit_of_one_answer() -> None:
    for response, limit in ((b'{"max_output_tokens":9}', 9), (b'{"max_output_tokens":"inf"}', 0), (b"null", None)):
        assert most_output(Raw(response)) == limit


def test_cached_sound_is_not_paid_for_as_sound() -> None:
    report = msgspec.json.decode(
        b'{"input_tokens":100,"output_tokens":20,"input_token_details":{"text_tokens":30,"audio_tokens":70,"cached_tokens":50,'
        b'"cached_tokens_details":{"text_tokens":10,"audio_tokens":40}},"output_token_details":{"audio_tokens":15}}',
        type=Report,
    )
    used = report.used
    assert (used.input, used.cached_read, used.audio_input) == (100, 50, 30)
    assert (used.output, used.audio_output, used.adjusted) == (20, 15, False)


def test_only_the_model_s_name_changes() -> None:
    text = b'{"type":"session.update","session":{"model":"ours","x":[1.50]}}'
    assert session_named(text, "ours", "theirs") == text.replace(b"ours", b"theirs")
    untouched = b'{"type":"session.update","session":{"x":1}}'
    assert session_named(untouched, "ours", "theirs") is untouched


@pytest.mark.parametrize("model", [b"[]", b"{}", b"7", b'"other"', b'"\xff"'])
def test_another_model_is_refused_whatever_it_is(model: bytes) -> None:
    with pytest.raises(BadRequest, match="cannot be changed"):
        session_named(b'{"type":"session.update","session":{"model":%b}}' % model, "ours", "theirs")


def test_servers_that_a_provider_would_call_are_refused() -> None:
    """However the kind of the tool is spelled; what is no list of tools is the provider's to refuse."""
    for kind in (b"mcp", b"m\\u0063p"):
        tools = b'{"tools":[7,{"type":"function"},{"type":"%b"}]}' % kind
        with pytest.raises(BadRequest) as refused:
            no_servers(Raw(tools), "session")
        assert (refused.value.param, refused.value.code) == ("session.tools[2]", "mcp_server_not_registered")
    for fine in (b"null", b'{"tools":"mcp"}', b'{"tools":[{"type":["mcp"]},{"name":"mcp"}]}'):
        no_servers(Raw(fine), "session")


def test_pieces_count_as_what_they_are() -> None:
    for event, tokens in (
        ({"type": "response.output_audio.delta", "delta": "A" * 6400}, (0, 2)),
        ({"type": "response.output_text.delta", "delta": "four words of text"}, (4, 0)),
        ({"type": "conversation.item.input_audio_transcription.delta", "delta": "x"}, (0, 0)),
        ({"type": "response.output_text.done", "text": "x"}, (0, 0)),
    ):
        assert tokens_of(told.decode(msgspec.json.encode(event))) == tokens
