"""The audio clock and the audio that no final covers, against a model that tags every sample."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st

from livekit.plugins.tiro.timeline import (
    FLUSH_SILENCE,
    KEEP_SILENT,
    KEEP_SPEAKING,
    MAX_AHEAD,
    TRIM_INTERVAL,
    Clock,
    Timeline,
    chunk_samples,
)

RATES = [8000, 16000, 22050, 24000, 44100, 48000]
RATE = 16000

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


# -- clock ---------------------------------------------------------------------------------------


class Feed:
    """A microphone that pushes 50 ms frames into a clock; time is what the test says it is."""

    def __init__(self, clock: Clock, start: float = 1000.0) -> None:
        self.clock = clock
        self.started = self.now = start

    def frame(self, seconds: float = 0.05) -> None:
        self.clock.push(seconds, self.now, self.now + 5e8)

    def talk(self, seconds: float) -> None:
        """Push as it is recorded."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.frame()

    def mute(self, seconds: float) -> None:
        self.now += seconds

    def burst(self, seconds: float) -> None:
        """Push all at once."""
        for _ in range(round(seconds / 0.05)):
            self.frame()

    @property
    def elapsed(self) -> float:
        return self.now - self.started

    def time(self, audio: float) -> float:
        return audio + self.clock.pause_before(audio)


@pytest.fixture
def feed() -> Feed:
    return Feed(Clock())


def test_time_is_audio_while_there_is_no_pause(feed: Feed) -> None:
    feed.talk(10)
    assert feed.clock.pushed == pytest.approx(10)
    assert feed.clock.pause_before(10) == 0
    assert feed.clock.wall(0.0) == pytest.approx(feed.started + 5e8)


def test_a_mute_takes_time(feed: Feed) -> None:
    feed.talk(10)
    feed.mute(20)
    feed.talk(10)
    assert feed.time(9.99) == pytest.approx(9.99)
    assert feed.time(10.01) == pytest.approx(30.01)
    assert feed.time(20) == pytest.approx(40) == feed.elapsed


def test_several_mutes_add_up(feed: Feed) -> None:
    for _ in range(5):
        feed.talk(2)
        feed.mute(3)
    feed.talk(2)
    for i in range(6):
        assert feed.time(2 * i + 1) == pytest.approx(5 * i + 1)


def test_a_short_gap_is_the_networks(feed: Feed) -> None:
    feed.talk(1)
    feed.mute(0.9)
    feed.talk(1)
    assert feed.time(2) == pytest.approx(2)


def test_a_long_frame_takes_its_own_time(feed: Feed) -> None:
    """2 s frames every 2 s, one of them 0.5 s late."""
    for late in (0.0, 0.0, 0.5, -0.5, 0.0):
        feed.mute(2 + late)
        feed.frame(2)
    assert feed.time(5) == 5
    feed.mute(2.5)
    feed.frame(2)
    assert feed.time(11) == 11


def test_late_audio_that_comes_in_a_burst_is_no_pause(feed: Feed) -> None:
    feed.talk(10)
    feed.mute(3)
    feed.burst(3)
    feed.talk(2)
    for audio in (5, 10.02, 12, 14):
        assert feed.time(audio) == pytest.approx(audio, abs=0.06)


def test_what_a_burst_makes_good_in_part_is_a_pause_in_part(feed: Feed) -> None:
    """Muted for 20 s, and the first second after it was late."""
    feed.talk(10)
    feed.mute(21)
    feed.burst(1)
    feed.talk(5)
    assert feed.time(12) == pytest.approx(32, abs=0.06)


def test_late_audio_in_two_bursts_is_no_pause_either(feed: Feed) -> None:
    feed.talk(5)
    feed.mute(5)
    feed.frame()
    feed.mute(1.5)
    feed.burst(6.45)
    assert feed.time(11.5) == pytest.approx(feed.elapsed)
    assert feed.time(7) == pytest.approx(7)


def test_a_true_mute_survives_a_false_one(feed: Feed) -> None:
    feed.talk(5)
    feed.mute(20)
    feed.talk(5)
    feed.mute(4)
    feed.burst(4)
    assert feed.time(9) == pytest.approx(29)
    assert feed.time(14) == pytest.approx(34) == feed.elapsed


def test_a_file_pushed_at_once_never_jumps(feed: Feed) -> None:
    feed.burst(100)
    feed.mute(5)
    feed.burst(100)
    feed.mute(30)
    feed.burst(100)
    assert [feed.time(audio) for audio in (50, 150, 250, 300)] == [50, 150, 250, 300]


