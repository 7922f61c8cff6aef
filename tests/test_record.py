"""What the records of the local server keep, and how much memory they may take."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from livekit.plugins.tiro.testing import ConnectionRecord, SpeechConfig
from livekit.plugins.tiro.testing.record import Space

if TYPE_CHECKING:
    import pytest


def record(space: Space) -> ConnectionRecord:
    return ConnectionRecord(number=0, path="/", token=None, opened_at=0.0, space=space)


def test_a_record_is_empty_before_anything_came() -> None:
    empty = record(Space(0))
    assert (empty.streaming_config, empty.config) == ({}, {})
    assert (empty.language, empty.sample_rate, empty.seconds, empty.messages) == ("", 0, 0.0, 0)
    assert not empty.ended


def test_what_came_is_kept() -> None:
    kept = record(Space(1000))
    raw = {"config": {"languageCode": "is-IS"}}
    kept.speech = SpeechConfig(language="is-IS", sample_rate=8000, raw=raw)
    kept.add_audio(b"ab")
    kept.add_audio(b"cdef")
    kept.add_frame("{}")
    assert (bytes(kept.audio), kept.sizes, kept.frames) == (b"abcdef", [2, 4], ["{}"])
    assert (kept.received, kept.messages, kept.seconds) == (6, 2, 3 / 8000)
    assert (kept.language, kept.streaming_config, kept.config) == ("is-IS", raw, raw["config"])
    kept.end = "half-close"
    assert not kept.ended
    kept.end = "END"
    assert kept.ended


def test_what_finds_no_room_is_counted_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full = record(Space(3000))
    full.speech = SpeechConfig(sample_rate=8000)
    for _ in range(5):
        full.add_audio(bytes(1000))
    full.add_frame("x" * 1000)
    assert (len(full.audio), full.sizes, full.frames) == (2000, [1000, 1000], [])
    assert (full.received, full.messages, full.seconds) == (5000, 5, 5000 / 16000)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "recorded_bytes" in warning.getMessage()


def test_empty_messages_take_room_too() -> None:
    full = record(Space(1000))
    for _ in range(100):
        full.add_audio(b"")
        full.add_frame("")
    assert len(full.sizes) + len(full.frames) < 20


def test_whoever_asks_for_no_records_is_not_warned(caplog: pytest.LogCaptureFixture) -> None:
    none = record(Space(0))
    none.add_audio(b"ab")
    assert not none.audio and none.received == 2 and not caplog.records


def test_a_record_that_is_forgotten_makes_room() -> None:
    space = Space(500)
    first, second = record(space), record(space)
    first.add_audio(bytes(200))
    first.add_frame("x" * 50)
    second.add_audio(bytes(200))
    assert not second.audio
    first.forget()
    assert not (first.audio or first.sizes or first.frames)
    second.add_audio(bytes(200))
    assert len(second.audio) == 200
