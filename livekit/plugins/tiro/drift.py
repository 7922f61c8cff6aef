"""How fast the service's clock runs, told by where sounds end and finals say they end. No I/O.

A service that cuts or pads what it gets counts other seconds than it was sent: 5 % of half an hour
is a minute and a half. Words would be let go of too early or taken for old ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# s between the end of a sound and the end of its word, as recognisers tell it: less is no drift.
_HABIT = 0.25
# s for which a noise can go on right behind a word, and be taken for a part of it.
_BEYOND_NOISE = 1.0
# How far a clock can be off, before and after its pace is known: a second a second.
_UNKNOWN, _KNOWN = 0.1, 0.02
# Finals that were found among the sounds, from which on the pace is known.
_SURE = 3
# What a final counts for against the next one: a pace may change in the course of a call.
_DECAY = 0.9
# s from comparison to comparison.
_INTERVAL = 2.0
# s of audio that the pace of the connection before counts for.
_PRIOR = 10.0


class Drift:
    """The pace of the service's clock. It lives as long as the stream; each connection starts at 0.

    Nothing is changed until the clock is off by more than a recogniser's habits can explain.
    """

    def __init__(self) -> None:
        """Start with a clock that is right."""
        self.pace = 1.0
        """Seconds of the service's clock for a second of audio."""
        self.due_at = 0.0
        """The second of the service's clock from which on the next comparison is worth its cost."""
        self._is_certain = False
        self.begin()

    def begin(self) -> None:
        """Note that a connection begins: its clock starts anew, its pace is likely the same."""
        weight = _PRIOR**2 if self._is_certain else 0.0
        self._crossed, self._squared = self.pace * weight, weight
        self._found = 0
        self.due_at = 0.0
        self._found_at = 0.0

    def compare(self, end: float, ends_of_sounds: Sequence[float]) -> None:
        """Learn from a final, if there is one sound alone that it can be about.

        Args:
            end: The second at which it ends, by the service's clock.
            ends_of_sounds: The seconds of the connection at which sounds end, by what was sent.
        """
        self.due_at = end + _INTERVAL
        if self._squared:
            expected = end * self._squared / self._crossed
        else:
            expected = end / self.pace
        share = _KNOWN if self._found >= _SURE else _UNKNOWN
        most = _HABIT + share * max(0.0, end - self._found_at)
        near = [second for second in ends_of_sounds if abs(second - expected) <= most]
        if len(near) != 1 or near[0] <= 0:
            return
        self._found, self._found_at = self._found + 1, end
        self._crossed = _DECAY * self._crossed + end * near[0]
        self._squared = _DECAY * self._squared + near[0] ** 2
        pace = self._crossed / self._squared
        # That a final covers more than it says has to be certain; that it covers less does no harm.
        wrong = abs(pace - 1) * near[0]
        enough = pace > 1 or self._found >= _SURE or wrong > _BEYOND_NOISE
        if self._is_certain or (enough and wrong > _HABIT):
            self._is_certain, self.pace = True, pace
