"""Which audio track of a file is heard: the default one, unless there is nothing in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition

from .demux import Decoder, Demuxer
from .exits import Exit, FileError
from .frames import Converter
from .mixing import silent

_ANOTHER = "--track chooses another"


class Choice(NamedTuple):
    """The track to hear."""

    number: int
    """Counts the audio tracks from 1."""
    note: str | None
    """What the user is told about it."""


def choose(
    container: InputContainer, number: int | None, enough: Callable[[], bool]
) -> tuple[Choice, bool]:
    """Choose a track, and tell whether the container was read for that.

    Args:
        container: The open file, not read yet.
        number: The track asked for, from 1; None leaves it open.
        enough: Asked after each packet; true ends the search for a track with sound.

    Raises:
        FileError: There is no such track, or none at all, or the file cannot be read.
    """
    count = len(container.streams.audio)
    if not count:
        raise FileError(Exit.NO_AUDIO, "there is no audio in it")
    if number is not None:
        if number > count:
            has = "one audio track" if count == 1 else f"{count} audio tracks"
            raise FileError(Exit.NO_AUDIO, f"there is no --track {number}: it has {has}")
        return Choice(number, None), False
    if count == 1:
        return Choice(1, None), False
    default = _default(container)
    heard = _heard(container, default, enough)
    index = default if default in heard or not heard else min(heard)
    why = "" if index == default else f", because track {default + 1} is silent"
    note = f"audio track {index + 1} of {count} is heard{why}; {_ANOTHER}"
    return Choice(index + 1, note), True


def _default(container: InputContainer) -> int:
    marked = (
        index
        for index, stream in enumerate(container.streams.audio)
        if stream.disposition & Disposition.default
    )
    return next(marked, 0)


def _heard(container: InputContainer, default: int, enough: Callable[[], bool]) -> set[int]:
    """Return the tracks found not to be silent; the search ends once the default one is found."""
    streams = container.streams.audio
    looks = {stream.index: _Look(stream) for stream in streams}
    for packet in Demuxer(container, streams).packets():
        look = looks[packet.stream_index]
        look.take(packet)
        if looks[streams[default].index].heard or enough():
            break
    return {index for index, stream in enumerate(streams) if looks[stream.index].heard}


class _Look:
    """Looks for sound in one track, until there is some."""

    def __init__(self, stream: AudioStream) -> None:
        self.heard = False
        self._decoder = Decoder(stream)
        self._converter = Converter()

    def take(self, packet: Packet[Any]) -> None:
        if self.heard:
            return
        for frame in self._decoder.decode(packet):
            # A frame that cannot be converted cannot be heard either.
            with suppress(Exception):
                self.heard = self.heard or not silent(self._converter.samples(frame))
