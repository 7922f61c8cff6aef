"""How fast the service's clock runs: where finals say sounds are, and where they are. No I/O.

A service that cuts or pads the audio counts other seconds than it was sent: 5 % of half an hour is
a minute and a half. Audio would be dropped too early, or new words would be taken for old ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FARTHEST = 0.1
"""Seconds per second that a clock can be off: one that is farther off is not followed."""

# s between the edge of a word and that of its sound that are no drift: recognisers differ.
_HABIT = 0.25
# Finals in a row that are farther off than that, and have to agree on the pace.
_SURE = 3
# The weight of a final against the next one: a pace may change in the course of a call.
_DECAY = 0.9
# s from one comparison to the next.
_INTERVAL = 1.5
# s of audio that the pace of the previous connection counts for.
_PRIOR = 10.0


class Drift:
    """The pace of the service's clock. It outlives connections, whose clocks all start at 0.

    Nothing is changed until the clock is off by more than a recogniser's habits can explain.
    """

    def __init__(self) -> None:
        """Start with a clock that is right."""
        self.pace = 1.0
        """Seconds of the service's clock per second of audio."""
        self.due_at = 0.0
        """The second of the service's clock from which on the next comparison is worth its cost."""
        self._is_certain = False
        self._agreeing = 0
        self.begin()

    def begin(self) -> None:
        """Note that a connection begins: its clock starts anew, its pace is likely the same."""
        weight = _PRIOR**2 if self._is_certain else 0.0
        self._crossed, self._squared = self.pace * weight, weight
        self._last = 0.0, 0.0
        self._first_wrong: float | None = None
        self.due_at = 0.0

    def compare(self, start: float, end: float, sounds: Sequence[tuple[float, float]]) -> None:
        """Learn from a final, if there is only one sound that it can be about.

        A clock that is off moves both edges of a sound by the same time. A breath, a door or an
        echo moves only one of them, and tells nothing about the clock.

        Args:
            start: The second at which the final starts, by the service's clock.
            end: The second at which it ends, likewise.
            sounds: The seconds of the connection at which sounds start and end, by what was sent.
        """
        self.due_at = end + _INTERVAL
        first = self._edge_at(start, (begin for begin, _ in sounds))
        last = self._edge_at(end, (stop for _, stop in sounds))
        if first is None or last is None or last <= self._last[1]:
            return
        if abs((start - first) - (end - last)) <= _HABIT:
            self._last = end, last
            self._learn(end, last)

    def _edge_at(self, second: float, edges: Iterable[float]) -> float | None:
        """Return the one edge that a second of the service's clock can mean; None if unclear."""
        last_told, last_true = self._last
        since = max(0.0, second - last_told)
        expected, most = last_true + since / self.pace, _HABIT + FARTHEST * since
        near = [edge for edge in edges if abs(edge - expected) <= most]
        return near[0] if len(near) == 1 else None

    def _learn(self, told: float, true: float) -> None:
        """Follow the pace: habits are there from the first word on, drift grows."""
        wrong = told - true
        if self._first_wrong is None:
            self._first_wrong = wrong
        self._crossed = _DECAY * self._crossed + told * true
        self._squared = _DECAY * self._squared + true**2
        pace = self._crossed / self._squared
        grown = abs(wrong - self._first_wrong) > _HABIT and abs(pace - 1) * true > _HABIT
        fits = abs(told - pace * true) <= _HABIT and abs(pace - 1) <= FARTHEST
        if grown:
            self._agreeing = self._agreeing + 1 if fits else 0
        self._is_certain = self._is_certain or self._agreeing >= _SURE
        if self._is_certain and fits:
            self.pace = pace
