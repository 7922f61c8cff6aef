"""Where a new connection begins, and where it is sent silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.endpointer import EMPTY_SEGMENT, FLUSH_SILENCE
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.replay import (
    due_silence,
    first_to_send,
    long_quiet,
    plan_replay,
    wordless_segments,
)
from livekit.plugins.tiro.testing.faults import (
    Combined,
    Disconnect,
    PerConnection,
    StalledHandshake,
)

from .support import virtual
from .support.caller import RATE, Caller, noise, quiet, samples, silence_of, tone
from .support.harness import FINAL
from .support.numbered import Spoken, Talk
from .support.trial import hear
from .support.trouble import Pace


@pytest.fixture
def caller() -> Caller:
    return Caller()


def test_a_new_connection_gets_silence_where_the_caller_paused(caller: Caller) -> None:
    """What is said on either side of a mute is not one utterance."""
    caller.say(1.0)
    caller.now += 5.0
    caller.say(1.2)
    assert caller.reconnect() == 0
    sent = samples(b"".join(caller.send()))
    assert not sent[RATE : round((1 + FLUSH_SILENCE) * RATE)].any()
    assert np.count_nonzero(sent) == 2.2 * RATE


def test_a_new_connection_cuts_no_word_whose_rest_is_late(caller: Caller) -> None:
    """The connection is opened while the caller's audio catches up."""
    caller.say(1.0)
    caller.now += 1.6
    for _ in range(6):
        caller.now += 0.01
        caller.push(0.05, waits=False)
    assert caller.clock.pauses_after(0) == pytest.approx([1.0])
    assert caller.reconnect() == 0
    sent = caller.send()
    assert (len(b"".join(sent)), silence_of(sent)) == (2 * 1.3 * RATE, 0)


@pytest.mark.parametrize("late", [1.8, 2.2, 2.6])
def test_a_connection_that_comes_back_cuts_no_word_whose_rest_is_late(late: float) -> None:
    """What stops the caller's audio can end the connection, too."""
    bounds = [(120, 150), (150, 195), (195, 225)]
    words = tuple(Spoken(f"w{n}", *at, softer=1 if n != 1 else 15) for n, at in enumerate(bounds))
    outage = PerConnection(Disconnect(1.4), StalledHandshake(1.4))
    said = Talk(words, 325, noise=100)
    outcome = virtual.run(hear(said, outage, live=True, late={1.7: late}, ms=20))
    assert outcome.heard == said.texts


@pytest.mark.parametrize("before", [True, False])
def test_a_mute_beside_quiet_is_one_at_once(caller: Caller, before: bool) -> None:
    """It is not known yet whether the audio after it is late, but there is no word to cut."""
    parts = (tone(0.8), quiet(0.2)) if before else (tone(1.0),)
    for part in parts:
        caller.say(part)
    caller.now += 5.0
    caller.say(tone(0.2) if before else quiet(0.2))
    assert caller.reconnect() == 0
    assert silence_of(caller.send()) >= FLUSH_SILENCE


def test_a_flush_is_made_again_on_a_new_connection(caller: Caller) -> None:
    caller.push(0.5)
    caller.feed.flush()
    caller.send()
    caller.push(0.5)
    caller.send()
    caller.reconnect()
    sent = samples(b"".join(caller.send()))
    assert FLUSH_SILENCE <= np.count_nonzero(sent == 0) / RATE < FLUSH_SILENCE + 0.3
    assert not sent[8000 : 8000 + round(FLUSH_SILENCE * RATE)].any()


def test_silence_that_was_cut_off_is_made_again_in_its_place(caller: Caller) -> None:
    caller.push(0.5)
    caller.feed.flush()
    caller.send(limit=12)
    caller.reconnect()
    sent = samples(b"".join(caller.send()))
    assert all(sent[:8000])
    # As nothing is said after it: long enough for a segment without words, too.
    assert EMPTY_SEGMENT + 0.5 <= np.count_nonzero(sent == 0) / RATE < EMPTY_SEGMENT + 1.0


def test_a_flush_that_no_connection_got_is_made_though_all_is_quiet(caller: Caller) -> None:
    caller.push(quiet(0.5))
    caller.backlog.flush()
    caller.reconnect()
    assert silence_of(caller.send()) >= 0.5 + FLUSH_SILENCE