def test_audio_from_before_the_connection_is_a_lead_and_no_pause(feed: Feed) -> None:
    feed.burst(5)
    feed.talk(10)
    assert feed.time(15) == pytest.approx(15)
    feed.mute(20)
    feed.talk(1)
    assert feed.time(16) == pytest.approx(feed.elapsed, abs=0.06), "not in the future"


def test_the_wall_clock_runs_with_the_audio(feed: Feed) -> None:
    """T6."""
    assert feed.clock.wall(0) is None
    feed.talk(10)
    feed.mute(20)
    feed.talk(5)
    began = feed.started + 5e8
    for time in (0, 5, 9.9, 30.1, 35):
        assert feed.clock.wall(time) == pytest.approx(began + time, abs=1e-3)


def test_audio_from_before_the_connection_was_said_before_it(feed: Feed) -> None:
    """T6: 5 s come at once, and what is said then is said now."""
    feed.burst(5)
    assert feed.clock.wall(5) == pytest.approx(feed.now + 5e8)
    feed.talk(10)
    assert feed.clock.wall(0) == pytest.approx(feed.started - 5 + 5e8)
    assert feed.clock.wall(15) == pytest.approx(feed.now + 5e8)
    feed.mute(20)
    feed.talk(1)
    assert feed.clock.wall(feed.time(15.99)) == pytest.approx(feed.now + 5e8, abs=0.06)
    assert feed.clock.wall(0) == pytest.approx(feed.started - 5 + 5e8)


def test_live_audio_is_told_from_a_file(feed: Feed) -> None:
    assert not feed.clock.is_live(feed.now)
    feed.talk(3)
    assert feed.clock.is_live(feed.now)
    feed.mute(60)
    feed.talk(3)
    assert feed.clock.is_live(feed.now)
    feed.burst(MAX_AHEAD + 120)
    assert not feed.clock.is_live(feed.now)


def test_a_single_long_frame_is_a_file(feed: Feed) -> None:
    feed.frame(MAX_AHEAD * 2 + 1)
    assert not feed.clock.is_live(feed.now)


def test_a_pause_is_noticed_while_it_lasts(feed: Feed) -> None:
    clock = feed.clock
    assert not clock.is_paused(feed.now)
    feed.talk(3)
    assert not clock.is_paused(feed.now + 0.9)
    assert clock.is_paused(feed.now + 1.1)
    feed.mute(5)
    feed.talk(0.05)
    assert not clock.is_paused(feed.now + 0.9)
    assert clock.is_paused(feed.now + 1.1)


def test_audio_that_lags_is_not_paused(feed: Feed) -> None:
    for _ in range(5):
        feed.talk(1)
        feed.mute(0.9)
    assert not feed.clock.is_paused(feed.now)
    assert feed.clock.is_paused(feed.now + 0.2)


def test_a_file_that_was_pushed_ahead_is_not_paused(feed: Feed) -> None:
    feed.burst(30)
    assert not feed.clock.is_paused(feed.now + 20)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["talk", "mute", "late", "stutter"]),
        st.integers(1, 100).map(lambda n: n * 0.05),
    ),
    max_size=12,
)


def recorded(events: list[tuple[str, float]]) -> list[tuple[float, float]]:
    """Frames of 50 ms as (end of recording, arrival), in seconds since the first one began."""
    frames = [(0.05, 0.05)]
    now = 0.05
    for kind, seconds in [*events, ("talk", 0.1)]:
        start, count = now, round(seconds / 0.05)
        if kind == "mute":
            now += seconds + 1.1
            continue
        ends = [now + (i + 1) * 0.05 for i in range(count)]
        now = ends[-1]
        arrivals = {
            "talk": ends,
            # All at the end, or the first one somewhere in between and the others at the end.
            "late": [now] * count,
            "stutter": [max(ends[0], (start + now) / 2), *[now] * (count - 1)],
        }[kind]
        frames += zip(ends, arrivals, strict=True)
    return frames


@settings(deadline=None, max_examples=300)
@given(EVENTS)
def test_the_time_of_live_audio_is_when_it_was_recorded(events: list[tuple[str, float]]) -> None:
    """Mutes and late audio in any order; what was late has arrived in the end."""
    frames = recorded(events)
    clock = Clock()
    for index, (_, arrival) in enumerate(frames):
        clock.push(0.05, 1000 + arrival, 5e8 + arrival)
        audio = (index + 1) * 0.05
        assert audio + clock.pause_before(audio - 0.01) <= arrival + 1e-6, "in the future (T4)"
    times = []
    for index, (end, _) in enumerate(frames):
        middle = index * 0.05 + 0.025
        times.append(middle + clock.pause_before(middle))
        assert times[-1] == pytest.approx(end - 0.025, abs=1e-6)
    assert all(before < after for before, after in pairwise(times))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), max_size=30))
