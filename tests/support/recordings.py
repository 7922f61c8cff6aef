"""Recordings as people have them: of any container and codec, with what can go wrong in them."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from av.container import OutputContainer
    from av.packet import Packet

Channels = npt.NDArray[np.float32]
"""Samples of -1 to 1: channels by samples."""

BEEP = 0.05
"""Seconds of a beep."""

_FRAME = 1024


def tone(seconds: float, rate: int, *, hertz: float = 440.0, peak: float = 0.5) -> Channels:
    """One channel of a tone."""
    times = np.arange(round(seconds * rate)) / rate
    return (peak * np.sin(2 * np.pi * hertz * times)).astype(np.float32)[np.newaxis]


def silence(seconds: float, rate: int, channels: int = 1) -> Channels:
    """Channels of nothing."""
    return np.zeros((channels, round(seconds * rate)), np.float32)


def beeps(at: Iterable[float], seconds: float, rate: int) -> Channels:
    """One channel of silence with a beep at each of some seconds."""
    sound = silence(seconds, rate)
    beep = tone(BEEP, rate, hertz=1000.0, peak=0.8)
    for start in at:
        first = round(start * rate)
        sound[:, first : first + beep.shape[1]] = beep[:, : sound.shape[1] - first]
    return sound


@dataclass(frozen=True)
class Sound:
    """An audio track to write.

    Attributes:
        samples: What is on it.
        codec: How it is written.
        rate: Hz.
        layout: `mono`, `stereo`, `6 channels` and so on.
        stamp: Turns seconds of the samples into the timestamp that a packet gets.
        keep: Whether the packet of this number is written at all.
        default: Whether a player would take this track.
    """

    samples: Channels
    codec: str = "pcm_s16le"
    rate: int = 16000
    layout: str = "mono"
    stamp: Callable[[float], float] = lambda seconds: seconds
    keep: Callable[[int], bool] = lambda number: True
    default: bool = False


def write(
    path: Path,
    *sounds: Sound,
    form: str | None = None,
    picture: float = 0.0,
    picture_from: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a recording.

    Args:
        path: Its ending chooses the container, unless `form` does.
        sounds: Its audio tracks.
        form: The name of the container.
        picture: Seconds of a black picture, 0 for none.
        picture_from: The second at which it begins.
        options: Of the container.
    """
    with av.open(str(path), "w", format=form, options=options) as container:
        screen = _add_picture(container, path) if picture else None
        streams = [_add_sound(container, sound) for sound in sounds]
        packets = [] if screen is None else _picture(screen, picture, picture_from)
        for sound, stream in zip(sounds, streams, strict=True):
            packets += _packets(sound, stream)
        # As a recorder would have written them.
        for packet in sorted(packets, key=_time):
            container.mux_one(packet)
    return path


def write_wav(path: Path, samples: Channels, rate: int = 16000, *, promised: int = 0) -> Path:
    """Write a WAVE file of 16 bits with any number of channels.

    Args:
        path: Where it is.
        samples: What is in it.
        rate: Hz.
        promised: Samples of each channel that its header says more than there are.
    """
    channels = len(samples)
    pcm = (samples.T * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm + bytes(2 * channels * promised))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 2 * channels * promised])
    return path


def _time(packet: Packet[Any]) -> float:
    assert packet.dts is not None
    return float(packet.dts * packet.time_base)


def _add_sound(container: OutputContainer, sound: Sound) -> AudioStream:
    stream = container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
    assert isinstance(stream, AudioStream)
    if sound.default:
        stream.disposition = 1  # type: ignore[assignment]
    return stream


def _packets(sound: Sound, stream: AudioStream) -> list[Packet[Any]]:
    encoded: list[Packet[Any]] = []
    for frame in _frames(sound, stream):
        encoded += stream.encode(frame)
    encoded += stream.encode(None)
    kept = []
    for number, packet in enumerate(encoded):
        if sound.keep(number):
            packet.pts = packet.dts = round(sound.stamp(_time(packet)) / packet.time_base)
            kept.append(packet)
    return kept


def _frames(sound: Sound, stream: AudioStream) -> Iterable[AudioFrame]:
    channels = len(sound.samples)
    size = stream.codec_context.frame_size or _FRAME
    resampler = av.AudioResampler(stream.format.name, sound.layout, sound.rate)
    for first in range(0, sound.samples.shape[1], size):
        part = np.ascontiguousarray(sound.samples[:, first : first + size].T).reshape(1, -1)
        frame = AudioFrame.from_ndarray(part, format="flt", layout=sound.layout)
        assert frame.layout.nb_channels == channels
        frame.sample_rate = sound.rate
        for converted in resampler.resample(frame):
            converted.time_base = Fraction(1, sound.rate)
            converted.pts = first
            yield converted


def _add_picture(container: OutputContainer, path: Path) -> VideoStream:
    screen = container.add_stream("flv1" if path.suffix == ".flv" else "mpeg4", rate=10)
    assert isinstance(screen, VideoStream)
    screen.width, screen.height, screen.pix_fmt = 64, 48, "yuv420p"
    return screen


def _picture(screen: VideoStream, seconds: float, start: float) -> list[Packet[Any]]:
    packets: list[Packet[Any]] = []
    for number in range(round(seconds * 10)):
        frame = VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = number + round(start * 10), Fraction(1, 10)
        packets += screen.encode(frame)
    return packets + screen.encode(None)


def write_late_camera(path: Path, seconds: float, camera_from: float) -> Path:
    """Write a live recording (FLV) whose picture appears in the middle, without notice."""
    sound = Sound(tone(seconds, 44100), "aac", 44100)
    write(path, sound, picture=seconds - camera_from, picture_from=camera_from)
    content = bytearray(path.read_bytes())
    # The header says which kinds of track there are: only sound.
    content[4] = 0x04
    path.write_bytes(content)
    return path


def onsets(blocks: Sequence[tuple[bytes, float]], rate: int) -> list[float]:
    """The seconds of the recording at which beeps start, by the places of blocks of PCM."""
    found: list[float] = []
    for pcm, time in blocks:
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)) > 8000)
        for place in time + loud / rate:
            if not found or abs(place - found[-1]) > 3 * BEEP:
                found.append(float(place))
    return found