def test_a_flush_of_quiet_audio_is_not_made_again(caller: Caller) -> None:
    caller.push(quiet(0.5))
    caller.feed.flush()
    caller.send()
    caller.reconnect()
    assert silence_of(caller.send()) == 0.5


def test_a_flush_is_made_again_while_a_hypothesis_is_open(caller: Caller) -> None:
    """Though all the audio is final, and none is left: the hypothesis has to be concluded."""
    caller.push(0.5)
    caller.feed.flush()
    caller.send()
    caller.final(0, 0.5)
    caller.backlog.set_speaking(True)
    assert caller.reconnect() == 0.5
    assert silence_of(caller.send()) >= FLUSH_SILENCE


def test_a_flush_of_an_earlier_sentence_is_not_made_again_in_this_one(caller: Caller) -> None:
    """The current sentence comes after it: silence before that would only delay the service."""
    caller.say(tone(0.5) + quiet(0.5))
    caller.feed.flush()
    caller.send()
    caller.final(0, 0.5)
    caller.say(quiet(1.0) + tone(1.0))
    caller.backlog.set_speaking(True)
    caller.reconnect()
    assert silence_of(caller.send()) < 2.0


@pytest.mark.parametrize(("gap", "is_made"), [(0.5, True), (1.0, True), (1.8, False), (2.5, False)])
def test_what_is_left_of_a_final_is_flushed_if_words_follow_soon(
    caller: Caller, gap: float, is_made: bool
) -> None:
    """The service hears the rest, and its endpointer would decide at the onset of the next word."""
    caller.say(tone(0.5) + quiet(0.3))
    caller.feed.flush()
    caller.send()
    caller.final(0, 0.44)
    caller.say(quiet(gap - 0.3) + tone(1.0))
    caller.backlog.set_speaking(True)
    assert caller.reconnect() == 0.44
    assert (silence_of(caller.send()) > gap + 1.0) == is_made


def test_a_flush_after_what_is_final_is_not_made_again(caller: Caller) -> None:
    caller.push(0.5)
    caller.feed.flush()
    caller.push(0.5)
    caller.send()
    caller.final(0, 0.5 + FLUSH_SILENCE + 0.2)
    caller.backlog.set_speaking(True)
    caller.reconnect()
    assert all(samples(b"".join(caller.send())))


def test_a_flush_marks_the_end_for_the_next_connection_too(caller: Caller) -> None:
    """Nothing was said since the last flush, so the flush sends nothing on this connection."""
    caller.push(0.5)
    caller.feed.flush()
    caller.send()
    caller.push(quiet(0.03))
    caller.feed.flush()
    assert caller.send() == []
    caller.reconnect()
    sent = b"".join(caller.send())
    assert len(sent) / 2 / RATE >= 0.53 + FLUSH_SILENCE


def begin(caller: Caller) -> int:
    """Return where a connection begins that follows one whose service kept up."""
    caller.backlog.note_answerable(caller.feed.sent_to)
    return first_to_send(caller.backlog, caller.clock)