def test_time_never_runs_backwards(pushes: list[tuple[float, float]]) -> None:
    """Frames of any length after gaps of any length."""
    clock, now = Clock(), 1000.0
    for seconds, gap in pushes:
        now += gap
        clock.push(seconds, now, now)
        grid = [clock.pushed * i / 50 for i in range(51)]
        times = [audio + clock.pause_before(audio) for audio in grid]
        assert all(before <= after for before, after in pairwise(times))
        assert all(time >= audio for time, audio in zip(times, grid, strict=True))


# -- timeline: examples --------------------------------------------------------------------------

Samples = npt.NDArray[np.int64]
# Every sample tells where it is, modulo this; zero is silence of the timeline's making.
_TAGS = 60_000


def tagged(first: int, count: int) -> bytes:
    """Samples that tell their positions."""
    return (np.arange(first, first + count) % _TAGS + 1).astype(np.uint16).tobytes()


def tags(pcm: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(pcm, np.uint16).astype(np.int64)


class Talk:
    """A timeline with a live caller, in seconds."""

    def __init__(self, rate: int = RATE) -> None:
        self.clock = Clock()
        self.timeline = Timeline(self.clock)
        self.rate = rate
        self.now = 1000.0
        self.pushed = 0

    def push(self, seconds: float, *, waits: bool = True) -> None:
        """Push audio in one piece; `waits`, in the time that it took to say it."""
        count = round(seconds * self.rate)
        self.now += seconds if waits else 0
        self.clock.push(seconds, self.now, self.now)
        self.timeline.push(tagged(self.pushed, count), self.rate)
        self.pushed += count

    def send(self, limit: int = 1_000_000) -> list[bytes]:
        """Hand out up to so many messages."""
        sent: list[bytes] = []
        while len(sent) < limit and (pcm := self.timeline.next_chunk(self.now)) is not None:
            sent.append(pcm)
        self.timeline.reach(self.timeline.position)
        return sent

    def say(self, seconds: float) -> bytes:
        """Push and send live, in frames of 50 ms."""
        sent = []
        for _ in range(round(seconds / 0.05)):
            self.push(0.05)
            sent += self.send()
        return b"".join(sent)

    def reconnect(self) -> float:
        """Start a new connection; return the second from which it is fed."""
        self.timeline.rewind(self.now)
        return self.timeline.start / self.rate


def test_audio_goes_out_once_and_in_order() -> None:
    talk = Talk()
    for seconds in (0.007, 0.01, 0.05, 1.0, 0.0333):
        talk.push(seconds)
    sent = b"".join(talk.send())
    assert sent == tagged(0, len(sent) // 2)
    assert 0 <= talk.pushed - len(sent) // 2 < chunk_samples(RATE)
    assert talk.timeline.next_chunk(talk.now) is None


def test_pushed_audio_is_copied() -> None:
    """I4: the caller's buffer is used again."""
    timeline = Timeline(Clock())
    buffer = bytearray(tagged(0, 800))
    timeline.push(memoryview(buffer), RATE)
    buffer[:] = bytes(1600)
    assert timeline.next_chunk(0) == tagged(0, 800)


def test_a_view_of_samples_is_taken_whole() -> None:
    timeline = Timeline(Clock())
    timeline.push(memoryview(tagged(0, 800)).cast("h"), RATE)
    assert timeline.next_chunk(0) == tagged(0, 800)


def test_a_new_connection_gets_what_no_final_covers() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(5)
    talk.timeline.cover(2.5)
    assert talk.reconnect() == 2.5
    assert b"".join(talk.send()) == tagged(40_000, 40_000)


def test_seconds_of_a_second_connection_are_where_it_was_said() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(5)
    talk.timeline.cover(2.5)
    talk.reconnect()
    talk.say(1)
    assert talk.timeline.span(0.5, 1.0) == (3.0, 3.5)
    talk.timeline.cover(1.0)
    assert talk.reconnect() == 3.5


def test_what_was_not_sent_yet_is_sent_on_the_next_connection() -> None:
    talk = Talk()
    talk.push(5)
    talk.send(limit=10)
    talk.reconnect()
    assert b"".join(talk.send()) == tagged(0, 80_000)


def test_while_nobody_speaks_the_last_three_seconds_are_kept() -> None:
    talk = Talk()
    talk.say(20)
    assert talk.reconnect() == pytest.approx(20 - KEEP_SILENT, abs=0.06)
    talk.say(20)
    assert talk.reconnect() == pytest.approx(40 - KEEP_SILENT, abs=0.06)
    assert talk.timeline.take_given_up() == 0


def test_more_can_be_kept_while_nobody_speaks() -> None:
    talk = Talk()
    talk.timeline.keep_silent = 10
    talk.say(20)
    assert talk.reconnect() == pytest.approx(10, abs=0.06)


def test_what_the_peer_may_not_have_got_is_kept() -> None:
    talk = Talk()
    for _ in range(400):
        talk.push(0.05)
        talk.timeline.next_chunk(talk.now)
    talk.timeline.reach(5 * RATE)
    assert talk.reconnect() == 5 - KEEP_SILENT


def test_what_the_peer_got_it_has_for_good() -> None:
    talk = Talk()
    talk.push(20)
    while talk.timeline.next_chunk(talk.now):
        pass
    talk.timeline.reach(20 * RATE)
    talk.timeline.reach(0)
    assert talk.timeline.ahead(talk.now + 10) == 0
    assert talk.reconnect() == 20 - KEEP_SILENT


def test_what_is_in_doubt_is_kept() -> None:
    talk = Talk()
    talk.timeline.in_doubt = True
    talk.say(20)
    assert talk.reconnect() == 0


def test_a_burst_is_kept_until_the_service_can_have_heard_it() -> None:
    talk = Talk()
    talk.push(20, waits=False)
    talk.send()
    assert talk.reconnect() == 0
    talk.send()
    talk.now += 4
    assert talk.timeline.ahead(talk.now) == pytest.approx(4)
    assert talk.reconnect() < 20 - 4 - KEEP_SILENT + 0.1


def test_while_somebody_speaks_a_minute_is_kept_and_the_rest_is_told() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(75)
    assert talk.reconnect() == pytest.approx(75 - KEEP_SPEAKING)
    assert talk.timeline.has_given_up
    assert talk.timeline.take_given_up() == pytest.approx(15)
    assert not talk.timeline.has_given_up
    assert talk.timeline.take_given_up() == 0


def test_what_a_final_covers_was_not_given_up() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(75)
    talk.timeline.cover(70)
    talk.reconnect()
    assert talk.timeline.take_given_up() == 0


def test_live_audio_that_waited_too_long_is_given_up() -> None:
    """No connection for 90 s: the conversation has moved on."""
    talk = Talk()
    talk.say(2)
    for _ in range(90):
        talk.push(1)
    assert talk.reconnect() == pytest.approx(92 - KEEP_SPEAKING)
    assert talk.timeline.take_given_up() == pytest.approx(30)
    sent = tags(b"".join(talk.send()))
    assert sent[0] == 32 * RATE % _TAGS + 1
    assert talk.timeline.sent == pytest.approx(62)


def test_live_audio_that_still_waits_is_limited_and_told_all_the_same() -> None:
    """Each try to connect limits it, whether it succeeds or not."""
    talk = Talk()
    talk.say(2)
    for _ in range(90):
        talk.push(1)
        talk.timeline.limit(talk.now)
        assert (talk.pushed - talk.timeline.start) / RATE <= KEEP_SPEAKING
    assert talk.reconnect() == pytest.approx(92 - KEEP_SPEAKING)
    assert talk.timeline.take_given_up() == pytest.approx(30)


def test_a_long_frame_is_sent_whole() -> None:
    """`recognize` pushes its buffer at once, however long it is."""
    talk = Talk()
    talk.push(300, waits=False)
    assert talk.reconnect() == 0
    talk.send(limit=4000)
    assert talk.timeline.take_given_up() == 0
    assert talk.timeline.position == 4000 * 800
    assert talk.reconnect() == pytest.approx(200 - KEEP_SPEAKING)
    assert b"".join(talk.send()) == tagged(140 * RATE, 160 * RATE)


def test_usage_counts_each_second_once() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(3)
    assert talk.timeline.sent == pytest.approx(3)
    talk.reconnect()
    talk.send(limit=10)
    assert talk.timeline.sent == pytest.approx(3)
    talk.reconnect()
    talk.say(1)
    talk.timeline.flush()
    talk.send()
    assert talk.timeline.sent == pytest.approx(4)


# -- timeline: flush -----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_a_flush_sends_the_tail_and_silence_in_whole_milliseconds(rate: int) -> None:
    talk = Talk(rate)
    talk.push(1.2345)
    talk.timeline.flush()
    sent = talk.send()
    assert all(len(pcm) // 2 * 1000 % rate == 0 for pcm in sent)
    whole = b"".join(sent)
    assert whole.startswith(tagged(0, talk.pushed))
    silence = whole[talk.pushed * 2 :]
    assert not any(silence)
    assert FLUSH_SILENCE <= len(silence) / 2 / rate < FLUSH_SILENCE + 0.3


def test_times_are_known_beyond_the_audio_that_is_kept() -> None:
    """A final can be for words that were said more than 3 s ago."""
    talk = Talk()
    talk.say(5)
    talk.timeline.flush()
    silence = len(b"".join(talk.send())) / 2 / RATE
    talk.say(10)
    assert talk.timeline.span(4, 4.5) == (4, 4.5)
    assert talk.timeline.span(6 + silence, 7 + silence) == (6, 7)


def test_silence_takes_server_time_and_no_stream_time() -> None:
    talk = Talk()
    talk.push(1)
    talk.timeline.flush()
    server = len(b"".join(talk.send())) / 2 / RATE
    assert talk.timeline.span(0.9, 1.4) == (0.9, 1.0)
    talk.push(1)
    talk.send()
    assert talk.timeline.span(server, server + 0.5) == (1.0, 1.5)
    assert talk.timeline.span(server - 0.1, server + 0.25) == (1.0, 1.25)
    assert talk.timeline.span(0.5, server + 0.25) == (0.5, 1.25)


def test_a_flush_is_in_the_order_of_the_audio() -> None:
    talk = Talk()
    talk.push(0.33)
    talk.timeline.flush()
    talk.push(0.5)
    sent = tags(b"".join(talk.send()))
    voiced = np.flatnonzero(sent)
    assert len(voiced) == 0.83 * RATE
    assert np.diff(voiced).max() - 1 >= FLUSH_SILENCE * RATE
    assert np.argmax(np.diff(voiced)) == 0.33 * RATE - 1


def test_a_flush_of_nothing_is_still_a_flush() -> None:
    """I1."""
    talk = Talk()
    talk.say(1)
    for _ in range(2):
        talk.timeline.flush()
        sent = b"".join(talk.send())
        assert not any(sent)
        assert len(sent) / 2 / RATE >= FLUSH_SILENCE


def test_a_flush_that_waits_is_not_doubled() -> None:
    talk = Talk()
    talk.push(0.5)
    for _ in range(5):
        talk.timeline.flush()
    assert len(b"".join(talk.send())) / 2 / RATE < 0.5 + FLUSH_SILENCE + 0.3


def test_a_flush_is_made_again_on_a_new_connection() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.push(0.5)
    for _ in range(3):
        talk.timeline.flush()
        talk.send()
    talk.push(0.5)
    talk.send()
    talk.reconnect()
    sent = tags(b"".join(talk.send()))
    assert FLUSH_SILENCE <= np.count_nonzero(sent == 0) / RATE < FLUSH_SILENCE + 0.3
    assert not sent[8000 : 8000 + round(FLUSH_SILENCE * RATE)].any()


def test_silence_that_was_cut_off_is_made_again_in_its_place() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.push(0.5)
    talk.timeline.flush()
    talk.send(limit=12)
    talk.reconnect()
    sent = tags(b"".join(talk.send()))
    assert all(sent[:8000])
    assert FLUSH_SILENCE <= np.count_nonzero(sent == 0) / RATE < FLUSH_SILENCE + 0.3


def test_a_flush_is_made_after_others_were_forgotten() -> None:
    talk = Talk()
    for _ in range(5):
        talk.say(10)
        talk.timeline.flush()
        silence = np.count_nonzero(tags(b"".join(talk.send())) == 0)
        assert silence / RATE >= FLUSH_SILENCE


def test_a_flush_behind_what_is_final_is_not_made_again() -> None:
    talk = Talk()
    talk.push(0.5)
    talk.timeline.flush()
    talk.push(0.5)
    talk.send()
    talk.timeline.cover(2.3)
    talk.reconnect()
    assert all(tags(b"".join(talk.send())))


# -- timeline: what is final ---------------------------------------------------------------------


def test_a_final_tells_how_far_the_service_is() -> None:
    talk = Talk()
    talk.push(20, waits=False)
    talk.send()
    assert talk.timeline.ahead(talk.now) == pytest.approx(20, abs=0.06)
    talk.timeline.cover(15)
    assert talk.timeline.ahead(talk.now) == 5


def test_covered_is_covered_up_to_the_sample() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(5)
    assert not talk.timeline.is_covered(0.001)
    talk.timeline.cover(2.5)
    assert talk.timeline.is_covered(2.4)
    assert talk.timeline.is_covered(2.5)
    assert not talk.timeline.is_covered(2.5 + 1 / RATE)
    talk.timeline.cover(1.0)
    assert talk.timeline.is_covered(2.5), "nothing that was final is taken back"


def test_a_final_beyond_what_was_sent_covers_what_was_sent() -> None:
    talk = Talk()
    talk.say(2)
    talk.push(1)
    talk.timeline.cover(99)
    assert talk.reconnect() == 2
    assert talk.timeline.span(50, 99) == (2, 2)


def test_a_final_without_times_covers_what_was_sent_but_for_the_last_half_second() -> None:
    talk = Talk()
    talk.timeline.speaking = True
    talk.say(3)
    talk.timeline.cover(None)
    assert talk.reconnect() == 2.5
    talk.timeline.cover(None)
    assert talk.reconnect() == 2.5


def test_a_guess_does_not_cover_what_comes_with_a_time() -> None:
    """The final without times came late, and the words behind it were sent by then."""
    talk = Talk()
    talk.timeline.speaking = True
    talk.push(1)
    talk.timeline.flush()
    talk.push(3)
    talk.send()
    talk.timeline.cover(None)
    assert not talk.timeline.is_covered(4.0)
    assert talk.timeline.span(3.5, 4.0) == pytest.approx((1.5 + 0.5, 2.0 + 0.5), abs=0.3)


def loud(seconds: float, rate: int = RATE, level: int = 3000) -> bytes:
    return (np.ones(round(seconds * rate)) * level).astype(np.int16).tobytes()


@pytest.mark.parametrize("rate", RATES)
def test_loud_audio_can_be_speech(rate: int) -> None:
    timeline = Timeline(Clock())
    assert not timeline.is_loud()
    timeline.push(loud(2, rate, 100), rate)
    assert not timeline.is_loud(), "a quiet line"
    timeline.push(loud(0.1, rate), rate)
    assert not timeline.is_loud(), "a click"
    timeline.push(loud(0.2, rate, -3000), rate)
    assert timeline.is_loud()


def test_the_loudest_negative_sample_is_loud() -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(0.5, RATE, -32768), RATE)
    assert timeline.is_loud()


def test_what_is_final_or_decided_is_loud_no_more() -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(3), RATE)
    while timeline.next_chunk(0):
        pass
    timeline.cover(1.0)
    assert timeline.is_loud()
    timeline.decide(100)
    assert timeline.is_loud(), "the service decides behind the speech"
    timeline.cover(2.7)
    assert not timeline.is_loud(), "the sound of the last word"


def test_a_word_close_behind_what_is_final_is_a_word() -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(1.1) + loud(0.12, level=10) + loud(0.24) + loud(1, level=10), RATE)
    while timeline.next_chunk(0):
        pass
    timeline.cover(1.0)
    assert timeline.is_loud()


