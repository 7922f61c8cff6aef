"""How audio is cut into messages while the service has nothing to decode."""

from __future__ import annotations

import numpy as np
import pytest

from livekit.plugins.tiro.backlog import Backlog, chunk_samples
from livekit.plugins.tiro.onset import Onset

from .support.caller import RATE, LiveFeed, quiet

CHUNK = chunk_samples(RATE)
MS = RATE // 1000
HELD = 150 * MS


def tone(seconds: float) -> bytes:
    at = np.arange(round(seconds * RATE)) / RATE
    return (3000 * np.cos(at * 2764)).astype(np.int16).tobytes()


def onset(audio: bytes, *, gathering: bool = True) -> Onset:
    """Return the onset of a connection that is to be sent audio."""
    backlog = Backlog()
    backlog.push(audio, RATE)
    return Onset(backlog, gathering=gathering)


def test_quiet_audio_goes_in_messages_of_150_ms_and_as_much_is_held_back() -> None:
    gate = onset(quiet(0.3))
    for ms in range(0, 300, 10):
        assert gate.decide_while_gathering(0, ms * MS, CHUNK, False) == 0
    assert gate.decide_while_gathering(0, 300 * MS, CHUNK, False) == HELD
    assert gate.is_gathering


@pytest.mark.parametrize("loud", range(0, 300, 20))
def test_the_first_sound_goes_with_what_was_before_it_as_one_message(loud: int) -> None:
    gate, stop = onset(quiet(loud / 1000) + tone(0.5)), loud
    while not (size := gate.decide_while_gathering(0, stop * MS, CHUNK, False)):
        stop += 10
    assert stop >= loud + 100
    assert stop <= loud + 150, "it waits for 100 ms, and for a whole chunk"
    assert size % CHUNK == 0 and size <= stop * MS
    assert size >= (loud + 100) * MS
    assert not gate.is_gathering


def test_in_a_backlog_quiet_goes_first_and_150_ms_of_it_with_the_sound() -> None:
    gate, start, loud = onset(quiet(1) + tone(4)), 0, 1000 * MS
    sizes = []
    while gate.is_gathering:
        size = gate.decide_while_gathering(start, 5000 * MS, CHUNK, False)
        sizes.append(size)
        start += size
    assert sizes[:-1] == [HELD] * 5
    # What is held back is 150 to 300 ms.
    assert start - sizes[-1] <= loud - HELD
    assert loud + 100 * MS <= start <= loud + 150 * MS


@pytest.mark.parametrize("ready", [30, 140, 290])
def test_what_is_held_goes_at_once_before_silence(ready: int) -> None:
    gate = onset(quiet(1))
    size = gate.decide_while_gathering(0, ready * MS, CHUNK, True)
    assert size == min(ready * MS, HELD) // CHUNK * CHUNK


def test_what_is_held_and_loud_is_one_message() -> None:
    gate = onset(quiet(0.28) + tone(0.06))
    assert gate.decide_while_gathering(0, 340 * MS, CHUNK, False) == 0
    gate.release()
    assert gate.decide_while_gathering(0, 340 * MS, CHUNK, False) == 300 * MS


def test_a_sound_of_less_than_a_frame_is_seen_when_there_is_more_of_it() -> None:
    """In frames of 5 ms: at first the sound does not fill a measured frame of 20 ms."""
    backlog = Backlog()
    gate = Onset(backlog)
    sound = quiet(0.1) + tone(0.3)
    for at in range(0, len(sound), 160):
        backlog.push(sound[at : at + 160], RATE)
        if size := gate.decide_while_gathering(0, backlog.end, CHUNK, False):
            break
    assert (size, backlog.end) == (200 * MS, 200 * MS)


def test_the_rest_of_a_word_does_not_end_the_gathering() -> None:
    """The rest opens no voice gate, so the next sound still has to go with what is before it."""
    rest, word = 20, 420
    gate, start = onset(tone(rest / 1000) + quiet((word - rest) / 1000) + tone(0.5)), 0
    while start + gate.decide_while_gathering(start, 920 * MS, CHUNK, False) <= word * MS:
        start += gate.decide_while_gathering(start, 920 * MS, CHUNK, False)
        assert gate.is_gathering
    size = gate.decide_while_gathering(start, 920 * MS, CHUNK, False)
    assert start <= (word - 50) * MS
    assert start + size >= (word + 100) * MS
    assert not gate.is_gathering


def test_who_does_not_gather_never_does() -> None:
    gate = onset(quiet(5), gathering=False)
    gate.note_quiet(5 * RATE)
    gate.note_decision(5 * RATE, 0)
    assert not gate.is_gathering


# -- in a connection's way through the audio -----------------------------------------------------


def test_an_utterance_after_silence() -> None:
    talk = LiveFeed()
    talk.push(quiet(2))
    assert {length for _, length in talk.messages} == {0.15}
    talk.messages.clear()
    talk.push(tone(1))
    (at, length), *then = talk.messages
    assert 2.1 <= at <= 2.2
    assert 0.25 <= length <= 0.45
    assert {length for _, length in then} == {0.05}


def test_after_a_final_it_is_quiet_audio_again() -> None:
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1) + quiet(1))
    talk.feed.finalize(1.0, 2.0, 3.0)
    talk.messages.clear()
    talk.push(quiet(1))
    assert {length for _, length in talk.messages} == {0.15}


@pytest.mark.parametrize("end", [2.0, 3.0])
def test_after_a_cut_in_the_middle_of_speech_audio_goes_at_once(end: float) -> None:
    talk = LiveFeed()
    talk.push(quiet(1) + tone(2))
    talk.feed.finalize(1.0, end, 3.0)
    talk.messages.clear()
    talk.push(tone(1))
    assert {length for _, length in talk.messages} == {0.05}


