"""Where in a recording each piece of it belongs: gaps, clocks that drift, steps; no I/O.

A recording has two clocks, its timestamps and the number of its samples. They part where packets
were lost, where the recorder's clock ran fast or slow, and where timestamps step. The timestamps
are the ones that its other tracks and every player go by, so they decide.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

T = TypeVar("T")

# Seconds. Containers round to 1 ms, and the shortest packet that is commonly lost is of 10 ms.
_TOLERANCE = 0.008
# Seconds of evidence before a jump is believed: a single wrong timestamp is no gap.
_HOLD = 0.2
# Seconds in which a slow drift is followed; at 2 % that lags by 2 ms.
_SLEW = 0.1
# A jump of the timestamps by less than this share of a frame is drift, not a loss.
_SHARE_OF_FRAME = 0.05
# Timestamps that were given on arrival come late by chance, and then early. Only a gap longer
# than the latest such step back, by this factor, is taken for a loss; the memory fades in 30 s.
_JITTER_FACTOR = 1.5
_JITTER_FADES = 30.0
# Seconds. A recording can leave out the time in which no microphone is on, an hour at most; it can
# step back by the length of a stalled buffer at most. A longer step starts a new timeline.
_LONGEST_STEP = 3600.0
_LONGEST_STEP_BACK = 10.0
# Seconds; after the last frame of all, no other shows whether its timestamp is right.
_LONGEST_LAST_STEP = 1.0


@dataclass(frozen=True)
class Placed(Generic[T]):
    """A piece of a recording and where it belongs."""

    item: T
    start: float
    """Seconds of the recording."""
    silence: float
    """Seconds before it that are missing."""


@dataclass(frozen=True)
class _Held(Generic[T]):
    item: T
    time: float
    seconds: float


class Timekeeper(Generic[T]):
    """Gives each frame its place, in order.

    A frame that fits after the one before is placed at once. One that does not fit is held until
    the frames after it show whether to believe its timestamp, a fifth of a second later.

    Args:
        start: Where the first frame is expected, in seconds of the recording.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._end = start
        self._shift = 0.0
        self._jitter = 0.0
        # Where the timestamps say that the frame taken in last ended.
        self._stamped_end = start
        self._held: deque[_Held[T]] = deque()
        # The step of the timestamps at the first frame held.
        self._step = 0.0

    @property
    def end(self) -> float:
        """Where the frame placed last ends, in seconds of the recording."""
        return self._end

    def push(self, item: T, time: float | None, seconds: float) -> Iterator[Placed[T]]:
        """Take the next frame, and yield those whose place is known by now.

        Args:
            item: The frame.
            time: Its timestamp in seconds of the recording; None if it has none.
            seconds: How long it is.
        """
        expected = self._end + sum(held.seconds for held in self._held)
        known = time is not None and math.isfinite(time)
        stamp = time + self._shift if time is not None and known else expected
        fits = abs(stamp - expected) < _TOLERANCE
        step = stamp - self._stamped_end
        self._note_jitter(step, seconds)
        self._stamped_end = stamp + seconds
        if fits and not self._held:
            yield self._follow(item, stamp - expected, seconds)
            return
        if not self._held:
            self._step = step
        self._held.append(_Held(item, stamp, seconds))
        if fits:
            # The others came late or early by chance.
            yield from self._release()
        elif len(self._held) > 1 and self._evidence() >= _HOLD:
            yield from self._decide()

    def flush(self) -> Iterator[Placed[T]]:
        """Yield what is still held, because nothing more comes."""
        if len(self._held) == 1 and abs(self._offsets()[0]) > _LONGEST_LAST_STEP:
            yield from self._release()
        while self._held:
            yield from self._decide()

    def _note_jitter(self, step: float, seconds: float) -> None:
        if self._jitter:
            self._jitter *= math.exp(-seconds / _JITTER_FADES)
        if -_LONGEST_STEP_BACK < step < -_TOLERANCE / 2:
            self._jitter = max(self._jitter, -step)

    def _follow(self, item: T, off: float, seconds: float) -> Placed[T]:
        """Place a frame that fits, and follow a drift slowly: single timestamps are rounded."""
        start = self._end + off * (1.0 - math.exp(-seconds / _SLEW))
        self._end = start + seconds
        return Placed(item, start, 0.0)

    def _release(self) -> Iterator[Placed[T]]:
        """Place all held frames one after the other, whatever their timestamps say."""
        while self._held:
            held = self._held.popleft()
            yield self._follow(held.item, 0.0, held.seconds)

    def _evidence(self) -> float:
        """Return the seconds that the held frames cover, by either clock."""
        stamps = [held.time for held in self._held]
        return max(sum(held.seconds for held in self._held), max(stamps) - min(stamps))

    def _offsets(self) -> list[float]:
        """Return how far each held frame is from where it fits."""
        expected = self._end
        offsets = []
        for held in self._held:
            offsets.append(held.time - expected)
            expected += held.seconds
        return offsets

    def _decide(self) -> Iterator[Placed[T]]:
        """Place the first held frame, and those after it that fit then."""
        offsets = self._offsets()
        if min(offsets) > 0:
            step = min(offsets)
        elif max(offsets) < 0:
            step = max(offsets)
        else:
            step = 0.0
        if not -_LONGEST_STEP_BACK <= step <= _LONGEST_STEP:
            self._restart(step)
            step = 0.0
        held = self._held.popleft()
        silence = step if self._is_loss(step, held.seconds) else 0.0
        start = self._end + step
        self._end = start + held.seconds
        yield Placed(held.item, start, silence)
        yield from self._take_fitting(held)

    def _take_fitting(self, before: _Held[T]) -> Iterator[Placed[T]]:
        while self._held:
            held = self._held[0]
            off = held.time - self._end
            if abs(off) >= _TOLERANCE:
                self._step = held.time - (before.time + before.seconds)
                return
            before = self._held.popleft()
            yield self._follow(held.item, off, held.seconds)

    def _is_loss(self, step: float, seconds: float) -> bool:
        """Tell a gap, at which something is missing, from a clock that runs slow."""
        least = max(_TOLERANCE, _SHARE_OF_FRAME * seconds, step / 2)
        return self._step >= least and step > _JITTER_FACTOR * self._jitter

    def _restart(self, step: float) -> None:
        """Let a new timeline begin where the old one ended."""
        self._shift -= step
        self._stamped_end -= step
        self._held = deque(replace(held, time=held.time - step) for held in self._held)