def test_what_the_service_decided_on_without_a_word_is_loud_no_more() -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(3) + loud(1, level=10), RATE)
    while timeline.next_chunk(0):
        pass
    assert timeline.is_loud()
    timeline.decide(100)
    assert not timeline.is_loud()


def test_what_is_kept_can_be_speech_from_its_start_on() -> None:
    timeline = Timeline(Clock())
    timeline.keep_silent = 10
    timeline.push(loud(6, level=10) + loud(1) + loud(8, level=10), RATE)
    while timeline.next_chunk(0):
        pass
    timeline.reach(15 * RATE)
    assert timeline.ahead(100) == 0
    timeline.rewind(100)
    assert timeline.start == 5 * RATE
    assert timeline.is_loud()


@pytest.mark.parametrize("level", [3000, -3000])
def test_loud_since_at_either_sign(level: int) -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(1, level=level), RATE)
    while timeline.next_chunk(0):
        pass
    assert timeline.is_loud_since(0)


def test_loud_since() -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(1) + loud(1, level=10), RATE)
    assert not timeline.is_loud_since(0), "nothing is handed out yet"
    while timeline.next_chunk(0):
        pass
    assert timeline.is_loud_since(0)
    assert not timeline.is_loud_since(RATE)
    assert not timeline.is_loud_since(timeline.position)


