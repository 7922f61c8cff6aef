"""Reads the sound of any audio or video file as a microphone would give it: mono, 16 bit.

Each block of sound comes with its place in the file, so that times stay true where packets are
missing or clocks differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import av.error
from av.audio.frame import AudioFrame
from av.container import InputContainer

from ..options import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from .blocks import Block, Blocks
from .exits import Exit, FileError
from .promise import promise
from .source import Source, unreadable
from .timing import Placed
from .track import Track
from .tracks import Choice, choose

# Hz, for audio of a lower rate than the service takes. Speech has nothing above half of it.
_RATE_FOR_SLOW_AUDIO = 16000
# A file may be a playlist: whatever it names, nothing is fetched from a network.
_LOCAL_ONLY = {"protocol_whitelist": "file"}
# Microseconds of a pipe that libav looks at before it begins; of a file it is up to 5 s.
_LIVE = {"analyzeduration": "1000000"}
# A file is heard even if its metadata cannot be decoded; since PyAV 19 that never raises an error.
_HAS_METADATA_ERRORS = int(av.__version__.partition(".")[0]) < 19
_ANY_LETTERS: dict[str, Any] = {"metadata_errors": "replace"} if _HAS_METADATA_ERRORS else {}
# What files with a header begin with: at which byte, with what, and what such a file is called.
_HEADERS = (
    (0, b"ID3", "an MP3"),
    (0, b"fLaC", "a FLAC"),
    (0, b"OggS", "an Ogg"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM"),
    (0, b"caff", "a CAF"),
    (0, b".snd", "an AU"),
    (0, b"#!AMR", "an AMR"),
    (4, b"ftyp", "an MP4"),
    (8, b"WAVE", "a WAVE"),
    (8, b"AIF", "an AIFF"),
)
# Bytes that are enough to tell all of these.
_LONGEST_HEADER = 12
# Bytes of a pipe that are searched for a track that is not silent; a file is searched to its end.
_LOOK = 4 * 2**20


@dataclass(frozen=True)
class Selection:
    """Which sound of a file is wanted."""

    track: int | None = None
    """The audio track, from 1; None takes the one that a player would, unless it is silent."""
    channel: int | None = None
    """The channel, from 1; None mixes all."""
    start: float = 0.0
    """Seconds of the file."""
    end: float | None = None
    """Seconds of the file; None is its end."""
    raw: int | None = None
    """Hz of 16-bit mono samples without a header; None expects a header."""


ALL = Selection()
"""The whole of the track that a player would take."""


class AudioFile:
    """The sound of an open file; read once, from front to end.

    Args:
        container: The file.
        choice: Which track of it.
        source: The file's bytes.
        selection: Which part of it.

    Attributes:
        sample_rate: Hz of the samples: the file's own if it is from 8000 to 48000.
        start: Where the first sample belongs, in seconds of the file. A film's sound can start
            later than its picture.
        length: Seconds of audio that are to come; None if the file does not say.
        shortfall: What is wrong with the file's end, once it is read; None if nothing is.

    Raises:
        FileError: Its audio cannot be decoded, or there is no such channel.
    """

    def __init__(
        self, container: InputContainer, choice: Choice, source: Source, selection: Selection
    ) -> None:
        self.shortfall: str | None = None
        self._selection = selection
        self._remarks = list(filter(None, [choice.note]))
        if selection.raw is not None and (kind := _kind(source.read_at(0, _LONGEST_HEADER))):
            self._remarks.append(
                f"it begins like {kind} file, and all of it was taken for PCM; leave out --raw to "
                "have it decoded"
            )
        stream = container.streams.audio[choice.number - 1]
        self._track = Track(container, stream)
        self.sample_rate = _rate(self._track.first.sample_rate)
        self._blocks = Blocks(self.sample_rate, selection.channel)
        self._blocks.check_channel(self._track.first)
        self._promise = promise(container, stream, source.read_at, self._track.origin)
        self.start = max(0.0, self._track.start, selection.start)
        self.length = self._length(container)
        if source.is_file:
            self._track.seek(selection.start)

    @property
    def damaged(self) -> int:
        """Pieces that could not be decoded, so far."""
        return self._track.damaged + self._blocks.damaged

    @property
    def notes(self) -> list[str]:
        """What the user is told about the file, and the choice of track and channel."""
        return [*self._remarks, *self._blocks.notes]

    def blocks(self) -> Iterator[Block]:
        """Yield the samples, each block with its place; gaps are filled with silence.

        Raises:
            FileError: The file cannot be read to its end, or ends before the selection starts.
        """
        found = False
        for block in self._blocks.make(self._frames()):
            wanted = self._trim(block)
            if wanted.pcm:
                found = True
                yield wanted
        if not found and self._selection.start:
            ends = f"it ends at {self._track.end:.1f} s"
            raise FileError(Exit.NO_AUDIO, f"{ends}, and --start is {self._selection.start:g} s")

    def _frames(self) -> Iterator[Placed[AudioFrame]]:
        """Yield the frames of the selection and a little more, and look at the file's end."""
        end = self._selection.end
        for placed in self._track.frames():
            if end is not None and placed.start - placed.silence >= end:
                return
            frame = placed.item
            if placed.start + frame.samples / frame.sample_rate > self._selection.start:
                yield placed
        self.shortfall = self._track.shortfall(self._promise)

    def _trim(self, block: Block) -> Block:
        """Return the part of a block that belongs to the selection."""
        selection, count = self._selection, len(block.pcm) // 2
        first = max(0, round((selection.start - block.time) * self.sample_rate))
        last = count
        if selection.end is not None:
            last = min(count, round((selection.end - block.time) * self.sample_rate))
        if (first, last) == (0, count):
            return block
        pcm = block.pcm[2 * first : max(0, 2 * last)]
        return Block(pcm, block.time + first / self.sample_rate)

    def _length(self, container: InputContainer) -> float | None:
        if self._promise is not None:
            end = self._promise.end
        elif container.duration is not None:
            end = container.duration / av.time_base
        else:
            return None
        if self._selection.end is not None:
            end = min(end, self._selection.end)
        return max(0.0, end - self.start)


