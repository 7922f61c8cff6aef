"""Notes what happens on the line to the service while a file is heard."""

from __future__ import annotations

from typing import Any

from livekit.agents import stt
from livekit.agents.metrics import STTMetrics

from ..formats import LineEvent, Transcript


class LineWatch:
    """Adds an event to a transcript when another connection takes over, while a block runs.

    The event's place is the end of the last final: a new connection is sent all that no final
    covers. Connections that take over one after the other in one place are one event: sound
    behind the last word is asked about on several.

    Args:
        engine: The one that hears the file, and nothing else meanwhile.
        transcript: The file's.
    """

    def __init__(self, engine: stt.STT[Any], transcript: Transcript) -> None:
        self._engine = engine
        self._transcript = transcript
        self._connected = False

    def __enter__(self) -> None:
        self._engine.on("metrics_collected", self._take)

    def __exit__(self, *_: object) -> None:
        self._engine.off("metrics_collected", self._take)

    def _take(self, metrics: STTMetrics) -> None:
        # The framework reports how long it took to connect, each time.
        if metrics.acquire_time <= 0:
            return
        if self._connected:
            segments = self._transcript.segments
            at = segments[-1].end if segments else 0.0
            event = LineEvent("connection", at)
            if event not in self._transcript.events[-1:]:
                self._transcript.events.append(event)
        self._connected = True
