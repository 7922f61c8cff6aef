"""The audio that no final covers: what is kept, what is dropped, and for what reason.

Audio that may hold words is dropped for two reasons only: a final covers it, or it exceeds the
limit of 60 s. Quiet audio may be dropped without either.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.backlog import KEEP_AT_MOST, LOOKBACK, Backlog, chunk_samples

from .support.caller import RATE, RATES, noise, numbered, quiet, tone

ONSET = 0.5
"""Seconds that are kept before a sound."""


def holding(*parts: bytes, sent: bool = True) -> Backlog:
    """Return a backlog with audio, all of it sent unless told otherwise."""
    backlog = Backlog()
    for part in parts:
        backlog.push(part, RATE)
    if sent:
        backlog.take(0, backlog.end)
    return backlog


def trim(backlog: Backlog, heard: float | None = None, newest: float | None = None) -> float:
    """Trim, and return the second of the first sample that is left."""
    end = backlog.end / RATE
    backlog.trim(
        heard=round((end if heard is None else heard) * RATE),
        newest=round((end if newest is None else newest) * RATE),
    )
    return backlog.kept_from / RATE


def finalize(backlog: Backlog, start: float, stop: float) -> None:
    backlog.finalize(round(start * RATE), round(stop * RATE))


def start(backlog: Backlog) -> float:
    return backlog.start / RATE


# -- chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "samples"),
    [
        (8000, 400),
        (11025, 441),
        (12000, 600),
        (16000, 800),
        (22050, 882),
        (24000, 1200),
        (32000, 1600),
        (44100, 2205),
        (48000, 2400),
    ],
)
def test_a_chunk_is_of_whole_samples_and_milliseconds(rate: int, samples: int) -> None:
    assert chunk_samples(rate) == samples
    assert samples * 1000 % rate == 0


@given(st.integers(8000, 48000))
def test_a_chunk_loses_less_than_a_sample(rate: int) -> None:
    """The service cuts the length of a message to whole milliseconds."""
    samples = chunk_samples(rate)
    ms = samples * 1000 // rate
    assert 40 <= ms <= 100
    assert 0 <= samples - ms * rate / 1000 < 1


# -- in and out ----------------------------------------------------------------------------------


def test_audio_comes_out_as_it_came_in_however_it_is_cut() -> None:
    backlog = Backlog()
    for size in (1, 160, 0, 800, 7, 4000):
        backlog.push(numbered(backlog.end, size), RATE)
    whole = numbered(0, backlog.end)
    for first, last in ((0, 4968), (0, 1), (1, 161), (150, 970), (961, 968), (968, 4968), (5, 5)):
        assert backlog.take(first, last) == whole[2 * first : 2 * last]


def test_nothing_can_be_taken_of_nothing() -> None:
    assert not Backlog().has_unsent
    assert not Backlog().may_hold_words()


def test_pushed_audio_is_copied() -> None:
    """I4: the caller's buffer is used again."""
    backlog = Backlog()
    buffer = bytearray(numbered(0, 800))
    backlog.push(memoryview(buffer), RATE)
    buffer[:] = bytes(1600)
    assert backlog.take(0, 800) == numbered(0, 800)


def test_a_view_of_samples_is_taken_whole() -> None:
    backlog = Backlog()
    backlog.push(memoryview(numbered(0, 800)).cast("h"), RATE)
    assert backlog.end == 800
    assert backlog.take(0, 800) == numbered(0, 800)


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_is_that_of_the_audio(rate: int) -> None:
    backlog = Backlog()
    backlog.push(tone(1, rate=rate), rate)
    assert (backlog.sample_rate, backlog.chunk) == (rate, chunk_samples(rate))
    assert backlog.first_sound(0) == 0