def test_loud_behind_a_flush() -> None:
    timeline = Timeline(Clock())
    timeline.push(loud(1), RATE)
    timeline.flush()
    timeline.push(loud(1, level=10), RATE)
    assert not timeline.is_loud_behind_flush()
    timeline.push(loud(1), RATE)
    assert timeline.is_loud_behind_flush()


def test_a_flush_that_is_forgotten_has_everything_behind_it() -> None:
    timeline = Timeline(Clock())
    assert timeline.is_loud_behind_flush()


# -- timeline: pauses ----------------------------------------------------------------------------


def test_a_pause_takes_stream_time() -> None:
    talk = Talk()
    talk.say(10)
    talk.now += 20
    talk.say(5)
    assert talk.timeline.span(9, 9.5) == pytest.approx((9, 9.5))
    assert talk.timeline.span(11, 12) == pytest.approx((31, 32))


def test_a_span_never_straddles_a_pause() -> None:
    talk = Talk()
    talk.say(10)
    talk.now += 20
    talk.say(5)
    for start, end, shift in ((9.9, 10.05, 0), (9.95, 10.1, 20), (9.5, 10.0, 0), (10.0, 10.5, 20)):
        expected = (start + shift, end + shift)
        assert talk.timeline.span(start, end) == pytest.approx(expected)


