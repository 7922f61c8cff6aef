"""Makes audio and video files to read: real ones, written by the libraries that read them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from av.container import OutputContainer

TONE = 440.0
"""Hz of the tone in the files."""

_FRAME = 1024


def tone(seconds: float, rate: int) -> npt.NDArray[np.int16]:
    """A tone of half the full scale."""
    times = np.arange(round(seconds * rate)) / rate
    return (16384 * np.sin(2 * np.pi * TONE * times)).astype(np.int16)


def write_media(
    path: Path,
    codec: str | None,
    *,
    rate: int = 16000,
    layout: str = "mono",
    parts: Sequence[tuple[float, float]] = ((0.0, 1.0),),
    video_seconds: float = 0.0,
) -> Path:
    """Write a file with a tone in it, and a picture if asked.

    Args:
        path: Its ending chooses the container.
        codec: Of the audio; None leaves the audio out.
        rate: Hz.
        layout: `mono`, `stereo` and so on.
        parts: Where the sound starts and for how long it lasts, in seconds of the file.
        video_seconds: Length of the picture; 0 leaves it out.
    """
    with av.open(str(path), "w") as container:
        picture = _add_picture(container) if video_seconds else None
        sound = None
        if codec is not None:
            sound = container.add_stream(codec, rate=rate, layout=layout)
            assert isinstance(sound, AudioStream)
        if picture is not None:
            _write_picture(container, picture, video_seconds)
        if sound is not None:
            for start, seconds in parts:
                _write_sound(container, sound, start, tone(seconds, rate))
            container.mux(sound.encode(None))
    return path


def _add_picture(container: OutputContainer) -> VideoStream:
    picture = container.add_stream("mpeg4", rate=10)
    assert isinstance(picture, VideoStream)
    picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
    return picture


def _write_picture(container: OutputContainer, picture: VideoStream, seconds: float) -> None:
    for number in range(round(seconds * 10)):
        frame = VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        container.mux(picture.encode(frame))
    container.mux(picture.encode(None))


def _write_sound(
    container: OutputContainer, sound: AudioStream, start: float, samples: npt.NDArray[np.int16]
) -> None:
    channels = sound.layout.nb_channels
    size = sound.codec_context.frame_size or _FRAME
    resampler = av.AudioResampler(sound.format.name, sound.layout.name, sound.rate)
    for first in range(0, len(samples), size):
        part = np.repeat(samples[first : first + size], channels)[np.newaxis]
        frame = AudioFrame.from_ndarray(part, format="s16", layout=sound.layout.name)
        frame.sample_rate = sound.rate
        for converted in resampler.resample(frame):
            converted.time_base = Fraction(1, sound.rate)
            converted.pts = round(start * sound.rate) + first
            container.mux(sound.encode(converted))
