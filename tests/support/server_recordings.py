"""The recordings of the wire as data: what was sent, what came back, with which audio."""

from __future__ import annotations

import base64
import functools
import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
WIRE = DATA / "wire"


@functools.cache
def pcm(name: str) -> bytes:
    """The samples of a file of the test data: 16 kHz, mono, 16 bits."""
    with wave.open(str(DATA / name)) as file:
        return bytes(file.readframes(file.getnframes()))


def audio_message(chunk: bytes) -> str:
    """A message of audio as a client sends it."""
    return json.dumps({"audioContent": base64.b64encode(chunk).decode()})


@dataclass(frozen=True)
class Recording:
    """One file of the recordings."""

    name: str
    mode: str
    events: tuple[dict[str, Any], ...]

    @property
    def emit_unpopulated(self) -> bool:
        return self.mode != "sparse"

    @property
    def error_style(self) -> Any:
        return "v2" if self.mode == "v2" else "v1"

    @property
    def connect(self) -> dict[str, Any]:
        """The path, with its query, and the options of the client."""
        return next(event for event in self.events if "connect" in event)

    @property
    def first_message(self) -> str:
        """The first text that was sent."""
        return next(str(event["text"]) for event in self.events if event["ev"] == "send")

    @property
    def binary(self) -> bool:
        """Whether the client sent binary frames."""
        return any(event["ev"] == "send" and "kind" in event for event in self.events)

    @property
    def received(self) -> list[str]:
        """The frames that came, in order."""
        return [str(event["text"]) for event in self.events if event["ev"] == "recv"]

    @property
    def close_code(self) -> int:
        return next(int(event["code"]) for event in self.events if event["ev"] == "close")

    @property
    def chunk(self) -> int:
        """Bytes of most of the audio messages."""
        sizes = next(event["sizes"] for event in self.events if "sizes" in event)
        return max((int(size) for size in sizes), default=2048)

    @property
    def pace(self) -> float:
        """Seconds from one audio message to the next, 0 for as fast as it goes."""
        for event in self.events:
            if event["ev"] == "audio" and event["messages"] > 1:
                pace = (event["until"] - event["t"]) / (event["messages"] - 1)
                return round(pace, 3) if pace > 0.003 else 0.0
        return 0.0

    def chunks(self, event: dict[str, Any]) -> Iterator[int]:
        """The sizes of the messages of an `audio` event, in bytes."""
        count, left = int(event["messages"]), int(event["bytes"])
        for _ in range(count - 1):
            yield self.chunk
            left -= self.chunk
        yield left


@functools.cache
def recording(name: str, mode: str) -> Recording:
    """Reads a recording."""
    lines = (WIRE / f"{name}.{mode}.jsonl").read_text("utf-8").splitlines()
    return Recording(name, mode, tuple(json.loads(line) for line in lines))


def modes(name: str) -> list[str]:
    """The modes in which a scenario was recorded."""
    return [mode for mode in ("full", "sparse", "v2") if (WIRE / f"{name}.{mode}.jsonl").exists()]


def is_interim(frame: str) -> bool:
    """Whether a frame is an interim result."""
    results = _results(frame)
    return bool(results) and not results[0].get("isFinal", False)


def transcript(frame: str) -> str:
    """The first transcript of a frame, empty if it has none."""
    results = _results(frame)
    return str(results[0]["alternatives"][0]["transcript"]) if results else ""


def words(frame: str) -> list[tuple[str, float, float]]:
    """The words of a frame with their times in seconds."""
    results = _results(frame)
    if not results:
        return []
    return [
        (word["word"], float(word["startTime"][:-1]), float(word["endTime"][:-1]))
        for word in results[0]["alternatives"][0].get("words", [])
    ]


def _results(frame: str) -> list[dict[str, Any]]:
    if not frame.startswith("{"):
        return []
    result = json.loads(frame).get("result") or {}
    return list(result.get("results") or [])