@contextmanager
def open_audio(source: Source, selection: Selection = ALL) -> Iterator[AudioFile]:
    """Open an input for reading its audio, and close it at the end.

    Args:
        source: Its bytes, not opened yet.
        selection: Which sound of it.

    Raises:
        FileError: There is no such file, it cannot be read, or holds no audio that can be
            decoded. The message names neither file nor directory.
    """
    try:
        source.open()
        container, choice = _container(source, selection)
        source.forget()
        with container:
            yield AudioFile(container, choice, source, selection)
    finally:
        source.close()


def _container(source: Source, selection: Selection) -> tuple[InputContainer, Choice]:
    container = _open(source, selection.raw)
    try:
        choice, was_read = choose(container, selection.track, lambda: source.kept > _LOOK)
        if not was_read:
            return container, choice
    except BaseException:
        container.close()
        raise
    container.close()
    source.rewind()
    return _open(source, selection.raw), choice


def _open(source: Source, raw: int | None) -> InputContainer:
    options = _LOCAL_ONLY if source.is_file else _LOCAL_ONLY | _LIVE
    form = None
    if raw is not None:
        form = "s16le"
        options = options | {"sample_rate": str(raw), "ch_layout": "mono"}
    try:
        opened: InputContainer = av.open(source, "r", format=form, options=options, **_ANY_LETTERS)
        return opened
    except av.error.FFmpegError:
        raise FileError(Exit.NO_AUDIO, _why_none(source)) from None
    except OSError as error:
        raise unreadable(error) from None


def _why_none(source: Source) -> str:
    head = source.read_at(0, _LONGEST_HEADER)
    if not head:
        return "it is empty, and not an audio or video file"
    if _kind(head):
        return (
            "not an audio or video file that can be read: it is cut off, "
            "or its recording was not ended"
        )
    return (
        "not an audio or video file that can be read; "
        "samples without a header are for `transcribe --raw RATE`"
    )


def _kind(head: bytes) -> str | None:
    """Return what files that begin like this are called; None if these can be bare samples."""
    for at, mark, kind in _HEADERS:
        if head[at:].startswith(mark):
            return kind
    # An MP3 frame without a tag before it: layer III, with a bit rate and a rate that exist.
    sync = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
    return "an MP3" if sync and head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C else None


def _rate(rate: int) -> int:
    if rate < MIN_SAMPLE_RATE:
        return _RATE_FOR_SLOW_AUDIO
    return min(rate, MAX_SAMPLE_RATE)
