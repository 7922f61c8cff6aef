"""What a connection is sent, and where its seconds are in the caller's audio; against a model in
which each sample tells where it is. Ids are of the contract with the framework."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.backlog import KEEP_AT_MOST, LOOKBACK, chunk_samples
from livekit.plugins.tiro.endpointer import FLUSH_SILENCE, SHORTEST_PAUSE
from livekit.plugins.tiro.feed import TRIM_INTERVAL, Feed

from .support.caller import (
    RATE,
    RATES,
    Caller,
    LiveFeed,
    Samples,
    at_once,
    noise,
    numbered,
    numbers,
    quiet,
    samples,
    silence_of,
    tone,
)
from .support.examples import examples

ASKING_SILENCE = 6.0
WORD = tone(0.4) + quiet(1)


@pytest.fixture
def caller() -> Caller:
    return Caller()


def span(feed: Feed, start: float, end: float) -> tuple[float, float]:
    """Return the seconds of the caller's audio that seconds of the connection are."""
    return feed.spans([(start, end)])[0]


def is_final(feed: Feed, second: float) -> bool:
    """Tell whether all up to a second of the connection is final by the times of finals."""
    return feed.locate(second) <= feed._backlog.finalized_to


# -- before anybody speaks -----------------------------------------------------------------------


def gathering() -> Caller:
    """Return a caller whose quiet audio is gathered, as it is on each new connection."""
    caller = Caller()
    caller.feed = Feed(caller.backlog, caller.clock, caller.now)
    return caller


