"""How long a recording is by its own header; a file that was cut short is shorter than that.

libav says how long a file is, but not whether it read that in a header or guessed it from the size.
A guess is no promise: here are only the headers that are known to tell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

ReadAt = Callable[[int, int], bytes]
"""Returns the bytes at an offset, fewer at the end of what is there."""

# Containers whose header says how long each track is.
_BY_TRACK = {"aiff", "au", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "wv"}
# Bytes at the start of a file in which its header says how long the whole is.
_HEAD = 4096
# Programs that write to a pipe cannot know the size, and put one from here on into the header.
_UNKNOWN_SIZE = 0x7FFF0000
# Chunks before the samples, at most; a file with more is damaged.
_MAX_CHUNKS = 100
# WAVE format tags with a constant number of bytes a second: PCM, float, A-law, mu-law, extensible.
_CONSTANT_RATE = {0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class Promise(NamedTuple):
    """What a header says."""

    end: float
    """Seconds of the file."""
    of_track: bool
    """Whether `end` is that of the audio; else it is that of the longest track."""


def promise(
    container: InputContainer, stream: AudioStream, read_at: ReadAt, origin: float
) -> Promise | None:
    """Return how long a header says that the audio is; None if it does not.

    Args:
        container: The open file.
        stream: Its track.
        read_at: Reads the file beside the container.
        origin: The timestamp of the file's second 0.
    """
    name = container.format.name
    if name == "wav":
        return _of_track(wav_seconds(read_at))
    if name == "mp3":
        return _of_track(mp3_seconds(read_at))
    if name in _BY_TRACK:
        if not stream.duration or stream.time_base is None:
            return None
        first = stream.start_time or 0
        return Promise(float((first + stream.duration) * stream.time_base) - origin, True)
    if name == "avi":
        seconds = _avi_seconds(read_at(0, _HEAD))
        return Promise(seconds, False) if seconds else None
    marks = {"matroska,webm": _matroska_tells, "flv": _flv_tells}
    if name in marks and container.duration and marks[name](read_at(0, _HEAD)):
        return Promise(container.duration / av.time_base, False)
    return None


def _of_track(seconds: float | None) -> Promise | None:
    return None if seconds is None else Promise(seconds, True)


def wav_seconds(read_at: ReadAt) -> float | None:
    """Return the length that the header of a WAVE file gives; None if that is unknown."""
    size, samples, long_size, rate, bytes_per_second = 0, 0, 0, 0, 0
    for tag, length, offset in _chunks(read_at):
        if tag == b"ds64":
            long_size = _unpack("<Q", read_at(offset + 8, 8))
        elif tag == b"fmt ":
            head = read_at(offset, 12).ljust(12, b"\0")
            format_tag, _, rate, per_second = struct.unpack("<HHII", head)
            bytes_per_second = per_second if format_tag in _CONSTANT_RATE else 0
        elif tag == b"fact":
            samples = _unpack("<I", read_at(offset, 4))
        elif tag == b"data":
            size = length
            break
    if size == 0xFFFFFFFF:
        size = long_size
    if not size or _UNKNOWN_SIZE <= size < 0xFFFFFFFF:
        return None
    if bytes_per_second:
        return size / bytes_per_second
    # Compressed: its bytes do not tell, but the number of samples does.
    return samples / rate if samples and rate else None


def _avi_seconds(head: bytes) -> float:
    """Return the length of the picture by the main header; 0 if that was never filled in."""
    at = head.find(b"avih")
    fields = head[at + 8 : at + 28]
    if at < 0 or len(fields) < 20:
        return 0.0
    microseconds, frames = struct.unpack("<I12xI", fields)
    return float(microseconds * frames / 1e6)


def _chunks(read_at: ReadAt) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a RIFF file: name, size, and where the content begins."""
    offset = 12
    for _ in range(_MAX_CHUNKS):
        head = read_at(offset, 8)
        if len(head) < 8:
            return
        tag, size = struct.unpack("<4sI", head)
        yield tag, size, offset + 8
        offset += 8 + size + size % 2


def mp3_seconds(read_at: ReadAt) -> float | None:
    """Return the length by the first frame of an MP3 file, which most encoders leave there."""
    start = 0
    tag = read_at(0, 10)
    if tag[:3] == b"ID3" and len(tag) == 10:
        # Seven bits a byte.
        for byte in tag[6:]:
            start = start << 7 | byte & 0x7F
        start += 10
    frame = read_at(start, 256)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None
    version, rate_index = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if version not in _MP3_RATES or rate_index == 3:
        return None
    frames = _mp3_frames(frame, version, is_mono=frame[3] >> 6 == 3)
    samples = 1152 if version == 3 else 576
    return frames * samples / _MP3_RATES[version][rate_index] if frames else None


def _mp3_frames(frame: bytes, version: int, *, is_mono: bool) -> int:
    """Return how many frames the tags "Xing", "Info" or "VBRI" count; 0 if there is none."""
    side = {(True, False): 32, (True, True): 17, (False, False): 17}.get((version == 3, is_mono), 9)
    tag = frame[4 + side :]
    if tag[:4] in (b"Xing", b"Info") and len(tag) >= 12:
        flags, frames = struct.unpack(">II", tag[4:12])
        return int(frames) if flags & 1 else 0
    if frame[36:40] == b"VBRI":
        return _unpack(">I", frame[50:54])
    return 0


def _matroska_tells(head: bytes) -> bool:
    """Tell whether there is an element "Duration", and it is not 0; recorders may leave it out."""
    for size, code in ((4, ">f"), (8, ">d")):
        at = head.find(b"\x44\x89" + bytes([0x80 | size]))
        if at >= 0 and len(head) >= at + 3 + size:
            (value,) = struct.unpack(code, head[at + 3 : at + 3 + size])
            return bool(value > 0)
    return False


def _flv_tells(head: bytes) -> bool:
    """Tell whether the metadata has a duration that is not 0."""
    at = head.find(b"duration\x00")
    if at < 0 or len(head) < at + 17:
        return False
    (value,) = struct.unpack(">d", head[at + 9 : at + 17])
    return bool(value > 0)


def _unpack(code: str, data: bytes) -> int:
    (value,) = struct.unpack(code, data.ljust(struct.calcsize(code), b"\0"))
    return int(value)
