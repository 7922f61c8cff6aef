"""What the imitated services say and hear: the same phrases, each in its own dialect."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# What stands around the base64 in a message of audio, in bytes.
_TIRO_HEAD, _TIRO_TAIL = b'{"audioContent":"', b'"}'
_GLADIA_HEAD, _GLADIA_TAIL = b'{"type": "audio_chunk", "data": {"chunk": "', b'"}}'

_WORDS = ("kalda", "vatnið", "streymir", "niður", "fjallið", "þegar", "vorið", "kemur", "aftur")


@dataclass(frozen=True)
class Phrase:
    """A hypothesis or a final, and when it was said."""

    number: int
    """Counts the phrases of a connection, from 0."""
    start: float
    """Seconds of the connection's audio."""
    end: float
    is_final: bool
    words: int = 10


def _spoken(phrase: Phrase) -> list[tuple[str, float, float]]:
    """Return the words with their times. The first says when the phrase was sent, and its number.

    That way no two phrases are equal, and nobody gains by leaving out repetitions.
    """
    step = (phrase.end - phrase.start) / phrase.words
    texts = [f"{time.monotonic_ns()}-{phrase.number}"]
    texts += [_WORDS[n % len(_WORDS)] for n in range(phrase.words - 1)]
    return [
        (text, round(phrase.start + n * step, 3), round(phrase.start + (n + 1) * step, 3))
        for n, text in enumerate(texts)
    ]


def read_stamp(text: str) -> tuple[int, int]:
    """Return the monotonic ns at which a phrase was sent, and its number."""
    sent, _, number = text.partition(" ")[0].partition("-")
    return int(sent), int(number)


def _tiro(phrase: Phrase) -> dict[str, Any]:
    spoken = _spoken(phrase)
    words = [
        {"startTime": f"{a}s", "endTime": f"{b}s", "word": t, "confidence": 0, "speakerTag": 0}
        for t, a, b in spoken
    ]
    alternative = {"transcript": " ".join(t for t, _, _ in spoken), "confidence": 0, "words": words}
    result = {"alternatives": [alternative], "isFinal": phrase.is_final, "stability": 0}
    kind = "SPEECH_EVENT_UNSPECIFIED"
    return {"result": {"error": None, "results": [result], "speechEventType": kind}}


def _deepgram(phrase: Phrase) -> dict[str, Any]:
    spoken = _spoken(phrase)
    words = [
        {"word": t, "start": a, "end": b, "confidence": 0.98, "punctuated_word": t}
        for t, a, b in spoken
    ]
    text = " ".join(t for t, _, _ in spoken)
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": phrase.end - phrase.start,
        "start": phrase.start,
        "is_final": phrase.is_final,
        "speech_final": phrase.is_final,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.98, "words": words}]},
        "metadata": {"request_id": "bench", "model_uuid": "bench"},
        "from_finalize": False,
    }


def _assemblyai(phrase: Phrase) -> dict[str, Any]:
    spoken = _spoken(phrase)
    words = [
        {
            "text": t,
            "start": round(a * 1000),
            "end": round(b * 1000),
            "confidence": 0.98,
            "word_is_final": phrase.is_final,
        }
        for t, a, b in spoken
    ]
    return {
        "type": "Turn",
        "turn_order": phrase.number,
        "turn_is_formatted": phrase.is_final,
        "end_of_turn": phrase.is_final,
        "transcript": " ".join(t for t, _, _ in spoken),
        "end_of_turn_confidence": 1.0 if phrase.is_final else 0.1,
        "words": words,
    }


def _soniox(phrase: Phrase) -> dict[str, Any]:
    tokens: list[dict[str, Any]] = [
        {
            "text": f" {t}" if n else t,
            "start_ms": round(a * 1000),
            "end_ms": round(b * 1000),
            "confidence": 0.98,
            "is_final": phrase.is_final,
        }
        for n, (t, a, b) in enumerate(_spoken(phrase))
    ]
    if phrase.is_final:
        tokens.append({"text": "<end>", "confidence": 1.0, "is_final": True})
    heard = round(phrase.end * 1000)
    return {"tokens": tokens, "final_audio_proc_ms": heard, "total_audio_proc_ms": heard}


def _gladia(phrase: Phrase) -> dict[str, Any]:
    spoken = _spoken(phrase)
    words = [{"word": t, "start": a, "end": b, "confidence": 0.98} for t, a, b in spoken]
    utterance = {
        "text": " ".join(t for t, _, _ in spoken),
        "start": phrase.start,
        "end": phrase.end,
        "language": "is",
        "confidence": 0.98,
        "channel": 0,
        "words": words,
    }
    data = {"id": f"00_{phrase.number}", "is_final": phrase.is_final, "utterance": utterance}
    return {"type": "transcript", "session_id": "bench", "data": data}


_DIALECTS: dict[str, Callable[[Phrase], dict[str, Any]]] = {
    "tiro": _tiro,
    "deepgram": _deepgram,
    "assemblyai": _assemblyai,
    "soniox": _soniox,
    "gladia": _gladia,
}


def say(service: str, phrase: Phrase) -> str:
    """Return the message in which a service says a phrase."""
    return json.dumps(_DIALECTS[service](phrase), ensure_ascii=False)


def audio(service: str, message: bytes, *, is_text: bool) -> bytes:
    """Return the base64 or the samples of a message, empty if it holds no audio."""
    if not is_text:
        return message
    if service == "tiro" and message.startswith(_TIRO_HEAD):
        return message[len(_TIRO_HEAD) : -len(_TIRO_TAIL)]
    if service == "gladia" and message.startswith(_GLADIA_HEAD):
        return message[len(_GLADIA_HEAD) : -len(_GLADIA_TAIL)]
    return b""


def pcm_size(content: bytes, *, is_text: bool) -> int:
    """Return how many bytes of samples there are in what `audio` found."""
    if not is_text:
        return len(content)
    return len(content) // 4 * 3 - content[-2:].count(b"=")


def pcm(content: bytes, *, is_text: bool) -> bytes:
    """Return the samples in what `audio` found."""
    return b64decode(content) if is_text else content


def is_loud(content: bytes, *, is_text: bool) -> bool:
    """Tell whether there is anything but digital silence in what `audio` found."""
    return content.count(b"A" if is_text else b"\0") + content[-2:].count(b"=") < len(content)
