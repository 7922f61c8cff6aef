"""Seconds of audio as time, with the pauses in it; and whether it is live. Ids are of the contract
with the framework (T: times)."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from livekit.plugins.tiro.clock import Clock

from .support.examples import examples

FARTHEST_AHEAD = 30.0
"""Seconds; audio farther ahead of the present is a file."""


class SimulatedMicrophone:
    """A microphone that pushes 50 ms frames into a clock; time is what the test says it is."""

    def __init__(self, clock: Clock, start: float = 1000.0) -> None:
        self.clock = clock
        self.started = self.now = start

    def frame(self, seconds: float = 0.05) -> None:
        self.clock.push(seconds, self.now)

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
        return audio + self.clock.pause_around(audio)[0]


@pytest.fixture
def microphone() -> SimulatedMicrophone:
    return SimulatedMicrophone(Clock())


def test_time_is_audio_while_there_is_no_pause(microphone: SimulatedMicrophone) -> None:
    microphone.talk(10)
    assert microphone.clock.pushed == pytest.approx(10)
    assert microphone.clock.pause_around(10)[0] == 0
    assert microphone.clock.recorded_at(0.0) == pytest.approx(microphone.started)


def test_a_mute_takes_time(microphone: SimulatedMicrophone) -> None:
    microphone.talk(10)
    microphone.mute(20)
    microphone.talk(10)
    assert microphone.time(9.99) == pytest.approx(9.99)
    assert microphone.time(10.01) == pytest.approx(30.01)
    assert microphone.time(20) == pytest.approx(40) == microphone.elapsed


def test_several_mutes_add_up(microphone: SimulatedMicrophone) -> None:
    for _ in range(5):
        microphone.talk(2)
        microphone.mute(3)
    microphone.talk(2)
    for i in range(6):
        assert microphone.time(2 * i + 1) == pytest.approx(5 * i + 1)


@pytest.mark.parametrize("late", [0.02, 0.1, 0.15])
def test_what_is_a_little_late_is_the_networks(
    microphone: SimulatedMicrophone, late: float
) -> None:
    microphone.talk(1)
    microphone.mute(late)
    microphone.talk(1)
    assert microphone.time(2) == pytest.approx(2)
    assert microphone.time(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("gap", [0.16, 0.3, 0.9])
def test_short_gaps_add_up(microphone: SimulatedMicrophone, gap: float) -> None:
    """Silence suppression: the times of the words stay those of the call (T1)."""
    for _ in range(60):
        microphone.talk(1)
        microphone.mute(gap)
    microphone.talk(1)
    for count in range(60):
        assert microphone.time(count + 0.5) == pytest.approx(count * (1 + gap) + 0.5, abs=0.06)
    assert microphone.time(61) == pytest.approx(microphone.elapsed)


def test_a_loop_that_pushes_too_slowly_makes_no_pauses(microphone: SimulatedMicrophone) -> None:
    for _ in range(400):
        microphone.now += 0.055
        microphone.frame()
    assert microphone.time(20) == pytest.approx(20)
    microphone.mute(1)
    microphone.frame()
    assert microphone.time(20.05) == pytest.approx(23, abs=0.06), "then it shows"


def test_a_long_frame_takes_its_own_time(microphone: SimulatedMicrophone) -> None:
    """2 s frames every 2 s; one of them is late, and the next one catches up."""
    for late in (0.0, 0.0, 0.5, -0.5, 0.0):
        microphone.mute(2 + late)
        microphone.frame(2)
    assert microphone.time(5) == 5
    assert microphone.time(9) == 9
    microphone.mute(2.5)
    microphone.frame(2)
    assert microphone.time(9) == 9
    assert microphone.time(11) == 11.5


def test_late_audio_that_comes_in_a_burst_is_no_pause(microphone: SimulatedMicrophone) -> None:
    microphone.talk(10)
    microphone.mute(3)
    microphone.burst(3)
    microphone.talk(2)
    for audio in (5, 10.02, 12, 14):
        assert microphone.time(audio) == pytest.approx(audio, abs=0.06)


def test_what_a_burst_makes_up_for_in_part_is_a_pause_in_part(
    microphone: SimulatedMicrophone,
) -> None:
    """Muted for 20 s, and the first second after it was late."""
    microphone.talk(10)
    microphone.mute(21)
    microphone.burst(1)
    microphone.talk(5)
    assert microphone.time(12) == pytest.approx(32, abs=0.06)


def test_late_audio_in_two_bursts_is_no_pause_either(microphone: SimulatedMicrophone) -> None:
    microphone.talk(5)
    microphone.mute(5)
    microphone.frame()
    microphone.mute(1.5)
    microphone.burst(6.45)
    assert microphone.time(11.5) == pytest.approx(microphone.elapsed)
    assert microphone.time(7) == pytest.approx(7)


def test_a_true_mute_survives_a_false_one(microphone: SimulatedMicrophone) -> None:
    microphone.talk(5)
    microphone.mute(20)
    microphone.talk(5)
    microphone.mute(4)
    microphone.burst(4)
    assert microphone.time(9) == pytest.approx(29)
    assert microphone.time(14) == pytest.approx(34) == microphone.elapsed


def test_a_file_pushed_at_once_never_jumps(microphone: SimulatedMicrophone) -> None:
    microphone.burst(100)
    microphone.mute(5)
    microphone.burst(100)
    microphone.mute(30)
    microphone.burst(100)
    assert [microphone.time(audio) for audio in (50, 150, 250, 300)] == [50, 150, 250, 300]


def test_audio_from_before_the_connection_is_a_lead_and_no_pause(
    microphone: SimulatedMicrophone,
) -> None:
    microphone.burst(5)
    microphone.talk(10)
    assert microphone.time(15) == pytest.approx(15)
    microphone.mute(20)
    microphone.talk(1)
    assert microphone.time(16) == pytest.approx(microphone.elapsed, abs=0.06), "not in the future"


def test_the_time_of_recording_runs_with_the_audio(microphone: SimulatedMicrophone) -> None:
    """T6."""
    assert microphone.clock.recorded_at(0) is None
    microphone.talk(10)
    microphone.mute(20)
    microphone.talk(5)
    began = microphone.started
    for time in (0, 5, 9.9, 30.1, 35):
        assert microphone.clock.recorded_at(time) == pytest.approx(began + time, abs=1e-3)


def test_audio_from_before_the_connection_was_said_before_it(
    microphone: SimulatedMicrophone,
) -> None:
    """T6: 5 s come at once, and the audio after them is live."""
    microphone.burst(5)
    assert microphone.clock.recorded_at(5) == pytest.approx(microphone.now)
    microphone.talk(10)
    assert microphone.clock.recorded_at(0) == pytest.approx(microphone.started - 5)
    assert microphone.clock.recorded_at(15) == pytest.approx(microphone.now)
    microphone.mute(20)
    microphone.talk(1)
    assert microphone.clock.recorded_at(microphone.time(15.99)) == pytest.approx(
        microphone.now, abs=0.06
    )
    assert microphone.clock.recorded_at(0) == pytest.approx(microphone.started - 5)


def test_a_pause_is_settled_when_audio_has_gone_on_for_a_second(
    microphone: SimulatedMicrophone,
) -> None:
    """Then it is known not to be late."""
    assert microphone.clock.settled_to == math.inf
    microphone.talk(2)
    for start in (2, 2.5):
        microphone.mute(1.5)
        microphone.talk(0.5)
        assert microphone.clock.pauses_after(0)[-1] == pytest.approx(start)
        assert microphone.clock.settled_to == pytest.approx(2)
    microphone.talk(0.7)
    assert microphone.clock.settled_to == math.inf
    assert microphone.clock.pauses_after(0) == pytest.approx([2, 2.5])


def test_a_burst_takes_no_mute_back_that_is_over(microphone: SimulatedMicrophone) -> None:
    """T1, T6: a room pushes 0.5 s of silence at once where a track ends."""
    for at_once in (False, True):
        before, began = microphone.clock.pushed, microphone.now
        microphone.talk(2)
        microphone.mute(10)
        microphone.talk(1.2)
        microphone.frame(0.5) if at_once else microphone.burst(0.5)
        microphone.mute(5)
        microphone.talk(2)
        for audio, since in ((1, 1), (3, 13), (4, 18.5)):
            time = microphone.time(before + audio)
            assert time == pytest.approx(began - microphone.started + since, abs=0.01)
            assert microphone.clock.recorded_at(time) == pytest.approx(began + since, abs=0.01)


def test_a_burst_takes_back_the_pause_that_is_not_over(microphone: SimulatedMicrophone) -> None:
    """And no more than that: a pause that was settled before stays where it is."""
    microphone.talk(5)
    microphone.mute(0.3)
    microphone.burst(1)
    microphone.talk(3)
    assert microphone.clock.recorded_at(2) == pytest.approx(microphone.started + 2)
    assert microphone.clock.recorded_at(8) == pytest.approx(microphone.started + 7.3)
    assert microphone.time(8) == pytest.approx(8)


def test_a_mute_after_a_lead_is_a_mute(microphone: SimulatedMicrophone) -> None:
    """T4, T6: a mute of 4 s makes up for a part of a lead of 5 s, one of 10 s more for the rest."""
    microphone.burst(5)
    microphone.talk(1.2)
    assert not microphone.clock.is_paused(microphone.now + 0.9)
    assert microphone.clock.is_paused(microphone.now + 1.1)
    microphone.mute(4)
    microphone.talk(2)
    assert microphone.clock.recorded_at(microphone.time(8.2)) == pytest.approx(microphone.now)
    assert microphone.clock.recorded_at(5) == pytest.approx(microphone.started)
    assert microphone.clock.pauses_after(0) == pytest.approx([6.2])
    assert microphone.time(8.2) == pytest.approx(8.2), "1 s less is in the future than before"
    microphone.mute(10)
    microphone.talk(2)
    assert microphone.time(10.2) == pytest.approx(microphone.elapsed, abs=0.06), "and now none"
    assert microphone.clock.recorded_at(microphone.time(10.2)) == pytest.approx(microphone.now)


def test_a_mute_soon_after_a_lead_is_found_out_later(microphone: SimulatedMicrophone) -> None:
    """T6: only as audio goes on does it show that the audio is live, and no file."""
    microphone.burst(5)
    microphone.talk(0.5)
    microphone.mute(4)
    microphone.talk(1.2)
    assert microphone.clock.recorded_at(microphone.time(5.2)) == pytest.approx(
        microphone.started + 0.2, abs=0.06
    )
    assert microphone.clock.recorded_at(microphone.time(6.7)) == pytest.approx(microphone.now)
    assert microphone.clock.is_paused(microphone.now + 1.1)


@pytest.mark.parametrize("piece", [0.05, 1.0])
@pytest.mark.parametrize("pace", [1.05, 1.2, 2.0, 10.0])
def test_a_file_at_a_steady_pace_never_jumps(
    microphone: SimulatedMicrophone, pace: float, piece: float
) -> None:
    """Its lead is never settled: the file may be late by as much as it is ahead."""
    for _ in range(4):
        for _ in range(round(60 / piece)):
            microphone.now += piece / pace
            microphone.frame(piece)
        late = 60 - 60 / pace - piece
        assert not microphone.clock.is_paused(microphone.now + late)
        microphone.mute(late)
    microphone.frame()
    assert microphone.time(240) == 240
    assert microphone.clock.pauses_after(0) == []
    assert microphone.clock.is_live(microphone.now) == (240 < microphone.elapsed + FARTHEST_AHEAD)


def test_a_jitter_is_no_pause_and_hides_none(microphone: SimulatedMicrophone) -> None:
    """T1, T6: frames that are late by up to 0.1 s."""
    late = random.Random(7).uniform
    for _ in range(5):
        began, before = microphone.now, microphone.clock.pushed
        for n in range(1, 201):
            microphone.now = began + n * 0.05 + late(0, 0.1)
            microphone.frame()
        audio = before + 9.9
        recorded = microphone.clock.recorded_at(microphone.time(audio))
        assert recorded == pytest.approx(began + 9.9, abs=0.16)
        assert microphone.clock.is_paused(microphone.now + 1.3)
        microphone.now = began + 20
    assert microphone.clock.pauses_after(0) == pytest.approx([10, 20, 30, 40])


def test_live_audio_is_told_from_a_file(microphone: SimulatedMicrophone) -> None:
    assert not microphone.clock.is_live(microphone.now)
    microphone.talk(3)
    assert microphone.clock.is_live(microphone.now)
    microphone.mute(60)
    microphone.talk(3)
    assert microphone.clock.is_live(microphone.now)
    microphone.burst(FARTHEST_AHEAD + 120)
    assert not microphone.clock.is_live(microphone.now)


def test_a_single_long_frame_is_a_file(microphone: SimulatedMicrophone) -> None:
    microphone.frame(FARTHEST_AHEAD * 2 + 1)
    assert not microphone.clock.is_live(microphone.now)


def test_a_pause_is_noticed_while_it_lasts(microphone: SimulatedMicrophone) -> None:
    clock = microphone.clock
    assert not clock.is_paused(microphone.now)
    microphone.talk(3)
    assert not clock.is_paused(microphone.now + 0.9)
    assert clock.is_paused(microphone.now + 1.1)
    microphone.mute(5)
    microphone.talk(0.05)
    assert not clock.is_paused(microphone.now + 0.9)
    assert clock.is_paused(microphone.now + 1.1)


def test_audio_that_lags_is_not_paused(microphone: SimulatedMicrophone) -> None:
    for _ in range(5):
        microphone.talk(1)
        microphone.mute(0.9)
    assert not microphone.clock.is_paused(microphone.now)
    assert microphone.clock.is_paused(microphone.now + 0.2)


def test_a_file_that_was_pushed_ahead_is_not_paused(microphone: SimulatedMicrophone) -> None:
    microphone.burst(30)
    assert not microphone.clock.is_paused(microphone.now + 20)


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
            now += seconds + 0.15
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


@examples(40)
@given(EVENTS)
def test_the_time_of_live_audio_is_when_it_was_recorded(events: list[tuple[str, float]]) -> None:
    """Mutes and late audio in any order; what was late has arrived in the end."""
    frames = recorded(events)
    clock = Clock()
    for index, (_, arrival) in enumerate(frames):
        clock.push(0.05, 1000 + arrival)
        audio = (index + 1) * 0.05
        assert audio + clock.pause_around(audio - 0.01)[0] <= arrival + 1e-6, "in the future (T4)"
    times = []
    for index, (end, _) in enumerate(frames):
        middle = index * 0.05 + 0.025
        times.append(middle + clock.pause_around(middle)[0])
        assert times[-1] == pytest.approx(end - 0.025, abs=1e-6)
    assert all(before < after for before, after in pairwise(times))


@examples(40)
@given(st.integers(0, 100), EVENTS)
def test_audio_with_a_lead_was_recorded_when_it_was(
    lead: int, events: list[tuple[str, float]]
) -> None:
    """T6: it goes on for more than 1 s at the start, and between events."""
    began = lead * 0.05
    frames = [((n + 1) * 0.05 - began, 0.0) for n in range(lead)]
    steady = [step for event in events for step in (event, ("talk", 1.5))]
    frames += recorded([("talk", 1.5), *steady])
    clock = Clock()
    for _, arrival in frames:
        clock.push(0.05, 1000 + arrival)
    for index, (end, _) in enumerate(frames):
        second = index * 0.05 + 0.025
        at = clock.recorded_at(second + clock.pause_around(second)[0])
        assert at == pytest.approx(1000 + end - 0.025, abs=1e-6)


@examples(40)
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), max_size=30))
def test_time_never_runs_backwards(pushes: list[tuple[float, float]]) -> None:
    """Frames of any length after gaps of any length."""
    clock, now = Clock(), 1000.0
    for seconds, gap in pushes:
        now += gap
        clock.push(seconds, now)
        grid = [clock.pushed * i / 20 for i in range(21)]
        times = [audio + clock.pause_around(audio)[0] for audio in grid]
        assert all(before <= after for before, after in pairwise(times))
        assert all(time >= audio for time, audio in zip(times, grid, strict=True))


@pytest.mark.many
@pytest.mark.parametrize("seed", range(10))
def test_audio_that_stalls_and_all_comes_is_no_pause(seed: int) -> None:
    """T1: whichever frame is the late one, and though all come a little early or late."""
    chance, clock, recorded, now = random.Random(seed), Clock(), 0.0, 0.0
    for _ in range(300):
        stalls_at = recorded + chance.uniform(0.2, 4.0)
        stalls_to = stalls_at + chance.uniform(0.15, 0.4)
        while recorded < stalls_to:
            recorded += 0.02
            arrives = recorded + chance.uniform(0.0, 0.01)
            now = max(now, stalls_to if recorded > stalls_at else arrives)
            clock.push(0.02, now)
    assert clock.pause_around(recorded)[0] <= 0.1


def test_audio_is_early_until_it_has_come_at_its_own_pace(microphone: SimulatedMicrophone) -> None:
    microphone.talk(5)
    assert not microphone.clock.is_early
    microphone.burst(3)
    assert microphone.clock.is_early, "a file, or what waited for the call"
    microphone.talk(3)
    assert not microphone.clock.is_early


def test_audio_that_was_late_is_not_early(microphone: SimulatedMicrophone) -> None:
    microphone.talk(5)
    microphone.mute(0.5)
    microphone.burst(0.5)
    assert not microphone.clock.is_early