# -- timeline: memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("speaking", [False, True])
@pytest.mark.parametrize("finals", [False, True])
def test_memory_is_bounded(speaking: bool, finals: bool) -> None:
    """Half an hour at 8 kHz with a flush every 2 s, with and without an answer."""
    talk = Talk(8000)
    timeline = talk.timeline
    timeline.speaking = speaking
    held = []
    server = 0
    for _ in range(900):
        for _ in range(20):
            talk.push(0.1)
            server += len(b"".join(talk.send()))
        timeline.flush()
        timeline.flush()
        server += len(b"".join(talk.send()))
        if finals:
            timeline.cover(server / 16000)
        held.append((len(timeline._pcm), len(timeline._stretches), len(timeline._flushes)))
    assert max(pcm for pcm, _, _ in held) <= (KEEP_SPEAKING + 1) * 16000
    assert max(stretches for _, stretches, _ in held) < 200
    assert max(flushes for _, _, flushes in held) < 40


def test_flushes_without_audio_take_no_memory() -> None:
    talk = Talk()
    talk.say(1)
    for _ in range(500):
        talk.timeline.flush()
        talk.send()
    assert len(talk.timeline._flushes) == 1
    assert len(talk.timeline._stretches) <= 3


# -- timeline: any order of things ---------------------------------------------------------------


