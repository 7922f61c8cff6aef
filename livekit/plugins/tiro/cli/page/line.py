"""Notes what happens on the line to the service while a file is heard."""

from __future__ import annotations

from typing import Any

from livekit.agents import stt
from livekit.agents.metrics import STTMetrics

from ...stats import Stats
from ..formats import LineEvent, Transcript


class LineWatch:
    """Adds events to a transcript when new connections take over, within a `with` block.

    An event's place is the end of the last final: a new connection is sent all audio that no final
    covers. Audio that was given up by then has an event of its own, at the same place. Several new
    connections at one place are one event: the sound after the last word may be sent on several.

    Args:
        engine: The STT that hears the file, and nothing else meanwhile.
        transcript: That of the file.
    """

    def __init__(self, engine: stt.STT[Any], transcript: Transcript) -> None:
        self._engine = engine
        self._transcript = transcript
        self._connected = False
        self._given_up = 0.0

    def __enter__(self) -> None:
        self._given_up = _given_up(self._engine)
        self._engine.on("metrics_collected", self._take)

    def __exit__(self, *_: object) -> None:
        self._engine.off("metrics_collected", self._take)

    def _take(self, metrics: STTMetrics) -> None:
        # Metrics with a time to connect are those of a new connection.
        if metrics.acquire_time <= 0:
            return
        segments, events = self._transcript.segments, self._transcript.events
        at = segments[-1].end if segments else 0.0
        event = LineEvent("connection", at)
        if self._connected and event not in events[-1:]:
            events.append(event)
        self._connected = True
        given_up = _given_up(self._engine)
        if given_up > self._given_up:
            events.append(LineEvent("given_up", at, given_up - self._given_up))
        self._given_up = given_up


def _given_up(engine: stt.STT[Any]) -> float:
    """Return the seconds of audio that an engine gave up; 0 if it is not this package's."""
    stats = getattr(engine, "stats", None)
    return stats.audio_given_up if isinstance(stats, Stats) else 0.0
