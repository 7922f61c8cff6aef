"""Subtitles: every one valid, whatever was said and when."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.cli.formats import Segment, Transcript, Word, printable
from livekit.plugins.tiro.cli.subtitles import (
    MAX_CUE_MS,
    PLAIN,
    Cue,
    Layout,
    cues,
    srt_document,
    vtt_document,
)

from .support.texts import of_categories, texts

ICELANDIC = "Það væri gott að fá ýsu á Ísafirði, sagði Þórður við Æsu og Ölmu."
LONG_WORD = "vaðlaheiðarvegavinnuverkfærageymsluskúraútidyralyklakippuhringur"


def said(text: str, start: float = 0.0, pace: float = 0.4) -> Segment:
    """A segment in which each word takes `pace` seconds."""
    tokens = text.split()
    words = tuple(
        Word(token, start + index * pace, start + (index + 1) * pace)
        for index, token in enumerate(tokens)
    )
    return Segment(text, start, start + len(tokens) * pace, 0.9, words)


def transcript(*segments: Segment, duration: float = 10_000.0) -> Transcript:
    return Transcript("a.wav", "is-IS", duration, list(segments), complete=True)


def shown(found: list[Cue]) -> list[str]:
    return [" ".join(cue.lines) for cue in found]


def assert_valid(found: list[Cue], layout: Layout = PLAIN) -> None:
    assert all(cue.start < cue.end <= cue.start + MAX_CUE_MS for cue in found)
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert all(1 <= len(cue.lines) <= layout.lines for cue in found)
    lines = (line for cue in found for line in cue.lines)
    assert all(len(line) <= layout.width or " " not in line for line in lines)


# -- cues ----------------------------------------------------------------------------------------


def test_a_short_final_is_one_cue_at_its_own_time() -> None:
    found = cues(transcript(said("góðan daginn og velkomin", 2.5)))
    assert found == [Cue(2500, 4100, ("góðan daginn og velkomin",))]


def test_a_text_of_more_than_a_line_is_set_on_two_even_lines() -> None:
    (cue,) = cues(transcript(said(ICELANDIC)))
    assert cue.lines == ("Það væri gott að fá ýsu á Ísafirði,", "sagði Þórður við Æsu og Ölmu.")


def test_a_line_ends_at_a_comma_rather_than_in_the_very_middle() -> None:
    (cue,) = cues(transcript(said("já já já já já, nei nei nei nei nei nei nei nei")))
    assert cue.lines == ("já já já já já,", "nei nei nei nei nei nei nei nei")


def test_a_line_does_not_get_too_long_for_the_sake_of_a_comma() -> None:
    (cue,) = cues(transcript(said("aaaaaaaa " * 3 + "aaaaaaaa, " + "bbbbb " * 7 + "bbb", pace=0.3)))
    assert [len(line) for line in cue.lines] == [42, 39]


def test_a_long_final_is_split_at_its_sentences_by_word_times() -> None:
    first = "Veðrið er milt í dag og sólin skín á alla í bænum."
    second = "Á morgun kemur svo rigning með roki og kulda að norðan."
    found = cues(transcript(said(f"{first} {second}", 10.0, pace=0.3)))
    assert shown(found) == [first, second]
    assert found[0].start == 10_000
    assert found[0].end == found[1].start == 10_000 + 300 * len(first.split())
    assert_valid(found)


def test_without_marks_a_split_is_where_the_speaker_paused() -> None:
    early, late = said("einn tveir þrír " * 4, 0.0, 0.2), said("fjórir fimm sex " * 5, 2.9, 0.2)
    whole = Segment(f"{early.text} {late.text}", 0.0, late.end, None, early.words + late.words)
    found = cues(transcript(whole))
    assert shown(found) == [early.text.strip(), late.text.strip()]


def test_a_comma_is_a_better_place_to_split_than_the_middle() -> None:
    found = cues(transcript(said("orð " * 14 + "orð, " + "orð " * 18, pace=0.2)))
    assert [text.count("orð") for text in shown(found)] == [15, 18]


def test_a_long_pause_takes_the_cue_off_the_screen() -> None:
    words = (Word("já", 0.0, 0.4), Word("nei", 4.0, 4.4))
    found = cues(transcript(Segment("já nei", 0.0, 4.4, None, words)))
    assert found == [Cue(0, 1000, ("já",)), Cue(4000, 5000, ("nei",))]


def test_slow_speech_is_split_so_that_no_cue_stays_too_long() -> None:
    found = cues(transcript(said("a b c d e f g h i j", pace=1.4)))
    assert len(found) == 2
    assert_valid(found)


def test_a_word_longer_than_a_line_has_its_own_cue_and_is_not_cut() -> None:
    found = cues(transcript(said(f"þetta er {LONG_WORD} sem er langt")))
    assert shown(found) == ["þetta er", LONG_WORD, "sem er langt"]
    assert_valid(found)


def test_a_single_word_that_lasts_for_ever_is_shown_for_seven_seconds() -> None:
    (cue,) = cues(transcript(said("jááá", pace=30.0)))
    assert cue.end - cue.start == MAX_CUE_MS


def test_a_short_cue_stays_long_enough_to_be_read_but_not_over_the_next() -> None:
    found = cues(transcript(said("já", 1.0, 0.2), said("nei", 1.5, 0.2), duration=2.0))
    assert [(cue.start, cue.end) for cue in found] == [(1000, 1500), (1500, 2000)]


def test_a_text_that_is_written_otherwise_than_spoken_is_shown_as_written() -> None:
    words = (Word("fimmti", 1.0, 1.4), Word("maí", 1.4, 1.8), Word("átta", 5.0, 5.3))
    found = cues(transcript(Segment("5. maí kl. 8", 1.0, 5.3, None, words)))
    assert " ".join(shown(found)) == "5. maí kl. 8"
    assert [cue.start for cue in found] == [1000, 5000]


def test_words_are_shown_as_the_text_has_them() -> None:
    words = (Word("góðan", 0.0, 0.5), Word("dag", 0.5, 1.0))
    (cue,) = cues(transcript(Segment("Góðan dag.", 0.0, 1.0, None, words)))
    assert cue.lines == ("Góðan dag.",)


@pytest.mark.parametrize("with_words", [True, False])
def test_a_final_without_word_times_shares_its_time_among_its_words(with_words: bool) -> None:
    text = " ".join(["abcde"] * 20)
    words = tuple(Word(token) for token in text.split()) if with_words else ()
    found = cues(transcript(Segment(text, 10.0, 18.0, None, words)))
    assert len(found) == 2
    assert found[0].start == 10_000
    assert found[1].start == 14_000
    assert found[1].end == 18_000


def test_nothing_heard_makes_no_cues() -> None:
    assert cues(transcript()) == []


seconds = st.floats(0, 4000, allow_nan=False)
tokens = texts(of_categories("LNP"), min_size=1, max_size=60)
timed_words = st.builds(Word, tokens, st.none() | seconds, st.none() | seconds)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    words = tuple(draw(st.lists(timed_words, max_size=40)))
    texts = [printable(word.text) for word in words] or ["já"]
    text = " ".join(texts)
    start, end = sorted((draw(seconds), draw(seconds)))
    if draw(st.booleans()):
        # Written otherwise than spoken, or not spoken at all.
        texts = [printable(token) for token in draw(st.lists(tokens, max_size=40))]
        text = " ".join(filter(None, texts))
    return Segment(text, start, end, None, words if draw(st.booleans()) else ())


@given(st.lists(segments(), max_size=6), seconds)
def test_cues_are_valid_and_hold_every_word_whatever_the_times(
    given_segments: list[Segment], duration: float
) -> None:
    found = cues(transcript(*given_segments, duration=duration))
    assert_valid(found)
    expected = " ".join(segment.text for segment in given_segments if segment.text)
    assert " ".join(shown(found)) == expected


# -- SRT and WebVTT ------------------------------------------------------------------------------


def test_srt() -> None:
    document = srt_document(transcript(said("Það er ég.", 3723.0), said("Já.", 3725.5, 0.5)))
    assert document == (
        "1\n01:02:03,000 --> 01:02:04,200\nÞað er ég.\n\n2\n01:02:05,500 --> 01:02:06,500\nJá.\n"
    )


def test_an_arrow_in_the_text_does_not_start_a_cue_in_srt() -> None:
    document = srt_document(transcript(said("a --> b")))
    assert document.count("-->") == 1
    assert "a -> b" in document


def test_vtt() -> None:
    document = vtt_document(transcript(said("Sæl & <b>bless</b> --> já", 0.5)))
    assert document == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.500\nSæl &amp; &lt;b&gt;bless&lt;/b&gt; --&gt; já\n"
    )


def test_subtitles_of_silence_are_a_valid_document() -> None:
    assert srt_document(transcript()) == ""
    assert vtt_document(transcript()) == "WEBVTT\n"


def test_every_timing_line_has_the_shape_that_players_read() -> None:
    document = srt_document(transcript(said(" ".join(["orð"] * 200))))
    blocks = document.rstrip("\n").split("\n\n")
    for number, block in enumerate(blocks, 1):
        first, timing, *lines = block.split("\n")
        assert first == str(number)
        assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", timing)
        assert lines


def test_who_speaks_is_said_when_it_is_somebody_else() -> None:
    both = transcript(
        replace(said("Já.", 0.0), speaker="1"),
        replace(said("Já já.", 3.0), speaker="1"),
        replace(said("Nei & <ó>.", 6.0), speaker="2"),
        said("Hver?", 9.0),
    )
    lines = srt_document(both).splitlines()
    assert lines[2::4] == ["Speaker 1: Já.", "Já já.", "Speaker 2: Nei & <ó>.", "Hver?"]
    lines = vtt_document(both).splitlines()
    assert lines[3::3] == [
        "<v Speaker 1>Já.",
        "<v Speaker 1>Já já.",
        "<v Speaker 2>Nei &amp; &lt;ó&gt;.",
        "Hver?",
    ]


# -- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 10, 32, 200])
@pytest.mark.parametrize("lines", [1, 2, 3, 5])
def test_no_cue_takes_more_room_than_there_is(width: int, lines: int) -> None:
    layout = Layout(width, lines)
    found = cues(transcript(said(f"{ICELANDIC} a b {LONG_WORD} c {ICELANDIC}", pace=0.2)), layout)
    assert_valid(found, layout)
    assert " ".join(shown(found)) == f"{ICELANDIC} a b {LONG_WORD} c {ICELANDIC}"


def test_three_lines_are_even_ones() -> None:
    (cue,) = cues(transcript(said("aaa bbb ccc ddd eee fff", pace=0.2)), Layout(10, 3))
    assert cue.lines == ("aaa bbb", "ccc ddd", "eee fff")


def test_a_cue_for_each_word_is_shown_while_it_is_said() -> None:
    words = (Word("Góðan", 1.0, 1.2), Word("dag", 1.2, 1.25), Word("já", 5.0, 30.0))
    spoken = transcript(Segment("Góðan dag, já.", 1.0, 30.0, None, words))
    found = cues(spoken, Layout(each_word=True))
    assert [(cue.start, cue.end, cue.lines) for cue in found] == [
        (1000, 1200, ("Góðan",)),
        (1200, 1250, ("dag,",)),
        (5000, 12_000, ("já.",)),
    ]