class Model:
    """What came out of a timeline, and what has to be so of it.

    For each sample that a connection got, it holds the position of the caller's sample that it
    is, read from the sample itself.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.clock = Clock()
        self.timeline = Timeline(self.clock)
        self.now = 1000.0
        self.pushed = 0
        self.next = 0
        self.covered = 0
        self.said = 0
        self.speaking = False
        self.droppable = 0
        self.flushes: list[int] = []
        self.fresh_to = self.fresh = 0
        self.connect_at(0)

    def connect_at(self, position: int) -> None:
        self.next = self.connected_at = position
        self.server = 0
        self.chunks: list[tuple[int, Samples]] = []
        self.silence_at: dict[int, int] = {}

    # What may happen.

    def push(self, seconds: float, count: int, pace: float, gap: float) -> None:
        self.now += gap
        samples = round(seconds * self.rate)
        for _ in range(count):
            self.now += pace * seconds
            self.clock.push(samples / self.rate, self.now, self.now)
            self.timeline.push(tagged(self.pushed, samples), self.rate)
            self.pushed += samples

    def live(self, seconds: float, count: int) -> None:
        """Push, and send what there is, and so on."""
        for _ in range(count):
            self.push(seconds, 1, 1.0, 0.0)
            self.send(10_000)

    def send(self, limit: int) -> None:
        for _ in range(limit):
            pcm = self.timeline.next_chunk(self.now)
            if pcm is None:
                assert self.pushed - self.next < chunk_samples(self.rate)
                assert not [f for f in self.flushes if self.next <= f and self.owed(f)]
                return
            self.receive(pcm)
            self.may_drop(self.next)

    def owed(self, flush: int) -> bool:
        """Whether a flush is still to be made on this connection."""
        return flush > self.connected_at and flush not in self.silence_at

    def receive(self, pcm: bytes) -> None:
        assert pcm
        values = tags(pcm)
        count = len(values)
        assert count * 1000 % self.rate == 0, "a message of whole milliseconds"
        assert 40 <= count * 1000 // self.rate <= 300
        voiced = int(np.count_nonzero(values))
        expected = np.arange(self.next, self.next + voiced)
        assert np.array_equal(values[:voiced], expected % _TAGS + 1), "once, in order, no gap"
        passed = [f for f in self.flushes if self.next < f < self.next + voiced]
        assert not [f for f in passed if self.owed(f)], "a flush in the order of the audio"
        self.next += voiced
        self.fresh += max(0, self.next - max(self.fresh_to, self.next - voiced))
        self.fresh_to = max(self.fresh_to, self.next)
        positions = np.concatenate([expected, np.full(count - voiced, self.next)])
        self.chunks.append((self.server, positions))
        self.server += count
        if voiced < count:
            assert self.next in self.flushes, "silence only where a flush was"
            self.silence_at[self.next] = self.silence_at.get(self.next, 0) + count - voiced
        for flush, silence in self.silence_at.items():
            assert flush == self.next or silence >= FLUSH_SILENCE * self.rate

    def flush(self) -> None:
        if not self.pushed:
            # The rate is known with the first sample.
            return
        self.timeline.flush()
        self.flushes.append(self.pushed)
        if self.silence_at.get(self.pushed, 0) >= FLUSH_SILENCE * self.rate:
            # It has been made, and is to be made once more.
            del self.silence_at[self.pushed]

    def final(self, part: float, last: bool) -> None:
        """A final that ends somewhere, or in the last second."""
        sample = int(self.server * part)
        if last:
            sample = max(0, self.server - int(self.rate * part))
        end = self.truth(sample)
        self.timeline.cover(sample / self.rate)
        self.covered = max(self.covered, end)
        self.said = max(self.said, end)
        self.may_drop(self.next)
        assert self.timeline.is_covered(sample / self.rate)

    def final_without_times(self) -> None:
        self.timeline.cover(None)
        self.covered = max(self.covered, self.next - round(self.rate / 2))

    def speak(self, speaking: bool) -> None:
        self.timeline.speaking = self.speaking = speaking

    def wait(self, seconds: float, got: bool) -> None:
        self.now += seconds
        if got:
            self.timeline.reach(self.timeline.position)

    def reconnect(self, limit: int) -> None:
        self.timeline.rewind(self.now)
        self.may_drop(self.pushed if self.clock.is_live(self.now) else self.next)
        start = self.timeline.start
        assert start >= self.covered, "nothing that is final is sent again"
        assert start <= max(self.covered, self.droppable), "nothing else is lost"
        assert start >= self.connected_at, "what was dropped is gone"
        self.connect_at(start)
        self.send(limit)

    def may_drop(self, newest: int) -> None:
        """Move the limit of what has to be kept."""
        seconds = KEEP_SPEAKING if self.speaking else KEEP_SILENT
        limits = self.next - seconds * self.rate, newest - KEEP_SPEAKING * self.rate
        self.droppable = max(self.droppable, *map(round, limits))

    # What is always so.

    def truth(self, sample: int) -> int:
        """The position of a sample of the connection, as read from what came out."""
        if sample >= self.server:
            return self.next
        index = bisect_right(self.chunks, sample, key=lambda chunk: chunk[0]) - 1
        start, positions = self.chunks[index]
        return int(positions[sample - start])

    def look_up(self, first: float, last: float) -> None:
        """Ask for the times of two seconds of the connection."""
        samples = int(self.server * first), int(self.server * max(first, last))
        positions = self.truth(samples[0]), self.truth(samples[1])
        if positions[0] < max(self.said, self.next - round(KEEP_SPEAKING * self.rate)):
            return
        start, end = self.timeline.span(samples[0] / self.rate, samples[1] / self.rate)
        assert end - start == pytest.approx((positions[1] - positions[0]) / self.rate, abs=1e-6)
        pause = self.clock.pause_before(sum(positions) / 2 / self.rate)
        assert start == pytest.approx(positions[0] / self.rate + pause, abs=1e-6)
        for sample, position in zip(samples, positions, strict=True):
            assert self.timeline.is_covered(sample / self.rate) == (position <= self.said)

    def check(self) -> None:
        assert round(self.timeline.sent * self.rate) == self.fresh, "usage counts a sample once"
        assert self.timeline.position == self.next
        assert self.timeline.is_empty == (self.pushed == 0)
        assert self.timeline.has_backlog == (self.pushed - self.next >= chunk_samples(self.rate))
        assert self.next - self.timeline.start <= (KEEP_SPEAKING + TRIM_INTERVAL) * self.rate
        assert len(self.timeline._pcm) == 2 * (self.pushed - self.timeline._pcm.start)


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
    ),
    step("live", seconds=st.sampled_from([0.007, 0.033, 0.4, 1.0]), count=st.integers(1, 8)),
    step("send", limit=st.sampled_from([1, 2, 5, 30, 10_000])),
    step("flush"),
    step("final", part=st.floats(0, 1.1), last=st.booleans()),
    step("final_without_times"),
    step("speak", speaking=st.booleans()),
    step("wait", seconds=st.sampled_from([0.01, 1.0, 10.0]), got=st.booleans()),
    step("reconnect", limit=st.sampled_from([0, 1, 10_000])),
    step("look_up", first=PART, last=PART),
)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(RATES), st.lists(STEPS, min_size=15, max_size=50))
def test_anything_in_any_order(rate: int, steps: list[tuple[str, dict[str, Any]]]) -> None:
    """Pushes, flushes, partial sends, finals and new connections."""
    model = Model(rate)
    for name, arguments in steps:
        getattr(model, name)(**arguments)
        model.check()
