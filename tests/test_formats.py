"""The documents that `transcribe` writes: every one valid, whatever was said and when."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest

from livekit.plugins.tiro.cli.formats import (
    Format,
    Segment,
    Transcript,
    Word,
    clock,
    json_document,
    printable,
    text_line,
    timed,
    tsv_document,
)


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


# -- JSON ----------------------------------------------------------------------------------------


def test_json_of_one_file_is_an_object() -> None:
    words = (Word("Þú", 0.1, 0.33333), Word("æ", None, None))
    segment = Segment("Þú æ", 0.1, 0.5, None, words)
    document = json_document([transcript(segment, duration=1.23456)], many=False)
    assert "Þú æ" in document
    assert json.loads(document) == {
        "file": "a.wav",
        "language": "is-IS",
        "duration": 1.235,
        "complete": True,
        "text": "Þú æ",
        "segments": [
            {
                "start": 0.1,
                "end": 0.5,
                "text": "Þú æ",
                "confidence": None,
                "words": [
                    {"word": "Þú", "start": 0.1, "end": 0.333},
                    {"word": "æ", "start": None, "end": None},
                ],
            }
        ],
    }


def test_json_of_several_files_is_an_array_even_if_one_was_left() -> None:
    document = json.loads(json_document([transcript(said("já"))], many=True))
    assert [entry["text"] for entry in document] == ["já"]


def test_json_joins_the_finals_with_a_blank() -> None:
    document = json.loads(json_document([transcript(said("já"), said("nei"))], many=False))
    assert document["text"] == "já nei"


def test_json_has_speakers_and_other_readings_if_there_are_any() -> None:
    segment = replace(said("já"), speaker="1", alternatives=("jó", "jæja"))
    (record,) = json.loads(json_document([transcript(segment)], many=False))["segments"]
    assert (record["speaker"], record["alternatives"]) == ("1", ["jó", "jæja"])
    (record,) = json.loads(json_document([transcript(said("já"))], many=False))["segments"]
    assert "speaker" not in record and "alternatives" not in record


@pytest.mark.parametrize("name", ["a  b\t.wav", "\u0061\u0301.wav", "./x/../a.wav", "\udcff.wav"])
def test_json_has_the_path_as_it_was_given(name: str) -> None:
    document = json_document([replace(transcript(), file=name)], many=False)
    assert json.loads(document.encode())["file"] == name


# -- TSV -----------------------------------------------------------------------------------------


def test_tsv_is_a_table_of_milliseconds_and_text() -> None:
    document = tsv_document(transcript(said("já já", 1.5), said("nei", 3.0)))
    assert document == "start\tend\ttext\n1500\t2300\tjá já\n3000\t3400\tnei\n"


# -- when words were said ------------------------------------------------------------------------


def written(text: str, *words: Word) -> list[tuple[str, float, float]]:
    found = timed(Segment(text, 1.0, 5.0, None, words))
    return [(word.text, round(word.start, 3), round(word.end, 3)) for word in found]


def test_digits_capitals_and_marks_of_the_text_are_kept() -> None:
    assert written(
        "Klukkan 17:30, á 5. degi.",
        Word("klukkan", 1.0, 1.5),
        Word("sautján", 1.5, 2.0),
        Word("þrjátíu", 2.0, 2.5),
        Word("á", 2.5, 2.6),
        Word("fimmta", 2.6, 3.0),
        Word("degi", 3.0, 3.5),
    ) == [
        ("Klukkan", 1.0, 1.5),
        ("17:30,", 1.5, 2.5),
        ("á", 2.5, 2.6),
        ("5.", 2.6, 3.0),
        ("degi.", 3.0, 3.5),
    ]


def test_what_was_not_spoken_shares_the_time_around_it() -> None:
    assert written("— já — nei —", Word("já", 2.0, 2.5), Word("nei", 3.0, 4.0)) == [
        ("—", 1.0, 2.0),
        ("já", 2.0, 2.5),
        ("—", 2.5, 3.0),
        ("nei", 3.0, 4.0),
        ("—", 4.0, 5.0),
    ]


def test_what_was_spoken_and_not_written_takes_its_time_with_it() -> None:
    words = (Word("já", 1.0, 2.0), Word("hérna", 2.0, 3.0), Word("nei", 3.0, 4.0))
    assert written("já nei", *words) == [("já", 1.0, 2.0), ("nei", 3.0, 4.0)]


def test_words_without_a_time_share_that_of_the_final() -> None:
    assert written("aa bb", Word("aa"), Word("bb")) == [("aa", 1.0, 3.0), ("bb", 3.0, 5.0)]
    assert written("aa bb") == [("aa", 1.0, 3.0), ("bb", 3.0, 5.0)]
    assert written("") == []


def test_a_word_never_ends_before_it_starts() -> None:
    words = (Word("tveir", 3.0, 2.0), Word("þrír", 2.0, 1.5))
    assert written("23", *words) == [("23", 3.0, 3.0)]


# -- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Þú   ert\n\tþar ", "Þú ert þar"),
        (unicodedata.normalize("NFD", "Það er ísöld"), "Það er ísöld"),
        ("a\x1b[31mb\x00c\x9bd", "a [31mb c d"),
        ("hálf \ud83d stafur", "hálf ? stafur"),
        ("\udcc3\udcbeögn", "þögn"),
        ("", ""),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, "0:00"), (67.9, "1:07"), (3723.0, "1:02:03")]
)
def test_clock(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


def test_the_ending_of_a_file_follows_from_the_format() -> None:
    assert [form.suffix for form in Format] == [".txt", ".json", ".srt", ".vtt", ".tsv", ".html"]


def test_one_document_holds_many_files_or_one() -> None:
    assert [form for form in Format if form.takes_many] == [Format.TEXT, Format.JSON]


def test_a_line_of_text_may_have_its_time_and_its_speaker() -> None:
    segment = said("Já já.", 3723.5, 0.25)
    assert text_line(segment) == "Já já.\n"
    assert text_line(replace(segment, speaker="2"), timestamps=True) == (
        "[01:02:03.500 --> 01:02:04.000] Speaker 2: Já já.\n"
    )
