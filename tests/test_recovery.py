"""What the end of a connection means, case by case: no socket, no loop, no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins.tiro import errors
from livekit.plugins.tiro.errors import ROTATION_CODES, Redactor
from livekit.plugins.tiro.protocol import ServiceError
from livekit.plugins.tiro.recovery import Budget, Ending, Next, Progress, Reason, Recovery

BUDGET = Budget(max_retry=3, timeout=10.0, retries=0, outlived=False)

SILENCE = Progress(start=0, finals=0, speaking=False, unfinalized=False)
SOUND = SILENCE._replace(unfinalized=True)
SPEECH = SOUND._replace(speaking=True)

CLOSED = Ending(Reason.CLOSED, age=5.0, answered=True)
MUTE = replace(CLOSED, answered=False)
UNASKED = replace(MUTE, age=6.0)
SHUT = replace(MUTE, configured=False)
DRAINED = replace(CLOSED, end_sent=True)
TIMED_OUT = replace(DRAINED, reason=Reason.DRAIN_TIMEOUT)
UNRESPONSIVE = replace(CLOSED, reason=Reason.UNRESPONSIVE, unanswered=16.0)
CHANGED = replace(CLOSED, reason=Reason.OPTIONS_CHANGED)


def failed(code: int, ending: Ending = CLOSED) -> Ending:
    return replace(ending, reason=ServiceError(code=code))


class Course:
    """The connections of a stream, one after the other."""

    def __init__(self) -> None:
        self.recovery = Recovery(Redactor("lykill"))
        self.progress = SILENCE

    def end(self, ending: Ending, progress: Progress, before: Progress | None = None) -> Any:
        """Begin a connection where the last one ended, and end it; return what is next."""
        self.recovery.connected(self.progress if before is None else before)
        self.progress = progress
        try:
            return self.recovery.after(ending, progress, BUDGET)
        except APIError as error:
            return error


# -- the first connection ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "progress", "expected"),
    [
        # The service hung up: a rotation if it had been healthy.
        (CLOSED, SILENCE, Next.RECONNECT_ON_AUDIO),
        (CLOSED, SPEECH, Next.RECONNECT),
        (CLOSED, SOUND, Next.RECONNECT),
        (replace(CLOSED, age=0.5), SILENCE, Next.RECONNECT_ON_AUDIO),
        (MUTE, SILENCE, APIConnectionError),
        (MUTE, SOUND, APIConnectionError),
        # The service has a limit for silence, or nobody has spoken yet.
        (UNASKED, SILENCE, Next.RECONNECT_ON_AUDIO),
        (failed(11, UNASKED), SILENCE, Next.RECONNECT_ON_AUDIO),
        (failed(14, UNASKED), SILENCE, APIStatusError),
        (UNASKED, SILENCE._replace(awaited=True), APIConnectionError),
        # Its limit struck when somebody had just begun to speak.
        (replace(UNASKED, unanswered=1.1), SOUND, Next.RECONNECT),
        (failed(4, replace(UNASKED, unanswered=1.1)), SOUND, Next.RECONNECT),
        (replace(UNASKED, unanswered=1.6), SOUND, APIConnectionError),
        (replace(UNASKED, unanswered=1.6), SILENCE, APIConnectionError),
        (replace(MUTE, age=11.0), SILENCE, Next.RECONNECT_ON_AUDIO),
        (replace(MUTE, age=11.0), SOUND, Next.RECONNECT),
        # A limit of the service struck at the onset of speech.
        (replace(MUTE, age=60.0, unanswered=0.4), SOUND, Next.RECONNECT),
        (replace(MUTE, age=60.0, unanswered=4.9), SOUND, Next.RECONNECT),
        # The service ignored speech.
        (replace(MUTE, age=60.0, unanswered=5.1), SOUND, APIConnectionError),
        (replace(MUTE, age=60.0, unanswered=5.1), SILENCE, Next.RECONNECT_ON_AUDIO),
        (replace(CLOSED, unanswered=14.0), SOUND, Next.RECONNECT),
        # The connection was opened before there was audio.
        (SHUT, SILENCE, Next.RECONNECT_ON_AUDIO),
        (replace(SHUT, age=0.1), SILENCE, Next.RECONNECT_ON_AUDIO),
        (replace(SHUT, reason=Reason.DRAIN_TIMEOUT), SILENCE, Next.RECONNECT_ON_AUDIO),
        # The caller changed the options.
        (CHANGED, SPEECH, Next.RECONNECT),
        (CHANGED, SILENCE, Next.RECONNECT),
        (replace(CHANGED, answered=False, age=0.1), SPEECH, Next.RECONNECT),
        (replace(CHANGED, end_sent=True), SPEECH, Next.RECONNECT),
        # The peer takes audio and does not answer, or takes none any more.
        (UNRESPONSIVE, SOUND, Next.RECONNECT),
        (replace(MUTE, reason=Reason.GONE, age=14.0, unanswered=13.0), SOUND, Next.RECONNECT),
        (replace(MUTE, reason=Reason.GONE, age=14.0), SILENCE, Next.RECONNECT_ON_AUDIO),
        (replace(MUTE, reason=Reason.GONE, unanswered=2.0), SOUND, Next.RECONNECT),
        (replace(UNRESPONSIVE, answered=False, age=16.0), SPEECH, Next.RECONNECT),
        # The end marker is out.
        (DRAINED, SILENCE, Next.DONE),
        (replace(DRAINED, answered=False), SILENCE, Next.DONE),
        (DRAINED, SPEECH, Next.RECONNECT),
        (DRAINED, SOUND, Next.RECONNECT),
        (replace(DRAINED, answered=False), SOUND, Next.RECONNECT),
        (replace(DRAINED, found_nothing=True), SOUND, Next.RECONNECT),
        (replace(DRAINED, found_nothing=True), SPEECH, Next.RECONNECT),
        (TIMED_OUT, SILENCE, Next.DONE),
        (TIMED_OUT, SOUND, Next.RECONNECT),
        (replace(TIMED_OUT, answered=False), SOUND, APITimeoutError),
        (replace(TIMED_OUT, answered=False), SILENCE, Next.DONE),
        # The end marker could not be sent any more.
        (replace(TIMED_OUT, end_sent=False), SOUND, Next.RECONNECT),
        # The service says what is wrong.
        (failed(14), SPEECH, APIStatusError),
        (failed(16, replace(MUTE, age=0.1)), SILENCE, APIStatusError),
        (failed(13, DRAINED), SILENCE, APIStatusError),
        # A key ran out while the connection waited for audio.
        (failed(16, replace(MUTE, age=20.0, idle=19.9)), SOUND, Next.RECONNECT),
        (failed(16, replace(MUTE, age=6.0, idle=5.5)), SOUND, Next.RECONNECT),
        (failed(16, replace(MUTE, age=6.0, idle=4.5)), SOUND, APIStatusError),
        (failed(16, replace(MUTE, age=90.0)), SOUND, APIStatusError),
        (failed(3, replace(MUTE, age=90.0, idle=89.0)), SOUND, APIStatusError),
        # A key is out of date.
        (failed(16), SPEECH, Next.RECONNECT),
        (failed(16), SILENCE, Next.RECONNECT_ON_AUDIO),
        (failed(16, DRAINED), SILENCE, Next.DONE),
        (failed(16, SHUT), SILENCE, APIStatusError),
    ],
)
def test_the_first_connection(
    ending: Ending, progress: Progress, expected: Next | type[APIError]
) -> None:
    outcome = Course().end(ending, progress)
    if isinstance(expected, Next):
        assert outcome is expected
    else:
        assert type(outcome) is expected


@pytest.mark.parametrize("code", sorted(ROTATION_CODES))
def test_a_limit_of_the_service_is_a_rotation(code: int) -> None:
    assert Course().end(failed(code), SPEECH) is Next.RECONNECT
    assert Course().end(failed(code), SILENCE) is Next.RECONNECT_ON_AUDIO
    assert Course().end(failed(code, replace(MUTE, age=11.0)), SPEECH) is Next.RECONNECT
    assert Course().end(failed(code, SHUT), SILENCE) is Next.RECONNECT_ON_AUDIO
    assert Course().end(failed(code, DRAINED), SILENCE) is Next.DONE
    assert Course().end(failed(code, DRAINED), SPEECH) is Next.RECONNECT


@pytest.mark.parametrize("code", sorted(ROTATION_CODES))
def test_a_limit_before_any_answer_is_a_failure(code: int) -> None:
    error = Course().end(failed(code, MUTE), SOUND)
    assert isinstance(error, APIStatusError)
    assert error.retryable


def test_the_key_is_taken_out_of_what_the_service_says() -> None:
    said = replace(MUTE, reason=ServiceError(16, 401, "lykill is no key"))
    assert "lykill" not in str(Course().end(said, SILENCE))


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (MUTE, "before it said anything"),
        (replace(MUTE, age=60.0, unanswered=9.0), "before it said anything"),
        (replace(TIMED_OUT, answered=False), "within 5 s of the end"),
        (failed(14), "UNAVAILABLE"),
    ],
)
def test_the_error_says_what_happened(ending: Ending, said: str) -> None:
    error = Course().end(ending, SOUND)
    assert isinstance(error, APIError)
    assert said in error.message
    assert error.retryable


# -- one after the other -------------------------------------------------------------------------


def test_three_connections_in_a_row_without_a_final_are_a_failure() -> None:
    """No poison loop: a fault can be tied to one stretch of audio."""
    course = Course()
    assert course.end(CLOSED, SPEECH, before=SPEECH) is Next.RECONNECT
    assert course.end(CLOSED, SPEECH) is Next.RECONNECT
    error = course.end(CLOSED, SPEECH)
    assert isinstance(error, APIConnectionError)
    assert "3 times in a row" in error.message


def test_what_may_be_speech_is_tried_once_more_at_once() -> None:
    course = Course()
    assert course.end(CLOSED, SOUND, before=SOUND) is Next.RECONNECT
    assert course.end(CLOSED, SOUND) is Next.RECONNECT_ON_AUDIO
    assert isinstance(course.end(CLOSED, SOUND), APIConnectionError)


def test_what_somebody_waits_for_does_not_wait_for_audio() -> None:
    """The microphone can be off until the answer is there."""
    course, awaited = Course(), SOUND._replace(awaited=True)
    assert course.end(CLOSED, awaited, before=SOUND) is Next.RECONNECT
    assert course.end(CLOSED, awaited) is Next.RECONNECT
    assert isinstance(course.end(CLOSED, awaited), APIConnectionError), "no poison loop"


def test_a_final_starts_the_count_over() -> None:
    course = Course()
    for finals in (0, 0, 1, 1, 1, 2, 2, 2):
        outcome = course.end(CLOSED, SPEECH._replace(finals=finals), before=None)
        assert outcome is Next.RECONNECT
    assert isinstance(course.end(CLOSED, course.progress), APIConnectionError)


def test_a_limit_in_quiet_that_is_left_out_is_no_failure() -> None:
    """It came before any answer, in a burst that took no time."""
    course = Course()
    ended = replace(MUTE, age=0.5, less_quiet=5.0)
    later = SOUND._replace(start=100)
    assert course.end(ended, later) is Next.RECONNECT
    assert course.end(replace(ended, end_sent=True), later) is Next.RECONNECT
    assert course.end(replace(ended, end_sent=True), later) is Next.RECONNECT
    assert isinstance(course.end(replace(ended, less_quiet=0.9), later), APIConnectionError)


def test_a_connection_that_gets_further_in_quiet_is_of_use() -> None:
    course = Course()
    for _ in range(9):
        assert course.end(replace(CLOSED, less_quiet=3.0), SOUND) is Next.RECONNECT
    for _ in range(3):
        last = course.end(replace(CLOSED, less_quiet=2.9), SOUND)
    assert isinstance(last, APIConnectionError)


@pytest.mark.parametrize(("further", "fails"), [(1.6, True), (1.7, False)])
def test_a_service_may_need_three_connections_to_hear_5_s_without_a_word(
    further: float, fails: bool
) -> None:
    course = Course()
    for number in range(1, 9):
        last = course.end(CLOSED, SOUND._replace(heard=further * number), before=SOUND)
        assert isinstance(last, APIConnectionError) == (fails and number == 3)
        if fails and number == 3:
            return


def test_nothing_in_quiet_that_is_left_out_says_nothing_about_what_follows() -> None:
    """A limit can have ended these connections. The next one is believed, as it is not sent it."""
    course = Course()
    nothing = replace(DRAINED, found_nothing=True)
    for _ in range(2):
        assert course.end(nothing, SOUND) is Next.RECONNECT
    assert course.end(replace(nothing, less_quiet=5.0), SOUND) is Next.RECONNECT
    assert course.end(nothing, SOUND) is Next.DONE
    course = Course()
    assert course.end(nothing, SOUND) is Next.RECONNECT
    assert course.end(replace(nothing, less_quiet=5.0), SOUND) is Next.RECONNECT
    assert course.end(nothing, SOUND) is Next.DONE, "three connections are enough"


def test_silence_is_no_reason_to_fail() -> None:
    course = Course()
    for hour in range(20):
        after = course.end(replace(CLOSED, age=60.0), SILENCE._replace(start=hour))
        assert after is Next.RECONNECT_ON_AUDIO


def test_music_is_no_reason_to_fail() -> None:
    """It may be speech, and the service says that it hears no words."""
    course = Course()
    for heard in range(0, 600, 60):
        outcome = course.end(replace(CLOSED, age=60.0), SOUND._replace(heard=heard + 60.0))
        assert outcome is Next.RECONNECT


@pytest.mark.parametrize(
    ("heard", "speaking"),
    [
        # A fault that is tied to one stretch of audio.
        ((3.0, 7.9, 12.8), False),
        ((20.0, 20.0, 20.0, 20.0), False),
        # A service that can not make a final of its hypotheses.
        ((20.0, 40.0, 60.0), True),
    ],
)
def test_a_service_that_gets_no_further_is_a_failure(
    heard: tuple[float, ...], speaking: bool
) -> None:
    course = Course()
    course.end(CLOSED, SOUND, before=SOUND)
    outcomes = [
        course.end(CLOSED, SOUND._replace(heard=seconds, speaking=speaking)) for seconds in heard
    ]
    assert isinstance(outcomes[-1], APIConnectionError)


def test_a_service_that_hangs_up_on_silence_is_not_proven_by_that() -> None:
    """How it behaves when somebody speaks is not known yet."""
    course = Course()
    assert course.end(UNASKED, SILENCE) is Next.RECONNECT_ON_AUDIO
    error = course.end(replace(UNASKED, unanswered=2.0), SOUND)
    assert isinstance(error, APIConnectionError) and "key" in error.message


def test_a_line_that_is_dead_time_after_time_is_a_failure() -> None:
    """And the service has not ended it."""
    course = Course()
    dead = replace(MUTE, reason=Reason.GONE, age=14.0, unanswered=13.0)
    assert course.end(dead, SOUND) is Next.RECONNECT
    assert course.recovery.patience.unresponsive_before == 0, "a service is waited for no longer"
    error = course.end(dead, SOUND)
    assert isinstance(error, APIConnectionError) and "ended" not in error.message


def test_a_key_that_is_refused_time_after_time_is_told_of() -> None:
    course = Course()
    assert course.end(failed(16), SPEECH, before=SPEECH) is Next.RECONNECT
    assert course.end(failed(16), SPEECH) is Next.RECONNECT
    error = course.end(failed(16), SPEECH)
    assert isinstance(error, APIStatusError)
    assert error.status_code == 401


def test_a_key_that_was_good_is_not_blamed() -> None:
    course = Course()
    first = course.end(MUTE, SOUND)
    assert "key" in str(first)
    course.end(CLOSED, SILENCE)
    later = course.end(MUTE, SOUND)
    assert isinstance(later, APIConnectionError)
    assert "before it said anything" in str(later)
    assert "key" not in str(later)


def test_short_connections_are_a_failure_whatever_they_say() -> None:
    course = Course()
    short = replace(CLOSED, age=0.9)
    assert course.end(short, SILENCE) is Next.RECONNECT_ON_AUDIO
    assert course.end(short, SILENCE) is Next.RECONNECT_ON_AUDIO
    assert isinstance(course.end(short, SILENCE), APIConnectionError)


def test_speech_that_began_on_the_connection_is_no_failure_of_it() -> None:
    """The audio that it began with was quiet, and is dropped."""
    course = Course()
    for start in range(10):
        assert course.end(CLOSED, SPEECH._replace(start=start + 1), before=SILENCE._replace(
            start=start
        )) is Next.RECONNECT  # fmt: skip


def test_the_second_unresponsive_connection_is_a_failure() -> None:
    course = Course()
    mute = replace(UNRESPONSIVE, answered=False, age=16.0)
    assert course.recovery.patience.unresponsive_before == 0
    assert course.end(mute, SOUND) is Next.RECONNECT
    assert course.recovery.patience.unresponsive_before == 1
    error = course.end(replace(mute, unanswered=31.0), SOUND)
    assert isinstance(error, APITimeoutError)
    assert "31 s" in error.message


def test_a_service_that_was_left_at_the_end_is_waited_for_longer() -> None:
    course = Course()
    mute = replace(TIMED_OUT, answered=False)
    for seconds in (5, 10, 20, 20):
        assert course.recovery.patience.drain_timeout == seconds
        error = course.end(mute, SOUND)
        assert isinstance(error, APITimeoutError)
        assert f"within {seconds} s" in error.message


def test_an_answer_makes_an_unresponsive_connection_the_first_one_again() -> None:
    course = Course()
    mute = replace(UNRESPONSIVE, answered=False, age=16.0)
    assert course.end(mute, SOUND) is Next.RECONNECT
    assert course.end(CLOSED, SILENCE) is Next.RECONNECT_ON_AUDIO
    assert course.recovery.patience.unresponsive_before == 0
    assert course.end(mute, SOUND) is Next.RECONNECT


def test_a_service_that_answers_once_and_then_no_more_is_a_failure_in_the_end() -> None:
    course = Course()
    for _ in range(2):
        assert course.end(UNRESPONSIVE, SOUND, before=SOUND) is Next.RECONNECT
    assert isinstance(course.end(UNRESPONSIVE, SOUND), APITimeoutError)


# -- after the end marker ------------------------------------------------------------------------


def test_what_is_left_after_the_end_is_sent_again_once() -> None:
    course = Course()
    assert not course.recovery.retried_after_drain
    assert course.end(DRAINED, SPEECH) is Next.RECONNECT
    assert course.recovery.retried_after_drain
    error = course.end(DRAINED, SPEECH)
    assert isinstance(error, APIConnectionError)
    assert "before its last final" in error.message


def test_what_is_left_is_sent_again_for_as_long_as_that_brings_finals() -> None:
    course = Course()
    for finals in range(8):
        said = SOUND._replace(finals=finals, start=finals * 8000)
        assert course.end(DRAINED, said) is Next.RECONNECT
    assert isinstance(course.end(DRAINED, said), APIConnectionError)


def test_finals_that_cover_nothing_do_not_come_for_ever() -> None:
    """Without times, in noise that is not learned yet, no audio can be dropped."""
    course = Course()
    assert course.end(DRAINED, SOUND._replace(finals=1)) is Next.RECONNECT
    assert course.end(DRAINED, SOUND._replace(finals=2)) is Next.DONE


def test_only_who_is_asked_for_nothing_else_can_say_that_there_is_nothing() -> None:
    """The first empty response may be the answer to an earlier pause."""
    nothing = replace(DRAINED, found_nothing=True)
    course = Course()
    assert course.end(nothing, SOUND) is Next.RECONNECT
    assert course.end(nothing, SOUND) is Next.RECONNECT
    assert course.end(nothing, SOUND) is Next.DONE


def test_an_open_hypothesis_is_not_nothing() -> None:
    """Two empty responses would have taken it back: while it is open, it may be a word."""
    nothing = replace(DRAINED, found_nothing=True)
    course = Course()
    assert course.end(DRAINED, SPEECH) is Next.RECONNECT
    assert course.end(nothing, SPEECH) is Next.RECONNECT
    assert course.end(nothing, SPEECH) is Next.RECONNECT
    assert isinstance(course.end(nothing, SPEECH), APIConnectionError)
    course = Course()
    assert course.end(DRAINED, SPEECH) is Next.RECONNECT
    stays = course.end(replace(TIMED_OUT, found_nothing=True), SPEECH)
    assert isinstance(stays, APITimeoutError), "it is waited for no longer"


def test_a_service_that_stays_says_nothing_or_too_little() -> None:
    course = Course()
    assert course.end(TIMED_OUT, SOUND) is Next.RECONNECT
    assert isinstance(course.end(TIMED_OUT, SOUND), APITimeoutError)
    course = Course()
    assert course.end(TIMED_OUT, SOUND) is Next.RECONNECT
    nothing = replace(TIMED_OUT, found_nothing=True)
    assert course.end(nothing, SOUND) is Next.RECONNECT
    assert course.end(nothing, SOUND) is Next.RECONNECT
    assert course.end(nothing, SOUND) is Next.DONE


def test_a_retry_that_says_no_more_is_the_last() -> None:
    course = Course()
    assert course.end(DRAINED, SOUND) is Next.RECONNECT
    assert course.end(replace(DRAINED, answered=False), SILENCE) is Next.DONE


# -- the framework's retries ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "covered"),
    [
        (BUDGET, True),
        (BUDGET._replace(retries=2), True),
        (BUDGET._replace(retries=3), False),
        (BUDGET._replace(retries=3, outlived=True), True),
        (BUDGET._replace(max_retry=0), False),
        (BUDGET._replace(max_retry=0, outlived=True), False),
    ],
)
def test_what_the_base_class_retries(budget: Budget, covered: bool) -> None:
    assert budget.covers(errors.dropped("early")) is covered
    assert not budget.covers(errors.from_handshake(401))


def test_a_failure_is_retried_as_often_as_the_base_class_counts() -> None:
    recovery = Recovery(Redactor("lykill"))
    retried = [
        recovery.after_failure(errors.dropped("early"), SOUND, BUDGET._replace(retries=retries))
        for retries in range(4)
    ]
    assert retried == [True, True, True, False]


def test_slow_failures_have_an_end_although_the_base_class_starts_over() -> None:
    recovery = Recovery(Redactor("lykill"))
    outlived = BUDGET._replace(outlived=True)
    faults: list[APIError] = [errors.dropped("early") for _ in range(4)]
    assert [recovery.after_failure(fault, SOUND, outlived) for fault in faults] == [
        True,
        True,
        True,
        False,
    ]
    assert [fault.retryable for fault in faults] == [True, True, True, False]


@pytest.mark.parametrize("progress", [SILENCE, SOUND._replace(finals=1)])
def test_progress_starts_the_count_of_failures_over(progress: Progress) -> None:
    recovery = Recovery(Redactor("lykill"))
    outlived = BUDGET._replace(outlived=True)
    for _ in range(3):
        assert recovery.after_failure(errors.dropped("early"), SOUND, outlived)
    assert recovery.after_failure(errors.dropped("early"), progress, outlived)


@pytest.mark.parametrize(
    ("failure", "budget", "may"),
    [
        (errors.unreachable("host", "refused"), BUDGET, True),
        (errors.from_handshake(503), BUDGET, True),
        (errors.from_handshake(429), BUDGET, False),
        (errors.from_handshake(401), BUDGET, False),
        (errors.unreachable("host", "refused"), BUDGET._replace(max_retry=1), False),
    ],
)
def test_a_handshake_is_tried_again_in_a_call_that_is_under_way(
    failure: APIError, budget: Budget, may: bool
) -> None:
    course = Course()
    assert not course.recovery.may_redial(failure, budget)
    course.end(SHUT, SILENCE)
    assert not course.recovery.may_redial(failure, budget), "it is not proven yet"
    course.end(CLOSED, SILENCE)
    assert course.recovery.may_redial(failure, budget) is may
