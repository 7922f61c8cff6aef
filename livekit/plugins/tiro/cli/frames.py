"""Frames of any sample format and any number of channels as plain numbers, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from .mixing import Samples

# Sample formats that numpy knows: what is silence in them, and what is full scale.
_FORMATS: dict[str, tuple[type[np.number[Any]], float, float]] = {
    "u8": (np.uint8, 128.0, 128.0),
    "s16": (np.int16, 0.0, 2.0**15),
    "s32": (np.int32, 0.0, 2.0**31),
    "flt": (np.float32, 0.0, 1.0),
    "dbl": (np.float64, 0.0, 1.0),
}


class Converter:
    """Turns frames into samples of -1 to 1."""

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None

    def samples(self, frame: AudioFrame) -> Samples:
        """Return a frame's samples, by channels.

        Values that are no numbers are damage, and become 0; those out of range are clipped.

        Raises:
            FFmpegError, ValueError: It cannot be converted.
        """
        channels = frame.layout.nb_channels
        name = frame.format.name
        if frame.format.is_planar and channels == 1:
            name = name.removesuffix("p")
        if name not in _FORMATS:
            # The planes of a planar frame are not read: with eight or more, PyAV reads past the
            # end of their list, which is a segmentation fault.
            frame, name = self._packed(frame), "flt"
        kind, zero, full = _FORMATS[name]
        count = frame.samples * channels
        values: npt.NDArray[Any] = np.frombuffer(memoryview(frame.planes[0]), kind, count)
        values = values.reshape(-1, channels)
        if name in ("flt", "dbl"):
            # Damage can make any value, and NaN.
            with np.errstate(all="ignore"):
                values = np.clip(np.nan_to_num(values.astype(np.float32)), -1.0, 1.0)
        scaled: Samples = (values.astype(np.float32) - np.float32(zero)) * np.float32(1 / full)
        return scaled

    def _packed(self, frame: AudioFrame) -> AudioFrame:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or self._shape != shape:
            self._resampler = AudioResampler("flt", frame.layout, frame.sample_rate)
            self._shape = shape
        # The resampler insists on timestamps that fit together.
        frame.pts = None
        (packed,) = self._resampler.resample(frame)
        return packed


def to_pcm(samples: Samples) -> bytes:
    """Return samples of one channel as 16-bit PCM; samples made from 16-bit PCM are as before."""
    scaled = np.rint(samples * np.float32(2**15))
    clipped: Samples = np.clip(scaled, -(2**15), 2**15 - 1)
    return clipped.astype(np.int16).tobytes()


class RateConverter:
    """Converts 16-bit mono PCM from one rate to another.

    Args:
        source: Hz of what comes in.
        target: Hz of what goes out; if it is the same, audio passes unchanged.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._resampler = None if source == target else AudioResampler("s16", "mono", target)

    def push(self, pcm: bytes) -> bytes:
        """Return what is ready; some milliseconds are kept until there is more."""
        if self._resampler is None:
            return pcm
        samples = np.frombuffer(pcm, np.int16)[np.newaxis]
        frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = self._source
        return b"".join(self._convert(frame))

    def flush(self) -> bytes:
        """Return what is left."""
        return b"".join(self._convert(None))

    def _convert(self, frame: AudioFrame | None) -> Iterator[bytes]:
        for converted in self._resampler.resample(frame) if self._resampler else []:
            yield converted.to_ndarray().tobytes()
