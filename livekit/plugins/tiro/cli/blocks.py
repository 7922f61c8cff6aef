"""Frames to blocks: mono, 16 bit, of one rate, each block at its place, silence in the gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from av.audio.frame import AudioFrame

from .exits import Exit, FileError
from .frames import Converter, RateConverter, to_pcm
from .mixing import Mixer, Samples
from .timing import Placed

# Seconds of frames that are mixed as one block: each step costs the same for any length.
_BLOCK = 0.1
# Seconds of silence put into a gap, at most. After 2 s of silence the service has decided on what
# was before; more would only cost time, as each block says where it belongs.
_LONGEST_SILENCE = 5.0
# Seconds by which a frame may be out of place before it starts a block of its own.
_OUT_OF_PLACE = 0.004


class Block(NamedTuple):
    """Some samples that belong together, and their place."""

    pcm: bytes
    """16-bit, mono."""
    time: float
    """Where the first sample belongs, in seconds of the file."""


class _Shape(NamedTuple):
    """What all frames of a batch have in common."""

    names: tuple[str, ...]
    rate: int


class Blocks:
    """Makes blocks of frames.

    Args:
        sample_rate: Hz of the blocks.
        channel: The only channel to hear, from 1; None mixes all.

    Attributes:
        notes: What the user is told about the channels.
        damaged: Frames that could not be converted, so far: there is silence in their place.
    """

    def __init__(self, sample_rate: int, channel: int | None) -> None:
        self.notes: list[str] = []
        self.damaged = 0
        self._rate = sample_rate
        self._channel = channel
        self._converter = Converter()
        self._resampler = RateConverter(sample_rate, sample_rate)
        self._shape: _Shape | None = None
        self._mixer: Mixer | None = None
        self._start = 0.0
        self._seconds = 0.0
        self._batch: list[Samples] = []

    def make(self, frames: Iterable[Placed[AudioFrame]]) -> Iterator[Block]:
        """Yield the blocks of some frames; the first of them must have passed `check_channel`."""
        for placed in frames:
            frame = placed.item
            if placed.silence:
                yield from self._finish()
                yield from self._silence(placed)
            shape = _shape(frame)
            if shape != self._shape or abs(self._end() - placed.start) > _OUT_OF_PLACE:
                yield from self._finish()
                self._start = placed.start
            if shape != self._shape:
                yield from self._change(shape)
            self._batch.append(self._samples(frame))
            self._seconds += frame.samples / frame.sample_rate
            if self._seconds >= _BLOCK:
                yield from self._finish()
        yield from self._finish()
        yield from self._flush()

    def check_channel(self, frame: AudioFrame) -> None:
        """Raise FileError if the channel that is wanted is not there."""
        count = frame.layout.nb_channels
        if self._channel is not None and self._channel > count:
            has = "one channel" if count == 1 else f"{count} channels"
            raise FileError(Exit.NO_AUDIO, f"there is no --channel {self._channel}: it has {has}")

    def _end(self) -> float:
        return self._start + self._seconds

    def _samples(self, frame: AudioFrame) -> Samples:
        try:
            return self._converter.samples(frame)
        except Exception:
            # Whatever libav raises, only this frame is lost.
            self.damaged += 1
            return np.zeros((frame.samples, frame.layout.nb_channels), np.float32)

    def _change(self, shape: _Shape) -> Iterator[Block]:
        """Go over to frames of another shape."""
        yield from self._flush()
        count = len(shape.names)
        wanted = self._channel is not None and self._channel <= count
        self._mixer = Mixer(
            shape.names, shape.rate, self._channel - 1 if self._channel and wanted else None
        )
        self._resampler = RateConverter(shape.rate, self._rate)
        self._shape = shape

    def _flush(self) -> Iterator[Block]:
        rest = self._resampler.flush()
        if rest:
            yield Block(rest, self._start)

    def _finish(self) -> Iterator[Block]:
        """Mix what was gathered."""
        if not self._batch or self._mixer is None:
            return
        samples = np.concatenate(self._batch) if len(self._batch) > 1 else self._batch[0]
        self._batch.clear()
        told = self._mixer.cancelled is not None
        pcm = self._resampler.push(to_pcm(self._mixer.mix(samples)))
        if not told and self._mixer.cancelled is not None:
            self.notes.append(
                "its channels cancel each other out: "
                f"channel {self._mixer.cancelled + 1} is heard alone; --channel chooses another"
            )
        start = self._start
        self._start, self._seconds = self._end(), 0.0
        if pcm:
            yield Block(pcm, start)

    def _silence(self, placed: Placed[AudioFrame]) -> Iterator[Block]:
        """Fill a gap, or the beginning of a long one."""
        time = placed.start - placed.silence
        missing = round(min(placed.silence, _LONGEST_SILENCE) * self._rate)
        while missing:
            part = min(missing, self._rate)
            yield Block(bytes(2 * part), time)
            missing -= part
            time += part / self._rate
        self._start = placed.start


def _shape(frame: AudioFrame) -> _Shape:
    return _Shape(tuple(channel.name for channel in frame.layout.channels), frame.sample_rate)
