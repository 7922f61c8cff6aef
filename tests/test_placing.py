"""Where a connection begins in its call: by the audio itself, or by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from livekit.plugins.tiro import onset
from livekit.plugins.tiro.backlog import KEEP_AT_MOST, chunk_samples
from livekit.plugins.tiro.feed import TRIM_INTERVAL
from livekit.plugins.tiro.testing import placing
from livekit.plugins.tiro.testing.placing import CallAudio, EndedCall, Pace, Place

from .support.caller import RATES

if TYPE_CHECKING:
    from .support.harness import Pcm

RATE = 16000


def noise(seconds: float, seed: int = 0) -> Pcm:
    size = round(seconds * RATE)
    return np.random.default_rng(seed).integers(-9000, 9000, size).astype(np.int16)


def silence(seconds: float) -> Pcm:
    return np.zeros(round(seconds * RATE), np.int16)


def send(
    place: Place, audio: Pcm, at: float | None = None, *, size: float = 0.05, pace: float = 1.0
) -> None:
    """Have a connection send audio in messages of `size` seconds.

    Args:
        place: The connection's.
        audio: What is sent from its beginning on.
        at: When the first sample was said; None without a clock.
        size: Seconds of a message.
        pace: Seconds of the clock to a second of audio.
    """
    count = round(size * RATE)
    for start in range(0, len(audio), count):
        end = min(start + count, len(audio)) / RATE
        arrived = None if at is None else at + pace * end
        place.note(audio[start : start + count], end, arrived)


# -- the audio of a call ---------------------------------------------------------------------------


def test_audio_is_found_where_it_was() -> None:
    audio, said = CallAudio(), noise(2.0)
    audio.add(0, said[:16000])
    audio.add(16000, said[16000:])
    for at in (0, 1, 12345, 31200):
        assert audio.find(said[at : at + 800]) == at


def test_audio_that_is_known_is_not_taken_twice() -> None:
    audio, said = CallAudio(), noise(2.0)
    audio.add(0, said[:20000])
    audio.add(8000, said[8000:])
    assert audio.find(said[19600:20400]) == 19600


def test_audio_that_is_missing_takes_its_time() -> None:
    audio, said = CallAudio(), noise(1.0)
    audio.add(4000, said)
    assert audio.find(said[100:900]) == 4100


def test_audio_in_two_places_or_in_none_is_not_found() -> None:
    audio, said = CallAudio(), noise(1.0)
    audio.add(0, np.tile(said, 2))
    assert audio.find(said[100:900]) is None
    assert audio.find(noise(0.05, seed=1)) is None


def test_what_looks_the_same_between_two_samples_is_not_found() -> None:
    audio = CallAudio()
    audio.add(0, np.array([0x0201, 0x0403, 0x0605], np.int16))
    assert audio.find(np.array([0x0302], np.int16)) is None
    assert audio.find(np.array([0x0403], np.int16)) == 1


def test_audio_is_let_go() -> None:
    audio, said = CallAudio(), noise(2.0)
    audio.add(0, said)
    audio.forget(16000)
    audio.forget(8000)
    assert audio.find(said[15000:15800]) is None
    assert audio.find(said[17000:17800]) == 17000


def test_no_more_audio_is_kept_than_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "KEPT", 1.0)
    monkeypatch.setattr(placing, "TOO_MUCH", 0.5)
    audio, said = CallAudio(), noise(4.0)
    for start in range(0, len(said), 800):
        audio.add(start, said[start : start + 800])
        assert len(audio._pcm) <= 2 * 1.5 * RATE
    assert audio.find(said[:800]) is None
    assert audio.find(said[50000:50800]) == 50000


def test_a_minute_of_a_call_is_found_when_it_comes_again() -> None:
    """No more is sent again, however long the call."""
    audio, said = CallAudio(), noise(2 * KEEP_AT_MOST)
    for start in range(0, len(said), RATE):
        audio.add(start, said[start : start + RATE])
    oldest = len(said) - round((KEEP_AT_MOST + TRIM_INTERVAL) * RATE)
    assert audio.find(said[oldest : oldest + 800]) == oldest


@pytest.mark.parametrize("rate", RATES)
def test_what_is_assumed_of_the_plugin_holds(rate: int) -> None:
    assert placing.HELD_BACK == onset._HELD_BACK
    shortest, longest = placing.GATHERED
    assert shortest < onset._held(rate, chunk_samples(rate)) / rate < longest
    assert placing.KEPT >= KEEP_AT_MOST + TRIM_INTERVAL


# -- the clock -------------------------------------------------------------------------------------


def test_live_audio_has_a_steady_pace() -> None:
    pace = Pace()
    for n in range(1, 11):
        pace.note(n / 20, 100 + n / 20 + (0.1 if n % 3 else 0.0))
        assert pace.steady is None
    for n in range(11, 20):
        pace.note(n / 20, 100 + n / 20)
    assert pace.began == pace.steady == pytest.approx(100.0)


def test_a_burst_has_no_pace() -> None:
    pace = Pace()
    for n in range(1, 100):
        pace.note(n / 20, 100 + n / 100)
    assert pace.steady is None


def test_after_a_pause_the_pace_is_another() -> None:
    pace = Pace()
    for n in range(1, 40):
        pace.note(n / 20, 100 + n / 20 + (5.0 if n >= 20 else 0.0))
    assert pace.steady == pytest.approx(105.0)


# -- the place -------------------------------------------------------------------------------------


def call(seconds: float = 8.0, audio: Pcm | None = None, at: float | None = 100.0) -> Place:
    """A call's first connection, which sent so much live audio."""
    place = Place(None, CallAudio())
    send(place, noise(seconds) if audio is None else audio, at)
    assert place.start == 0.0
    return place


