"""How audio is cut into messages while the service has nothing to decode."""

from __future__ import annotations

import numpy as np
import pytest

from livekit.plugins.tiro.backlog import Backlog, chunk_samples
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.onset import Onset

RATE = 16000
CHUNK = chunk_samples(RATE)
MS = RATE // 1000
HELD = 150 * MS


def next_message(onset: Onset, start: int, stop: int, loud: int | None = None) -> int:
    return onset.next_message(start, stop, loud, chunk=CHUNK, sample_rate=RATE)


def test_quiet_audio_goes_in_messages_of_150_ms_and_as_much_is_held_back() -> None:
    onset = Onset()
    for ms in range(0, 300, 10):
        assert next_message(onset, 0, ms * MS) == 0
    assert next_message(onset, 0, 300 * MS) == HELD
    assert onset.is_gathering


@pytest.mark.parametrize("loud", range(0, 300, 20))
def test_the_first_sound_goes_with_what_was_before_it_as_one_message(loud: int) -> None:
    onset, stop = Onset(), loud
    while not (size := next_message(onset, 0, stop * MS, loud * MS)):
        stop += 10
    assert stop >= loud + 100
    assert stop <= loud + 150, "it waits for 100 ms, and for a whole chunk"
    assert size % CHUNK == 0 and size <= stop * MS
    assert size >= (loud + 100) * MS
    assert not onset.is_gathering


def test_in_a_backlog_quiet_goes_first_and_150_ms_of_it_with_the_sound() -> None:
    onset, start, loud = Onset(), 0, 1000 * MS
    sizes = []
    while onset.is_gathering:
        size = next_message(onset, start, 5000 * MS, loud)
        sizes.append(size)
        start += size
    assert sizes[:-1] == [HELD] * 5
    # What is held back is 150 to 300 ms.
    assert start - sizes[-1] <= loud - HELD
    assert loud + 100 * MS <= start <= loud + 150 * MS


def test_what_is_held_goes_at_once_when_asked_for() -> None:
    onset = Onset()
    assert onset.held(290 * MS, False, chunk=CHUNK, sample_rate=RATE) == HELD
    assert onset.held(140 * MS, False, chunk=CHUNK, sample_rate=RATE) == 100 * MS
    assert onset.held(340 * MS, True, chunk=CHUNK, sample_rate=RATE) == 300 * MS


def test_who_does_not_gather_never_does() -> None:
    onset = Onset(gathering=False)
    onset.gather()
    assert not onset.is_gathering


# -- in a connection's way through the audio -----------------------------------------------------


def tone(seconds: float) -> bytes:
    at = np.arange(round(seconds * RATE)) / RATE
    return (3000 * np.sin(at * 2764)).astype(np.int16).tobytes()


def quiet(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE))


class Talk:
    """Audio that is pushed live, 20 ms at a time, and the messages it goes out in."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.feed = Feed(self.backlog, Clock(), 0.0)
        self.messages: list[tuple[float, float]] = []
        """When each went out, and how long it is, seconds."""

    def push(self, pcm: bytes) -> None:
        size = 2 * 20 * MS
        for at in range(0, len(pcm), size):
            self.backlog.push(pcm[at : at + size], RATE)
            self.send()

    def send(self) -> None:
        now = self.backlog.end / RATE
        while (message := self.feed.next_chunk(now)) is not None:
            self.messages.append((now, len(message) / 2 / RATE))


def test_an_utterance_behind_silence() -> None:
    talk = Talk()
    talk.push(quiet(2))
    assert {length for _, length in talk.messages} == {0.15}
    talk.messages.clear()
    talk.push(tone(1))
    (at, length), *then = talk.messages
    assert 2.1 <= at <= 2.2
    assert 0.25 <= length <= 0.45
    assert {length for _, length in then} == {0.05}


def test_behind_a_final_it_is_quiet_audio_again() -> None:
    talk = Talk()
    talk.push(quiet(1) + tone(1) + quiet(1))
    talk.feed.finalize(1.0, 2.0, 3.0)
    talk.messages.clear()
    talk.push(quiet(1))
    assert {length for _, length in talk.messages} == {0.15}


def test_behind_a_cut_in_the_middle_of_speech_audio_goes_at_once() -> None:
    talk = Talk()
    talk.push(quiet(1) + tone(2))
    talk.feed.finalize(1.0, 2.0, 3.0)
    talk.messages.clear()
    talk.push(tone(1))
    assert {length for _, length in talk.messages} == {0.05}


def test_behind_a_decision_that_was_asked_for_it_is_quiet_audio_again() -> None:
    """Though the last sound was only just before: the gate is closed behind any final."""
    talk = Talk()
    talk.push(quiet(1) + tone(1))
    talk.feed.flush()
    talk.send()
    talk.feed.finalize(1.0, 2.0, 2.1)
    talk.messages.clear()
    talk.push(quiet(1) + tone(0.5))
    lengths = [round(length, 3) for _, length in talk.messages]
    assert lengths[0] == 0.15
    assert max(lengths) >= 0.25, "the first sound goes with what was before it"


def test_a_flush_sends_what_is_held_before_its_silence() -> None:
    talk = Talk()
    talk.push(quiet(1) + tone(0.06))
    talk.feed.flush()
    talk.messages.clear()
    talk.send()
    assert talk.feed.sent_to == talk.backlog.end
    lengths = [length for _, length in talk.messages]
    assert sum(lengths) == pytest.approx(2.5 + 0.26, abs=0.3)


def test_what_is_held_is_released_in_a_pause() -> None:
    talk = Talk()
    talk.push(quiet(1))
    held = talk.backlog.end - talk.feed.sent_to
    assert held >= HELD
    assert talk.feed.release()
    talk.send()
    assert talk.backlog.end - talk.feed.sent_to < CHUNK
    assert not talk.feed.release()
