"""Turns seconds of pushed audio into times, the pauses of the caller's audio included. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

PAUSE = 1.0
"""Seconds without audio after which a caller who was talking is taken to be muted."""

# s; a file, pushed at once, is farther ahead of the clock than live audio ever is.
_FARTHEST_AHEAD = 30.0
# s that a frame may be late before that is a pause (silence suppression leaves out 0.2 s and more).
# What comes late in a burst gives it back, so this may be less than the jitter of a network. A loop
# that pushes a little too slowly makes no pauses.
_GAP = 0.15


class Clock:
    """Turns seconds of pushed audio into seconds since the caller's first sample, pauses included.

    The framework adds these times to a wall-clock anchor, so a pause in the audio (a muted
    microphone and silence suppression push nothing) has to take time here too. Audio that was only
    late comes in a burst after the gap; what the burst makes good is given back, so that no time
    lies in the future. Audio that comes in a burst at the start was recorded before the call stood.
    """

    __slots__ = (
        "_audio",
        "_head_starts",
        "_last",
        "_pause_starts",
        "_pause_totals",
        "_recorded_from",
        "_started",
    )

    def __init__(self) -> None:
        """Start before any audio."""
        self._audio = 0.0
        self._pause_starts = [0.0]
        self._pause_totals = [0.0]
        self._head_starts = [0.0]
        self._started = 0.0
        self._last: float | None = None
        self._recorded_from = 0.0

    def push(self, seconds: float, now: float) -> None:
        """Count `seconds` of audio that were pushed at monotonic `now`."""
        if self._last is None:
            # A frame longer than any microphone's was not recorded just now.
            self._started = now - min(seconds, _FARTHEST_AHEAD)
            self._recorded_from = now - seconds
        late = 0.0 if self._last is None else now - self._last - seconds
        self._last = now
        ahead = self._audio + self._pause_totals[-1] - (now - self._started) + seconds
        if late > _GAP and ahead < -_GAP:
            self._pause_starts.append(self._audio)
            self._pause_totals.append(self._pause_totals[-1] - ahead)
            self._head_starts.append(0.0)
        self._audio += seconds
        if ahead > 0:
            ahead = self._give_back(ahead)
            self._head_starts[-1] = max(self._head_starts[-1], ahead)

    def _give_back(self, seconds: float) -> float:
        """Shorten the latest pauses by `seconds`: the audio of that time has come after all.

        Return the seconds for which there was no pause.
        """
        while seconds > 0 and len(self._pause_totals) > 1:
            latest = self._pause_totals[-1] - self._pause_totals[-2]
            if latest > seconds:
                self._pause_totals[-1] -= seconds
                return 0.0
            seconds -= latest
            del self._pause_starts[-1], self._pause_totals[-1], self._head_starts[-1]
        return seconds

    @property
    def pushed(self) -> float:
        """Seconds of audio pushed so far."""
        return self._audio

    def is_paused(self, now: float) -> bool:
        """Tell whether live audio has stopped coming."""
        if self._last is None:
            return False
        behind = now - self._started - (self._audio + self._pause_totals[-1])
        return min(now - self._last, behind) > PAUSE

    def is_live(self, now: float) -> bool:
        """Tell live audio from a file that is pushed as fast as it can be read."""
        return self._last is not None and self._audio < now - self._started + _FARTHEST_AHEAD

    def pause_around(self, seconds: float) -> tuple[float, float, float]:
        """Return how long the pauses before a sample are, and from where to where that holds."""
        index = bisect_right(self._pause_starts, seconds) - 1
        behind = self._pause_starts[index + 1 : index + 2]
        return self._pause_totals[index], self._pause_starts[index], behind[0] if behind else inf

    def pauses_behind(self, seconds: float) -> list[float]:
        """Return the seconds of audio, behind the given one, where there is a `PAUSE` or more."""
        first = bisect_right(self._pause_starts, seconds)
        return [
            self._pause_starts[n]
            for n in range(max(1, first), len(self._pause_starts))
            if self._pause_totals[n] - self._pause_totals[n - 1] >= PAUSE
        ]

    def recorded_at(self, second: float) -> float | None:
        """Return the monotonic seconds of a time, pauses included; None before any audio.

        Whoever wants epoch seconds adds what the system's clock says when it is asked.
        """
        if self._last is None:
            return None
        starts, totals = self._pause_starts, self._pause_totals
        # The pauses are in order, and so are the times behind them.
        low, high = 0, len(starts)
        while high - low > 1:
            middle = (low + high) // 2
            is_behind = starts[middle] + totals[middle] > second
            low, high = (low, middle) if is_behind else (middle, high)
        return self._recorded_from + second - self._head_starts[low]