@pytest.mark.parametrize("at", [None, 100.0])
def test_a_connection_begins_where_its_audio_was(at: float | None) -> None:
    """Also if it comes in a burst."""
    first = call(at=at)
    place = Place(2.0, first.audio, first.call_began)
    send(place, noise(8.0)[round(5.3 * RATE) :], None if at is None else 108.0, pace=0.0)
    assert place.start == pytest.approx(5.3)


def test_silence_in_front_of_a_sound_counts() -> None:
    said = np.concatenate((silence(4.0), noise(4.0)))
    first = call(audio=said)
    place = Place(1.0, first.audio, first.call_began)
    send(place, said[round(2.5 * RATE) :], 108.0, pace=0.0)
    assert place.start == pytest.approx(2.5)
    third = Place(1.0, place.audio, place.call_began)
    send(third, said[round(4.5 * RATE) :], 109.0, pace=0.0)
    assert third.start == pytest.approx(4.5)


@pytest.mark.parametrize("size", [0.05, 0.15])
def test_live_silence_begins_where_the_clock_says(size: float) -> None:
    """Never later than that, which would make the words early, and hardly earlier."""
    first = call(audio=silence(8.0))
    place = Place(2.0, first.audio, first.call_began)
    # From 5.3 s on; up to 9.0 s in a burst, and then as it is said.
    send(place, silence(3.7), 109.0, pace=0.0)
    assert place.start is None
    held_back = 0.15 if size > 0.1 else 0.0
    for n in range(1, 20):
        end = 3.7 + n * size
        place.note(silence(size), end, 105.3 + end + held_back)
    assert place.start is not None and 5.0 <= place.start <= 5.3
    assert place.call_began == pytest.approx(100.0)


def test_the_clock_goes_by_the_pauses_of_the_caller() -> None:
    first = call(audio=silence(4.0))
    second = Place(0.0, first.audio, first.call_began)
    send(second, silence(2.0), 103.0)
    assert second.start == pytest.approx(2.95)
    for n in range(1, 40):
        second.note(silence(0.05), 2.0 + n / 20, 110.0 + n / 20)
    assert second.call_began == pytest.approx(105.05)


def test_no_connection_begins_before_the_last_final() -> None:
    first = call(audio=silence(8.0))
    place = Place(6.0, first.audio, first.call_began)
    send(place, silence(2.0), 106.02)
    assert place.start == 6.0


@pytest.mark.parametrize("at", [None, 108.0])
def test_what_tells_nothing_begins_at_the_last_final(at: float | None) -> None:
    """No clock, or a burst that is ahead of what can have been said by now: a file."""
    first = call(audio=silence(8.0))
    place = Place(2.0, first.audio, first.call_began)
    send(place, silence(10.0), at, pace=0.0)
    assert place.start == 2.0
    assert place.call_began == pytest.approx(100.0)


def test_without_more_audio_it_begins_at_the_last_final() -> None:
    first = call(audio=silence(8.0))
    place = Place(2.0, first.audio, first.call_began)
    send(place, silence(1.0), 108.0, pace=0.0)
    assert place.start is None
    place.give_up()
    place.give_up()
    assert place.start == 2.0


def test_audio_that_no_connection_got_is_placed_by_the_clock() -> None:
    first = call(seconds=1.0)
    place = Place(0.0, first.audio, first.call_began)
    send(place, noise(3.0, seed=1), 105.0)
    assert place.start == pytest.approx(4.95)
    third = Place(0.0, place.audio, place.call_began)
    send(third, noise(3.0, seed=1)[RATE:], 108.5, pace=0.0)
    assert third.start == pytest.approx(5.95)


@pytest.mark.parametrize(
    ("audio", "goes_on", "start"),
    [
        (noise(8.0)[round(5.3 * RATE) :], 1, 5.3),
        (noise(8.0, seed=2), None, 0.0),
        # What is sent again begins with a sound.
        (np.concatenate((silence(0.5), noise(8.0)[round(5.3 * RATE) :])), None, 0.0),
        # The same for a short while only.
        (np.concatenate((noise(8.0)[5 * RATE :][:3200], noise(3.0, seed=2))), None, 0.0),
        # Too short to tell.
        (noise(0.3), None, None),
    ],
)
@pytest.mark.parametrize("size", [0.02, 0.05, 0.4])
def test_with_other_audio_than_the_end_of_a_call_another_begins(
    audio: Pcm, goes_on: int | None, start: float | None, size: float
) -> None:
    calls = [call(audio=noise(8.0, seed=1)), call()]
    ended = [EndedCall(each.audio, each.call_began) for each in calls]
    place = Place(None, CallAudio(), ended=ended)
    send(place, audio, 108.0, size=size)
    assert place.goes_on == goes_on
    assert place.start == (None if start is None else pytest.approx(start))
    if goes_on is not None:
        assert place.audio is calls[goes_on].audio
        assert place.call_began == pytest.approx(108.0 - 5.3)
    place.give_up()
    assert place.start == (0.0 if start is None else pytest.approx(start))
