"""One track of a file: every frame at its place, and the truth about its end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import av
import av.error
import pytest

from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.promise import Promise
from livekit.plugins.tiro.cli.track import Track

from .support.recordings import Sound, tone, write, write_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def opened(path: Path) -> Iterator[Track]:
    with av.open(str(path)) as container:
        yield Track(container, container.streams.audio[0])


def long(tmp_path: Path, name: str = "a.mkv", seconds: float = 20.0) -> Path:
    return write(tmp_path / name, Sound(tone(seconds, 16000)))


def test_frames_have_the_places_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Sound(tone(1.0, 16000), stamp=lambda at: at + 1.5), picture=4)
    with opened(path) as track:
        assert track.start == 1.5
        frames = list(track.frames())
        assert frames[0].start == 1.5
        assert track.end == pytest.approx(2.5)
        assert track.damaged == 0


def test_the_files_second_0_is_its_first_timestamp(tmp_path: Path) -> None:
    """A broadcast starts with the time of the day."""
    path = write(tmp_path / "a.mkv", Sound(tone(1.0, 16000), stamp=lambda at: at + 36000.0))
    with opened(path) as track:
        assert track.origin == 36000.0
        assert track.start == 0.0


def test_a_file_without_a_start_starts_at_0(tmp_path: Path) -> None:
    with opened(write_wav(tmp_path / "a.wav", tone(1.0, 16000))) as track:
        assert (track.origin, track.start) == (0.0, 0.0)


def test_gaps_are_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", Sound(tone(4.0, 16000), keep=lambda n: not 20 <= n < 30))
    with opened(path) as track:
        (gap,) = [found for found in track.frames() if found.silence]
        assert gap.silence == pytest.approx(10 * 1024 / 16000, abs=0.002)
        assert track.end == pytest.approx(4.0, abs=0.002)


def test_what_is_held_back_comes_at_the_end(tmp_path: Path) -> None:
    late = Sound(tone(1.0, 16000), stamp=lambda at: at + 0.5 * (at > 0.9))
    with opened(write(tmp_path / "a.mkv", late)) as track:
        assert sum(found.silence for found in track.frames()) == pytest.approx(0.5, abs=0.002)
        assert track.end == pytest.approx(1.5, abs=0.002)


def test_nothing_that_can_be_decoded(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.0, 16000))
    half_a_sample = tmp_path / "b.wav"
    half_a_sample.write_bytes(path.read_bytes() + b"\0")
    for file, why in ((path, "it holds no audio"), (half_a_sample, "cannot be decoded")):
        with pytest.raises(FileError, match=why) as caught, opened(file):
            pass
        assert caught.value.code is Exit.NO_AUDIO


@pytest.mark.parametrize("name", ["a.mkv", "a.wav", "a.mov"])
def test_a_place_far_into_a_file_is_found(tmp_path: Path, name: str) -> None:
    with opened(long(tmp_path, name)) as track:
        track.seek(12.0)
        assert 9.0 < track.start <= 12.0
        assert next(track.frames()).start == track.start
        assert [found.start for found in track.frames()][-1] == pytest.approx(19.97, abs=0.07)
        assert track.end == pytest.approx(20.0, abs=0.01)
        # What the jump left behind is no damage.
        assert track.damaged == 0


def test_a_place_at_the_beginning_is_not_looked_for(tmp_path: Path) -> None:
    with opened(long(tmp_path)) as track:
        first = track.first
        track.seek(1.0)
        assert track.first is first


def test_no_place_is_looked_for_where_it_would_be_a_guess(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", Sound(tone(20.0, 16000), "libmp3lame"))
    with opened(path) as track:
        track.seek(12.0)
        assert track.start == pytest.approx(0.0, abs=0.1)


END = 20.0


class Lost:
    """A container that finds some other place, or none."""

    def __init__(self, container: Any, place: float | None) -> None:
        self._at_end = False
        self._container = container
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def seek(self, offset: int) -> None:
        if offset and self._place is None:
            raise av.error.InvalidDataError(1, "no index")
        self._at_end = bool(offset) and self._place == END
        self._container.seek(round(self._place * 1e6) if offset and self._place else 0)

    def demux(self) -> Iterator[Any]:
        return iter([]) if self._at_end else self._container.demux()


@pytest.mark.parametrize("place", [19.0, END])
def test_a_place_that_is_found_wrongly_is_reached_from_the_start(
    tmp_path: Path, place: float
) -> None:
    with opened(long(tmp_path)) as track:
        track._container = Lost(track._container, place)  # type: ignore[assignment]
        track.seek(12.0)
        assert track.start == 0.0
        assert len(list(track.frames())) == 313
        assert track.damaged == 0


def test_a_file_that_cannot_seek_is_read_on(tmp_path: Path) -> None:
    with opened(long(tmp_path)) as track:
        track._container = Lost(track._container, None)  # type: ignore[assignment]
        track.seek(12.0)
        assert track.start < 1.0


# -- the end -------------------------------------------------------------------------------------


def shortfall(path: Path, promise: Promise | None) -> str | None:
    with opened(path) as track:
        list(track.frames())
        return track.shortfall(promise)


@pytest.mark.parametrize(
    ("promise", "told"),
    [
        (None, None),
        (Promise(2.4, True), None),
        (Promise(3.0, True), "it ends at 2.0 of 3.0 s"),
        (Promise(5.0, False), None),
        (Promise(6.0, False), "it ends at 2.0 of 6.0 s"),
    ],
)
def test_a_file_that_ends_before_its_header_says(
    tmp_path: Path, promise: Promise | None, told: str | None
) -> None:
    """The picture may go on after the sound."""
    path = write(tmp_path / "a.mkv", Sound(tone(2.0, 16000)), picture=5.0)
    assert shortfall(path, promise) == told


def test_a_demuxer_that_cannot_go_on_is_not_an_end(tmp_path: Path) -> None:
    with opened(long(tmp_path, seconds=2.0)) as track:
        list(track.frames())
        track._demuxer.failed = True
        assert track.shortfall(None) == "it cannot be read beyond 2.0 s"
