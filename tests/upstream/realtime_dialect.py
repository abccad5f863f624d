"""A conversation as the Realtime API has it, over a WebSocket, and everything that can go wrong with one.

Sound whose base64 is `SILENCE` is silence. The log's entry has what was heard in its body, one event a line; `units` counts answers
(`responses`) and has the code that the other side closed with (`closed`).
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, Protocol, Side
from websockets.server import ServerProtocol

from tests.upstream import openai_dialect
from tests.upstream.asked import JsonObject, pieces
from tests.upstream.behaviour import Behaviour
from tests.upstream.journal import Entry, Journal

VOICE = "AAAA"
SILENCE = "////"
NO_LINGER = struct.pack("ii", 1, 0)


class Talk(asyncio.Protocol):
    """One connection, from its handshake on."""

    def __init__(
        self, path: str, headers: Mapping[str, str], behaviour: Behaviour, entry: Entry, journal: Journal
    ) -> None:
        self._path = path
        self._headers = headers
        self._script = behaviour
        self._entry = entry
        self._journal = journal
        self._protocol = Protocol(Side.SERVER, state=OPEN, max_size=2**26)
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._writable = asyncio.Event()
        self._writable.set()
        self._numbers = 0
        self._speaking = False
        self._begun: dict[str, int] = {}
        self._sent = 0
        self._session: JsonObject = {
            "type": "realtime",
            "model": "scripted",
            "max_output_tokens": "inf",
            "audio": {
                "input": {
                    "transcription": None,
                    "turn_detection": {"type": "server_vad", "create_response": True} if behaviour.vad else None,
                }
            },
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._script.status != 200:
            body = json.dumps(openai_dialect.error(self._script)).encode()
            head = f"HTTP/1.1 {self._script.status} No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)
            self._transport.close()
            return
        handshake = ServerProtocol()
        shown = Headers()
        for name in ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version"):
            shown[name] = self._headers.get(name, "")
        response = handshake.accept(Request(self._path, shown))
        self._transport.write(response.serialize())
        self._spawn(self._open(), "open")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        for task in self._answers.values():
            task.cancel()
        if self._entry.outcome == "open":
            self._entry.outcome = "client_left"
        self._entry.ended_at = asyncio.get_running_loop().time()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.TEXT:
                self._hear(bytes(event.data))
            elif event.opcode is Opcode.CLOSE and self._protocol.close_rcvd is not None:
                self._entry.units["closed"] = self._protocol.close_rcvd.code
                self._entry.outcome = "finished"
        if self._script.deaf:
            self._protocol.data_to_send()
        self._flush()

    def _hear(self, text: bytes) -> None:
        self._entry.body += text.decode() + "\n"
        event = json.loads(text)
        match event["type"]:
            case "session.update":
                self._update(event["session"])
            case "conversation.item.create":
                self._say("conversation.item.added", item={"id": self._id("item"), **event["item"]})
            case "input_audio_buffer.append" if self._script.vad:
                self._listen(event["audio"])
            case "input_audio_buffer.commit":
                self._commit()
            case "response.create":
                self._answer(event)
            case "response.cancel" if not self._script.deaf:
                for id_ in [event["response_id"]] if "response_id" in event else list(self._begun):
                    self._cancel(id_)

    def _update(self, session: JsonObject) -> None:
        for name, value in session.items():
            inner = self._session.get(name)
            if name == "audio" and isinstance(inner, dict):
                inner["input"] |= value.get("input", {})
            else:
                self._session[name] = value
        self._say("session.updated", session=self._session)

    def _listen(self, audio: str) -> None:
        if audio != SILENCE and not self._speaking:
            self._speaking = True
            self._say("input_audio_buffer.speech_started", audio_start_ms=0, item_id=self._id("item"))
        elif audio == SILENCE and self._speaking:
            self._speaking = False
            self._say("input_audio_buffer.speech_stopped", audio_end_ms=9, item_id=self._id("item"))
            self._commit()
            self._answer({})

    def _commit(self) -> None:
        item = self._id("item")
        self._say("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        if self._session["audio"]["input"].get("transcription"):
            usage: JsonObject = {"type": "tokens", "input_tokens": 13, "output_tokens": 4, "total_tokens": 17}
            usage["input_token_details"] = {"audio_tokens": 13, "text_tokens": 0}
            if self._script.usage == "with_choices":
                usage = {"type": "duration", "seconds": 2.5}
            kind = "conversation.item.input_audio_transcription.completed"
            self._say(kind, item_id=item, content_index=0, transcript="one two", usage=usage)

    def _answer(self, event: JsonObject) -> None:
        if self._script.fault == "error_event" or (
            self._begun and (event.get("response") or {}).get("conversation") != "none"
        ):
            code = self._script.error_code or "conversation_already_has_active_response"
            error = {"type": "invalid_request_error", "code": code, "message": self._script.error_message}
            self._say("error", error={**error, "param": None, "event_id": event.get("event_id")})
            return
        id_ = self._id("resp")
        self._begun[id_] = 0
        self._spawn(self._speak(id_), id_)

    async def _open(self) -> None:
        await asyncio.sleep(self._script.headers_after_s)
        self._say("session.created", session=self._session)
        if self._script.unasked:
            self._answer({})

    async def _speak(self, id_: str) -> None:
        script = self._script
        self._say("response.created", response={"id": id_, "object": "realtime.response", "status": "in_progress"})
        for number, piece in enumerate(pieces("hello there" if script.text is None else script.text, script.chunks)):
            if script.fault != "none" and number == script.fault_after:
                await self._break()
            await asyncio.sleep(script.gap_s if number else script.first_token_after_s)
            if script.sound:
                self._say("response.output_audio.delta", response_id=id_, delta="A" * 3200)
            else:
                self._say("response.output_text.delta", response_id=id_, delta=piece + "x" * script.chunk_bytes)
            self._begun[id_] += 1
            await self._writable.wait()
        self._done(id_, "completed")

    def _done(self, id_: str, status: str) -> None:
        script = self._script
        said = self._begun.pop(id_)
        prompt = 10 if script.prompt_tokens is None else script.prompt_tokens
        output = said if script.completion_tokens is None else script.completion_tokens
        cached = script.cached_tokens or 0
        usage: JsonObject = {
            "total_tokens": prompt + output,
            "input_tokens": prompt,
            "output_tokens": output,
            "input_token_details": {
                "text_tokens": prompt,
                "audio_tokens": prompt if script.sound else 0,
                "cached_tokens": cached,
                "cached_tokens_details": {"audio_tokens": cached if script.sound else 0, "text_tokens": 0},
            },
            "output_token_details": {"text_tokens": 0, "audio_tokens": output if script.sound else 0},
        }
        self._entry.prompt_tokens += prompt
        self._entry.completion_tokens += output
        self._entry.units["responses"] = self._entry.units.get("responses", 0) + 1
        response: JsonObject = {"id": id_, "object": "realtime.response", "status": status, "output": []}
        if script.usage != "absent":
            response["usage"] = usage
        self._say("response.done", response=response)

    def _cancel(self, id_: str) -> None:
        task = self._answers.pop(id_, None)
        if task is not None and id_ in self._begun:
            task.cancel()
            self._done(id_, "cancelled")

    async def _break(self) -> None:
        match self._script.fault:
            case "silence":
                await asyncio.Event().wait()
            case "fin":
                self._entry.outcome = "broken"
                self._transport.close()
                await asyncio.Event().wait()
            case "rst":
                self._entry.outcome = "broken"
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                self._transport.abort()
                await asyncio.Event().wait()
            case "bad_framing":
                self._transport.write(b"\xff\xff\xff\xff")
            case "bad_json_event":
                self._protocol.send_text(b'{"type":"response.output_te')
                self._flush()

    def _say(self, kind: str, **fields: Any) -> None:
        if self._protocol.state is not OPEN or self._transport.is_closing():
            return
        self._sent += 1
        event = {"type": kind, "event_id": f"event_{self._sent}", **fields}
        self._protocol.send_text(json.dumps(event).encode())
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
                self._entry.bytes_sent += len(data)
            else:
                self._transport.close()

    def _id(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}_{self._numbers}"

    def _spawn(self, coro: Any, id_: str) -> None:
        self._answers[id_] = asyncio.get_running_loop().create_task(coro)