def test_it_begins_before_the_mute_if_what_is_soft_there_is_a_hypothesis(caller: Caller) -> None:
    """The next final would cover it, though the service of the new connection never heard it."""
    caller.say(noise(4.0, 100))
    soft = noise(0.8, 250)
    caller.say(soft)
    caller.now += 1.4
    caller.say(noise(0.4, 100))
    start = caller.backlog.start
    muted = round(4.8 * RATE)
    assert begin(caller) == muted
    caller.backlog.set_speaking(True, 4 * RATE)
    assert begin(caller) == start < 4 * RATE
    caller.say(tone(0.4))
    assert begin(caller) == start, "whatever is said after it"
    caller.backlog.set_speaking(True)
    assert begin(caller) == start, "it can be"
    caller.backlog.set_speaking(True, muted - RATE // 20)
    assert begin(caller) == muted, "it is about what is said now"


def test_what_fills_no_message_before_the_mute_needs_no_answer(caller: Caller) -> None:
    caller.say(noise(4.0, 100))
    for _ in range(3):
        caller.push(noise(0.01, 100))
        caller.send()
    assert caller.feed.sent_to < caller.backlog.end
    muted = caller.backlog.end
    caller.now += 1.4
    caller.push(tone(0.5))
    assert begin(caller) == muted


def test_a_flush_and_a_mute_with_quiet_between_them_need_silence_once(caller: Caller) -> None:
    """Somebody waits for the answer to the flush, though there is nothing to decide."""
    caller.say(quiet(1.0))
    caller.push(quiet(0.5))
    caller.backlog.flush()
    caller.push(quiet(0.3))
    muted = caller.backlog.end
    caller.now += 1.4
    caller.push(quiet(0.3))
    assert due_silence(caller.backlog, caller.clock, 0) == {muted: FLUSH_SILENCE}


@pytest.mark.parametrize("sent", [0.0, 0.9])
def test_it_begins_before_the_mute_if_no_service_had_the_time_to_hear_it(
    caller: Caller, sent: float
) -> None:
    """A word can be too soft to count as a sound."""
    caller.say(noise(4.0, 100))
    caller.push(noise(0.8, 250))
    if sent:
        caller.send()
        caller.now += sent
        assert caller.reconnect() < 4
    caller.now += 3.0
    caller.push(tone(0.5))
    assert first_to_send(caller.backlog, caller.clock) < 4 * RATE


@pytest.mark.many
def test_the_mute_that_it_begins_after_needs_no_silence() -> None:
    """However the position of the mute is rounded."""
    for frames in range(20, 120):
        caller = Caller()
        for _ in range(frames):
            caller.push(quiet(0.05))
            caller.send()
        caller.now += 5.0
        caller.push(tone(1.0))
        start = begin(caller)
        assert start == round(frames * 0.05 * RATE)
        assert due_silence(caller.backlog, caller.clock, start) == {}


@pytest.mark.parametrize("gaps", [1, 2, 5])
def test_it_begins_after_the_last_of_several_mutes(caller: Caller, gaps: int) -> None:
    """As of a gated microphone, or a tapped button; a hypothesis is about the words after them."""
    caller.say(noise(4.0, 100))
    for _ in range(gaps):
        caller.now += 1.4
        caller.say(noise(0.3, 100))
    caller.say(tone(0.5))
    last = round((4.0 + 0.3 * (gaps - 1)) * RATE)
    caller.backlog.set_speaking(True, last + round(0.3 * RATE))
    start = begin(caller)
    assert start == last
    assert due_silence(caller.backlog, caller.clock, start) == {}


def test_mutes_with_quiet_between_them_need_silence_once(caller: Caller) -> None:
    caller.say(noise(4.0, 100))
    caller.say(tone(0.5))
    for _ in range(3):
        caller.now += 1.4
        caller.say(noise(0.3, 100))
    caller.say(tone(0.5))
    start = begin(caller)
    assert list(due_silence(caller.backlog, caller.clock, start)) == [round(5.1 * RATE)]


def test_so_they_do_though_noise_ends_within_a_frame(caller: Caller) -> None:
    caller.say(noise(2.15, 100))
    for _ in range(2):
        caller.now += 1.4
        caller.say(quiet(0.3))
    caller.say(tone(0.5))
    assert list(due_silence(caller.backlog, caller.clock, 0)) == [round(2.45 * RATE)]


def test_the_end_of_a_final_word_is_no_cough(caller: Caller) -> None:
    """It ends within a frame, and there is nothing but quiet between it and the mute."""
    caller.say(noise(2.0, 100) + tone(0.55))
    caller.final(2.0, 2.55)
    caller.say(quiet(0.75))
    caller.now += 1.4
    caller.say(quiet(0.3))
    assert due_silence(caller.backlog, caller.clock, caller.backlog.start) == {}
    caller.backlog.set_speaking(True)
    found = due_silence(caller.backlog, caller.clock, caller.backlog.start)
    assert found == {round(3.3 * RATE): FLUSH_SILENCE}


@pytest.mark.parametrize(("before", "after", "is_needed"), [(1.2, 1.2, True), (1.3, 1.3, False)])
def test_where_the_quiet_is_long_no_silence_is_needed(
    caller: Caller, before: float, after: float, is_needed: bool
) -> None:
    """It would make 5 s of quiet, after which the service can decide at the onset of a word."""
    caller.say(noise(4.0, 100))
    caller.say(tone(0.5) + noise(before, 100))
    caller.now += 2.0
    caller.say(noise(after, 100) + tone(0.5))
    start = begin(caller)
    mute = round((4.5 + before) * RATE)
    assert list(due_silence(caller.backlog, caller.clock, start)) == ([mute] if is_needed else [])


@pytest.mark.parametrize("change", [False, True])
def test_a_word_after_a_mute_is_whole_if_the_connection_changes_in_it(change: bool) -> None:
    bounds = [(50, 85), (85, 120), (411, 441), (441, 471), (471, 501), (501, 531)]
    said = Talk(tuple(Spoken(f"w{n}", *at) for n, at in enumerate(bounds)), 631, 12000, 100)
    fault = None if change else PerConnection(Disconnect(4.66))
    changes = [4.66] if change else []
    outcome = virtual.run(hear(said, fault, live=True, pauses={3.35: 3.0}, changes=changes))
    assert outcome.heard == said.texts


def test_a_slow_service_is_not_put_behind_by_gaps() -> None:
    bounds = [(50, 85), (85, 120)] + [(360 + 30 * n, 390 + 30 * n) for n in range(8)]
    said = Talk(tuple(Spoken(f"w{n}", *at) for n, at in enumerate(bounds)), 700, 12000, 100)
    gaps = {round(2.0 + 0.3 * n, 2): 1.3 for n in range(5)}
    faults = Combined(PerConnection(Disconnect(4.2)), Pace(1.0))
    outcome = virtual.run(hear(said, faults, live=True, pauses=gaps))
    assert outcome.heard == said.texts
    ended = outcome.began + sum(gaps.values()) + bounds[-1][1] / 100
    finals = [
        at for at, event in zip(outcome.arrived, outcome.events, strict=True) if event.type is FINAL
    ]
    assert finals[-1] - ended < 5


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("length", [0.01, 0.04])
def test_the_onset_of_a_word_before_a_pause_is_sent(
    caller: Caller, length: float, final: bool
) -> None:
    """It is too short to be a word, but the word goes on after the pause."""
    if final:
        caller.say(tone(0.5))
    caller.say(noise(3.0, 100))
    if final:
        caller.final(0, 0.5)
    onset = caller.backlog.end
    caller.push(tone(length))
    caller.now += 1.4
    caller.say(tone(0.3))
    assert first_to_send(caller.backlog, caller.clock) < onset


def test_the_rest_of_a_final_word_before_a_pause_is_not_sent(caller: Caller) -> None:
    caller.say(noise(3.0, 100) + tone(0.56))
    caller.final(3.0, 3.5)
    caller.now += 1.4
    caller.say(noise(0.4, 100) + tone(0.3))
    assert first_to_send(caller.backlog, caller.clock) == round(3.56 * RATE)


def words_around(gap: float) -> tuple[Spoken, ...]:
    """Return a word, and two more that begin so many seconds of audio after its end."""
    first = 380 + round(gap * 100)
    bounds = [(350, 380), (first, first + 30), (first + 30, first + 60)]
    return tuple(Spoken(f"w{n}", *at) for n, at in enumerate(bounds))


COUGHS = [(0, 2.0), (0, 2.4), (100, 1.35), (100, 2.4), (600, 1.2)]
"""The noise, and the seconds of audio from a cough to the next word."""


@pytest.mark.many
@pytest.mark.parametrize(
    ("noise", "gap", "moment"),
    [
        *((noise, gap, moment) for noise, gap in COUGHS[::2] for moment in (-0.6, 1.0)),
        *((noise, gap, 0.2) for noise, gap in COUGHS[1::2]),
    ],
)
def test_a_word_after_a_cough_and_a_mute_is_whole(noise: int, gap: float, moment: float) -> None:
    """The service, which heard no word in the cough, would give up just as the word begins."""
    cough, words = (510, 518), words_around(1.38 + gap)
    said = Talk(words, words[1].first + 160, 12000, noise, hums=(cough,))
    fault = PerConnection(Disconnect(words[1].start + moment))
    outcome = virtual.run(hear(said, fault, live=True, pauses={5.5: 1.5}, takes_back=True))
    assert outcome.heard == said.texts


@pytest.mark.parametrize("moment", [9.1, 9.4])
def test_a_flush_after_the_mute_takes_nothing_of_its_silence(moment: float) -> None:
    """As that of a VAD, which tells the end of the cough after the mute."""
    words = (*words_around(2.5), Spoken("w3", 690, 720))
    said = Talk(words, 880, 12000, 100, hums=((500, 508),))
    fault, flush = PerConnection(Disconnect(moment)), {5.53: 1}
    outcome = virtual.run(
        hear(said, fault, live=True, pauses={5.3: 1.5}, flushes=flush, takes_back=True, ms=10)
    )
    assert outcome.heard == said.texts


@pytest.mark.parametrize("pause", [2.14, 2.15])
def test_noise_that_ends_within_a_frame_is_not_the_next_word(caller: Caller, pause: float) -> None:
    """Loudness is measured in frames of 20 ms, and one has some of the noise before the mute."""
    caller.say(noise(pause, 300))
    caller.now += 3.7
    caller.say(quiet(4.12 - pause) + tone(0.8))
    silence = due_silence(caller.backlog, caller.clock, round(1.2 * RATE))
    assert silence == pytest.approx({round(pause * RATE): 5.7 - (4.12 - pause)}, abs=0.03)


@pytest.mark.parametrize("gap", [2.5, 2.7, 2.9])
def test_a_word_after_noise_that_ended_in_a_mute_is_whole(gap: float) -> None:
    """The noise stands out from what came after it, and the service heard no word in it."""
    words = words_around(gap)
    said = Talk(words, words[1].first + 160, 12000, 300, noisy_to=470)
    fault = PerConnection(Disconnect(words[1].start + 0.2))
    outcome = virtual.run(hear(said, fault, live=True, pauses={4.7: 1.5}))
    assert outcome.heard == said.texts


@pytest.mark.many
@pytest.mark.parametrize("cough", [0.2, 1.0, 1.6])
def test_no_segment_without_words_ends_at_the_onset_of_a_word(cough: float) -> None:
    """Wherever it began in the audio before the pause: noise opens the gate, too."""
    for word in (n / 5 for n in range(2, 30)):
        caller = Caller()
        caller.say(quiet(cough) + tone(0.1) + quiet(1.8 - cough))
        caller.now += 1.5
        caller.say(quiet(word) + tone(0.3))
        silence = sum(due_silence(caller.backlog, caller.clock, 0).values())
        onset = 1.9 + silence + word
        for began in np.linspace(0.0, 1.9, 39):
            end = began + EMPTY_SEGMENT
            assert not onset - 0.65 < end < onset + 0.3, f"{word}: from {began} on"


# -- long quiet ----------------------------------------------------------------------------------


def quiet_in(*audio: bytes, answerable: float = 0.0, vain: float = 0.0) -> list[Any]:
    """Return the seconds between which long quiet is left out."""
    backlog = kept(*audio)
    backlog.note_answerable(round(answerable * RATE))
    backlog.note_wordless(round(vain * RATE))
    found = long_quiet(backlog, 0)
    return [pytest.approx((first / RATE, last / RATE), abs=0.05) for first, last in found]


def kept(*audio: bytes) -> Backlog:
    """Return audio in noise of a peak of 100, which is known."""
    backlog = Backlog()
    backlog.push(b"".join(audio), RATE)
    backlog.sent_to = backlog.end
    backlog.loudness._set_floor(100.0)
    return backlog


HISS = noise(10.0, 100)
COUGH = tone(0.3)


def test_quiet_that_a_service_had_the_time_to_answer_is_left_out() -> None:
    assert quiet_in(HISS, answerable=9.0) == [(0, 8.0)]
    assert quiet_in(HISS, answerable=0.0) == []
    assert quiet_in(HISS, answerable=3.9) == [], "it is short"


@pytest.mark.parametrize("cough", [0.1, 0.3, 3.0])
def test_after_a_sound_enough_of_it_is_sent_for_the_end_of_any_segment(cough: float) -> None:
    """So that no segment without words ends at the onset of the next sound."""
    last = quiet_in(tone(cough), HISS, answerable=cough + 9.0)
    assert last == [(cough + EMPTY_SEGMENT - 0.3, cough + 8.0)]
    between = quiet_in(tone(cough), HISS, tone(1.0), answerable=cough + 11.0)
    assert between == [(cough + EMPTY_SEGMENT - 0.3, cough + 9.0)]
    least = quiet_in(tone(cough), HISS, answerable=cough + 6.8)
    assert least == [(cough + EMPTY_SEGMENT - 0.3, cough + 5.8)]
    assert quiet_in(tone(cough), HISS, answerable=cough + 6.6) == [], "it is not worth while"


def test_clicks_are_quiet_and_coughs_are_not() -> None:
    clicked = (noise(3.0, 100), tone(0.04), noise(3.0, 100))
    assert quiet_in(*clicked, answerable=6.0) == [(0, 5.0)]
    assert quiet_in(noise(3.0, 100), COUGH, noise(3.0, 100), answerable=6.0) == []


def test_a_sound_that_goes_on_is_one() -> None:
    assert quiet_in(HISS, tone(2.0), answerable=12.0) == [(0, 9.0)]


def test_quiet_that_a_hypothesis_can_be_about_is_sent() -> None:
    backlog = kept(HISS, HISS)
    backlog.note_answerable(19 * RATE)
    backlog.set_speaking(True)
    assert long_quiet(backlog, 0) == [], "the service does not say where it starts"
    backlog.set_speaking(True, 12 * RATE)
    assert long_quiet(backlog, 0) == [(0, 11 * RATE)]


@pytest.mark.parametrize("evidence", ["answerable", "vain"])
def test_each_long_quiet_is_left_out(evidence: str) -> None:
    audio = (HISS, tone(1.0), HISS, tone(1.0))
    assert quiet_in(*audio, **{evidence: 22.0}) == [(0, 9.0), (15.7, 20.0)]


@pytest.mark.parametrize("evidence", ["answerable", "vain"])
@pytest.mark.parametrize(("peak", "left_out"), [(150, True), (250, False)])
def test_it_is_not_left_out_if_it_can_hold_soft_words(
    peak: int, left_out: bool, evidence: str
) -> None:
    """The service can have stalled, though it kept up until then; or never have come to it."""
    soft = (noise(3.0, 100), noise(0.5, peak), noise(3.0, 100))
    assert bool(quiet_in(*soft, **{evidence: 6.5})) == left_out


def test_in_noise_that_is_not_steady_only_loud_sounds_count_once_a_limit_may_have_struck() -> None:
    uneven = b"".join(noise(0.5, peak) for peak in (100, 250) * 6)
    backlog = kept(COUGH, uneven, uneven, tone(1.0), uneven, uneven)
    backlog.note_answerable(25 * RATE)
    backlog.note_wordless(25 * RATE)
    assert long_quiet(backlog, 0) == []
    backlog.note_wordless(25 * RATE, at_limit=True)
    assert [round(end / RATE, 1) for _, end in long_quiet(backlog, 0)] == [11.3, 24.0]
    backlog.finalize(0, round(0.3 * RATE))
    assert long_quiet(backlog, backlog.start) == []


def test_where_steady_quiet_can_be_left_out_soft_sounds_are_not() -> None:
    backlog = kept(HISS, tone(0.5, level=250), HISS)
    backlog.note_wordless(20 * RATE, at_limit=True)
    assert [round(end / RATE, 1) for _, end in long_quiet(backlog, 0)] == [9.0, 19.0]


def test_without_hypotheses_nothing_shows_that_there_are_no_words() -> None:
    backlog = kept(HISS, HISS)
    backlog.set_interims(False)
    backlog.note_answerable(19 * RATE)
    assert long_quiet(backlog, 0) == []
    backlog.set_interims(True)
    assert long_quiet(backlog, 0) == [], "it did not show any then"
    backlog.note_wordless(15 * RATE)
    assert long_quiet(backlog, 0) == [(0, 14 * RATE)]


@pytest.mark.parametrize("at", [0.5, 8.0, 14.9])
def test_soft_sounds_count_wherever_they_are(at: float) -> None:
    """Also before the first loud one, and where they go on at the end."""
    soft = tone(0.5, level=250)
    backlog = kept(noise(at, 100), soft, noise(15.0 - at, 100), COUGH)
    backlog.note_wordless(15 * RATE)
    left_out = long_quiet(backlog, 0)
    assert all(end / RATE <= at or start / RATE >= at + 0.5 for start, end in left_out)
    assert left_out


def test_a_final_takes_the_evidence_away() -> None:
    backlog = kept(COUGH, HISS, HISS)
    backlog.note_wordless(20 * RATE)
    assert long_quiet(backlog, 0)
    backlog.finalize(0, round(0.3 * RATE))
    assert long_quiet(backlog, backlog.start) == []


@pytest.mark.parametrize("word", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("after", [0.06, 0.2])
def test_a_word_right_after_a_final_is_sent_again(word: float, after: float) -> None:
    """It can be the rest of the final word, or another one."""
    backlog = kept(tone(1.0), noise(after, 100), tone(word), HISS)
    backlog.finalize(0, RATE)
    backlog.note_wordless(11 * RATE)
    ((first, stop),) = long_quiet(backlog, RATE)
    assert first / RATE == pytest.approx(1.0 + after + word + EMPTY_SEGMENT - 0.3, abs=0.05)
    assert stop == 10 * RATE


@pytest.mark.parametrize(
    ("audio", "segments"),
    [
        ((HISS,), 0),
        ((COUGH, HISS), 1),
        ((COUGH, HISS, tone(0.3, level=250), HISS), 2),
        ((COUGH, noise(2.0, 100), COUGH, HISS), 1),
        ((HISS, tone(11.0), HISS), 3),
        ((HISS, COUGH), 1),
    ],
)
def test_so_many_segments_can_hold_no_word(audio: tuple[bytes, ...], segments: int) -> None:
    backlog = kept(*audio)
    assert wordless_segments(backlog, 0, backlog.end) == segments


def test_a_connection_begins_after_quiet_and_has_no_silence_in_what_it_is_not_sent() -> None:
    caller = Caller()
    caller.say(noise(10.0, 100))
    caller.say(COUGH)
    caller.say(noise(6.0, 100))
    caller.backlog.flush()
    mark = caller.backlog.end
    caller.say(noise(4.0, 100))
    assert mark in plan_replay(caller.backlog, caller.clock).silences
    old = plan_replay(caller.backlog, caller.clock)
    caller.backlog.note_answerable(caller.backlog.end)
    replay = plan_replay(caller.backlog, caller.clock)
    assert replay.silences == {}
    assert (old.quiet, replay.quiet) == (0, replay.left_out[0][1] - replay.left_out[0][0])
    ((first, last),) = replay.left_out
    assert first < mark < last
    assert (replay.start, last) == (caller.backlog.start, round(19.3 * RATE))


def test_the_words_after_quiet_that_is_left_out_are_whole_and_have_their_times() -> None:
    caller = Caller()
    word = tone(0.5, level=7000)
    caller.say(noise(3.0, 100))
    for part in (COUGH, noise(15.0, 100), word, noise(0.3, 100)):
        caller.say(part)
    said = samples(b"".join(caller.backlog._pieces))
    caller.backlog.loudness._set_floor(100.0)
    caller.backlog.note_answerable(round(18.0 * RATE))
    caller.feed = Feed(caller.backlog, caller.clock, caller.now)
    sent = samples(b"".join(caller.send()))
    assert len(sent) / RATE < 3.0 + 0.3 + 5.7 + 0.8 + 0.9
    loud = np.flatnonzero(abs(sent) == 7000)
    assert len(loud) == np.count_nonzero(abs(said) == 7000)
    (span,) = caller.feed.spans([(loud[0] / RATE, (loud[-1] + 1) / RATE)])
    assert span == pytest.approx((18.3, 18.8))
    cough = np.flatnonzero(abs(sent) == 3000)
    assert caller.feed.locate(cough[0] / RATE) == caller.backlog.start + cough[0]