def test_the_first_sound_goes_out_with_what_was_before_it() -> None:
    caller = gathering()
    caller.push(quiet(0.25))
    assert caller.send() == [] and caller.feed.has_audio
    caller.push(quiet(0.05))
    assert [len(pcm) // 2 for pcm in caller.send()] == [0.15 * RATE]
    caller.push(tone(0.05))
    assert caller.send() == [], "too little of the sound"
    caller.push(tone(0.05))
    assert caller.send() == [quiet(0.15) + tone(0.1)]
    caller.push(tone(0.05))
    assert caller.send() == [tone(0.05)], "then at once"
    assert not caller.feed.has_audio


def test_what_is_held_back_is_released() -> None:
    caller = gathering()
    assert not caller.feed.release()
    caller.push(quiet(0.12))
    assert caller.send() == []
    assert caller.feed.release()
    assert caller.send() == [quiet(0.1)]
    caller.push(quiet(0.05))
    assert caller.send() == [], "what comes later is held back again"


# -- the order of the audio ----------------------------------------------------------------------


def test_audio_goes_out_once_and_in_order(caller: Caller) -> None:
    for seconds in (0.007, 0.01, 0.05, 1.0, 0.0333):
        caller.push(seconds)
    sent = b"".join(caller.send())
    assert sent == numbered(0, len(sent) // 2)
    assert 0 <= caller.backlog.end - len(sent) // 2 < chunk_samples(RATE)
    assert caller.feed.next_chunk(caller.now) is None


def test_a_new_connection_gets_what_no_final_covers(caller: Caller) -> None:
    caller.say(5.0)
    caller.final(0, 2.5)
    assert caller.reconnect() == 2.5
    assert b"".join(caller.send()) == numbered(40_000, 40_000)


def test_seconds_of_a_second_connection_are_where_it_was_said(caller: Caller) -> None:
    caller.say(5.0)
    caller.final(0, 2.5)
    caller.reconnect()
    caller.say(1.0)
    assert span(caller.feed, 0.5, 1.0) == (3.0, 3.5)
    caller.final(0.2, 1.0)
    assert caller.reconnect() == 3.5


def test_what_was_not_sent_yet_is_sent_on_the_next_connection(caller: Caller) -> None:
    caller.push(5.0)
    caller.send(limit=10)
    caller.reconnect()
    assert b"".join(caller.send()) == numbered(0, 80_000)


@pytest.mark.many
def test_a_long_frame_is_sent_whole(caller: Caller) -> None:
    """`recognize` pushes its buffer at once, however long it is."""
    caller.push(130.0, waits=False)
    assert caller.reconnect() == 0
    caller.backlog.set_speaking(True)
    caller.send(limit=1600)
    assert caller.feed.sent_to == 80 * RATE
    assert caller.reconnect() == pytest.approx(80 - KEEP_AT_MOST, abs=TRIM_INTERVAL)
    kept = caller.backlog.start
    assert b"".join(caller.send()) == numbered(kept, 130 * RATE - kept)


def test_whether_a_chunk_waits(caller: Caller) -> None:
    caller.push(0.049)
    assert not caller.feed.has_chunk
    caller.push(0.001)
    assert caller.feed.has_chunk


# -- what is kept, and what is not ---------------------------------------------------------------


def hiss(seconds: float) -> bytes:
    """Return the softest noise of a line."""
    return tone(seconds, 1)


def test_quiet_audio_that_was_heard_is_dropped(caller: Caller) -> None:
    caller.say(hiss(20))
    assert caller.reconnect() == pytest.approx(20 - LOOKBACK, abs=0.06)


def test_what_the_peer_may_not_have_got_is_kept(caller: Caller) -> None:
    for _ in range(400):
        caller.push(hiss(0.05))
        caller.send(taken=False)
    caller.feed.acknowledge(5 * RATE)
    assert caller.reconnect() == 5 - LOOKBACK


def test_what_the_peer_got_it_has_for_good(caller: Caller) -> None:
    caller.push(hiss(20))
    caller.send()
    caller.feed.acknowledge(0)
    caller.now += 20
    assert caller.feed.ahead(caller.now) == 0
    assert caller.reconnect() == 20 - LOOKBACK


def test_a_burst_is_kept_until_the_service_can_have_heard_it(caller: Caller) -> None:
    caller.push(hiss(20), waits=False)
    caller.send()
    assert caller.reconnect() == 0
    caller.send()
    caller.now += 4
    assert caller.feed.ahead(caller.now) == pytest.approx(16)
    assert caller.reconnect() == pytest.approx(4 - LOOKBACK, abs=0.06)


def test_digital_silence_is_no_matter_heard_or_not(caller: Caller) -> None:
    """Otherwise each connection in a long silence would get more of it than the one before."""
    for part in [tone(0.5), *[quiet(0.05)] * 400]:
        caller.push(part, waits=False)
    caller.send(taken=False)
    assert caller.reconnect() == 0, "no final covers the sound before it"
    caller.backlog.finalize(0, caller.backlog.end - 20 * RATE)
    assert caller.reconnect() == 20.5 - LOOKBACK - 1.0
    for part in [*[quiet(0.05)] * 40, hiss(0.1)]:
        caller.push(part, waits=False)
    caller.send(taken=False)
    assert caller.reconnect() == 20.5 - LOOKBACK - 1.0, "it is no longer all digital silence"


@pytest.mark.parametrize("peak", [30, 100, 200, 3000])
def test_an_empty_response_lets_nothing_go(caller: Caller, peak: int) -> None:
    caller.say(quiet(2) + tone(0.4, peak) + quiet(20))
    caller.feed.found_nothing(caller.now)
    assert caller.feed.found_nothing_in_all
    assert caller.backlog.may_hold_words()
    assert caller.reconnect() == 1.5


def test_live_audio_that_waited_too_long_is_given_up(caller: Caller) -> None:
    """Each try to connect drops audio beyond the limit: the conversation has moved on."""
    caller.say(2.0)
    for _ in range(90):
        caller.push(1.0)
        caller.feed.give_up_old_audio(caller.now)
        assert (caller.backlog.end - caller.backlog.start) / RATE <= KEEP_AT_MOST
    assert caller.reconnect() == 92 - KEEP_AT_MOST
    assert caller.backlog.take_given_up() == 32
    assert samples(caller.send(1)[0])[0] == numbers(32 * RATE, 1)[0]


def test_words_after_a_final_of_what_was_sent_with_them_are_not_given_up_silently() -> None:
    """The times of a final say what it covers; how much had been sent by then does not."""
    caller = Caller()
    for part in (quiet(0.5), tone(1.0), quiet(1.5), tone(1.0), quiet(6.0)):
        caller.push(part)
    caller.send()
    caller.final(0.5, 1.5)
    for _ in range(70):
        caller.push(quiet(1.0))
        caller.send()
    assert caller.backlog.take_given_up() > 1.0


def test_a_file_can_wait(caller: Caller) -> None:
    caller.push(300.0, waits=False)
    caller.feed.give_up_old_audio(caller.now)
    assert caller.backlog.start == 0


# -- flush ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_a_flush_sends_the_tail_and_silence_in_whole_milliseconds(rate: int) -> None:
    caller = Caller(rate)
    caller.push(1.2345)
    caller.feed.flush()
    sent = caller.send()
    assert all(len(pcm) // 2 * 1000 % rate == 0 for pcm in sent)
    silent = [pcm for pcm in sent if not any(pcm)]
    assert all(len(pcm) // 2 <= 0.25 * rate for pcm in silent), "asked between messages only"
    whole = b"".join(sent)
    assert whole.startswith(numbered(0, caller.backlog.end))
    silence = whole[caller.backlog.end * 2 :]
    assert not any(silence)
    assert FLUSH_SILENCE <= len(silence) / 2 / rate < FLUSH_SILENCE + 0.3


def test_a_flush_is_in_the_order_of_the_audio(caller: Caller) -> None:
    caller.push(0.33)
    caller.feed.flush()
    caller.push(0.5)
    sent = samples(b"".join(caller.send()))
    voiced = np.flatnonzero(sent)
    assert len(voiced) == round(0.83 * RATE)
    assert np.diff(voiced).max() - 1 >= FLUSH_SILENCE * RATE
    assert np.argmax(np.diff(voiced)) == 0.33 * RATE - 1


def test_flushes_in_a_row_are_one(caller: Caller) -> None:
    """Flushes that wait, and flushes after one that was made; with quiet frames in between."""
    caller.push(0.5)
    for _ in range(100):
        caller.feed.flush()
    assert silence_of(caller.send()) < FLUSH_SILENCE + 0.3
    for _ in range(5):
        caller.push(quiet(0.05))
        caller.feed.flush()
    assert silence_of(caller.send()) == 0.25
    caller.push(0.2)
    caller.feed.flush()
    assert silence_of(caller.send()) >= FLUSH_SILENCE


def test_a_flush_storm_delays_no_word(caller: Caller) -> None:
    caller.push(0.5)
    for _ in range(30):
        caller.feed.flush()
        caller.push(quiet(0.05))
    caller.push(1.0)
    sent = samples(b"".join(caller.send()))
    quiet_from, quiet_to = np.flatnonzero(sent == 0)[[0, -1]]
    assert (quiet_to - quiet_from) / RATE < FLUSH_SILENCE + 30 * 0.05 + 0.3


def test_a_flush_can_be_made_once_more(caller: Caller) -> None:
    """I1: the caller's audio stopped, and the service has not decided."""
    caller.push(1.0)
    for _ in range(2):
        caller.feed.flush(again=True)
        sent = caller.send()
        assert silence_of(sent) >= FLUSH_SILENCE
    assert not any(b"".join(sent))


def test_a_flush_of_nothing_is_a_flush(caller: Caller) -> None:
    """I1."""
    caller.say(1.0)
    caller.feed.flush()
    sent = caller.send()
    assert FLUSH_SILENCE <= silence_of(sent) < FLUSH_SILENCE + 0.3


def test_a_flush_is_made_after_others_were_forgotten(caller: Caller) -> None:
    for _ in range(5):
        caller.say(10.0)
        caller.feed.flush()
        assert silence_of(caller.send()) >= FLUSH_SILENCE


def test_a_service_that_is_asked_hears_the_start_and_more_silence(caller: Caller) -> None:
    """A first message of 20 ms opens the voice gate of the service."""
    caller.push(tone(0.5))
    caller.backlog.flush()
    caller.reconnect(insist=True)
    sent = caller.send()
    assert [len(pcm) / 2 / RATE for pcm in sent[:2]] == [0.02, 0.05]
    assert ASKING_SILENCE <= silence_of(sent) < ASKING_SILENCE + 0.3
    assert all(len(pcm) / 2 / RATE <= 0.25 for pcm in sent)


# -- how far the service is ----------------------------------------------------------------------


def test_a_burst_keeps_the_service_busy(caller: Caller) -> None:
    caller.push(20.0, waits=False)
    caller.send()
    assert caller.feed.ahead(caller.now) == pytest.approx(20)
    assert caller.feed.ahead(caller.now + 25) == 0
    assert caller.feed.drained_at == pytest.approx(caller.now + 20)


def test_a_result_tells_how_far_the_service_is(caller: Caller) -> None:
    caller.push(20.0, waits=False)
    caller.send()
    caller.feed.hear(15, caller.now)
    assert caller.feed.ahead(caller.now) == 5
    caller.feed.hear(2, caller.now)
    assert caller.feed.ahead(caller.now) == 18, "slower than taken for"
    caller.now += 18
    caller.feed.hear(15.1, caller.now)
    assert caller.feed.ahead(caller.now) == 0, "the usual lag is none"
    caller.feed.hear(14.9, caller.now)
    assert caller.feed.ahead(caller.now) == pytest.approx(5.1), "more than that is one"


def test_an_empty_response_is_about_five_seconds(caller: Caller) -> None:
    caller.push(20.0, waits=False)
    caller.send()
    caller.feed.found_nothing(caller.now)
    assert caller.feed.ahead(caller.now) == pytest.approx(15)
    for _ in range(4):
        caller.feed.found_nothing(caller.now)
    assert caller.feed.ahead(caller.now) == 0


def test_empty_responses_say_how_much_was_heard_at_least(caller: Caller) -> None:
    """A service at the pace of speech gives one for each 5 s; they put it no further ahead."""
    caller.push(20.0, waits=False)
    caller.send()
    for heard in (5, 10, 15):
        caller.now += 5
        caller.feed.found_nothing(caller.now)
        assert caller.feed.ahead(caller.now) == pytest.approx(20 - heard)
        assert caller.feed.heard_before(caller.now) == pytest.approx(heard * RATE, abs=0.05 * RATE)
    caller.feed.hear(16, caller.now)
    caller.feed.found_nothing(caller.now)
    assert caller.feed.ahead(caller.now) == 0, "they count from the last time"


def test_a_file_waits_for_a_service_that_is_behind(caller: Caller) -> None:
    caller.push(40.0, waits=False)
    caller.send()
    assert caller.feed.throttle(caller.now, 30) == pytest.approx(10)
    assert caller.feed.throttle(caller.now + 12, 30) == 0


def test_quiet_audio_is_not_waited_for(caller: Caller) -> None:
    caller.push(quiet(40), waits=False)
    caller.send()
    assert caller.feed.throttle(caller.now, 30) == 0
    assert caller.feed.ahead(caller.now) == 0


def test_what_was_found_in_all_is_about_all(caller: Caller) -> None:
    caller.push(1.0)
    caller.send(limit=5)
    caller.feed.found_nothing(caller.now)
    assert not caller.feed.found_nothing_in_all
    caller.send()
    caller.feed.found_nothing(caller.now)
    assert caller.feed.found_nothing_in_all
    caller.feed.hear(0.5, caller.now)
    assert not caller.feed.found_nothing_in_all
    caller.feed.found_nothing(caller.now)
    caller.final(0.1, 0.4)
    assert not caller.feed.found_nothing_in_all


# -- what is final -------------------------------------------------------------------------------


def test_final_is_final_up_to_the_sample(caller: Caller) -> None:
    caller.say(5.0)
    assert not is_final(caller.feed, 0.001)
    caller.final(0, 2.5)
    assert is_final(caller.feed, 2.4)
    assert is_final(caller.feed, 2.5)
    assert not is_final(caller.feed, 2.5 + 1 / RATE)
    caller.final(0, 1.0)
    assert is_final(caller.feed, 2.5), "nothing that was final is taken back"


def test_what_is_heard_is_new_or_not(caller: Caller) -> None:
    caller.say(5.0)
    assert caller.feed.hear(2.5, caller.now)
    caller.final(0, 2.5)
    assert not caller.feed.hear(2.5, caller.now)
    assert caller.feed.hear(2.6, caller.now)


def test_a_final_beyond_what_was_sent_covers_what_was_sent(caller: Caller) -> None:
    caller.say(2.0)
    caller.push(1.0)
    caller.final(0, 99)
    assert caller.reconnect() == 2
    assert span(caller.feed, 50, 99) == (2, 2)


def test_a_time_far_beyond_what_was_sent_is_none(caller: Caller) -> None:
    """A service's clock can be 5 % off, and runs ahead while the first second is on its way."""
    assert caller.feed.is_possible(1.1)
    assert not caller.feed.is_possible(1.2)
    caller.say(100.0)
    assert caller.feed.is_possible(105)
    assert caller.feed.is_possible(110)
    assert not caller.feed.is_possible(110.1)
    assert not caller.feed.is_possible(1e12)


def test_seconds_before_the_start_are_the_start(caller: Caller) -> None:
    caller.say(2.0)
    assert caller.feed.locate(-5) == 0
    caller.final(0, 1.0)
    caller.reconnect()
    assert caller.feed.locate(-5) == RATE


def test_a_final_without_times_is_about_one_stretch(caller: Caller) -> None:
    """From a lagging service: it does not cover words of which the final is yet to come."""
    caller.push(WORD * 4)
    caller.send()
    for count in range(4):
        caller.final_without_times()
        assert caller.start == pytest.approx(1.4 * count + 0.4)
    caller.final_without_times()
    assert caller.start == pytest.approx(4.6)
    assert not is_final(caller.feed, 0.1), "an estimate drops no final"


def test_a_final_without_times_after_a_flush_is_about_all_before_it(caller: Caller) -> None:
    caller.push(1.0)
    caller.feed.flush()
    caller.push(1.0)
    caller.send()
    caller.final_without_times()
    assert caller.reconnect() == 1.0
    assert caller.backlog.may_hold_words()


# -- silence and pauses --------------------------------------------------------------------------


def test_silence_is_planned_no_later_than_the_audio_goes() -> None:
    """A resampler may still hold audio that, by the clock, was pushed before a pause."""
    caller = Caller()
    caller.push(1.0)
    caller.clock.push(0.07, caller.now + 0.07)
    caller.now += 1.5
    caller.clock.push(0.01, caller.now)
    caller.backlog.push(tone(0.01), RATE)
    assert caller.clock.pauses_after(0.0) == pytest.approx([1.07])
    caller.reconnect()
    assert all(caller.send())
    assert caller.feed.sent_to == caller.backlog.end == round(1.01 * RATE)


def test_silence_takes_time_of_the_service_and_none_of_the_stream(caller: Caller) -> None:
    caller.push(1.0)
    caller.feed.flush()
    service = len(b"".join(caller.send())) / 2 / RATE
    assert span(caller.feed, 0.9, 1.4) == (0.9, 1.0)
    caller.push(1.0)
    caller.send()
    assert span(caller.feed, service, service + 0.5) == (1.0, 1.5)
    assert span(caller.feed, service - 0.1, service + 0.25) == (1.0, 1.25)
    assert span(caller.feed, 0.5, service + 0.25) == (0.5, 1.25)


def test_times_are_known_beyond_the_audio_that_is_kept(caller: Caller) -> None:
    """A final can be for words that were said more than 3 s ago."""
    caller.say(quiet(5))
    caller.feed.flush()
    silence = len(b"".join(caller.send())) / 2 / RATE
    caller.say(quiet(10))
    assert span(caller.feed, 4, 4.5) == (4, 4.5)
    assert span(caller.feed, 6 + silence, 7 + silence) == (6, 7)


def test_a_pause_takes_stream_time(caller: Caller) -> None:
    caller.say(10.0)
    caller.now += 20
    caller.say(5.0)
    assert span(caller.feed, 9, 9.5) == pytest.approx((9, 9.5))
    assert span(caller.feed, 11, 12) == pytest.approx((31, 32))


def test_a_span_never_straddles_a_pause(caller: Caller) -> None:
    caller.say(10.0)
    caller.now += 20
    caller.say(5.0)
    for start, end, shift in ((9.9, 10.05, 0), (9.95, 10.1, 20), (9.5, 10.0, 0), (10.0, 10.5, 20)):
        expected = (start + shift, end + shift)
        assert span(caller.feed, start, end) == pytest.approx(expected)


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("finals", [False, True])
def test_memory_is_bounded(finals: bool) -> None:
    """Five minutes at 8 kHz with a flush every 2 s, with and without an answer."""
    caller = Caller(8000)
    service = 0
    held = []
    for _ in range(150):
        caller.push(tone(0.5, rate=8000) + quiet(1.5, 8000))
        caller.feed.flush()
        caller.feed.flush(again=True)
        service += len(b"".join(caller.send()))
        if finals:
            caller.final(service / 16000 - 4, service / 16000)
        held.append((len(caller.feed._segments), len(caller.feed._pending_flushes)))
    assert max(segments for segments, _ in held) < (10 if finals else 130)
    assert max(flushes for _, flushes in held) == 0


def test_flushes_without_audio_take_no_memory(caller: Caller) -> None:
    caller.say(1.0)
    for _ in range(500):
        caller.feed.flush(again=True)
        caller.send()
    assert len(caller.backlog.flushes) == 1
    assert len(caller.feed._segments) <= 3


# -- any order of things -------------------------------------------------------------------------


class Model:
    """What came out of a feed, and what has to be so of it.

    For each sample that a connection got, it holds the position of the caller's sample that it
    is, read from the sample itself. The caller is loud in four fifths of each 0.2 s, or quiet.
    """

    def __init__(self, rate: int) -> None:
        self.caller = Caller(rate)
        self.rate = rate
        self.frame = rate // 50
        self.loud: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.covered = self.said = self.given_up = 0
        self.flushes: list[int] = []
        self.pauses: set[int] = set()
        self.fresh_to = self.fresh = 0.0
        self.start_over(0)

    def start_over(self, position: int) -> None:
        self.next = position
        self.service = 0
        self.chunks: list[tuple[int, Samples]] = []

    @property
    def pushed(self) -> int:
        return self.caller.backlog.end

    def audio(self, count: int, loud: bool) -> bytes:
        """Return audio in which each sample tells where it is, as far as it is loud."""
        first = self.pushed
        at = np.arange(first, first + count)
        sounds = (at // self.frame % 10 < 8) & loud
        self.loud = np.concatenate((self.loud, sounds))
        tags = np.where(sounds, numbers(first, count), at % 2 + 1)
        return tags.astype(np.int16).tobytes()

    # What may happen.

    def push(self, seconds: float, count: int, pace: float, gap: float, loud: bool) -> None:
        self.caller.now += gap
        for _ in range(count):
            self.caller.now += pace * seconds
            audio = self.audio(round(seconds * self.rate), loud)
            self.caller.push(audio, waits=False)

    def live(self, seconds: float, count: int, loud: bool) -> None:
        """Push, and send what there is, and so on."""
        for _ in range(count):
            self.push(seconds, 1, 1.0, 0.0, loud)
            self.send(10_000)

    def send(self, limit: int) -> None:
        chunk = chunk_samples(self.rate)
        for _ in range(limit):
            pcm = self.caller.feed.next_chunk(self.caller.now)
            self.caller.feed.acknowledge(self.caller.feed.sent_to)
            if pcm is None:
                assert self.pushed - self.next < chunk
                return
            self.receive(pcm)

    def receive(self, pcm: bytes) -> None:
        assert pcm
        values = samples(pcm)
        count = len(values)
        assert count * 1000 % self.rate == 0, "a message of whole milliseconds"
        assert 40 <= count * 1000 // self.rate <= 300
        voiced = int(np.count_nonzero(values))
        expected = np.arange(self.next, self.next + voiced)
        loud = self.loud[self.next : self.next + voiced]
        tags = np.where(loud, numbers(self.next, voiced), expected % 2 + 1)
        assert np.array_equal(values[:voiced], tags), "once, in order, no gap"
        self.next += voiced
        self.fresh += max(0, self.next - max(self.fresh_to, self.next - voiced))
        self.fresh_to = max(self.fresh_to, self.next)
        positions = np.concatenate([expected, np.full(count - voiced, self.next)])
        self.chunks.append((self.service, positions))
        self.service += count
        if voiced < count:
            # A flush, a pause, or a breath in what was long.
            marks = self.pauses | {*self.flushes, *self.caller.backlog.flushes}
            assert self.next in marks, "where a decision is due"

    def flush(self, again: bool) -> None:
        if self.pushed:
            # The rate is not known before the first sample.
            self.caller.feed.flush(again=again)
            self.flushes.append(self.pushed)

    def final(self, part: float, last: bool, length: float) -> None:
        """A final that ends somewhere, or in the last second."""
        sample = int(self.service * part)
        if last:
            sample = max(0, self.service - int(self.rate * part))
        end = self.truth(sample)
        self.caller.final(max(0, sample / self.rate - length), sample / self.rate)
        self.covered = max(self.covered, end)
        self.said = max(self.said, end)
        assert is_final(self.caller.feed, sample / self.rate)

    def final_without_times(self) -> None:
        before, unplaced = self.caller.backlog.start, self.caller.backlog._unplaced_finals
        self.caller.final_without_times()
        after = self.caller.backlog.start
        sounds = np.flatnonzero(self.loud[before:after])
        pauses = np.flatnonzero(np.diff(sounds) > 0.55 * self.rate) + 1
        words = [found for found in np.split(sounds, pauses) if self.is_word(found)]
        words = [found for found in words if found[-1] > 0.1 * self.rate]
        assert len(words) <= unplaced + 1, "a stretch of sound for each final"
        self.covered = max(self.covered, after)

    def is_word(self, sound: Samples) -> bool:
        """Tell whether 60 ms of loud samples, given by where they are, are within 0.16 s."""
        least = 3 * self.frame
        return bool((sound[least - 1 :] - sound[: 1 - least] < 8 * self.frame).any())

    def nothing(self) -> None:
        """An empty response, which lets nothing go."""
        before = self.caller.backlog.start
        self.caller.feed.found_nothing(self.caller.now)
        assert self.caller.backlog.start == before

    def speak(self, speaking: bool) -> None:
        self.caller.backlog.set_speaking(speaking)

    def wait(self, seconds: float) -> None:
        self.caller.now += seconds

    def reconnect(self, limit: int) -> None:
        # A pause of that time can get shorter later: late audio makes up for it.
        self.pauses = {round(at * self.rate) for at in self.caller.clock.pauses_after(0.0)}
        self.caller.reconnect()
        self.start_over(self.caller.feed.sent_to)
        self.send(limit)

    # What is always so.

    def truth(self, sample: int) -> int:
        """The position of a sample of the connection, as read from what came out."""
        if sample >= self.service:
            return self.next
        index = bisect_right(self.chunks, sample, key=lambda chunk: chunk[0]) - 1
        start, positions = self.chunks[index]
        return int(positions[sample - start])

    def look_up(self, first: float, last: float) -> None:
        """Ask for the times of two seconds of the connection."""
        feed, rate = self.caller.feed, self.rate
        ends = int(self.service * first), int(self.service * max(first, last))
        positions = self.truth(ends[0]), self.truth(ends[1])
        if positions[0] < max(self.said, self.next - round(KEEP_AT_MOST * rate)):
            return
        start, end = span(feed, ends[0] / rate, ends[1] / rate)
        assert end - start == pytest.approx((positions[1] - positions[0]) / rate, abs=1e-6)
        pause = self.caller.clock.pause_around(sum(positions) / 2 / rate)[0]
        assert start == pytest.approx(positions[0] / rate + pause, abs=1e-6)
        for sample, position in zip(ends, positions, strict=True):
            assert is_final(feed, sample / rate) == (position <= self.said)

    def check(self) -> None:
        backlog, feed, rate = self.caller.backlog, self.caller.feed, self.rate
        assert feed.sent_to == self.next
        assert feed.has_chunk == (self.pushed - self.next >= chunk_samples(rate))
        assert backlog.start >= self.covered, "nothing that is final is sent again"
        assert self.next - backlog.start <= (KEEP_AT_MOST + TRIM_INTERVAL) * rate
        newest = self.pushed if self.caller.clock.is_live(self.caller.now) else self.next
        # Audio beyond the limit is gone, even if a new connection would begin before it.
        self.given_up = max(self.given_up, newest - round(KEEP_AT_MOST * rate))
        bound = max(self.covered, self.given_up)
        if backlog.start > bound:
            dropped = self.loud[bound : backlog.start]
            # The rest of a word is at most four frames here.
            assert dropped[5 * self.frame :].sum() < 3 * self.frame, "a sound is lost"


def step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


PART = st.floats(0, 1)
STEPS = st.one_of(
    step(
        "push",
        seconds=st.sampled_from([0.007, 0.01, 512 / 48000, 0.02, 0.05, 0.1, 1.0, 4.0]),
        count=st.integers(1, 12),
        pace=st.sampled_from([0.0, 1.0]),
        gap=st.sampled_from([0.0, 0.0, 0.5, 3.0, 20.0]),
        loud=st.booleans(),
    ),
    step(
        "live",
        seconds=st.sampled_from([0.007, 0.033, 0.4, 1.0]),
        count=st.integers(1, 8),
        loud=st.booleans(),
    ),
    step("send", limit=st.sampled_from([1, 2, 5, 30, 10_000])),
    step("flush", again=st.booleans()),
    step("final", part=st.floats(0, 1.1), last=st.booleans(), length=st.floats(0, 3)),
    step("final_without_times"),
    step("nothing"),
    step("speak", speaking=st.booleans()),
    step("wait", seconds=st.sampled_from([0.01, 1.0, 10.0])),
    step("reconnect", limit=st.sampled_from([0, 1, 10_000])),
    step("look_up", first=PART, last=PART),
)


@examples(30)
@given(st.sampled_from([8000, 8000, 22050]), st.lists(STEPS, min_size=15, max_size=40))
def test_anything_in_any_order(rate: int, steps: list[tuple[str, dict[str, Any]]]) -> None:
    """Pushes, flushes, partial sends, finals and new connections."""
    model = Model(rate)
    for name, arguments in steps:
        getattr(model, name)(**arguments)
        model.check()
    usage = round(model.caller.backlog.seconds_sent * rate)
    assert usage == model.fresh, "usage counts a sample once"


@pytest.mark.parametrize(("ago", "heard"), [(0.0, 1.0), (0.4, 0.6), (3.0, 0.0)])
def test_what_a_service_at_the_pace_of_speech_had_heard_by_then(
    caller: Caller, ago: float, heard: float
) -> None:
    caller.say(1.0)
    assert caller.feed.heard_before(caller.now - ago) / RATE == pytest.approx(heard, abs=0.051)


def test_an_answer_to_all_sounds_is_one_to_the_quiet_after_them(caller: Caller) -> None:
    """A voice gate keeps silence from the service, so that it says nothing more."""
    caller.say(tone(0.3) + quiet(1))
    caller.feed.found_nothing(caller.now)
    caller.say(quiet(2))
    assert caller.feed.found_nothing_in_all
    caller.say(tone(0.3))
    assert not caller.feed.found_nothing_in_all


def test_untimed_finals_of_two_connections_can_be_about_the_same_words(caller: Caller) -> None:
    """No pause is seen in noise this loud until it is learned: the first final lets nothing go."""
    caller.say(noise(0.1, 2000) + tone(0.5, 12000) + noise(0.9, 2000))
    caller.final_without_times()
    assert caller.reconnect() == 0
    caller.say(tone(0.5, 12000) + noise(3, 2000))
    caller.final_without_times()
    assert caller.reconnect() == pytest.approx(0.6, abs=0.03), "the second word is sent again"


def test_a_feed_of_its_own_knows_nothing_of_another(caller: Caller) -> None:
    caller.push(1.0)
    caller.feed.flush()
    caller.send()
    fresh = at_once(Feed(caller.backlog, caller.clock, caller.now + 100))
    assert fresh.ahead(caller.now + 100) == 0
    assert fresh.locate(0.5) == 0, "it was sent nothing"
    assert fresh.next_chunk(caller.now) == numbered(0, chunk_samples(RATE))
    assert fresh.locate(0.05) == 800


def test_a_sound_after_a_pause_is_one_message() -> None:
    """Live, while the final of the words before it may be on its way."""
    live = LiveFeed()
    live.push(tone(1))
    live.messages.clear()
    live.push(quiet(0.6) + tone(0.3))
    *others, longest = sorted(length for _, length in live.messages)
    assert set(others) == {0.05}
    assert 0.1 <= longest <= 0.2


@pytest.mark.parametrize(("behind", "held"), [(0.1, 0.0), (0.5, 0.05)])
def test_the_newest_of_a_pause_waits_for_a_sound_while_the_service_is_behind(
    behind: float, held: float
) -> None:
    caller = gathering()
    caller.say(tone(0.5))
    caller.push(tone(behind), waits=False)
    caller.send()
    sent = caller.say(quiet(0.8))
    assert len(sent) / 2 / RATE == pytest.approx(0.8 - held)
    caller.push(tone(0.15), waits=False)
    assert len(caller.send()[0]) / 2 / RATE == pytest.approx(0.1 + held), "all of it at once"


# -- long speech, and clocks ---------------------------------------------------------------------


def test_long_speech_that_is_sent_at_once_gets_silence_at_a_breath(caller: Caller) -> None:
    caller.push(b"".join(tone(4.0) + noise(0.3, 30) for _ in range(4)), waits=False)
    caller.send()
    (breath,) = caller.backlog.flushes
    assert breath / RATE == pytest.approx(8.45, abs=0.02)
    assert caller.feed.undecided_from == breath
    # What follows the silence is 2.5 s later by the clock of the connection.
    assert caller.feed.locate(9.0 + 2.5) / RATE == pytest.approx(9.0, abs=0.1)


def test_where_sounds_are_tells_how_fast_the_service_s_clock_runs(caller: Caller) -> None:
    """Seconds of the connection, with the silence that was sent."""
    caller.say(quiet(1) + tone(1) + quiet(1))
    caller.feed.flush()
    caller.send()
    caller.say(tone(2) + quiet(1) + tone(0.5))
    compared: list[tuple[float, float, list[tuple[float, float]]]] = []
    with mock.patch.object(
        type(caller.backlog.drift), "compare", lambda _, *of: compared.append(of)
    ):
        caller.feed.compare_clocks(1.0, 2.0)
        caller.backlog.drift.due_at = 100.0
        caller.feed.compare_clocks(1.0, 2.0)
    ((*told, sounds),) = compared
    assert told == [1.0, 2.0]
    assert sounds[0] == pytest.approx((1.0, 2.0), abs=0.06)
    assert sounds[1] == pytest.approx((3.0 + 2.5, 5.0 + 2.5), abs=0.06)
    assert sounds[2] == pytest.approx((6.0 + 2.5, 6.5 + 2.5), abs=0.06), "it goes on"


@pytest.mark.parametrize("rest", [tone(1), tone(0.5) + quiet(0.08) + tone(0.42)])
def test_the_rest_of_what_is_final_tells_nothing_of_the_clock(caller: Caller, rest: bytes) -> None:
    caller.say(quiet(1) + rest + quiet(1) + tone(1) + quiet(1))
    caller.feed.finalize(1.0, 1.5, caller.now)
    with mock.patch.object(type(caller.backlog.drift), "compare") as compare:
        caller.feed.compare_clocks(3.0, 4.0)
    (sound,) = compare.call_args.args[2]
    assert sound == pytest.approx((3.0, 4.0), abs=0.06)


def test_how_far_the_service_is_behind_is_what_it_says(caller: Caller) -> None:
    """The lag is in seconds of the caller's audio: injected silence does not count."""
    assert caller.feed.lag is None
    caller.say(tone(1.0))
    caller.feed.flush()
    caller.send()
    caller.feed.hear(0.9, caller.now)
    assert caller.feed.lag == pytest.approx(0.1, abs=0.06)
    caller.say(tone(3.0))
    caller.feed.hear(1.0 + FLUSH_SILENCE + 1.0, caller.now)
    assert caller.feed.lag == pytest.approx(2.0, abs=0.06)
    caller.reconnect()
    assert caller.feed.lag is None


def test_a_final_without_times_says_nothing_of_what_is_newer(caller: Caller) -> None:
    """A service that falls silent after it has not answered the newer audio."""
    caller.say(quiet(1.0) + tone(1.0) + quiet(1.0) + tone(0.3))
    caller.final_without_times()
    assert caller.feed.heard_to == caller.feed.sent_to - SHORTEST_PAUSE * RATE
    assert caller.backlog.first_sound(caller.feed.heard_to) is not None
    caller.reconnect()
    caller.push(tone(1.0) + quiet(1.0) + tone(1.0) + quiet(6.0), waits=False)
    caller.send()
    caller.final_without_times()
    assert caller.feed.heard_to == caller.backlog.start, "it is busy for longer with what was sent"


def test_a_flush_of_a_soft_hypothesis_is_made(caller: Caller) -> None:
    """What the service hears can be too soft to stand out from the noise of the line."""
    caller.say(noise(4.0, 100))
    assert caller.feed.flush()
    caller.send()
    caller.say(noise(0.8, 250))
    assert not caller.feed.flush(), "nothing stands out"
    caller.backlog.set_speaking(True)
    caller.feed.hear(4.7 + FLUSH_SILENCE, caller.now)
    assert caller.feed.flush()
    assert silence_of(caller.send()) >= FLUSH_SILENCE
    assert not caller.feed.flush(), "not twice for the same words"


def test_finals_without_times_leave_no_work_behind_but_the_silence(caller: Caller) -> None:
    """A service that answers each flush does not get farther behind with each of them."""
    for _ in range(20):
        caller.say(tone(0.8) + quiet(0.3))
        caller.feed.flush()
        caller.send()
        caller.final_without_times()
        assert caller.feed.ahead(caller.now) <= FLUSH_SILENCE + 0.01


def test_a_final_without_times_leaves_the_work_on_what_is_open(caller: Caller) -> None:
    caller.push(20 * (tone(0.8) + quiet(0.6)), waits=False)
    caller.send()
    before = caller.feed.ahead(caller.now)
    caller.final_without_times()
    assert before > 15
    assert caller.feed.ahead(caller.now) == before


def test_no_more_of_a_file_is_looked_at_than_is_sent_next() -> None:
    caller = gathering()
    for _ in range(3):
        caller.push(tone(4.0) + quiet(60.0))
    looked: list[int] = []
    is_loud = caller.backlog.is_loud

    def look(start: int, stop: int) -> bool:
        looked.append(stop - start)
        return is_loud(start, stop)

    with mock.patch.object(caller.backlog, "is_loud", look):
        caller.send()
    assert max(looked) <= 0.3 * RATE
