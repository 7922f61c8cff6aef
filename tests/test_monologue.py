"""Where speech that is sent at once is cut, before the service does it in the middle of a word."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.monologue import Monologue
from livekit.plugins.tiro.testing.faults import Combined

from .support import virtual
from .support.caller import RATE, Caller, noise, quiet, tone
from .support.numbered import Talk, in_one_breath
from .support.trial import Outcome, hear
from .support.trouble import Latency, Outage, Pace

STEP = RATE * 2 // 5
"""How many samples are sent between two looks for a cut."""


def cuts(*audio: bytes, start: float = 0.0, finals: tuple[float, ...] = ()) -> list[float]:
    """Return the seconds at which audio, all of it pushed at once, is cut as it is sent.

    Args:
        audio: What is sent.
        start: The second from which the connection is fed.
        finals: The seconds up to which finals cover the audio; each comes when 1 s more was sent.
    """
    backlog = Backlog()
    # A connection opens before there is audio, whose rate is not known then.
    monologue = Monologue(backlog, round(start * RATE))
    backlog.push(b"".join(audio), RATE)
    found: list[float] = []
    for sent_to in range(round(start * RATE), backlog.end, STEP):
        for final in finals:
            if sent_to > (final + 1) * RATE:
                backlog.finalize(0, round(final * RATE))
        breath = monologue.plan(sent_to)
        if breath is not None:
            assert breath >= sent_to, "silence can not be sent before audio that is sent already"
            assert breath in backlog.flushes, "a new connection is sent it too"
            monologue.decided(breath)
            found.append(breath / RATE)
    return found


def sentences(*seconds: float, breath: float = 0.3) -> bytes:
    return b"".join(tone(each) + noise(breath, 30) for each in seconds)


def test_a_monologue_is_cut_in_the_middle_of_a_breath() -> None:
    assert cuts(sentences(13.0, 5.0, 2.0)) == [pytest.approx(13.15, abs=0.02)]


def test_the_longest_breath_is_taken_that_comes_in_time() -> None:
    audio = tone(9.0) + quiet(0.25) + tone(3.0) + quiet(0.45) + tone(3.0) + quiet(0.8) + tone(5)
    longest = 9.0 + 0.25 + 3.0 + 0.45 + 3.0
    assert cuts(audio)[0] == pytest.approx(longest + 0.4, abs=0.02)
    assert cuts(tone(1), audio)[0] == pytest.approx(1.0 + longest - 3.0 - 0.225, abs=0.02)


def test_a_late_breath_is_better_than_none() -> None:
    assert cuts(sentences(17.5, 5.0, 2.0)) == [pytest.approx(17.65, abs=0.02)]
    assert cuts(sentences(19.1, 5.0)) == []


def test_soft_words_are_no_breath() -> None:
    soft = tone(1.5, 200)
    audio = sentences(3.0, 3.0) + tone(3.0) + soft + tone(1.0) + noise(0.3, 30) + tone(6.0)
    assert cuts(audio)[0] == pytest.approx(6.6 + 3.0 + 1.5 + 1.0 + 0.15, abs=0.02)


def test_where_noise_is_never_silent_a_breath_is_the_quietest_there_is() -> None:
    """Silence suppression has made the line silent once, so the floor is below the noise."""
    audio = quiet(1) + tone(9.0) + noise(0.3, 60) + tone(8.0)
    assert cuts(audio) == [pytest.approx(10.15, abs=0.02)]


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_a_second_is_one_at_any_rate(rate: int) -> None:
    backlog = Backlog()
    feed = Feed(backlog, Clock(), 0.0)
    audio = [tone(9.0, rate=rate), noise(0.3, 30, rate), tone(10.0, rate=rate)]
    backlog.push(b"".join(audio), rate)
    while feed.next_chunk(0.0) is not None:
        pass
    assert [mark / rate for mark in backlog.flushes] == [pytest.approx(9.15, abs=0.02)]


def test_a_final_without_times_of_a_service_that_is_behind_decides_on_nothing() -> None:
    caller = Caller()
    caller.push(sentences(5.0, 5.0, 5.0, 5.0), waits=False)
    caller.send(60)
    caller.final_without_times()
    caller.send()
    assert caller.backlog.flushes == [pytest.approx(10.45 * RATE, abs=0.02 * RATE)]


def test_each_stretch_is_cut_again() -> None:
    found = cuts(sentences(*[4.0] * 12))
    assert len(found) == 5
    assert all(8 < later - earlier < 16.5 for earlier, later in pairwise([0.0, *found]))


def test_what_is_short_is_left_to_the_service() -> None:
    assert cuts(sentences(4.0, 4.0, 3.0), quiet(2)) == []


def test_what_has_no_breath_is_left_to_the_service() -> None:
    assert cuts(tone(30), quiet(0.1), tone(10)) == []
    assert cuts(tone(60)) == []


def test_noise_in_which_no_breath_can_be_told_is_left_to_the_service() -> None:
    audio = b"".join(tone(4.0, 3000) + noise(0.3, 1500) for _ in range(10))
    assert cuts(audio) == []


def test_silence_is_not_cut() -> None:
    assert cuts(quiet(60)) == []
    assert cuts(noise(1, 30), quiet(5), tone(2), quiet(40), tone(2), quiet(20)) == []


def test_a_stretch_begins_with_its_first_sound() -> None:
    """Neither the silence before that sound counts, nor any audio before the silence."""
    for before in (quiet(11), tone(6) + quiet(5), tone(9) + quiet(3)):
        assert cuts(before, sentences(*[3.0] * 3), quiet(5)) == []


def test_a_final_begins_another_stretch() -> None:
    audio = sentences(*[2.0] * 9)
    assert len(cuts(audio)) == 1
    assert cuts(audio, finals=(6.9, 13.8)) == []


def test_where_silence_is_sent_anyway_there_is_no_other() -> None:
    backlog = Backlog()
    backlog.push(sentences(13.0, 4.0, 3.0), RATE)
    backlog.plan_flush(14 * RATE)
    assert Monologue(backlog, 0).plan(round(12.5 * RATE)) is None


def test_silence_that_may_come_too_late_is_no_plan() -> None:
    """Such as at the end of a file."""
    backlog = Backlog()
    backlog.push(sentences(4.0, 4.0, 4.0, 5.5), RATE)
    backlog.plan_flush(backlog.end)
    assert backlog.end == round(18.7 * RATE)
    assert Monologue(backlog, 0).plan(9 * RATE) == pytest.approx(12.75 * RATE, abs=0.02 * RATE)


def test_silence_that_is_about_to_be_sent_is_planned() -> None:
    backlog = Backlog()
    backlog.push(sentences(*[4.0] * 5), RATE)
    monologue = Monologue(backlog, 0)
    mark = monologue.plan(9 * RATE)
    assert mark is not None
    assert monologue.plan(mark) is None


def test_silence_that_was_not_sent_again_is_no_decision() -> None:
    """A new connection is fed from just before it, where there was nothing to decide."""
    backlog = Backlog()
    backlog.push(sentences(1.0, 13.0, 4.0), RATE)
    backlog.plan_flush(round(1.1 * RATE))
    monologue = Monologue(backlog, round(0.98 * RATE))
    assert monologue.plan(14 * RATE) == pytest.approx(14.45 * RATE, abs=0.02 * RATE)


def test_a_caller_who_talks_live_is_left_to_who_listens() -> None:
    """There is no audio to look ahead at yet."""
    backlog = Backlog()
    monologue = Monologue(backlog, 0)
    audio = sentences(13.0, 5.0, 2.0)
    for at in range(0, len(audio), 2 * RATE // 20):
        backlog.push(audio[at : at + 2 * RATE // 20], RATE)
        assert monologue.plan(backlog.end) is None


def test_what_is_planned_is_sent_and_sent_again() -> None:
    """A new connection is fed the same way."""
    caller = Caller()
    caller.push(sentences(13.0, 4.0), waits=False)
    caller.send()
    (breath,) = caller.backlog.flushes
    assert breath / RATE == pytest.approx(13.15, abs=0.02)
    first = caller.feed.locate(13.15 + 1.0), caller.feed.locate(13.15 + 2.6)
    assert first[0] == breath < first[1], "2.5 s of silence follow it"
    caller.reconnect()
    caller.send()
    assert caller.backlog.flushes == [breath]
    assert caller.feed.locate(13.15 + 1.0) == breath


def test_an_empty_response_decides_on_what_a_service_that_keeps_up_was_sent() -> None:
    """Such as about music before somebody speaks. In a file it may be about the start only."""
    caller = Caller()
    caller.say(sentences(1.0, 1.0))
    caller.now += 1.0
    caller.feed.found_nothing(caller.now)
    assert caller.feed.undecided_from == caller.feed.sent_to
    caller = Caller()
    caller.push(sentences(3.0, 3.0, 3.0), waits=False)
    caller.send()
    caller.feed.found_nothing(caller.now)
    assert caller.feed.undecided_from < RATE


def test_for_a_pause_that_can_not_be_there_yet_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caller = Caller()
    caller.say(sentences(1.0, 1.0))
    with monkeypatch.context() as patched:
        patched.setattr(caller.backlog.loudness, "measure", None)
        caller.backlog.push(tone(0.05), RATE)
        assert Monologue(caller.backlog, RATE).since(2 * RATE) == RATE


def unbroken(seed: int) -> Talk:
    """Return a talk of some 30 s, with no pause but for breaths."""
    words, end = in_one_breath(Random(seed), 10, 9)
    return Talk(tuple(words), end + 20)


@pytest.mark.many
@pytest.mark.parametrize(("seed", "noise"), [(0, 0), (1, 1), (2, 0)])
def test_no_word_of_a_file_is_cut_in_two(seed: int, noise: int) -> None:
    """Nor is the first word after a breath cut, where digital silence has closed the voice gate."""
    said = replace(unbroken(seed), noise=noise)
    assert said.seconds > 20
    outcome: Outcome = virtual.run(hear(said))
    assert outcome.is_exact, outcome


@pytest.mark.many
def test_no_word_of_a_call_is_cut_in_two_while_the_service_is_behind() -> None:
    """It works at the pace of speech, and an outage has put it behind for good."""
    hooks = Combined(Outage(3.0, 6.5), Pace(1.0))
    outcome: Outcome = virtual.run(hear(unbroken(1), hooks, live=True))
    assert outcome.is_exact, outcome


@pytest.mark.parametrize("late", [0.0, 0.2])
def test_no_word_of_a_call_is_cut_in_two(late: float) -> None:
    """The final of the breath may be on its way when the next word is said."""
    said = replace(unbroken(5), noise=0)
    outcome: Outcome = virtual.run(hear(said, Latency(late), live=True))
    assert outcome.is_exact, outcome
