"""One audio track of a file: its frames, each at its place, and whether its end is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from .demux import Decoder, Demuxer
from .exits import Exit, FileError
from .promise import Promise
from .timing import Placed, Timekeeper

# Seconds that a file may be shorter than its header says: encoders round up to whole frames.
_TOO_SHORT = 0.5
# Containers in which a place is found exactly, and how many seconds before it to begin: some codecs
# need the audio before it.
_SEEKABLE = {"matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "wav"}
_LEAD_IN = 2.0
# Formats without timestamps: libav counts them up by the rate of the first frame.
_COUNTED = {"aac", "ac3", "eac3", "dts", "loas", "mp3"}


class Track:
    """The frames of one track.

    Attributes:
        first: The first frame.
        end: Where the frames so far end, in seconds of the file.

    Raises:
        FileError: Nothing of it can be decoded, or the file cannot be read.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self._decoder = Decoder(stream)
        self._read_on()
        first = next(self._decoded, None)
        if first is None:
            raise FileError(Exit.NO_AUDIO, self._why_none())
        self.first = first
        time = self._decoder.time_of(first) or 0.0
        start = container.start_time
        self.origin = time if start is None else start / av.time_base
        """The timestamp of the file's second 0."""
        self.start = time - self.origin
        """Where the first frame belongs, in seconds of the file; before 0 there is no sound."""
        self.end = self.start

    def _why_none(self) -> str:
        """Return why there is no first frame."""
        if self.damaged or self._demuxer.failed:
            return "its audio cannot be decoded"
        return "it holds no audio, not a single sample: record or copy it again"

    @property
    def damaged(self) -> int:
        """Pieces that could not be decoded, so far."""
        return self._decoder.damaged

    def seek(self, seconds: float) -> None:
        """Go to some place before a second of the file, if that can be found, to save time."""
        if self._container.format.name not in _SEEKABLE or seconds < self.start + 2 * _LEAD_IN:
            return
        if self._go_to(seconds - _LEAD_IN) and self.start <= seconds:
            return
        self._go_to(0.0)

    def _go_to(self, seconds: float) -> bool:
        with suppress(av.error.FFmpegError):
            self._container.seek(round((seconds + self.origin) * av.time_base))
        self._decoder.restart()
        self._read_on()
        first = next(self._decoded, None)
        time = None if first is None else self._decoder.time_of(first)
        if first is None or time is None:
            return False
        self.first = first
        self.start = self.end = time - self.origin
        return True

    def _read_on(self) -> None:
        self._demuxer = Demuxer(self._container, [self._stream])
        self._decoded = self._decode()

    def frames(self) -> Iterator[Placed[AudioFrame]]:
        """Yield the frames, each with its place and the silence before it.

        Raises:
            FileError: The file cannot be read any further.
        """
        keeper: Timekeeper[AudioFrame] = Timekeeper(self.start)
        counted = self._container.format.name in _COUNTED
        for frame in chain([self.first], self._decoded):
            time = self._decoder.time_of(frame)
            if counted and frame.sample_rate != self.first.sample_rate:
                time = None
            place = None if time is None else time - self.origin
            for placed in keeper.push(frame, place, frame.samples / frame.sample_rate):
                self.end = keeper.end
                yield placed
        for placed in keeper.flush():
            self.end = keeper.end
            yield placed

    def _decode(self) -> Iterator[AudioFrame]:
        for packet in self._demuxer.packets():
            yield from self._decoder.decode(packet)
        yield from self._decoder.flush()

    def shortfall(self, promise: Promise | None) -> str | None:
        """Return what is to be told about the end of a track that was read; None if all is there.

        Args:
            promise: What the header says.
        """
        if promise is not None:
            reached = self.end if promise.of_track else self._demuxer.reach - self.origin
            if promise.end - max(reached, self.end) > _TOO_SHORT:
                return f"it ends at {self.end:.1f} of {promise.end:.1f} s"
        if self._demuxer.failed:
            return f"it cannot be read beyond {self.end:.1f} s"
        return None
