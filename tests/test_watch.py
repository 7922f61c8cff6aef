"""A service that has stopped answering, and a caller who is muted."""

from __future__ import annotations

from functools import partial

import pytest

from livekit.plugins.tiro.watch import DRAIN_TIMEOUT, AnswerWatch, MuteWatch

NEVER = 0.0


def watching(*looks: tuple[float, bool, float]) -> AnswerWatch:
    """Return a watch from second 100 on; a look is (when, speech, last answer)."""
    watch = AnswerWatch(100.0)
    for now, speech, answered_at in looks:
        watch.look(now, answered_at, partial(bool, speech))
    return watch


# -- answers -------------------------------------------------------------------------------------


def test_nothing_is_unanswered_at_first() -> None:
    watch = watching()
    assert watch.unanswered == 0
    assert not watch.is_unresponsive(0, 0.0)


def test_silence_needs_no_answer() -> None:
    assert watching((101, False, NEVER), (500, False, NEVER)).unanswered == 0


def test_speech_is_unanswered_until_an_answer() -> None:
    looks = [(101.0, False, NEVER), (102.0, True, NEVER), (103.0, False, NEVER)]
    assert watching(*looks).unanswered == 2, "it stays so after the speech"
    assert watching(*looks, (104.0, False, 103.5)).unanswered == 0
    answered = (104.0, True, 103.25)
    assert watching(*looks, answered).unanswered == 0
    assert watching(*looks, answered, (105.0, True, 103.25)).unanswered == 1.75
    assert watching(*looks, answered, (105.0, True, 104.5)).unanswered == 0
    assert watching(*looks, answered, (105.0, False, 103.25)).unanswered == 0


def test_an_answer_before_the_last_look_is_no_answer_to_what_came_since() -> None:
    assert watching((101, True, NEVER), (102, True, 101.0), (103, True, 101.0)).unanswered == 3


def test_whether_there_is_speech_is_asked_only_without_an_answer() -> None:
    watch = watching()
    watch.look(101.0, 100.5, lambda: pytest.fail("it costs more than the look"))
    assert watch.unanswered == 0
    watch.look(102.0, 100.5, lambda: True)
    assert watch.unanswered == 1.5


def test_an_answer_between_two_looks_starts_the_count_again() -> None:
    assert watching((101, True, 100.5), (102, True, 101.5), (103, True, 101.5)).unanswered == 1.5


@pytest.mark.parametrize(
    ("doublings", "limit"), [(0, 15.0), (1, 30.0), (2, 60.0), (3, 60.0), (40, 60.0)]
)
def test_patience_is_doubled_but_has_an_end(doublings: int, limit: float) -> None:
    watch = watching((100 + limit, True, NEVER))
    assert not watch.is_unresponsive(doublings, 0.0)
    watch.look(100.5 + limit, NEVER, lambda: True)
    assert watch.is_unresponsive(doublings, 0.0)


def test_a_service_that_is_busy_has_its_time() -> None:
    busy = 30.0
    watch = watching((100 + busy + DRAIN_TIMEOUT, True, NEVER))
    assert watch.is_unresponsive(0, 0.0)
    assert not watch.is_unresponsive(0, busy)
    watch.look(101 + busy + DRAIN_TIMEOUT, NEVER, lambda: False)
    assert watch.is_unresponsive(0, busy)


def test_a_click_is_dismissed() -> None:
    watch = watching((120, True, NEVER))
    watch.dismiss()
    assert not watch.is_unresponsive(0, 0.0)
    watch.look(121, NEVER, lambda: False)
    assert watch.unanswered == 0


# -- mutes ---------------------------------------------------------------------------------------


def test_a_mute_is_noticed_when_it_is_still_there_a_second_later() -> None:
    """At first it can be a stalled event loop, however often `look` is called."""
    watch = MuteWatch()
    assert not any(watch.look(5.0, now) for now in (7.0, 7.1, 7.2, 7.8))
    assert watch.look(5.0, 8.0)
    assert watch.look(5.0, 8.1), "whoever did nothing about it is told again"
    watch.noticed()
    assert not watch.look(5.0, 9.0)
    assert not watch.look(5.0, 99.0)


def test_the_next_mute_is_another() -> None:
    watch = MuteWatch()
    watch.look(5.0, 7.0)
    watch.noticed()
    assert not watch.look(6.0, 9.0)
    assert watch.look(6.0, 10.0)


def test_audio_between_two_looks_is_no_mute() -> None:
    watch = MuteWatch()
    assert not any(watch.look(pushed, 2 * pushed) for pushed in (1.0, 2.0, 3.0))


def test_before_any_audio_there_is_no_mute() -> None:
    watch = MuteWatch()
    assert not any(watch.look(0.0, now) for now in (1.0, 2.0, 3.0))
