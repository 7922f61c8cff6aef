"""From a container to frames: what cannot be read costs that piece and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import av.error
import pytest
from av.audio.frame import AudioFrame

from livekit.plugins.tiro.cli.demux import Decoder, Demuxer
from livekit.plugins.tiro.cli.exits import Exit, FileError

from .support.recordings import Sound, tone, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BROKEN = av.error.InvalidDataError(1, "damaged")


def packet(stream: int = 0, size: int = 1, pts: int | None = 0) -> Any:
    return SimpleNamespace(
        stream_index=stream, size=size, pts=pts, duration=1, time_base=0.5 if size else None
    )


class Container:
    """A container that yields given packets; an exception among them ends a look into it."""

    def __init__(self, *items: Any) -> None:
        self._items = iter(items)

    def demux(self) -> Iterator[Any]:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            yield item


def demuxer(*items: Any, tracks: tuple[int, ...] = (0,)) -> Demuxer:
    container: Any = Container(*items)
    streams: Any = [SimpleNamespace(index=index) for index in tracks]
    return Demuxer(container, streams)


def test_only_the_packets_that_are_wanted_are_given() -> None:
    packets = [packet(0), packet(1), packet(2)]
    assert list(demuxer(*packets, tracks=(0, 2)).packets()) == [packets[0], packets[2]]


def test_every_track_tells_how_far_the_file_goes() -> None:
    reader = demuxer(packet(0, pts=2), packet(1, pts=20), packet(0, pts=None), packet(0, pts=4))
    list(reader.packets())
    assert reader.reach == 10.5
    assert not reader.failed


def test_empty_packets_are_left_out() -> None:
    """To a decoder they mean the end."""
    assert list(demuxer(packet(size=0), packet(), packet(size=0, pts=None)).packets()) == [packet()]


@pytest.mark.parametrize("error", [BROKEN, IndexError("list index out of range")])
def test_what_the_demuxer_cannot_read_is_passed_over(error: Exception) -> None:
    reader = demuxer(packet(pts=1), error, packet(pts=2), error, error, packet(pts=3), error)
    assert [found.pts for found in reader.packets()] == [1, 2, 3]
    assert not reader.failed


def test_a_demuxer_that_cannot_go_on_has_failed() -> None:
    reader = demuxer(packet(), *[BROKEN] * 60, packet())
    assert list(reader.packets()) == [packet()]
    assert reader.failed


def test_a_disk_that_fails_is_an_error() -> None:
    reader = demuxer(packet(), OSError(5, "Input/output error"), packet())
    with pytest.raises(FileError, match="cannot be read: Input/output error") as caught:
        list(reader.packets())
    assert caught.value.code is Exit.NO_FILE


# -- decoding ------------------------------------------------------------------------------------


def frame(layout: str = "mono", rate: int = 16000, samples: int = 10, pts: int = 0) -> AudioFrame:
    made = AudioFrame("s16", layout, samples=samples)
    made.sample_rate, made.pts = rate, pts
    return made


class Codec:
    """A codec whose packets are its frames, or what it raises."""

    def __init__(self, *last: Any) -> None:
        self.flushed = 0
        self._last = list(last)

    def decode(self, packet: Any) -> list[Any]:
        if packet is None:
            packet = self._last
        if isinstance(packet, Exception):
            raise packet
        return list(packet)

    def flush_buffers(self) -> None:
        self.flushed += 1


def decoder(*last: Any) -> Decoder:
    stream: Any = SimpleNamespace(codec_context=Codec(*last), time_base=0.5)
    return Decoder(stream)


def decoded(found: Decoder, *packets: Any) -> list[AudioFrame]:
    frames = [one for made in packets for one in found.decode(made)]
    return [*frames, *found.flush()]


def test_frames_come_in_order_with_the_last_ones_at_the_end() -> None:
    first, second, third = frame(), frame(), frame()
    found = decoder(third)
    empty = frame(samples=0)
    subtitle = object()
    assert decoded(found, [first], [empty, subtitle], [second]) == [first, second, third]
    assert found.damaged == 0


@pytest.mark.parametrize("error", [BROKEN, ValueError("odd"), IndexError("odd"), MemoryError()])
def test_whatever_a_decoder_raises_costs_that_packet(error: Exception) -> None:
    first, second = frame(), frame()
    found = decoder()
    assert decoded(found, [first], error, [second]) == [first, second]
    assert found.damaged == 1


def test_a_decoder_that_takes_a_packet_for_the_end_is_started_again() -> None:
    found = decoder()
    error = av.error.EOFError(1, "end")
    assert len(decoded(found, [frame()], error, [frame()])) == 2
    assert found._stream.codec_context.flushed == 1  # type: ignore[attr-defined]


def test_what_a_decoder_raises_at_the_very_end_is_no_damage() -> None:
    found = decoder()
    found._stream.codec_context._last = BROKEN  # type: ignore[attr-defined]
    assert len(decoded(found, [frame()], [frame()])) == 2
    assert found.damaged == 0


def test_a_frame_of_a_kind_that_comes_once_is_damage() -> None:
    """Such as 43 channels, in a packet of AAC with a wrong bit."""
    good = [frame() for _ in range(4)]
    found = decoder()
    assert decoded(found, good[:2], [frame("43 channels")], good[2:]) == good
    assert decoded(found, [frame(rate=8000)], [frame("stereo")], [frame()])
    assert found.damaged == 3


@pytest.mark.parametrize("rate", [1, 999, 2_000_000])
def test_a_rate_that_nothing_has_is_damage(rate: int) -> None:
    found = decoder()
    assert decoded(found, [frame(rate=rate)], [frame(rate=rate)]) == []
    assert found.damaged == 2


def test_damage_at_the_end_is_counted_too() -> None:
    found = decoder()
    assert len(decoded(found, [frame()], [frame()], [frame("stereo")])) == 2
    assert found.damaged == 1


def test_a_recording_may_change_its_kind() -> None:
    found = decoder()
    kinds = [frame(), frame(), frame("stereo"), frame("stereo"), frame(), frame("stereo")]
    assert decoded(found, *([kind] for kind in kinds)) == kinds
    assert found.damaged == 0


def test_what_was_not_given_before_a_jump_is_no_damage() -> None:
    """The second frame of a kind waits until the first one is taken."""
    found = decoder()
    before: list[Any] = [[frame()], [frame()]]
    assert list(found.decode(before[0])) == []
    assert next(found.decode(before[1])) is before[0][0]
    found.restart()
    later = [frame(), frame()]
    assert decoded(found, later) == later
    assert found.damaged == 0


@pytest.mark.parametrize("odd", [BROKEN, [frame(rate=1)], [frame("43 channels")]])
def test_damage_counts_again_from_the_first_frame_after_a_jump(odd: Any) -> None:
    found = decoder()
    assert len(decoded(found, [frame(), frame()])) == 2
    found.restart()
    assert len(decoded(found, odd, [frame()])) == 1
    assert found.damaged == 0
    assert len(decoded(found, odd, [frame()])) == 1
    assert found.damaged == 1


def test_a_recording_of_a_single_frame_is_all_there_is() -> None:
    only = frame()
    found = decoder()
    assert decoded(found, [only]) == [only]
    assert found.damaged == 0


def test_timestamps_are_in_seconds() -> None:
    found = decoder()
    assert found.time_of(frame(pts=3)) == 1.5
    unknown = frame()
    unknown.pts = None
    assert found.time_of(unknown) is None


def test_a_real_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Sound(tone(1.0, 16000), "flac"), picture=2.0)
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        reader, found = Demuxer(container, [stream]), Decoder(stream)
        frames = [one for packet in reader.packets() for one in found.decode(packet)]
        frames += found.flush()
    assert sum(one.samples for one in frames) == 16000
    assert reader.reach == pytest.approx(2.0, abs=0.1)