def test_while_a_later_utterance_is_undecided_audio_goes_at_once() -> None:
    """The service is behind: it drops its look-ahead when it decides.

    A message longer than the look-ahead would lose the onset of a third utterance as well.
    """
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1) + quiet(1) + tone(1) + quiet(0.5))
    talk.feed.finalize(1.0, 2.0, 4.5)
    talk.messages.clear()
    talk.push(quiet(0.5))
    assert {length for _, length in talk.messages} == {0.05}
    talk.feed.finalize(3.0, 4.0, 5.0)
    talk.messages.clear()
    talk.push(quiet(0.5))
    assert {length for _, length in talk.messages} == {0.15}


@pytest.mark.parametrize("pause", [0.6, 0.73, 1.4])
def test_in_a_burst_a_sound_after_a_pause_goes_with_what_is_before_it(pause: float) -> None:
    """Nobody knows whether the voice gate has closed in the pause."""
    talk = LiveFeed()
    talk.backlog.push(quiet(0.5) + tone(1) + quiet(pause) + tone(1) + quiet(1), RATE)
    talk.send()
    ends = np.cumsum([length for _, length in talk.messages])
    sound = 1.5 + pause
    number = int(np.searchsorted(ends, sound + 0.001))
    assert ends[number - 1] <= sound < sound + 0.1 <= ends[number] + 1e-9
    assert talk.messages[number][1] <= 0.25
    others = [length for _, length in talk.messages[4:number]]
    assert set(others) <= {0.05}, "short, as long as it is quiet"


def test_in_a_burst_a_short_pause_is_nothing_special() -> None:
    talk = LiveFeed()
    talk.backlog.push(tone(1) + quiet(0.4) + tone(1), RATE)
    talk.send()
    assert {length for _, length in talk.messages[1:]} == {0.05}


@pytest.mark.parametrize("ms", [5, 10, 20, 50])
@pytest.mark.parametrize("pause", [0.51, 0.6, 0.735, 1.4, 2.2])
def test_a_sound_after_a_pause_is_one_message_before_the_final_is_here(
    pause: float, ms: int
) -> None:
    """The voice gate has closed if the service has decided, and the final is on its way."""
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1), ms)
    talk.messages.clear()
    sent = talk.feed.sent_to / RATE
    talk.push(quiet(pause) + tone(1), ms)
    ends = sent + np.cumsum([length for _, length in talk.messages])
    sound = 2 + pause
    number = int(np.searchsorted(ends, sound + 0.001))
    # Where a sound begins is known to 20 ms.
    assert ends[number] >= sound + 0.08 - 1e-9
    at, length = talk.messages[number]
    assert at <= sound + 0.2 and length <= 0.2
    others = [length for _, length in talk.messages[:number] + talk.messages[number + 1 :]]
    assert others and set(others) == {0.05}
    late = [at - end for (at, _), end in zip(talk.messages[:number], ends[:number], strict=True)]
    assert max(late) < 0.05, "quiet audio is not held back: the service needs it to decide"


@pytest.mark.parametrize("pause", [0.1, 0.26, 0.4])
def test_a_short_pause_is_nothing_special(pause: float) -> None:
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1))
    talk.messages.clear()
    talk.push(quiet(pause) + tone(1) + quiet(pause) + tone(1))
    assert {length for _, length in talk.messages} == {0.05}


def test_a_flush_sends_the_sound_after_a_pause() -> None:
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1) + quiet(1) + tone(0.08))
    assert talk.feed.sent_to < 3 * RATE + CHUNK
    talk.feed.flush()
    talk.messages.clear()
    talk.send()
    assert talk.feed.sent_to == talk.backlog.end
    assert talk.messages[0][1] >= 0.05


def test_after_a_decision_that_was_asked_for_it_is_quiet_audio_again() -> None:
    """Though the last sound was only just before: the voice gate is closed after any final."""
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1))
    talk.feed.flush()
    talk.send()
    talk.feed.finalize(1.0, 2.0, 2.1)
    talk.messages.clear()
    talk.push(quiet(1) + tone(0.5))
    lengths = [round(length, 3) for _, length in talk.messages]
    assert lengths[0] == 0.15
    assert max(lengths) >= 0.25, "the first sound goes with what was before it"


def test_after_silence_that_was_sent_it_is_quiet_audio_before_the_final_is_here() -> None:
    """Any rule decides within that silence; what follows is heard after the decision."""
    talk = LiveFeed()
    talk.push(quiet(1) + tone(1) + quiet(0.2))
    talk.feed.flush()
    talk.send()
    talk.messages.clear()
    talk.push(quiet(0.1) + tone(0.5))
    lengths = [round(length, 3) for _, length in talk.messages]
    assert lengths[0] >= 0.2, "the first sound goes with what was before it"
    assert set(lengths[1:]) == {0.05}


def test_a_flush_sends_what_is_held_before_its_silence() -> None:
    talk = LiveFeed()
    talk.push(quiet(1) + tone(0.06))
    talk.feed.flush()
    talk.messages.clear()
    talk.send()
    assert talk.feed.sent_to == talk.backlog.end
    lengths = [length for _, length in talk.messages]
    assert sum(lengths) == pytest.approx(2.5 + 0.26, abs=0.3)


def test_what_is_held_is_released_in_a_pause() -> None:
    talk = LiveFeed()
    talk.push(quiet(1))
    held = talk.backlog.end - talk.feed.sent_to
    assert held >= HELD
    assert talk.feed.release()
    talk.send()
    assert talk.backlog.end - talk.feed.sent_to < CHUNK
    assert not talk.feed.release()
