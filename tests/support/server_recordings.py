"""The recordings of the wire as data: what was sent, what came back, with which audio."""

from __future__ import annotations

import base64
import functools
import json
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    """Read a recording."""
    lines = (WIRE / f"{name}.{mode}.jsonl").read_text("utf-8").splitlines()
    return Recording(name, mode, tuple(json.loads(line) for line in lines))


def modes(name: str) -> list[str]:
    """The modes in which a scenario was recorded."""
    return [mode for mode in ("full", "sparse", "v2") if (WIRE / f"{name}.{mode}.jsonl").exists()]


# Cached: for each frame that comes, a client looks at all frames before it.
@functools.cache
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


IS = pcm("is.wav")

IS2 = pcm("is2.wav")

# The first sentence of two.wav eight times, cut close: 27 s without a pause.
LONG = pcm("two.wav")[19200:127840] * 8

# The audio of each scenario that the scripted recogniser answers.
SPOKEN = {
    "bad_base64_mid_stream": IS,
    "base64_unpadded_mid_stream": IS,
    "base64url_mid_stream": IS,
    "binary_frames": IS,
    "blank_frame_mid_stream": IS,
    "empty_final": pcm("noise.wav"),
    "empty_object_mid_stream": IS,
    "end_before_audio": b"",
    "end_empty": IS,
    "end_text": IS,
    "end_then_more_audio": IS,
    "fast_upload": IS2,
    "happy_is": IS,
    "idle": IS,
    "idle_without_end": IS,
    "key_in_cookie": IS,
    "key_in_subprotocol": IS,
    "long_speech": LONG,
    "malformed_json_mid_stream": IS,
    "no_interim": IS2,
    "no_word_offsets": IS,
    "null_audio_mid_stream": IS,
    "numbers_as_strings": IS,
    "odd_bytes": IS,
    "one_big_message": IS2,
    "punctuation": IS2,
    "second_config": IS,
    "silence_20ms": bytes(384000),
    "silence_64ms": bytes(96000),
    "silence_hiss": pcm("hiss.wav"),
    "single_utterance": IS,
    "single_utterance_noise": pcm("noise.wav"),
    "snake_case": IS,
    "stalled_backend": IS2 * 40,
    "trailing_hiss": IS + pcm("hiss.wav"),
    "two_utterances_is": IS2,
    "unknown_field_in_config": IS,
    "unknown_message_mid_stream": IS,
}

# Scenarios that end with an error frame; the audio is whatever is sent before it comes.
REFUSED = {
    "audio_before_config": IS,
    "bad_key": IS,
    "bad_key_before_config": b"",
    "config_without_config": b"",
    "invalid_language": IS,
    "key_in_header": b"",
    "malformed_json_first": b"",
    "max_alternatives_31": IS,
    "message_over_4mib": bytes(5242880),
    "missing_encoding": IS,
    "no_key": b"",
    "rate_missing": IS,
    "unknown_encoding": IS,
    "unknown_first_message": b"",
    "wrong_encoding": IS,
    "wrong_path": b"",
    "wrong_type_in_config": b"",
}

# Faults of the service and of what stands in front of it, and answers over plain HTTP.
NOT_PLAYED = {
    *("audio_idle_timeout", "backend_gone", "backend_killed", "backend_stopped"),
    *("bad_key_at_handshake", "connection_reset", "end_slow_final", "error_inside_result"),
    *("gateway_gone", "gateway_killed", "gateway_stopped", "idle_with_server_pings"),
    *("internal_mid_stream", "long_final_200", "long_final_300", "long_final_300_max_line"),
    *("out_of_range", "quota", "unavailable"),
    *("rest_backend_gone", "rest_errors", "rest_happy"),
}

# Played by tests of their own.
PLAYED_ALONE = {
    *("end_by_closing", "end_then_close_at_once", "frame_borders", "unary_over_websocket"),
    *("happy_en", "max_alternatives_3", "tail_padded", "tail_tight", "two_utterances_en"),
    *("rate_8000", "rate_24000", "rate_44100", "rate_48000"),
}

CONFIG = recording("happy_is", "full").first_message


def recordings(names: Iterable[str], *among: str) -> list[Any]:
    """Parameters for each scenario in each mode, or in some."""
    pairs = [(name, mode) for name in names for mode in modes(name) if mode in (among or (mode,))]
    return [pytest.param(recording(*pair), id=".".join(pair)) for pair in pairs]


Samples = npt.NDArray[np.int16]


def samples(name: str) -> Samples:
    return np.frombuffer(pcm(name), np.int16)
