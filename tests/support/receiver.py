"""The receiving half of a stream, without a socket: frames in, events out, and their invariants."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from aiohttp import WSMessage, WSMsgType

from livekit.agents.stt import SpeechEvent
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.connection import Connection
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.protocol import Response
from livekit.plugins.tiro.transcript import Transcript

from .harness import FINAL, INTERIM, assert_alternating

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from livekit.agents.stt import SpeechEvent
    from livekit.plugins.tiro.protocol import Response

RATE = 16000
# s of audio sent before each frame: two messages.
_STEP = 0.1
_SPEECH = b"\x00\x20\x00\xe0" * round(_STEP * RATE / 2)
_CLOSED = WSMessage(WSMsgType.CLOSED, None, None)


class _Socket:
    """A websocket that yields the frames it was given, and then ends."""

    closed = False

    def __init__(self) -> None:
        self.given: list[WSMessage] = []

    async def receive(self) -> WSMessage:
        return self.given.pop(0) if self.given else _CLOSED


class Receiver:
    """One stream's receiving end, and audio that goes on."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._clock = Clock()
        self._backlog = Backlog()
        self._feed = Feed(self._backlog, self._clock, self._now)
        self._transcript = Transcript(self._clock, self._backlog, self._feed)
        self._socket = _Socket()
        self._connection = Connection(cast("Any", self._socket), 0.0)
        self._events: list[SpeechEvent] = []
        self._heard = 0.0
        """Seconds of audio that the service got on this connection."""
        self._said = 0.0
        """Seconds of audio altogether."""
        self._good = 0
        self.understood = 0
        """The frames that said anything, the good ones among them."""

    def check(self, frames: list[bytes]) -> None:
        """Take in frames of any content, each followed by a good final.

        Raises:
            AssertionError: An event is not sound, or a good final is not heard.
        """
        for frame in frames:
            self._speak()
            self._take(frame)
            self._speak()
            self._take_good()
        self._note(self._transcript.finish())
        assert_alternating(self._events)

    def _speak(self) -> None:
        self._now += _STEP
        self._said += _STEP
        self._clock.push(_STEP, self._now)
        self._backlog.push(_SPEECH, RATE)
        self._send()
        self._feed.acknowledge(self._feed.sent_to)

    def _send(self) -> None:
        while (chunk := self._feed.next_chunk(self._now)) is not None:
            self._heard += len(chunk) / 2 / RATE

    def _take(self, frame: bytes) -> list[SpeechEvent]:
        response = self._receive(frame)
        if response is None:
            return []
        self.understood += 1
        events = self._note(self._transcript.on_response(response, self._now))
        if response.error is not None:
            # As the stream does: open another connection, and send it again all that is not final.
            self._feed = Feed(self._backlog, self._clock, self._now)
            self._transcript.begin("again", self._feed)
            self._heard = 0.0
            self._send()
        return events

    def _receive(self, frame: bytes) -> Response | None:
        self._socket.given.append(WSMessage(WSMsgType.TEXT, frame, None))
        return _result(self._connection.receive())

    def _take_good(self) -> None:
        self._good += 1
        text = f"good{self._good}"
        events = self._take(_final(text, self._heard - _STEP, self._heard))
        heard = [e.alternatives[0].text for e in events if e.type is FINAL]
        assert heard == [text], f"{text} was lost: {events}"

    def _note(self, events: list[SpeechEvent]) -> list[SpeechEvent]:
        for event in events:
            if event.type in (INTERIM, FINAL):
                assert event.alternatives
            for data in event.alternatives:
                assert 0 <= data.start_time <= data.end_time <= self._said + 0.001
                assert 0 <= data.confidence <= 1
                data.text.encode()
        self._events += events
        return events


def _final(text: str, start: float, end: float) -> bytes:
    word = {"word": text, "startTime": f"{start:.3f}s", "endTime": f"{end:.3f}s"}
    result = {"isFinal": True, "alternatives": [{"transcript": text, "words": [word]}]}
    return json.dumps({"result": {"results": [result]}}).encode()


def _result(steps: Coroutine[Any, Any, Response | None]) -> Response | None:
    """Run a coroutine that waits for nothing."""
    try:
        steps.send(None)
    except StopIteration as done:
        return cast("Response | None", done.value)
    raise AssertionError("it waits for something")
