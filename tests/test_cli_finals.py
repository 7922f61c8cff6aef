"""What the service says, as segments with the times of the file."""

from __future__ import annotations

import pytest

from livekit.agents import LanguageCode
from livekit.agents.stt import SpeechData
from livekit.agents.types import TimedString
from livekit.plugins.tiro.cli.finals import Places, segments_of
from livekit.plugins.tiro.cli.formats import Segment, Word


def places(*noted: tuple[float, float]) -> Places:
    found = Places()
    for pushed, time in noted:
        found.note(pushed, time)
    return found


def data(text: str, *words: TimedString, start: float = 0.5, end: float = 1.0) -> SpeechData:
    return SpeechData(
        LanguageCode("is"), text, start_time=start, end_time=end, words=list(words) or None
    )


def spoken(text: str, start: float, end: float, speaker: str | None = None) -> TimedString:
    return TimedString(text, start_time=start, end_time=end, speaker_id=speaker)


def test_without_any_audio_times_are_what_they_are() -> None:
    assert (Places().start(1.5), Places().end(1.5)) == (1.5, 1.5)


def test_times_are_those_of_the_file() -> None:
    found = places((0.0, 10.0), (5.0, 60.0), (6.0, 30.0))
    assert [found.start(at) for at in (0.0, 4.9, 5.0, 6.0, 7.0)] == [10.0, 14.9, 60.0, 30.0, 31.0]
    # What ends where something was left out ends before that.
    assert [found.end(at) for at in (0.0, 5.0, 6.0, 7.0)] == [10.0, 15.0, 61.0, 31.0]


def test_nothing_is_before_the_file() -> None:
    found = places((0.0, -0.02))
    assert (found.start(0.0), found.end(0.01)) == (0.0, 0.0)


def test_a_place_that_follows_from_the_one_before_is_not_noted() -> None:
    found = places((0.0, 0.0), (1.0, 1.002), (2.0, 2.01))
    assert found._pushed == [0.0, 2.0]


def test_a_final_is_a_segment() -> None:
    said = data("Góðan dag", spoken("Góðan", 0.5, 0.7), spoken("dag", 0.7, 1.0))
    said.confidence = 0.8
    assert segments_of([said, data("góðan bag"), data("góðan lag")], places((0.0, 2.0))) == [
        Segment(
            "Góðan dag",
            2.5,
            3.0,
            0.8,
            (Word("Góðan", 2.5, 2.7), Word("dag", 2.7, 3.0)),
            alternatives=("góðan bag", "góðan lag"),
        )
    ]


def test_words_without_times_are_kept_and_all_text_is_composed() -> None:
    decomposed = "ma\u0301"
    words = [TimedString(decomposed), TimedString(" ", start_time=0.5, end_time=1.0)]
    (segment,) = segments_of([data(f" {decomposed} ", *words)], Places())
    assert segment == Segment("má", 0.5, 1.0, None, (Word("má"),))


def test_a_final_without_words_is_no_segment() -> None:
    assert segments_of([data("")], Places()) == []


def test_nothing_ends_before_it_starts() -> None:
    """Where the file's timestamps step back in the middle of a word."""
    found = places((0.0, 10.0), (0.6, 9.0))
    (segment,) = segments_of([data("já", spoken("já", 0.5, 1.0))], found)
    assert (segment.start, segment.end) == (10.5, 10.5)
    assert segment.words == (Word("já", 10.5, 10.5),)


@pytest.mark.parametrize("named", [None, "1"])
def test_a_final_of_one_speaker_is_one_segment(named: str | None) -> None:
    said = data("já já", spoken("já", 0.5, 0.7, named), spoken("já", 0.7, 1.0, named))
    said.speaker_id = named
    (segment,) = segments_of([said], Places())
    assert segment.speaker == named


def test_a_final_of_several_speakers_is_a_segment_for_each() -> None:
    said = data(
        "Já, komdu. Nei.",
        spoken("já", 0.5, 0.6, "1"),
        spoken("komdu", 0.6, 0.8, "1"),
        spoken("nei", 0.9, 1.0, "2"),
    )
    first, second = segments_of([said, data("annað")], places((0.0, 2.0)))
    assert (first.text, first.speaker, first.start, first.end) == ("Já, komdu.", "1", 2.5, 2.8)
    assert (second.text, second.speaker, second.start, second.end) == ("Nei.", "2", 2.9, 3.0)


def test_speakers_are_not_told_apart_where_the_text_is_written_otherwise() -> None:
    said = data("12", spoken("einn", 0.5, 0.7, "1"), spoken("tveir", 0.7, 1.0, "2"))
    (segment,) = segments_of([said], Places())
    assert segment.text == "12"


def test_turns_whose_words_have_no_times_share_those_of_the_final() -> None:
    words = [TimedString("já", speaker_id="1"), TimedString("nei", speaker_id="2")]
    found = segments_of([data("já nei", *words)], Places())
    assert [(segment.text, segment.start, segment.end) for segment in found] == [
        ("já", 0.5, 1.0),
        ("nei", 0.5, 1.0),
    ]