def test_what_no_connection_got_is_unsent() -> None:
    backlog = holding(tone(1), sent=False)
    backlog.take(0, RATE // 2)
    assert backlog.has_unsent
    backlog.take(RATE // 2, RATE)
    assert not backlog.has_unsent


# -- usage ---------------------------------------------------------------------------------------


def test_usage_counts_each_second_once() -> None:
    backlog = holding(tone(10), sent=False)
    backlog.take(0, 3 * RATE)
    assert backlog.seconds_sent == 3
    backlog.take(0, RATE)
    backlog.take(RATE, 6 * RATE)
    assert backlog.seconds_sent == 6
    backlog.take(0, 6 * RATE)
    assert backlog.seconds_sent == 6
    backlog.take(6 * RATE, 7 * RATE)
    assert backlog.seconds_sent == 7


def test_audio_that_was_given_up_is_no_usage() -> None:
    backlog = holding(tone(80), sent=False)
    trim(backlog, heard=0)
    backlog.take(backlog.start, backlog.end)
    assert backlog.seconds_sent == KEEP_AT_MOST


# -- what a final lets go ------------------------------------------------------------------------


def test_a_final_lets_go_what_it_covers() -> None:
    backlog = holding(tone(5))
    finalize(backlog, 0, 2.5)
    assert (start(backlog), backlog.finalized_to) == (2.5, 2.5 * RATE)
    assert trim(backlog) == 2.5
    finalize(backlog, 0, 1.0)
    assert start(backlog) == 2.5, "nothing that was final is taken back"
    assert backlog.finalized_to == 2.5 * RATE


def test_what_follows_a_final_is_kept_for_as_long_as_it_takes() -> None:
    """Whatever the service says without times: a guess drops no audio."""
    backlog = holding(quiet(1), tone(1), quiet(1), tone(1), quiet(20))
    finalize(backlog, 1, 2)
    backlog.answered(backlog.end)
    assert trim(backlog) == 3 - ONSET
    assert backlog.may_hold_words()


def test_a_noise_before_words_is_learned_from_their_final() -> None:
    backlog = holding(noise(1.5, 300), tone(1, 3000), noise(20, 300))
    assert backlog.may_hold_words()
    finalize(backlog, 1.5, 2.5)
    assert backlog.loudness.floor == pytest.approx(300, rel=0.1)
    assert not backlog.may_hold_words()


def test_a_word_after_music_and_a_final_is_a_word() -> None:
    """Less than a second has passed since the music stopped."""
    backlog = holding(noise(12.5, 6000), noise(0.1, 30), tone(0.4, 9000))
    finalize(backlog, 12.6, 13.0)
    trim(backlog)
    backlog.push(noise(0.08, 30) + tone(0.3, 3000), RATE)
    assert backlog.may_hold_words()


def test_the_rest_of_a_last_word_is_no_word() -> None:
    rest = b"".join(tone(0.05, round(3000 * 0.6**step)) for step in range(12))
    backlog = holding(quiet(1), tone(1), rest, quiet(3))
    finalize(backlog, 1, 2)
    assert not backlog.may_hold_words()


def test_a_loud_word_after_a_cut_is_a_word() -> None:
    backlog = holding(quiet(1), tone(1.4), quiet(3))
    finalize(backlog, 1, 2)
    assert backlog.may_hold_words()
    assert trim(backlog) == 2.0


# -- finals without times ------------------------------------------------------------------------


def untimed(backlog: Backlog, sent: float | None = None) -> float:
    backlog.finalize_without_times(backlog.sent_to if sent is None else round(sent * RATE))
    return start(backlog)


WORD = tone(0.4) + quiet(1)


def test_a_final_without_times_is_about_one_stretch_of_sound() -> None:
    backlog = holding(WORD * 4)
    assert untimed(backlog) == 0.4
    assert trim(backlog) == pytest.approx(0.9)
    assert untimed(backlog) == pytest.approx(1.8)
    assert untimed(backlog) == pytest.approx(3.2)
    assert backlog.may_hold_words()
    assert untimed(backlog) == pytest.approx(4.6)
    assert not backlog.may_hold_words()
    assert untimed(backlog) == pytest.approx(4.6)


def test_a_final_without_times_is_about_one_stretch_though_what_is_before_it_is_gone() -> None:
    """A service that lags: audio that a final covers is dropped at once, and counts no more."""
    backlog = holding(WORD * 4)
    for count in range(3):
        assert untimed(backlog) == pytest.approx(1.4 * count + 0.4)
        backlog.set_speaking(True)
        assert trim(backlog) == pytest.approx(1.4 * count + 0.4)


def test_short_pauses_do_not_end_a_stretch() -> None:
    backlog = holding((tone(0.4) + quiet(0.3)) * 4 + quiet(1))
    assert untimed(backlog) == pytest.approx(2.5)


def test_a_final_without_times_in_unbroken_speech_lets_nothing_go() -> None:
    backlog = holding(quiet(1), tone(0.4), quiet(0.2), tone(1))
    assert untimed(backlog) == 0


def test_a_flush_is_a_pause() -> None:
    """The silence that follows is sent to the service only, and is no audio of the caller's."""
    backlog = holding(tone(1))
    backlog.flush()
    backlog.push(tone(1), RATE)
    backlog.flush()
    backlog.take(RATE, backlog.end)
    assert untimed(backlog) == 1
    assert backlog.may_hold_words()
    assert untimed(backlog) == 2
    assert not backlog.may_hold_words()


def test_a_flush_in_a_pause_is_the_same_pause() -> None:
    backlog = holding(WORD)
    backlog.flush()
    backlog.push(WORD, RATE)
    backlog.take(0, backlog.end)
    assert untimed(backlog) == pytest.approx(0.4)
    assert untimed(backlog) == pytest.approx(1.8)


@pytest.mark.parametrize("level", [20, 100, 280])
def test_a_pause_in_noise_that_is_not_known_ends_a_stretch(level: int) -> None:
    backlog = holding(tone(0.4), noise(0.8, level), tone(0.4), noise(0.1, level))
    backlog.flush()
    assert untimed(backlog) == pytest.approx(0.4)
    assert backlog.may_hold_words()
    assert untimed(backlog) == pytest.approx(1.7)
    assert not backlog.may_hold_words()


def test_a_final_without_times_is_about_what_was_sent() -> None:
    backlog = holding(quiet(1) + WORD * 2)
    assert untimed(backlog, sent=1.2) == 0
    assert untimed(backlog, sent=1.8) == 0
    assert untimed(backlog, sent=2.0) == pytest.approx(1.4)


def test_an_estimate_does_not_tell_what_is_said_twice() -> None:
    backlog = holding(WORD)
    untimed(backlog)
    assert backlog.finalized_to == 0


# -- quiet audio ---------------------------------------------------------------------------------


def test_while_nobody_speaks_the_last_three_seconds_are_kept() -> None:
    backlog = holding(quiet(20))
    assert trim(backlog) == 20 - LOOKBACK
    assert backlog.take_given_up() == 0
    assert not backlog.may_hold_words()


def test_more_can_be_kept_while_nobody_speaks() -> None:
    """Without hypotheses, nothing shows that somebody speaks."""
    backlog = holding(quiet(80))
    backlog.set_interims(False)
    assert trim(backlog) == 80 - KEEP_AT_MOST


def test_a_limit_can_have_struck_only_in_what_that_connection_was_sent() -> None:
    backlog = holding(quiet(80))
    backlog.note_wordless(40 * RATE)
    backlog.note_wordless(20 * RATE, at_limit=True)
    assert (backlog.wordless_to, backlog.wordless_at_limit_to) == (40 * RATE, 20 * RATE)
    backlog.note_wordless(60 * RATE)
    assert (backlog.wordless_to, backlog.wordless_at_limit_to) == (60 * RATE, 20 * RATE)


def test_what_the_service_has_not_heard_is_kept() -> None:
    backlog = holding(quiet(20))
    assert trim(backlog, heard=5) == 5 - LOOKBACK
    assert trim(backlog, heard=2) == 5 - LOOKBACK, "what is gone is gone"


def test_while_somebody_speaks_all_is_kept() -> None:
    backlog = holding(quiet(20))
    backlog.set_speaking(True)
    assert backlog.may_hold_words()
    assert trim(backlog) == 0
    backlog.set_speaking(False)
    assert trim(backlog) == 20 - LOOKBACK


@pytest.mark.parametrize("peak", [30, 100, 200, 3000])
def test_quiet_speech_is_kept_with_its_onset(peak: int) -> None:
    backlog = holding(quiet(20), tone(0.4, peak), quiet(20))
    assert trim(backlog) == 20 - ONSET
    assert backlog.may_hold_words()
    assert trim(backlog) == 20 - ONSET


def test_what_is_dropped_is_measured_before() -> None:
    """How loud the line is depends on audio that came since the last trim, too."""
    backlog = holding(tone(1, 2000), quiet(0.007))
    finalize(backlog, 0, 1)
    backlog.push(quiet(9.994) + tone(1), RATE)
    backlog.take(RATE, backlog.end)
    assert trim(backlog) == pytest.approx(9.001)
    assert backlog.first_sound(backlog.start) == pytest.approx(11 * RATE, abs=RATE * 0.021)


def test_the_noise_of_a_line_is_dropped_once_it_is_known() -> None:
    backlog = holding(noise(20, 500))
    assert trim(backlog) == 20 - LOOKBACK
    assert not backlog.may_hold_words()


# -- the bound -----------------------------------------------------------------------------------


def test_a_minute_is_kept_and_the_rest_is_told_once() -> None:
    backlog = holding(tone(0.5) + quiet(0.5), *[tone(0.5) + quiet(0.5)] * 74)
    assert trim(backlog) == 75 - KEEP_AT_MOST
    assert backlog.may_hold_words()
    assert backlog.take_given_up() == 15
    assert backlog.take_given_up() == 0
    finalize(backlog, 20, 75)
    assert not backlog.may_hold_words()


def test_what_was_given_up_may_have_held_words() -> None:
    backlog = holding(tone(2), quiet(70))
    trim(backlog, heard=0)
    assert backlog.kept_from == 12 * RATE
    assert backlog.first_sound(backlog.start) is None
    assert backlog.may_hold_words()
    finalize(backlog, 20, 21)
    assert not backlog.may_hold_words(), "the service has come past it"
    assert backlog.take_given_up() == 0


def test_quiet_audio_is_given_up_without_a_word() -> None:
    backlog = holding(quiet(90), sent=False)
    assert trim(backlog, heard=0) == 90 - KEEP_AT_MOST
    assert backlog.take_given_up() == 0


def test_a_hypothesis_that_is_given_up_is_told() -> None:
    backlog = holding(quiet(90))
    backlog.set_speaking(True)
    backlog.answered(backlog.end)
    assert trim(backlog) == 90 - KEEP_AT_MOST
    assert backlog.take_given_up() == 30


def test_a_sound_that_the_service_answered_is_given_up_without_a_word() -> None:
    backlog = holding(tone(2), quiet(70))
    backlog.answered(backlog.end)
    trim(backlog, heard=0)
    assert backlog.take_given_up() == 0


def test_of_a_file_a_minute_before_what_is_sent_is_kept() -> None:
    backlog = holding(tone(300), sent=False)
    assert trim(backlog, heard=0, newest=0) == 0
    backlog.set_speaking(True)
    assert trim(backlog, heard=0, newest=200) == 140


# -- flushes -------------------------------------------------------------------------------------


def test_flushes_with_nothing_said_between_them_are_one() -> None:
    backlog = holding(tone(1))
    for _ in range(5):
        backlog.flush()
        backlog.push(quiet(0.1), RATE)
    assert backlog.flushes == [1.4 * RATE]
    backlog.push(tone(0.2), RATE)
    backlog.flush()
    assert backlog.flushes == [1.4 * RATE, 1.7 * RATE]


def test_flushes_are_forgotten_with_the_audio_before_them() -> None:
    backlog = holding(tone(1))
    backlog.flush()
    backlog.push(tone(1), RATE)
    backlog.flush()
    finalize(backlog, 0, 1.5)
    trim(backlog)
    assert backlog.flushes == [2 * RATE]


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaking", [False, True])
@pytest.mark.parametrize("level", [0, 3000])
def test_memory_is_bounded(speaking: bool, level: int) -> None:
    """Ten minutes, with a flush every 2 s."""
    backlog = Backlog()
    backlog.set_speaking(speaking)
    second = tone(0.5, level) + quiet(0.5)
    for count in range(600):
        backlog.push(second, RATE)
        backlog.take(count * RATE, backlog.end)
        if count % 2:
            backlog.flush()
        trim(backlog)
        held = sum(map(len, backlog._pieces)) / 2 / RATE
        assert held == len(backlog._pieces) <= (KEEP_AT_MOST if speaking or level else LOOKBACK) + 1
        assert len(backlog.loudness._levels) <= 50 * (held + 1)
        assert len(backlog.flushes) <= 31


@pytest.mark.parametrize("ms", [5, 10, 20, 50, 60, 100])
def test_digital_silence_takes_no_memory(ms: int) -> None:
    """As from a muted microphone, noise suppression or DTX."""
    backlog = Backlog()
    frame = memoryview(bytes(2 * RATE * ms // 1000))
    backlog.push(frame, RATE)
    tracemalloc.start()
    try:
        for _ in range(30000 // ms):
            backlog.push(frame, RATE)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Only the position at which each frame begins takes memory.
    assert grown < 30000 // ms * 80
    assert backlog.take(RATE // 3, 25 * RATE) == bytes(2 * (25 * RATE - RATE // 3))


def test_silence_that_is_not_digital_is_kept_as_it_is() -> None:
    """One sample that is not zero, at the start, in the middle or at the end."""
    backlog = Backlog()
    frames = [np.zeros(800, np.int16) for _ in range(4)]
    for frame, sample in zip(frames[1:], (0, 400, 799), strict=True):
        frame[sample] = 1
    for frame in frames:
        backlog.push(frame.tobytes(), RATE)
    assert backlog.take(0, 3200) == np.concatenate(frames).tobytes()


# -- what is no word, and no noise either --------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.5])
def test_a_sound_that_is_no_word_is_not_the_noise_of_the_line(seconds: float) -> None:
    """ "Ööö já", and a microphone that is off until the next answer, which is as loud."""
    backlog = holding(tone(seconds, 3000), tone(0.3, 4000))
    backlog.flush()
    finalize(backlog, seconds, seconds + 0.3)
    backlog.push(tone(0.3, 4000), RATE)
    assert backlog.may_hold_words(), "a flush would be answered with nothing"


# -- what stands out in it -------------------------------------------------------------------------


def test_a_word_of_short_sounds_keeps_all_of_its_onset() -> None:
    """Only 0.16 s after its start can it be recognised as a word."""
    word = (tone(0.02) + quiet(0.06)) * 3
    backlog = holding(quiet(4 - ONSET), quiet(ONSET), word, quiet(3))
    for heard in (6.52, 6.56, 6.6, 7.0):
        assert trim(backlog, heard=heard) == min(heard - LOOKBACK, 4 - ONSET)


def test_what_was_measured_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is newer audio measured, until somebody asks about it."""
    backlog = holding(quiet(5), tone(1))
    assert backlog.first_sound(0) == 5 * RATE
    measured_to = backlog.end
    backlog.push(tone(1), RATE)
    with monkeypatch.context() as patched:
        patched.setattr(backlog.loudness, "measure", None)
        assert backlog.first_sound(0, measured_to) == 5 * RATE
        assert backlog.first_loud(0, measured_to) == 5 * RATE
        assert backlog.last_loud(0, measured_to) == measured_to
        assert backlog.sounds(0, measured_to) == []
        trim(backlog)
    assert backlog.first_loud(measured_to, backlog.end) == measured_to


def test_digital_silence_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = holding(tone(1), quiet(0.05), quiet(0.05))
    with monkeypatch.context() as patched:
        for question in ("stands_out", "first_sound", "first_loud"):
            patched.setattr(backlog.loudness, question, None)
        assert not backlog.is_loud(RATE, backlog.end)
        assert backlog.first_sound(RATE) is None
        assert backlog.first_loud(RATE, backlog.end) is None
    assert backlog.is_loud(RATE - 1, backlog.end)
    backlog.push(tone(0.05), RATE)
    assert backlog.is_loud(RATE, backlog.end)


def test_audio_that_is_gone_is_not_loud() -> None:
    assert not Backlog().is_loud(0, 0)
    backlog = holding(tone(1.0), quiet(1.0), tone(1.0))
    finalize(backlog, 0.0, 1.0)
    trim(backlog)
    assert start(backlog) == 1.0
    assert not backlog.is_loud(0, 2 * RATE) and not backlog.is_loud(0, RATE)
    assert backlog.is_loud(0, backlog.end)


def test_what_is_loud_is_found_word_or_not() -> None:
    backlog = holding(quiet(1), tone(0.02), quiet(1))
    assert backlog.first_sound(0) is None
    assert backlog.first_loud(0, backlog.end) == RATE
    assert backlog.is_loud(0, backlog.end) and not backlog.is_loud(2 * RATE, backlog.end)
    backlog.push(tone(0.01), RATE)
    assert backlog.is_loud(backlog.end - RATE // 100, backlog.end), "measured or not"


def test_the_sounds_that_are_sent_and_not_final() -> None:
    backlog = holding(quiet(1), tone(0.5), quiet(1), tone(0.5), quiet(1))
    sounds = [(RATE, 1.5 * RATE), (2.5 * RATE, 3.0 * RATE)]
    assert backlog.sounds(backlog.start, backlog.end) == sounds
    assert backlog.sounds(backlog.start, round(2.5 * RATE)) == sounds[:1]
    finalize(backlog, 0, 2)
    assert backlog.sounds(backlog.start, backlog.end) == sounds[1:]


def test_from_where_on_it_is_quiet() -> None:
    assert holding(quiet(1)).quiet_from() is None
    assert holding(quiet(1), tone(0.5), quiet(1)).quiet_from() == 1.5 * RATE


def test_a_word_after_a_flush_is_no_rest_of_the_last_one() -> None:
    """On push-to-talk, with the microphone off in between: it fades as the end of a word does."""
    # 3 dB each 50 ms.
    parts = [tone(0.05, round(3000 * 0.7**n)) for n in range(4)]
    word = b"".join(parts)
    backlog = holding(word)
    backlog.flush()
    finalize(backlog, 0.0, 0.2)
    assert not backlog.may_hold_words()
    backlog.push(word, RATE)
    assert backlog.may_hold_words()
    assert backlog.first_sound(backlog.start) == pytest.approx(0.2 * RATE, abs=RATE / 50)


def test_no_more_of_a_long_piece_is_copied_than_is_asked_for() -> None:
    """A file can come as one frame."""
    pcm = noise(60.0, 3000)
    backlog = holding(pcm)
    tracemalloc.start()
    try:
        for position in range(1, 55 * RATE, RATE):
            assert backlog.take(position, position + 800) == pcm[2 * position : 2 * position + 1600]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000
