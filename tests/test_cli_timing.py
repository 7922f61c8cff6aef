"""Where each frame of a recording belongs, whatever its clocks do."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.tiro.cli.timing import Placed, Timekeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HOUR = 3600.0
# What word times may be off by.
TRUE = 0.06

Frame = tuple[float | None, float]
"""A timestamp, and a length in seconds."""


def place(frames: Iterable[Frame], start: float = 0.0) -> list[Placed[int]]:
    """The places of some frames, which are numbered."""
    keeper: Timekeeper[int] = Timekeeper(start)
    placed: list[Placed[int]] = []
    for number, (stamp, seconds) in enumerate(frames):
        placed += keeper.push(number, stamp, seconds)
    placed += keeper.flush()
    assert [found.item for found in placed] == list(range(len(placed)))
    return placed


def recorded(
    length: float, stamp: Callable[[float], float] = lambda at: at, seconds: float = 0.02
) -> list[Frame]:
    """Frames of `seconds`: `stamp` turns seconds of sound into a timestamp, rounded to 1 ms."""
    count = round(length / seconds)
    return [(round(stamp(number * seconds), 3), seconds) for number in range(count)]


def worst(frames: Iterable[Frame], placed: Iterable[Placed[int]]) -> float:
    """By how much the worst place is off its timestamp."""
    return max(
        abs(found.start - stamp)
        for (stamp, _), found in zip(frames, placed, strict=True)
        if stamp is not None
    )


def test_frames_that_follow_each_other_keep_their_places() -> None:
    frames = recorded(20)
    placed = place(frames)
    assert worst(frames, placed) < 0.001
    assert sum(found.silence for found in placed) == 0


@pytest.mark.many
@pytest.mark.parametrize("seconds", [0.1, 0.288])
@pytest.mark.parametrize("pace", [0.98, 1.02])
def test_a_clock_that_is_off_by_two_percent_is_followed_for_an_hour(
    seconds: float, pace: float
) -> None:
    frames = recorded(HOUR, lambda at: at * pace, seconds)
    placed = place(frames)
    assert worst(frames, placed) < TRUE / 2
    # Nothing is missing, and nothing was put in.
    assert sum(found.silence for found in placed) == 0
    assert placed[-1].start + seconds == pytest.approx(HOUR * pace, abs=TRUE)


@pytest.mark.parametrize(("length", "seconds"), [(HOUR, 0.1), (300.0, 0.02)])
def test_lost_packets_become_silence_of_their_length(length: float, seconds: float) -> None:
    draw = random.Random(1)
    frames = [frame for frame in recorded(length, seconds=seconds) if draw.random() > 0.1]
    frames = [*frames, (length, seconds)]
    placed = place(frames)
    assert worst(frames, placed) < TRUE / 2
    lost = length - seconds * (len(frames) - 1)
    assert sum(found.silence for found in placed) == pytest.approx(lost, rel=0.01)


def test_each_lost_packet_is_found_where_it_was() -> None:
    frames = [frame for n, frame in enumerate(recorded(10)) if n % 50 != 49]
    silent = [n for n, found in enumerate(place(frames)) if found.silence]
    assert silent == list(range(49, 490, 49))


@pytest.mark.parametrize("step", [0.06, 0.2, 0.5, 30.0, 3000.0])
def test_a_step_forward_is_silence(step: float) -> None:
    frames = recorded(70, lambda at: at if at < 60 else at + step)
    placed = place(frames)
    assert worst(frames, placed) < TRUE / 2
    assert [found.silence for found in placed if found.silence] == [pytest.approx(step, abs=0.01)]


@pytest.mark.parametrize("step", [0.06, 0.5, 9.0])
def test_a_step_back_is_followed_and_nothing_is_dropped(step: float) -> None:
    frames = recorded(70, lambda at: at if at < 60 else at - step)
    placed = place(frames)
    assert worst(frames, placed) < TRUE / 2
    assert sum(found.silence for found in placed) == 0


@pytest.mark.parametrize("step", [4000.0, -50.0, -60.0])
def test_a_step_that_no_recording_takes_begins_a_new_timeline(step: float) -> None:
    """Such as the end of one part of a broadcast and the beginning of the next."""
    frames = recorded(70, lambda at: at if at < 60 else at + step)
    placed = place(frames)
    for number, found in enumerate(placed):
        assert found.start == pytest.approx(number * 0.02, abs=TRUE)
    assert sum(found.silence for found in placed) == 0


def test_a_timestamp_that_is_wrong_alone_is_no_gap() -> None:
    frames = recorded(10)
    frames[200] = (frames[200][0] or 0) + 1800.0, 0.02
    frames[300] = (frames[300][0] or 0) - 3.0, 0.02
    placed = place(frames)
    for number, found in enumerate(placed):
        assert found.start == pytest.approx(number * 0.02, abs=0.001)
        assert found.silence == 0


def test_timestamps_given_on_arrival_do_not_tear_the_sound_apart() -> None:
    draw = random.Random(2)
    frames = recorded(120, lambda at: at + draw.uniform(-0.03, 0.03))
    placed = place(frames)
    assert sum(found.silence for found in placed) < 0.1
    for number, found in enumerate(placed):
        assert found.start == pytest.approx(number * 0.02, abs=TRUE)


def test_frames_without_a_timestamp_follow_the_one_before() -> None:
    for unknown in (None, math.nan, math.inf):
        placed = place([(5.0, 0.5), (unknown, 0.5), (6.0, 0.5)], start=5.0)
        assert [found.start for found in placed] == [5.0, 5.5, 6.0]


def test_a_few_packets_that_are_far_apart_are_placed_one_by_one() -> None:
    """Discontinuous transmission: a packet of noise each 400 ms."""
    frames: list[Frame] = [(0.4 * number, 0.02) for number in range(10)]
    placed = place(frames)
    assert worst(frames, placed) < 0.001
    assert [found.silence for found in placed[1:]] == [pytest.approx(0.38)] * 9


@pytest.mark.parametrize(("gap", "silence"), [(0.5, 0.5), (500.0, 0.0)])
def test_the_last_frame_is_believed_only_a_little(gap: float, silence: float) -> None:
    placed = place([(0.0, 0.02), (0.02, 0.02), (0.04 + gap, 0.02)])
    assert placed[-1].silence == pytest.approx(silence)
    assert placed[-1].start == pytest.approx(0.04 + silence)


def test_what_is_held_at_the_end_is_not_lost() -> None:
    placed = place([(0.0, 0.02), (5.02, 0.02), (5.04, 0.02)])
    assert [found.start for found in placed] == pytest.approx([0.0, 5.02, 5.04])


def test_stamps_that_contradict_each_other_are_passed_over() -> None:
    """Half of them early, half of them late: the sound goes on as it comes."""
    stamps = [0.0, 0.02] + [0.04 + 0.02 * n + (3.0 if n % 2 else -0.02) for n in range(20)]
    placed = place([(stamp, 0.02) for stamp in stamps])
    assert len(placed) == 22
    assert placed[10].start == pytest.approx(0.2, abs=TRUE)


def test_the_end_is_that_of_the_frame_placed_last() -> None:
    keeper: Timekeeper[str] = Timekeeper(2.0)
    assert list(keeper.push("a", 2.0, 0.5)) == [Placed("a", 2.0, 0.0)]
    assert list(keeper.push("b", 5.0, 0.5)) == []
    assert keeper.end == 2.5
    assert list(keeper.flush()) == [Placed("b", 2.5, 0.0)]
    assert keeper.end == 3.0
