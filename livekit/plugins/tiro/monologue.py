"""Picks the pause in long speech at which a final is forced, before the service cuts. No I/O.

After 20 s without a decision Tiro's published server makes one wherever it is, even in the middle
of a word. In live speech `QuietWatch` waits for a breath. For audio that is sent at once, a file or
a replay on a new connection, that is too late: when the service says what it heard, the rest is on
its way. There the audio itself is searched. As all of it is at hand, the longest breath that comes
in time is taken.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from .endpointer import DECIDED_AFTER

if TYPE_CHECKING:
    from .backlog import Backlog

MONOLOGUE = 12.0
"""Seconds without a decision, after which the next breath is taken for the end of an utterance."""

BREATH = 0.2
"""Seconds of quiet that are a breath."""

# s after the last decision between which a breath is taken in audio that is sent at once. A service
# without a voice gate also counts the 2.5 s of silence after that decision: the first limit is in
# time for every service. Without a breath by then, the second is in time for those with a gate.
_EARLIEST = 8.0
_LATEST = (16.5, 19.0)


class Monologue:
    """The stretch that the service may not have decided on yet, by what was sent to it.

    Positions are samples of the caller's audio from its start.
    """

    def __init__(self, backlog: Backlog, start: int) -> None:
        """Start with a new connection.

        Args:
            backlog: The audio.
            start: The position from which the connection is fed.
        """
        self.look_from = start
        """The position from which on it may be time for a breath."""
        self._backlog = backlog
        self._since = start

    def _begin(self, position: int) -> None:
        self._since = position
        self.look_from = position + round(_EARLIEST * self._backlog.sample_rate)

    def decided(self, position: int) -> None:
        """Note that the service has decided on all up to a position, or is being made to."""
        if position > self._since:
            self._begin(position)

    def since(self, sent_to: int) -> int:
        """Return from where on the audio sent up to a position may not be decided on.

        That is the first sound after the last long pause, if there is one.
        """
        backlog, pause = self._backlog, round(DECIDED_AFTER * self._backlog.sample_rate)
        since = max(self._since, backlog.finalized_to)
        # A pause that has begun counts, too.
        until = min(backlog.end, sent_to + pause)
        if until - since <= pause:
            # The usual case: too short for such a pause, so nothing needs to be measured.
            return since
        sounds = backlog.sounds(since, until, DECIDED_AFTER)
        since = sounds[-1][1] if sounds else since
        loud = backlog.first_loud(since, sent_to)
        if loud is None:
            return max(since, sent_to)
        return loud if loud - since > pause else since

    def plan(self, sent_to: int) -> int | None:
        """Have silence sent in the longest quiet that comes before it is too late.

        Return its position, or None. The audio there is yet to be sent.

        Args:
            sent_to: The position up to which audio was sent. Call often enough that little is sent
                in between.
        """
        backlog, rate = self._backlog, self._backlog.sample_rate
        since = self.since(sent_to)
        self._begin(since)
        limits = [since + round(latest * rate) for latest in _LATEST]
        # Speech that is not known to last longer is left to the service.
        known = backlog.last_loud(since, limits[-1]) or since
        is_long = known - since >= MONOLOGUE * rate
        if sent_to < self.look_from or not is_long or self._is_planned(sent_to, limits[0]):
            return None
        if sent_to > limits[-1]:
            # It was too late, and the service has cut.
            self._begin(sent_to)
            return None
        for limit, silent in ((limits[0], True), (limits[1], True), (limits[1], False)):
            stop = min(limit, backlog.end)
            quiet = backlog.longest_quiet(since, sent_to, stop, silent=silent)
            if quiet is not None and quiet[1] - quiet[0] >= BREATH * rate:
                return self._take(*quiet)
        return None

    def _take(self, start: int, stop: int) -> int | None:
        """Plan silence in a quiet stretch, unless any endpointer decides there by itself."""
        if stop - start >= DECIDED_AFTER * self._backlog.sample_rate:
            return None
        breath = (start + stop) // 2
        self._backlog.plan_flush(breath)
        return breath

    def _is_planned(self, sent_to: int, until: int) -> bool:
        """Tell whether silence is to be sent in time anyway."""
        flushes = self._backlog.flushes
        return bool(flushes[bisect_left(flushes, sent_to) : bisect_right(flushes, until)])
