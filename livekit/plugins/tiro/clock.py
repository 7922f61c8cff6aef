"""Turns seconds of pushed audio into times, the pauses of the caller's audio included. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

PAUSE = 1.0
"""Seconds without audio after which a caller who was talking is taken to be muted."""

# s; a file that is pushed at once gets farther ahead of the clock than live audio ever does.
_FARTHEST_AHEAD = 30.0
# s that a frame may be late before the gap counts as a pause (silence suppression leaves out 0.2 s
# and more). A late burst takes the pause back, so this may be less than the jitter of a network. A
# loop that pushes a little too slowly makes no pauses.
_GAP = 0.15
# s of audio at its own pace after which all before it is settled: late audio would have come.
_SETTLED_AFTER = 1.0
# s that audio may gain on real time meanwhile: a file that is pushed faster is not live.
_GAIN = 0.02
# s; the smallest gain that counts while audio is not settled: less is rounding.
_LEAST_GAIN = 0.001


class Clock:
    """Turns seconds of pushed audio into seconds since the caller's first sample, pauses included.

    The framework adds these times to a wall-clock anchor, so a pause in the audio (a muted
    microphone and silence suppression push nothing) has to take time here too.

    Audio is a row of stretches, each recorded without a pause. A gap begins a new stretch. Audio
    that was only late comes in a burst after the gap; it moves the stretch back to where it
    belongs, so that no time lies in the future. A longer burst was recorded before the call stood,
    or is a file: the next gap may be as long as the surplus and is no pause. All this is settled,
    and such audio counts as live, once audio has run at its own pace for a while.

    For example, frames of 0.1 s come each 0.1 s, until none comes from 5.0 s to 8.0 s. At 8.0 s, a
    new stretch begins 3 s later. If 30 frames then come at once, they were only late: at the last
    of them that stretch is gone again. If they go on to come each 0.1 s, the caller was muted, and
    after `_SETTLED_AFTER` the pause is there for good.
    """

    __slots__ = (
        "_audio",
        "_began",
        "_credit",
        "_credits",
        "_gains_from",
        "_last",
        "_lead",
        "_origins",
        "_settled",
        "_shifts",
        "_starts",
        "_steady_at",
        "_steady_since",
        "latest",
    )

    def __init__(self) -> None:
        """Start before any audio."""
        self.latest = 0.0
        """Seconds of audio in the latest push."""
        self._audio = 0.0
        self._last: float | None = None
        self._began = 0.0
        # Of each stretch: the second of audio at which it starts; the monotonic time at which
        # second 0 would have been recorded without a pause before it; and the pauses before it.
        self._starts = [0.0]
        self._origins = [0.0]
        self._shifts = [0.0]
        # How many of the stretches are settled.
        self._settled = 0
        # How long the next gap may be without being a pause; and that value before each of the
        # latest stretches whose gap may yet be taken back.
        self._credit = 0.0
        self._credits: list[float] = []
        self._gains_from = _LEAST_GAIN
        self._steady_since = self._steady_at = self._lead = 0.0

    def push(self, seconds: float, now: float) -> None:
        """Count `seconds` of audio that were pushed at monotonic `now`."""
        if self._last is None:
            # A frame longer than any microphone's was not recorded just now.
            self._began = now - min(seconds, _FARTHEST_AHEAD)
            self._last = self._origins[0] = now - seconds
            self._steady_since = now
        ahead = self._origins[-1] + self._audio + seconds - now
        if now - self._last - seconds > _GAP:
            self._note_gap(ahead, now)
        elif ahead > self._gains_from:
            self._gain(ahead, now)
        elif self._gains_from < _GAP and now - self._steady_since >= _SETTLED_AFTER:
            self._settle(ahead, now)
        self._audio += seconds
        self._last, self.latest = now, seconds

    def _note_gap(self, ahead: float, now: float) -> None:
        """Note that no audio came for a while; it is now `ahead` seconds ahead of the present."""
        if ahead < -self._credit - _GAP:
            self._credits.append(self._credit)
            self._credit, self._gains_from = 0.0, _LEAST_GAIN
            self._begin_stretch(self._audio, -ahead)
            ahead = 0.0
        self._watch(ahead, now)

    def _gain(self, ahead: float, now: float) -> None:
        """Note audio that came `ahead` seconds sooner than it can have been recorded.

        The pauses that are not settled are taken back first.
        """
        self._lead -= ahead
        if self._lead < -_GAIN:
            self._watch(0.0, now)
        while self._credits and ahead > 0:
            length = self._origins[-1] - self._origins[-2]
            if length > ahead:
                self._move(-ahead)
                self._credit = max(0.0, self._credits[-1] - (length - ahead))
                return
            ahead -= length
            del self._starts[-1], self._origins[-1], self._shifts[-1]
            self._credit = self._credits.pop()
        if len(self._starts) == self._settled:
            self._begin_stretch(self._audio, 0.0)
            self._gains_from = _LEAST_GAIN
        self._credit += ahead
        self._move(-ahead)

    def _settle(self, ahead: float, now: float) -> None:
        """Take audio for live that has run at its own pace for a while, `ahead` of the present."""
        if ahead - self._lead > _GAIN:
            self._watch(ahead, now)
            return
        if self._credit > 0 and self._lead < -_GAP:
            # The audio before was early, and the gap after it a pause. One frame can be late.
            self._begin_stretch(self._steady_at, -self._lead)
        self._credits.clear()
        self._credit, self._gains_from, self._settled = 0.0, _GAP, len(self._starts)

    def _watch(self, lead: float, now: float) -> None:
        """Watch from now on whether audio stays `lead` seconds ahead of the present."""
        self._steady_since, self._steady_at, self._lead = now, self._audio, lead

    def _begin_stretch(self, start: float, pause: float) -> None:
        self._starts.append(start)
        self._origins.append(self._origins[-1])
        self._shifts.append(self._shifts[-1])
        self._move(pause)

    def _move(self, seconds: float) -> None:
        """Set the recording time of the latest stretch `seconds` later."""
        self._origins[-1] += seconds
        # Times never run back, even while audio from before the call is made up for.
        before = self._shifts[-2] if len(self._shifts) > 1 else 0.0
        self._shifts[-1] = max(before, self._origins[-1] - self._began)

    @property
    def pushed(self) -> float:
        """Seconds of audio pushed so far."""
        return self._audio

    @property
    def settled_to(self) -> float:
        """The second of audio from which on a pause may yet turn out to be late audio."""
        return self._starts[-len(self._credits)] if self._credits else inf

    @property
    def is_early(self) -> bool:
        """Whether audio came faster than its own pace: a file, or audio held up before the call."""
        return self._credit > _GAP

    def is_paused(self, now: float) -> bool:
        """Tell whether live audio has stopped coming."""
        if self._last is None:
            return False
        late = now - self._origins[-1] - self._audio
        return min(now - self._last, late - self._credit) > PAUSE

    def is_live(self, now: float) -> bool:
        """Tell live audio from a file that is pushed as fast as it can be read."""
        return self._last is not None and self._audio < now - self._began + _FARTHEST_AHEAD

    def pause_around(self, seconds: float) -> tuple[float, float, float]:
        """Return how long the pauses before a second are, and between which seconds that holds."""
        index = bisect_right(self._starts, seconds) - 1
        after = self._starts[index + 1 : index + 2]
        return self._shifts[index], self._starts[index], after[0] if after else inf

    def pauses_after(self, seconds: float) -> list[float]:
        """Return the seconds of audio after a given one at which there is a `PAUSE` or more."""
        first = bisect_right(self._starts, seconds)
        return [
            self._starts[n]
            for n in range(max(1, first), len(self._starts))
            if self._origins[n] - self._origins[n - 1] >= PAUSE
        ]

    def recorded_at(self, second: float) -> float | None:
        """Return the monotonic time of a second that counts pauses; None before any audio.

        Whoever wants epoch seconds converts it by the system's clock as it stands then.
        """
        if self._last is None:
            return None
        starts, shifts = self._starts, self._shifts
        # The stretches are in order, and so are the times at which they start.
        after = bisect_right(range(len(starts)), second, key=lambda n: starts[n] + shifts[n])
        number = max(0, after - 1)
        return self._origins[number] + second - shifts[number]
