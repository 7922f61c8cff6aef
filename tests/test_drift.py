"""The pace of the service's clock: learned from sounds and finals, and put right."""

from __future__ import annotations

from random import Random

import pytest

from livekit.plugins.tiro.drift import Drift
from livekit.plugins.tiro.testing import faults
from livekit.plugins.tiro.testing.faults import Combined, Disconnect, PerConnection

from .support import trial, virtual
from .support.draws import _draw_breaths
from .support.harness import FINAL
from .support.numbered import Talk, talk
from .support.trial import Outcome, hear

# s; what a recogniser's end of a word differs from the end of its sound.
HABIT = 0.1
# s of a word.
WORD = 0.4


def call(
    drift: Drift, pace: float, ends: list[float], *, habit: float = 0.0, spread: float = 0.0
) -> list[float]:
    """Compare the finals of a call. Return by how many seconds each corrected time is wrong."""
    chance, wrong = Random(1), []
    for end in ends:
        told = pace * (end + habit + chance.uniform(-spread, spread))
        drift.compare(told - pace * WORD, told, [(s - WORD, s) for s in ends if s <= end])
        wrong.append(abs(told / drift.pace - end))
    return wrong


@pytest.mark.parametrize("pace", [0.95, 1.05])
def test_a_clock_is_put_right_within_seconds(pace: float) -> None:
    drift = Drift()
    wrong = call(drift, pace, [3.0 * n for n in range(1, 600)])
    assert max(wrong[:5]) < 0.65
    assert max(wrong[5:]) < 0.001
    assert drift.pace == pytest.approx(pace)


@pytest.mark.many
@pytest.mark.parametrize("pace", [0.95, 1.05])
@pytest.mark.parametrize("habit", [-HABIT, 0.0, HABIT])
def test_it_is_put_right_whatever_the_recogniser_takes_for_the_end_of_a_word(
    pace: float, habit: float
) -> None:
    wrong = call(Drift(), pace, [3.0 * n for n in range(1, 600)], habit=habit, spread=0.05)
    assert max(wrong[10:]) < 0.2


@pytest.mark.many
@pytest.mark.parametrize("habit", [-0.4, 0.4])
def test_a_clock_that_is_right_stays_as_it_is(habit: float) -> None:
    """The times of words are the service's; where sounds end says less."""
    drift = Drift()
    call(drift, 1.0, [1.7 * n for n in range(1, 1000)], habit=habit, spread=0.1)
    assert drift.pace == 1.0
    assert 7.3 / drift.pace == 7.3


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("early", "late"), [(0.0, -0.3), (0.0, 0.8), (0.8, 0.0), (0.5, 0.5)])
def test_a_breath_at_a_word_is_no_drift(early: float, late: float, each: int) -> None:
    """Nor is a last syllable that does not stand out: one edge of a sound is off, not both."""
    drift = Drift()
    for n in range(1, 200):
        end = 3.0 * n
        breath = n % each == 0
        sound = end - WORD - early * breath, end + late * breath
        drift.compare(end - WORD, end, [sound])
    assert drift.pace == 1.0


def test_a_sound_that_goes_on_is_no_other_one() -> None:
    """The word is in it, and the sound before it is not the word."""
    drift = Drift()
    for n in range(1, 40):
        end = 3.0 * n
        drift.compare(end - WORD, end, [(end - 1.2 - WORD, end - 1.2), (end - WORD, end + 0.7)])
    assert drift.pace == 1.0


@pytest.mark.parametrize("pace", [0.95, 1.05])
def test_an_er_before_a_word_changes_nothing_of_that(pace: float) -> None:
    """The end of a word decides which audio is dropped."""
    drift = Drift()
    for n in range(1, 20):
        end = 3.0 * n
        er = 0.2 * (n % 2)
        drift.compare(pace * (end - WORD), pace * end, [(end - WORD - er, end)])
    assert drift.pace == pytest.approx(pace, abs=1e-4)


