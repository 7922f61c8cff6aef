"""What stands out from the noise of the line; how the noise is learned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.loudness import FRAMES_PER_SECOND, Loudness

from .support.caller import RATE, RATES, noise, quiet, tone
from .support.examples import examples

FRAME = RATE // FRAMES_PER_SECOND


def measured(*parts: bytes, rate: int = RATE) -> Loudness:
    loudness = Loudness()
    loudness.set_rate(rate)
    pcm = b"".join(parts)
    loudness.measure(pcm)
    return loudness


def sound(loudness: Loudness, start: float = 0.0, *, after_word: bool = False) -> float | None:
    """Return the second of the first sound from a second on."""
    stop = loudness.measured_to
    first = loudness.first_sound(round(start * RATE), stop, after_word=after_word)
    return None if first is None else first / RATE


def speech(seconds: float, peak: int) -> bytes:
    """Return syllables of 0.2 s, each of which rises and sinks again."""
    at = np.arange(round(seconds * RATE)) / RATE
    envelope = np.abs(np.sin(np.pi * at / 0.2))
    voice = np.sign(np.sin(2 * np.pi * 150 * at))
    samples: npt.NDArray[np.int16] = (peak * envelope * voice).astype(np.int16)
    return samples.tobytes()


# -- measuring -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_audio_is_measured_in_frames_of_20_ms(rate: int) -> None:
    loudness = measured(quiet(1, rate), tone(0.5, rate=rate), quiet(1, rate), rate=rate)
    assert loudness.measured_to == pytest.approx(2.5 * rate, abs=rate / FRAMES_PER_SECOND)
    first = loudness.first_sound(0, loudness.measured_to)
    assert first == pytest.approx(rate, abs=rate / FRAMES_PER_SECOND)


def test_what_fills_no_frame_is_left_for_later() -> None:
    loudness = measured(tone(0.019))
    assert loudness.measured_to == 0
    loudness.measure(tone(0.039))
    assert loudness.measured_to == FRAME


def test_nothing_stands_out_where_nothing_is() -> None:
    assert sound(measured()) is None
    assert sound(measured(tone(1)), 5.0) is None


@pytest.mark.parametrize("level", [3000, -3000, 32767, -32767, -32768])
def test_a_sound_of_either_sign_is_a_sound(level: int) -> None:
    assert sound(measured(quiet(0.5), tone(0.5, level))) == 0.5


def test_what_is_forgotten_is_no_sound_and_positions_stay() -> None:
    loudness = measured(tone(1), quiet(1), tone(1))
    loudness.forget(round(1.5 * RATE))
    assert loudness.measured_to == 3 * RATE
    assert sound(loudness) == 2.0
    loudness.forget(0)
    assert sound(loudness) == 2.0, "what is gone does not come back"
    loudness.forget(9 * RATE)
    assert loudness.measured_to == 3 * RATE
    loudness.measure(tone(1))
    assert sound(loudness) == 3.0


# -- what stands out -----------------------------------------------------------------------------


@pytest.mark.parametrize("peak", [30, 100, 200, 3000, 32767])
def test_quiet_speech_over_digital_silence_stands_out(peak: int) -> None:
    assert sound(measured(quiet(20), speech(0.4, peak), quiet(1))) == pytest.approx(20, abs=0.06)


@pytest.mark.parametrize("peak", [30, 100, 200, 3000, 32767])
def test_quiet_speech_20_db_above_the_noise_stands_out(peak: int) -> None:
    """Before and after the floor is learned."""
    line = noise(10, peak // 10)
    assert sound(measured(line[:RATE], speech(0.4, peak), line)) is not None
    loudness = measured(line, speech(0.4, peak), line)
    assert sound(loudness) == pytest.approx(10, abs=0.06)


@pytest.mark.parametrize("seconds", [0.1, 0.12, 0.18, 0.24, 0.4])
@pytest.mark.parametrize("at", [0.0, 0.005, 0.01, 0.015])
def test_a_short_word_stands_out_wherever_it_starts(seconds: float, at: float) -> None:
    loudness = measured(quiet(1 + at), tone(seconds), quiet(1))
    assert sound(loudness) == pytest.approx(1 + at, abs=0.021)


def test_a_click_does_not_stand_out() -> None:
    for ms in (1, 10, 40):
        assert sound(measured(quiet(1), tone(ms / 1000), quiet(1))) is None


def test_clicks_far_from_each_other_are_no_word() -> None:
    click = tone(0.02) + quiet(0.48)
    assert sound(measured(quiet(1), click * 6)) is None
    assert sound(measured(quiet(1), (tone(0.02) + quiet(0.06)) * 3)) == 1.0, "a trill"


def test_a_sound_starts_no_earlier_than_asked_for() -> None:
    loudness = measured(tone(2), quiet(1))
    assert loudness.first_sound(RATE + 7, 2 * RATE) == RATE + 7
    assert sound(loudness, 1.99) is None


@pytest.mark.parametrize("level", [4, -4, 32767, -32768])
@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 799])
def test_a_single_loud_sample_stands_out_wherever_it_is(level: int, at: int) -> None:
    samples = np.full(800, 3, np.int16)
    assert not measured().stands_out(samples.tobytes())
    samples[at] = level
    assert measured().stands_out(samples.tobytes())


# -- the noise floor -----------------------------------------------------------------------------


def test_until_it_is_learned_all_but_silence_stands_out() -> None:
    assert measured().floor == 1
    assert sound(measured(noise(2, 100))) == 0.0
    assert sound(measured(tone(2, 3))) is None, "a step or three of the scale"


def test_a_steady_noise_stands_out_no_more_once_it_is_learned() -> None:
    loudness = measured(noise(3, 400))
    assert loudness.floor == pytest.approx(400, rel=0.05)
    assert sound(loudness) is None
    loudness.measure(speech(0.3, 4000))
    assert sound(loudness) == pytest.approx(3, abs=0.06)


def test_the_floor_sinks_at_once_and_rises_slowly() -> None:
    loudness = measured(noise(10, 800))
    assert loudness.floor == pytest.approx(800, rel=0.05)
    loudness.measure(noise(1, 50))
    assert loudness.floor == pytest.approx(50, rel=0.1)
    loudness.measure(noise(8, 800))
    assert loudness.floor == pytest.approx(50, rel=0.1), "a second of ten was quiet"
    loudness.measure(noise(2, 800))
    assert loudness.floor == pytest.approx(800, rel=0.05)


@pytest.mark.many
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.12), (0.12, 0.02), (0.3, 0.3)])
@pytest.mark.parametrize(("loud", "peak"), [(6000, 3000), (6000, 9000), (2000, 300)])
def test_a_word_right_after_noise_that_stops_stands_out(
    before: float, after: float, loud: int, peak: int
) -> None:
    """Music, a ringback tone or a fan; wherever in a second it stops."""
    for stop in (12 + part / 100 for part in range(0, 100, 5)):
        line = noise(stop, loud), noise(before, 30), tone(0.35, peak), noise(after, 30)
        found = sound(measured(*line), stop + 0.02)
        assert found == pytest.approx(stop + before, abs=0.05), stop


def test_a_stop_is_seen_however_many_frames_are_measured_at_a_time() -> None:
    loudness = measured(noise(10.5, 6000))
    for frame in range(5):
        assert loudness.floor == pytest.approx(6000, rel=0.05), frame
        loudness.measure(noise(0.02, 30))
    assert loudness.floor == pytest.approx(30, rel=0.1)
    loudness.forget(loudness.measured_to)
    loudness.measure(tone(0.35))
    assert sound(loudness) == pytest.approx(10.6)


@pytest.mark.parametrize("after", range(10))
def test_a_stop_is_seen_wherever_it_is(after: int) -> None:
    """Only the five frames of the stop are below the floor of this noise."""
    loudness = measured(tone(11), quiet(0.1), tone(0.02 * after))
    assert loudness.floor == 1


@pytest.mark.parametrize("ms", [20, 40, 60, 80])
@pytest.mark.parametrize("at", [0.0, 0.013])
def test_what_lost_packets_leave_is_no_stop(ms: int, at: float) -> None:
    loudness = measured(noise(10 + at, 800))
    for _ in range(5):
        loudness.measure(quiet(ms / 1000) + noise(1.3 - ms / 1000, 800))
        assert loudness.floor == pytest.approx(800, rel=0.05)
    assert sound(loudness) is None


def test_a_gap_in_noise_is_soon_forgotten() -> None:
    loudness = measured(noise(10, 800), quiet(0.1), noise(1, 800))
    assert loudness.floor == 1
    loudness.measure(noise(1.98, 800))
    assert loudness.floor == 1
    loudness.measure(noise(0.02, 800))
    assert loudness.floor == pytest.approx(800, rel=0.05)
    assert sound(loudness) is None


def test_a_stop_outlasts_a_lesson_that_is_too_high() -> None:
    """The floor is learned from audio without words, most of it from before the stop."""
    loudness = measured(noise(10.5, 6000), noise(0.1, 30), tone(0.4), noise(0.02, 30))
    loudness.learn_no_words(7 * RATE, round(10.6 * RATE), 11 * RATE)
    loudness.learn_words(round(10.6 * RATE), 11 * RATE)
    assert loudness.floor == pytest.approx(3000 / 30)
    loudness.measure(tone(0.98))
    assert loudness.floor == pytest.approx(30, rel=0.1)


def test_the_gaps_between_words_are_no_stop() -> None:
    loudness = measured(noise(10, 400))
    for _ in range(12):
        loudness.measure(speech(0.6, 6000) + noise(0.15, 400))
        assert loudness.floor == pytest.approx(400, rel=0.05)


def test_speech_does_not_raise_the_floor() -> None:
    """It has its quiet moments, in each second."""
    loudness = measured(noise(2, 30))
    for _ in range(20):
        loudness.measure(speech(0.8, 4000) + noise(0.2, 30))
    assert loudness.floor < 60


def test_words_are_no_noise() -> None:
    """A vowel that is held for as long as a noise."""
    loudness = measured(quiet(1), tone(2))
    loudness.learn_words(RATE, 3 * RATE)
    loudness.measure(tone(2))
    assert loudness.floor == 1, "two seconds are too few to learn from"
    loudness.measure(tone(1))
    assert loudness.floor == 3000


def test_what_is_in_words_yet_to_come_is_not_learned() -> None:
    loudness = measured(quiet(1))
    loudness.learn_words(RATE, 6 * RATE)
    loudness.measure(tone(5) + tone(2, 200))
    assert loudness.floor == 1
    loudness.measure(tone(1, 200))
    assert loudness.floor == 200


def test_audio_without_words_is_the_noise() -> None:
    loudness = measured(noise(1, 400), speech(1, 4000))
    loudness.learn_no_words(0, RATE, 2 * RATE)
    # Words stand out by 20 dB from audio that is certainly noise.
    assert loudness.floor == pytest.approx(4000 / 30, rel=0.05)
    assert sound(loudness) == pytest.approx(1, abs=0.06)


def test_a_moment_without_words_says_nothing() -> None:
    loudness = measured(quiet(1), tone(0.1))
    loudness.learn_no_words(RATE, 2 * RATE, 3 * RATE)
    loudness.learn_no_words(5 * RATE, 9 * RATE, 9 * RATE)
    loudness.learn_no_words(RATE, 0, 0)
    assert loudness.floor == 1


@pytest.mark.parametrize("level", [0, 20, 100, 300])
def test_the_pause_between_words_is_the_noise(level: int) -> None:
    pause = noise(0.6, level) if level else quiet(0.6)
    loudness = measured(speech(0.6, 4000), pause, speech(0.6, 4000))
    loudness.learn_pause(0, loudness.measured_to, 0.5)
    assert loudness.is_learned
    # Words stand out by 20 dB.
    assert loudness.floor == pytest.approx(max(1, min(level, 4000 / 30)), rel=0.05)


@pytest.mark.parametrize(
    "audio",
    [
        speech(0.6, 4000) + noise(0.4, 100) + speech(0.6, 4000),
        speech(0.6, 4000) + noise(0.6, 500) + speech(0.6, 4000),
        noise(2, 100),
    ],
)
def test_without_a_pause_between_words_the_noise_stays_unknown(audio: bytes) -> None:
    """It is too short, too loud, or there are no words."""
    loudness = measured(audio)
    loudness.learn_pause(0, loudness.measured_to, 0.5)
    assert not loudness.is_learned and loudness.floor == 1


def test_the_noise_is_as_soft_as_a_tenth_of_the_pause() -> None:
    pause = noise(0.12, 20) + noise(0.48, 100)
    loudness = measured(speech(0.6, 4000), pause, speech(0.6, 4000))
    loudness.learn_pause(0, loudness.measured_to, 0.5)
    assert loudness.floor == pytest.approx(20, rel=0.05)


def test_soft_words_as_long_as_a_pause_are_not_the_noise() -> None:
    loudness = measured(quiet(0.3), tone(0.2, 12000), tone(1, 1200), tone(0.2, 12000))
    loudness.learn_pause(0, loudness.measured_to, 0.5)
    assert loudness.floor == 1


def test_a_pause_says_nothing_new_of_noise_that_is_known() -> None:
    loudness = measured(noise(3, 20), speech(0.6, 4000), noise(0.6, 100), speech(0.6, 4000))
    floor = loudness.floor
    loudness.learn_pause(3 * RATE, loudness.measured_to, 0.5)
    assert floor == loudness.floor == pytest.approx(20, rel=0.05)


# -- the rest of a word --------------------------------------------------------------------------


def decay(seconds: float, peak: int = 3000) -> bytes:
    """Return sound that sinks by 3 dB each 50 ms, as the end of a word in a room does."""
    at = np.arange(round(seconds * RATE)) / RATE
    return (peak * 0.7 ** (at / 0.05)).astype(np.int16).tobytes()


def test_the_rest_of_a_word_is_no_other_word() -> None:
    loudness = measured(decay(0.6), quiet(1))
    assert sound(loudness, after_word=True) is None
    assert sound(loudness) == 0.0


@pytest.mark.parametrize("gap", [0.0, 0.06, 0.12, 0.5])
def test_a_word_soon_after_another_is_a_word(gap: float) -> None:
    loudness = measured(decay(0.3), quiet(gap), tone(0.2), quiet(1))
    assert sound(loudness, after_word=True) == pytest.approx(0.3 + gap, abs=0.09)


@pytest.mark.parametrize("level", [30, 3000, 10922, 10923, 21845, 21846, 32767])
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.4])
def test_a_word_right_after_one_as_loud_is_a_word(level: int, seconds: float) -> None:
    """However loud: levels are numbers of 16 bits, and must not run over."""
    loudness = measured(tone(0.5, level), tone(seconds, level), quiet(1))
    loudness.learn_words(0, RATE // 2)
    assert loudness.first_sound(RATE // 2, 3 * RATE, after_word=True) == RATE // 2


@pytest.mark.parametrize("share", [4, 10, 25])
@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.4])
def test_a_soft_word_right_after_a_loud_one_is_a_word(share: int, seconds: float) -> None:
    """Such as after a cut of the service in the middle of speech."""
    loudness = measured(tone(0.5, 9000), tone(seconds, 9000 // share), quiet(1))
    loudness.learn_words(0, RATE // 2)
    assert loudness.first_sound(RATE // 2, 3 * RATE, after_word=True) == RATE // 2


def test_what_is_much_softer_than_the_word_is_the_rest_of_it() -> None:
    """A room, or a codec, on a line that is silent otherwise."""
    loudness = measured(tone(0.5, 9000), tone(0.3, 9000 // 40), quiet(1))
    loudness.learn_words(0, RATE // 2)
    assert loudness.first_sound(RATE // 2, 3 * RATE, after_word=True) is None


@pytest.mark.parametrize(("ms", "is_word"), [(60, False), (80, True)])
def test_what_grows_louder_again_is_a_word_if_it_lasts(ms: int, is_word: bool) -> None:
    """The service can put the end of a word 60 ms too early."""
    parts = tone(0.5, 9000), tone(0.08, 9000 // 40), tone(ms / 1000, 9000 // 4), quiet(1)
    loudness = measured(*parts)
    loudness.learn_words(0, RATE // 2)
    first = loudness.first_sound(RATE // 2, loudness.measured_to, after_word=True)
    assert first == (RATE // 2 if is_word else None)


def test_a_sound_that_goes_on_is_no_rest() -> None:
    loudness = measured(tone(0.5), quiet(1))
    assert sound(loudness, after_word=True) == 0.0


def test_a_moment_is_a_rest() -> None:
    assert sound(measured(tone(0.06)), after_word=True) is None


# -- where a sound ends --------------------------------------------------------------------------


def end(loudness: Loudness, start: float = 0.0, stop: float | None = None) -> float | None:
    last = loudness.measured_to if stop is None else round(stop * RATE)
    found = loudness.sounds(round(start * RATE), last, 0.5)
    return found[0][1] / RATE if found else None


def test_a_sound_ends_with_a_pause() -> None:
    loudness = measured(quiet(1), tone(0.4), quiet(0.4), tone(0.4), quiet(0.6), tone(1))
    assert end(loudness) == pytest.approx(2.2)
    assert end(loudness, 2.2) is None, "it goes on"
    assert end(measured(quiet(3))) is None
    assert end(measured(tone(1), quiet(0.48))) is None
    assert end(measured(tone(1), quiet(0.5))) == 1.0


def test_a_sound_ends_no_later_than_asked_for() -> None:
    loudness = measured(tone(1), quiet(2))
    assert loudness.sounds(0, 2 * RATE, 0.5) == [(0, RATE)]
    assert loudness.sounds(0, RATE + 7, 0.5) == []


def test_each_sound_has_its_edges_but_the_last_one_and_a_click() -> None:
    loudness = measured(
        tone(0.4), quiet(0.3), tone(0.4), quiet(0.6), tone(0.04), quiet(0.6), tone(0.1), quiet(0.7)
    )
    found = loudness.sounds(0, loudness.measured_to, 0.5)
    assert found == [(0, 1.1 * RATE), (2.34 * RATE, 2.44 * RATE)]
    found = loudness.sounds(0, loudness.measured_to, 0.2)
    assert found[:2] == [(0, 0.4 * RATE), (0.7 * RATE, 1.1 * RATE)]


def test_a_sound_starts_where_it_is_heard_however_soon() -> None:
    loudness = measured(quiet(0.1), tone(0.4), quiet(0.6))
    assert loudness.sounds(0, loudness.measured_to, 0.5) == [(0.1 * RATE, 0.5 * RATE)]


def test_what_fills_no_frame_can_be_loud_too() -> None:
    loudness = measured(tone(0.5), quiet(0.2))
    assert loudness.quiet_from(0) == loudness.quiet_from(0, quiet(0.01)) == 0.5 * RATE
    rest = tone(0.01)
    assert loudness.quiet_from(0, rest) == loudness.measured_to + len(rest) // 2


# -- the longest quiet ---------------------------------------------------------------------------


def longest(
    loudness: Loudness, look_from: float, stop: float, *, silent: bool = True
) -> tuple[float, float] | None:
    ends = round(look_from * RATE), round(stop * RATE)
    found = loudness.longest_quiet(0, *ends, silent=silent)
    return found and (found[0] / RATE, found[1] / RATE)


def test_the_longest_quiet_is_found_within_its_bounds() -> None:
    loudness = measured(
        tone(1), noise(0.6, 100), tone(1), noise(0.2, 90), tone(1), noise(0.4, 100), tone(1)
    )
    assert longest(loudness, 0, 5) == (1.0, 1.6)
    assert longest(loudness, 1.3, 5) == (3.8, 4.2), "it is cut off"
    assert longest(loudness, 1.7, 3.7) == (2.6, 2.8)
    assert longest(loudness, 2.8, 3.7) is None
    assert longest(loudness, 2.8, 3.9) == (3.8, 3.9), "it may go on"


def test_soft_words_between_loud_ones_are_no_silence() -> None:
    loudness = measured(tone(2), tone(0.8, 150), tone(1), quiet(0.3), tone(1))
    assert longest(loudness, 0, 5) == pytest.approx((3.8, 4.1))
    assert longest(loudness, 0, 5, silent=False) == pytest.approx((2.0, 2.8))
    assert longest(loudness, 0, 3.5) is None


@pytest.mark.parametrize(("level", "is_quiet"), [(0, True), (250, True), (600, False)])
def test_it_is_quiet_after_words_at_20_db_below_them(level: int, is_quiet: bool) -> None:
    loudness = measured(tone(0.5, 3000), tone(0.5, level))
    loudness.learn_words(0, RATE // 2)
    assert loudness.is_quiet_after_words(RATE // 2, RATE) is is_quiet


def test_without_anything_louder_nothing_is_quiet() -> None:
    assert longest(measured(noise(2, 900)), 0, 2) is None
    assert longest(measured(tone(1), noise(1, 900)), 0, 2) is None
    assert longest(measured(tone(0.04)), 0, 2) is None
    assert longest(measured(tone(1)), 2, 1) is None


# -- any audio -----------------------------------------------------------------------------------

PARTS = st.lists(
    st.tuples(st.sampled_from([0, 1, 30, 200, 3000, 32768]), st.integers(1, 40)), max_size=12
)


@examples(60)
@given(PARTS, st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(0, 20))
def test_levels_are_those_of_the_frames_however_it_is_measured(
    parts: list[tuple[int, int]], sizes: list[int], forgotten: int
) -> None:
    """In pieces or at once; with what is first forgotten."""
    pcm = b"".join(tone(frames / FRAMES_PER_SECOND, -level) for level, frames in parts)
    pieces, whole = measured(), measured(pcm)
    count = 0
    while pieces.measured_to < whole.measured_to:
        stop = pieces.measured_to + FRAME + sizes[count % len(sizes)]
        pieces.measure(pcm[2 * pieces.measured_to : 2 * stop])
        count += 1
    assert pieces.floor == whole.floor
    pieces.forget(forgotten * FRAME)
    for at in range(forgotten, whole.measured_to // FRAME):
        ends = at * FRAME, whole.measured_to
        assert pieces.first_sound(*ends) == whole.first_sound(*ends)
        assert pieces.sounds(*ends, 0.5) == whole.sounds(*ends, 0.5)


@examples(60)
@given(PARTS)
def test_the_ends_are_those_of_one_sound_after_the_other(parts: list[tuple[int, int]]) -> None:
    loudness = measured(*(tone(frames / FRAMES_PER_SECOND, -level) for level, frames in parts))
    ends = [end for _, end in loudness.sounds(0, loudness.measured_to, 0.3)]
    assert ends == sorted(set(ends))
    position = 0
    for end in ends:
        sound = loudness.first_sound(position, loudness.measured_to)
        assert sound is not None and position <= sound < end
        assert loudness.last_loud(sound, end) == end
        after = loudness.first_loud(end, loudness.measured_to)
        assert (after or loudness.measured_to) - end >= round(0.3 * RATE)
        position = end


@examples(60)
@given(PARTS, st.booleans())
def test_a_sound_is_found_where_it_is(parts: list[tuple[int, int]], after_word: bool) -> None:
    """Three frames of ten that stand out, by a search of its own."""
    loudness = measured(*(tone(n / FRAMES_PER_SECOND, -level) for level, n in parts))
    levels = [level for level, n in parts for _ in range(n)]
    loud = [level > 3 * loudness.floor for level in levels]
    windows = [i for i in range(len(loud)) if loud[i] and sum(loud[i : i + 10]) >= 3]
    found = loudness.first_sound(0, loudness.measured_to, after_word=after_word)
    if not after_word:
        assert found == (windows[0] * FRAME if windows else None)
    elif found is not None:
        assert found // FRAME in [i for i, stands_out in enumerate(loud) if stands_out]


# -- any sound, be it a word or not ----------------------------------------------------------------


def test_a_click_is_loud_and_no_sound_of_speech() -> None:
    loudness = measured(quiet(1), tone(0.02), quiet(1))
    assert sound(loudness) is None
    assert loudness.first_loud(0, 2 * RATE) == RATE
    assert loudness.first_loud(RATE, 2 * RATE) == RATE
    assert loudness.first_loud(RATE + FRAME, 2 * RATE) is None
    assert loudness.first_loud(RATE, RATE) is None
    assert loudness.first_loud(RATE + FRAME // 2, 2 * RATE) == RATE + FRAME // 2


@examples(60)
@given(PARTS)
def test_quiet_never_turns_out_to_have_begun_earlier(parts: list[tuple[int, int]]) -> None:
    """However loud what follows is; so nobody has to look before it can have become long enough."""
    loudness, earlier = measured(), 0
    for level, frames in parts:
        for _ in range(frames):
            loudness.measure(tone(1 / FRAMES_PER_SECOND, -level))
            quiet_from = loudness.quiet_from(0)
            assert quiet_from is None or quiet_from >= earlier
            earlier = quiet_from or earlier
