"""Where to have a long stretch of speech decided on, before the service cuts it. No I/O.

After 20 s without a decision Tiro's published server makes one wherever it is, in the middle of a
word. A caller who talks live is listened to for a breath (`QuietWatch`). What is sent at once, a
file or what a new connection is sent again, is not: when the service says what it heard, the rest
is on its way. There the audio itself has to tell, and as it is all there to look at, the longest
breath is taken that comes in time.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backlog import Backlog

MONOLOGUE = 12.0
"""Seconds without a decision, after which the next breath is taken for the end of an utterance."""

BREATH = 0.2
"""Seconds of quiet that are a breath."""

# s without a decision between which a breath is taken in what is sent at once. A service without a
# voice gate counts the 2.5 s of silence behind the last decision as well.
_EARLIEST, _LATEST = 8.0, 16.5
# s of quiet in which the last of the endpointer's rules has decided.
_SURE_PAUSE = 2.5


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
        self._backlog = backlog
        self._begin(start)

    def _begin(self, position: int) -> None:
        self._since = position
        self.look_from = position + round(_EARLIEST * self._backlog.sample_rate)
        """The position from which on it may be time for a breath."""

    def decided(self, position: int) -> None:
        """Note that the service has decided on all up to a position, or is being made to."""
        if position > self._since:
            self._begin(position)

    def since(self, sent_to: int) -> int:
        """Return from where on what was sent up to a position may not be decided on.

        That is the first sound behind the last long pause, if there is one.
        """
        backlog, pause = self._backlog, round(_SURE_PAUSE * self._backlog.sample_rate)
        since = max(self._since, backlog.finalized_to)
        # A pause that has begun counts, too.
        until = min(backlog.end, sent_to + pause)
        since = max([since, *backlog.ends_of_sounds(until, start=since, pause=_SURE_PAUSE)])
        loud = backlog.first_loud(since, sent_to)
        if loud is None:
            return max(since, sent_to)
        return loud if loud - since > pause else since

    def plan(self, sent_to: int) -> list[int]:
        """Have silence sent in the longest quiet that comes before it is too late.

        Return its position, if there is one: it is yet to be sent.

        Args:
            sent_to: The position up to which audio was sent. Ask often enough that little is sent
                in between.
        """
        backlog, rate = self._backlog, self._backlog.sample_rate
        if sent_to < self.look_from:
            return []
        since = self.since(sent_to)
        self._begin(since)
        until = since + round(_LATEST * rate)
        # What is known to go on for no longer is left to the service.
        known = backlog.last_loud(since, until) or since
        is_long = known - since >= MONOLOGUE * rate
        if sent_to < self.look_from or not is_long or self._is_planned(sent_to, until):
            return []
        if sent_to > until:
            # It was too late, and the service has cut.
            self._begin(sent_to)
            return []
        quiet = backlog.longest_quiet(since, sent_to, min(until, backlog.end))
        if quiet is None or not BREATH * rate <= quiet[1] - quiet[0] < _SURE_PAUSE * rate:
            return []
        breath = sum(quiet) // 2
        backlog.plan_flush(breath)
        return [breath]

    def _is_planned(self, sent_to: int, until: int) -> bool:
        """Tell whether silence is to be sent in time anyway."""
        flushes = self._backlog.flushes
        return bool(flushes[bisect_right(flushes, sent_to) : bisect_right(flushes, until)])
