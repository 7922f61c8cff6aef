"""Reads the sound of any audio or video file as a microphone would give it: mono, 16 bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from ..options import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from .exits import Exit, FileError

# Hz; for audio slower than the service takes. Speech has nothing above half of this.
_RATE_FOR_SLOW_AUDIO = 16000
# Seconds. Recordings of calls leave time out while nobody's microphone is on; below this it is
# jitter of the timestamps, above the hour it is a fault of the file.
_SHORTEST_GAP = 0.25
_LONGEST_GAP = 3600.0
# A file may be a playlist: whatever it names, nothing is fetched from a network.
_LOCAL_ONLY = {"protocol_whitelist": "file"}


class AudioFile:
    """The first audio track of an open file; read once, from front to end.

    Attributes:
        sample_rate: Hz of the samples: the file's own if it is from 8000 to 48000.
        start: Where the first sample belongs, in seconds of the file. A film's sound can start
            later than its picture.
        length: Seconds of audio that the file says it has; None if it does not say.
        damaged: Packets that could not be decoded, so far.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self.damaged = 0
        self._packets = container.demux(stream)
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            raise FileError(Exit.NO_AUDIO, "its audio cannot be decoded")
        self._first = first
        self.sample_rate = _rate(first.sample_rate)
        self.start = _start(container, first)
        self.length = _length(container, stream, self.start)

    def chunks(self, seconds: float) -> Iterator[bytes]:
        """Yield the samples, `seconds` at a time; the last chunk may be shorter."""
        size = int(self.sample_rate * seconds) * 2
        pending = bytearray()
        for pcm in self._pcm():
            pending += pcm
            while len(pending) >= size:
                yield bytes(pending[:size])
                del pending[:size]
        if pending:
            yield bytes(pending)

    def _decode(self) -> Iterator[AudioFrame]:
        """Yield the frames that can be decoded; players skip the others too."""
        while True:
            try:
                packet = next(self._packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            except OSError as error:
                raise _unreadable(error) from None
            for frame in frames:
                assert isinstance(frame, AudioFrame)
                yield frame

    def _pcm(self) -> Iterator[bytes]:
        resampler = _Resampler(self.sample_rate)
        # Seconds of the file up to which there is sound.
        position = self._first.time or 0.0
        for frame in chain([self._first], self._decoded):
            start = position if frame.time is None else frame.time
            yield from self._silence(start - position)
            position = start + frame.samples / frame.sample_rate
            yield from resampler.push(frame)
        yield from resampler.flush()

    def _silence(self, gap: float) -> Iterator[bytes]:
        """Fill a gap between two frames, so that all that follows is at its right time."""
        if _SHORTEST_GAP <= gap <= _LONGEST_GAP:
            missing = round(gap * self.sample_rate)
            while missing:
                part = min(missing, self.sample_rate)
                missing -= part
                yield bytes(2 * part)


class _Resampler:
    """Converts frames to mono s16 of one rate, also when a file changes its format midway."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._shape: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None

    def push(self, frame: AudioFrame) -> Iterator[bytes]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:
            yield from self.flush()
            self._shape = shape
            self._resampler = AudioResampler(format="s16", layout="mono", rate=self._rate)
        assert self._resampler is not None
        # The resampler insists on timestamps that fit together; ours are counted in samples.
        frame.pts = None
        for converted in self._resampler.resample(frame):
            yield converted.to_ndarray().tobytes()

    def flush(self) -> Iterator[bytes]:
        if self._resampler is not None:
            for converted in self._resampler.resample(None):
                yield converted.to_ndarray().tobytes()


@contextmanager
def open_audio(path: Path) -> Iterator[AudioFile]:
    """Open a file for reading its audio.

    Raises:
        FileError: If there is no such file, it cannot be read, or holds no audio that can be
            decoded. The message names neither file nor directory.
    """
    with _open_file(path) as file:
        try:
            container = av.open(file, "r", options=_LOCAL_ONLY)
        except av.error.FFmpegError:
            raise FileError(Exit.NO_AUDIO, "not an audio or video file that can be read") from None
        except OSError as error:
            raise _unreadable(error) from None
        with container:
            if not container.streams.audio:
                raise FileError(Exit.NO_AUDIO, "there is no audio in it")
            yield AudioFile(container, container.streams.audio[0])


def check_readable(path: Path) -> None:
    """Raise FileError unless `path` can be opened. A pipe is left alone: it opens only once."""
    if not path.is_fifo():
        _open_file(path).close()


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileError(Exit.NO_FILE, "no such file") from None
    except IsADirectoryError:
        raise FileError(Exit.NO_FILE, "that is a directory, not a file") from None
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> FileError:
    return FileError(Exit.NO_FILE, f"cannot be read: {error.strerror}")


def _rate(rate: int) -> int:
    if rate < MIN_SAMPLE_RATE:
        return _RATE_FOR_SLOW_AUDIO
    return min(rate, MAX_SAMPLE_RATE)


def _start(container: InputContainer, first: AudioFrame) -> float:
    if first.time is None or container.start_time is None:
        return 0.0
    return max(0.0, first.time - container.start_time / av.time_base)


def _length(container: InputContainer, stream: AudioStream, start: float) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return max(0.0, container.duration / av.time_base - start)
    return None