@pytest.mark.parametrize("pace", [0.95, 1.05])
def test_what_short_connections_tell_adds_up(pace: float) -> None:
    """Each is long enough for one final that is off by more than a habit."""
    drift = Drift()
    for _ in range(3):
        drift.begin()
        call(drift, pace, [1.0, 8.0])
    assert drift.pace == pytest.approx(pace, abs=1e-3)


@pytest.mark.parametrize("pace", [0.95, 1.05])
def test_a_long_silence_before_the_first_word_is_put_right_too(pace: float) -> None:
    wrong = call(Drift(), pace, [60.0 + 3.0 * n for n in range(20)])
    assert max(wrong[5:]) < 0.001


def test_a_final_that_can_be_about_several_sounds_says_nothing() -> None:
    drift = Drift()
    for sounds in [(57.6, 58.0), (59.6, 60.0)], []:
        for _ in range(5):
            drift.compare(62.6, 63.0, sounds)
    assert drift.pace == 1.0


def test_the_next_connection_begins_with_the_pace_of_the_last() -> None:
    drift = Drift()
    call(drift, 1.05, [3.0 * n for n in range(1, 20)])
    drift.begin()
    assert 2.1 / drift.pace == pytest.approx(2.0)
    assert max(call(drift, 1.05, [2.0, 5.0, 9.0])) < 0.001


def test_another_service_behind_the_next_connection_is_learned() -> None:
    drift = Drift()
    call(drift, 1.05, [3.0 * n for n in range(1, 20)])
    drift.begin()
    wrong = call(drift, 1.0, [3.0 * n for n in range(1, 40)])
    assert max(wrong) < 0.35
    assert max(wrong[20:]) < 0.1


# -- in a stream ---------------------------------------------------------------------------------

SAID = talk(*[3, 2, 1] * 9, word=0.3, gap=1.4)
HALF_AN_HOUR = talk(*[3, 2, 1] * 300, word=0.3, gap=1.4)


async def hear_by(rate: float, drops: list[float], said: Talk = SAID) -> Outcome:
    hooks = Combined(PerConnection(*map(Disconnect, drops)), faults.Drift(rate))
    return await hear(said, hooks, live=True)


def times_wrong_by(outcome: Outcome, since: float) -> float:
    spoken = {word.text: word for word in outcome.said.words}
    return max(
        abs(word.end_time - spoken[str(word)].end)
        for event in outcome.events
        if event.type is FINAL
        for word in event.alternatives[0].words or ()
        if isinstance(word.end_time, float) and spoken[str(word)].start > since
    )


@pytest.mark.many
@pytest.mark.parametrize(("rate", "drops"), [(-0.05, [40.0, 8.3, 2.0]), (0.05, [])])
def test_no_word_is_lost_or_doubled_by_a_clock_that_is_wrong(
    rate: float, drops: list[float]
) -> None:
    """Without a correction, a minute of it doubles words, and an hour loses them."""
    outcome = virtual.run(hear_by(rate, drops))
    assert outcome.is_exact, str(outcome)
    assert times_wrong_by(outcome, since=0.0) < 0.7
    assert times_wrong_by(outcome, since=14.0) < 0.06


@pytest.mark.many
@pytest.mark.parametrize("seed", range(3))
def test_breaths_in_a_call_leave_the_times_of_words_as_they_are(seed: int) -> None:
    outcome = virtual.run(_draw_breaths(seed, Random(seed)).run())
    assert outcome.is_exact, str(outcome)
    assert times_wrong_by(outcome, since=0.0) < 0.06


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rate", [-0.05, 0.05])
@pytest.mark.parametrize("drops", [[], [40.0, 8.3, 2.0, 400.0, 700.0]], ids=str)
def test_nor_in_half_an_hour(
    rate: float, drops: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LONGEST", 2 * HALF_AN_HOUR.seconds)
    outcome = virtual.run(hear_by(rate, drops, HALF_AN_HOUR))
    assert outcome.is_exact, str(outcome)
    assert times_wrong_by(outcome, since=14.0) < 0.06
