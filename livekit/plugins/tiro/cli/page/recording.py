"""Keeps the sound of a file while it is read: compressed, and with the peaks of its waveform."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError

PEAKS_PER_SECOND = 50

# Codec, container and media type, the best first. Opus in WebM plays in every current browser, at
# 10 MB for an hour. Builds of FFmpeg may lack it; none lacks plain PCM, at ten times the size.
_KINDS = (("libopus", "webm", "audio/webm"), ("pcm_s16le", "wav", "audio/wav"))
# Of Opus. 24,000 bits a second are clear speech; packets of 60 ms are a tenth smaller than those of
# 20 ms; half the effort takes a third of the CPU for the same size.
_OPTIONS = {"b": "24000", "frame_duration": "60", "compression_level": "5"}
# Hz that Opus takes; speech gains nothing from the 48,000 that it takes as well.
_RATES = (8000, 12000, 16000, 24000)
# Seconds; a shorter gap is a matter of rounding, and nobody notices a word that much too early.
_SHORTEST_GAP = 0.02
_FULL_SCALE = 32768


@dataclass(frozen=True)
class Sound:
    """The whole sound of a file, as a page carries it."""

    data: bytes
    media_type: str
    peaks: bytes
    """The loudest sample of each 1 / `PEAKS_PER_SECOND` s: 255 times the square root of its share
    of the full scale, so that quiet speech keeps its shape in eight bits."""


class Recording:
    """The sound of a file, taken in as it is read; it holds 10 MB for an hour.

    Its times are those of the file: where the file has no sound, the recording has silence.

    Args:
        sample_rate: Hz of the samples to come.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._encoder = _Encoder(sample_rate)
        self._peaks = _Peaks(sample_rate)
        # Samples, silence included.
        self._length = 0

    def write(self, pcm: bytes, at: float) -> None:
        """Take samples: mono, 16 bit.

        Args:
            pcm: The samples that follow those of the call before.
            at: Where they belong, in seconds of the file.
        """
        missing = round(at * self._sample_rate) - self._length
        if missing >= _SHORTEST_GAP * self._sample_rate:
            while missing > 0:
                part = min(missing, self._sample_rate)
                self._take(np.zeros(part, np.int16))
                missing -= part
        self._take(np.frombuffer(pcm, np.int16))

    def _take(self, samples: npt.NDArray[np.int16]) -> None:
        self._length += len(samples)
        if len(samples):
            self._encoder.push(samples)
            self._peaks.push(samples)

    def finish(self) -> Sound:
        """Return what was recorded; nothing can be written after that."""
        return Sound(self._encoder.finish(), self._encoder.media_type, self._peaks.finish())


class _Encoder:
    """Compresses samples to a file in memory."""

    def __init__(self, sample_rate: int) -> None:
        codec, container, self.media_type = next(kind for kind in _KINDS if _is_known(kind[0]))
        rate = next((rate for rate in _RATES if rate >= sample_rate), _RATES[-1])
        self._sample_rate = sample_rate
        self._file = io.BytesIO()
        # No random numbers in the headers: the same file makes the same page.
        fixed = {"fflags": "+bitexact"}
        self._container = av.open(self._file, "w", format=container, options=fixed)
        options = _OPTIONS if codec == "libopus" else {}
        stream = self._container.add_stream(codec, rate=rate, layout="mono", options=options)
        assert isinstance(stream, AudioStream)
        # How many samples make a packet is known once the codec is open.
        stream.codec_context.open()
        self._stream = stream
        self._resampler = AudioResampler(
            stream.format.name, "mono", rate, stream.codec_context.frame_size or None
        )

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        frame = AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        self._encode(frame)

    def finish(self) -> bytes:
        self._encode(None)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()

    def _encode(self, frame: AudioFrame | None) -> None:
        for converted in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(converted))


class _Peaks:
    """Finds the loudest sample of each 1/50 s, also if that is no whole number of samples."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._loudest = bytearray()
        self._pending: npt.NDArray[np.int32] = np.empty(0, np.int32)
        # The number of the first pending sample, counted from 0 at the start of the file.
        self._position = 0

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        # -32768 has no positive counterpart in 16 bits.
        self._pending = np.concatenate([self._pending, np.abs(samples.astype(np.int32))])
        heard = self._position + len(self._pending)
        self._measure((heard * PEAKS_PER_SECOND) // self._sample_rate)

    def finish(self) -> bytes:
        if len(self._pending):
            self._measure(len(self._loudest) + 1)
        return bytes(self._loudest)

    def _measure(self, until: int) -> None:
        """Measure the peaks from the first pending sample up to peak `until`."""
        count = until - len(self._loudest)
        if count <= 0:
            return
        edges = np.arange(len(self._loudest), until + 1) * self._sample_rate
        edges = -(-edges // PEAKS_PER_SECOND) - self._position
        end = min(int(edges[-1]), len(self._pending))
        loudest = np.maximum.reduceat(self._pending[:end], edges[:-1])
        self._loudest += (255 * np.sqrt(loudest / _FULL_SCALE)).astype(np.uint8).tobytes()
        self._pending = self._pending[end:]
        self._position += end


def _is_known(codec: str) -> bool:
    try:
        av.Codec(codec, "w")
    except UnknownCodecError:
        return False
    return True
