"""Which of several audio tracks is heard, and what the user is told of the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import pytest

from livekit.plugins.tiro.cli import tracks
from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.tracks import Choice, choose

from .support.recordings import Sound, silence, tone, write

if TYPE_CHECKING:
    from pathlib import Path

SPEECH = Sound(tone(1.0, 16000))
NOTHING = Sound(silence(1.0, 16000))


def chosen(path: Path, number: int | None = None, *, enough: bool = False) -> tuple[Choice, bool]:
    with av.open(str(path)) as container:
        return choose(container, number, lambda: enough)


def recording(tmp_path: Path, *sounds: Sound) -> Path:
    return write(tmp_path / "a.mkv", *sounds)


def test_the_only_track_is_taken_without_a_word(tmp_path: Path) -> None:
    assert chosen(recording(tmp_path, NOTHING)) == (Choice(1, None), False)


def test_the_first_track_is_the_default_and_is_named(tmp_path: Path) -> None:
    choice, was_read = chosen(recording(tmp_path, SPEECH, SPEECH))
    assert choice == Choice(1, "audio track 1 of 2 is heard; --track chooses another")
    assert was_read


def test_the_track_that_is_marked_as_default_comes_first(tmp_path: Path) -> None:
    marked = Sound(tone(1.0, 16000), default=True)
    choice, _ = chosen(recording(tmp_path, SPEECH, marked))
    assert choice.number == 2


def test_the_first_track_that_is_not_silent_is_taken_if_the_default_is(tmp_path: Path) -> None:
    late = Sound(silence(1.0, 16000) + tone(1.0, 16000, peak=0.001))
    choice, _ = chosen(recording(tmp_path, NOTHING, NOTHING, late, SPEECH))
    assert choice.number == 3
    assert choice.note == (
        "audio track 3 of 4 is heard, because track 1 is silent; --track chooses another"
    )


def test_the_default_is_taken_if_all_are_silent(tmp_path: Path) -> None:
    assert chosen(recording(tmp_path, NOTHING, NOTHING))[0].number == 1


def test_the_look_into_a_pipe_ends(tmp_path: Path) -> None:
    path = recording(tmp_path, NOTHING, SPEECH)
    assert chosen(path, enough=True)[0].number == 1


def test_a_track_that_cannot_be_converted_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def samples(self, frame: object) -> None:
            raise ValueError("odd")

    monkeypatch.setattr(tracks, "Converter", Broken)
    assert chosen(recording(tmp_path, SPEECH, SPEECH))[0].number == 1


def test_a_track_that_is_asked_for_is_taken_as_it_is(tmp_path: Path) -> None:
    path = recording(tmp_path, SPEECH, NOTHING)
    assert chosen(path, 2) == (Choice(2, None), False)


@pytest.mark.parametrize(("count", "has"), [(1, "one audio track"), (2, "2 audio tracks")])
def test_a_track_that_is_not_there(tmp_path: Path, count: int, has: str) -> None:
    path = recording(tmp_path, *[SPEECH] * count)
    with pytest.raises(FileError, match=f"there is no --track 3: it has {has}") as caught:
        chosen(path, 3)
    assert caught.value.code is Exit.NO_AUDIO


def test_a_film_without_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", picture=1.0)
    with pytest.raises(FileError, match="there is no audio in it") as caught:
        chosen(path)
    assert caught.value.code is Exit.NO_AUDIO
