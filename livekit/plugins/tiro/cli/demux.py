"""Demuxes and decodes audio; goes on after errors of the demuxer and the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from .source import unreadable

# Failures in a row after which the demuxer is taken to have stopped in the middle of the file. Some
# demuxers fail once for each piece that they cannot read, and go on after it.
_MAX_FAILURES = 50
# Hz; a rate outside of this range comes from a damaged header, and could turn a second into hours.
_MIN_RATE, _MAX_RATE = 1000, 1_000_000


class Demuxer:
    """Reads the packets of some tracks of a container, once, from front to end.

    Attributes:
        reach: Where the last packet of all tracks ends, by the timestamps, in seconds.
        failed: Whether reading ended because it could not go on.
    """

    def __init__(self, container: InputContainer, streams: Sequence[AudioStream]) -> None:
        self.reach = float("-inf")
        self.failed = False
        self._container = container
        self._wanted = {stream.index for stream in streams}

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets.

        Raises:
            FileError: The file cannot be read any further.
        """
        failures = 0
        while failures < _MAX_FAILURES:
            try:
                # All tracks: their timestamps tell how far the file goes.
                for packet in self._container.demux():
                    # Empty ones come at the end; to a decoder they mean that nothing follows.
                    if packet.size:
                        failures = 0
                        self._note_reach(packet)
                        if packet.stream_index in self._wanted:
                            yield packet
                return
            except av.error.FFmpegError:
                failures += 1
            except OSError as error:
                raise unreadable(error) from None
            except (IndexError, ValueError):
                # PyAV only lists the tracks of the start; it fails at one that appears later.
                failures += 1
        self.failed = True

    def _note_reach(self, packet: Packet[Any]) -> None:
        # A time base that is not known is None, or 0 from PyAV 19 on.
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self.reach = max(self.reach, float(end))


class Decoder:
    """Decodes the packets of one track.

    Attributes:
        damaged: Pieces that could not be decoded, so far.
    """

    def __init__(self, stream: AudioStream) -> None:
        self.damaged = 0
        self._stream = stream
        self._shapes: set[tuple[str, int, int]] = set()
        # The first frame of a shape that was not seen before; a second one has to confirm it.
        self._odd: AudioFrame | None = None
        self._is_settled = True

    def restart(self) -> None:
        """Begin anew at some other place of the file: what was not given yet is forgotten.

        Up to the next frame nothing counts as damage: many a codec cannot decode what follows a
        jump, and what comes from a place for the second time was counted at the first.
        """
        self._odd = None
        self._is_settled = False

    def decode(self, packet: Packet[Any] | None) -> Iterator[AudioFrame]:
        """Yield the frames of a packet; None brings the last ones."""
        try:
            frames = self._stream.codec_context.decode(packet)
        except Exception as error:
            # Players skip what cannot be decoded, whatever the error is.
            if packet is not None:
                self._note_damage()
            if isinstance(error, EOFError):
                self._stream.codec_context.flush_buffers()
            return
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples:
                yield from self._check(frame)

    def flush(self) -> Iterator[AudioFrame]:
        """Yield what is left at the end."""
        yield from self.decode(None)
        if self._odd is not None and not self._shapes:
            # All of a very short file.
            yield self._odd
        elif self._odd is not None:
            self._note_damage()
        self._odd = None

    def time_of(self, frame: AudioFrame) -> float | None:
        """Return a frame's timestamp in seconds; None if it has none."""
        time_base = self._stream.time_base
        return float(frame.pts * time_base) if frame.pts is not None and time_base else None

    def _check(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """Yield a frame unless damage made up its shape: such a shape comes only once."""
        shape = _shape(frame)
        if not _MIN_RATE <= frame.sample_rate <= _MAX_RATE:
            self._note_damage()
            return
        if shape not in self._shapes:
            odd, self._odd = self._odd, frame
            if odd is None or _shape(odd) != shape:
                if odd is not None:
                    self._note_damage()
                return
            self._shapes.add(shape)
            self._is_settled = True
            yield odd
        elif self._odd is not None:
            self._note_damage()
        self._odd = None
        self._is_settled = True
        yield frame

    def _note_damage(self) -> None:
        self.damaged += self._is_settled


def _shape(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate
