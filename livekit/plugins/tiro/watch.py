"""Notices a service that stopped answering, and a caller who is muted. No I/O."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .backlog import KEEP_AT_MOST

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN_TIMEOUT = 5.0
"""Seconds to wait, once the end marker is out, for a service that says nothing new and stays.
Doubled for each earlier connection that was left for this reason, twice at most: the answers of a
slow service may be on their way for longer."""

DRAIN_AT_MOST = 120.0
"""Seconds to wait after the end marker for a service that always has something new to say. At most
30 s are sent ahead, for which a service at half the pace of speech takes 60 s: twice that."""

CLOSE_TIMEOUT = 1.0
"""Seconds to keep reading after a write failed."""

UNRESPONSIVE_AFTER = 15.0
"""Seconds without any answer to audio that may be speech, or to a hypothesis that is open, after
which a new connection is tried. Doubled for each connection that was unresponsive before, because
noise that the service does not answer looks the same; and where no hypotheses are asked for,
because a final can take 20 s."""

# No longer than the audio is kept.
_UNRESPONSIVE_AT_MOST = KEEP_AT_MOST
# s after which a pause that was seen is there for certain: looks are 1 s apart, if not closer.
_STILL_PAUSED = 0.9


class AnswerWatch:
    """How long audio that may be speech has gone unanswered on one connection."""

    def __init__(self, now: float) -> None:
        """Start with a new connection, at monotonic `now`."""
        self.unanswered = 0.0
        """Seconds for which audio that may be speech has gone unanswered; 0 after an answer."""
        self._counted_to = now

    def look(self, now: float, answered_at: float, speech: Callable[[], bool]) -> None:
        """Take in what happened since the last look.

        Args:
            now: Monotonic seconds.
            answered_at: When the service last gave a result, an empty one included.
            speech: Tells whether a hypothesis is open, or there may be speech in what was sent
                after the audio that the answers are about; asked unless there was an answer.
        """
        if answered_at > self._counted_to:
            # The time since then is counted at the next look, unless there is another answer.
            self.unanswered, self._counted_to = 0.0, answered_at
            return
        if self.unanswered or speech():
            self.unanswered += now - self._counted_to
        self._counted_to = now

    def is_unresponsive(self, doublings: int, busy: float) -> bool:
        """Tell whether audio has gone unanswered for too long.

        Args:
            doublings: How often the usual limit is doubled.
            busy: Seconds of audio that a service at the pace of speech has yet to work off.
        """
        limit: float = min(UNRESPONSIVE_AFTER * 2**doublings, _UNRESPONSIVE_AT_MOST)
        return self.unanswered > max(limit, busy + DRAIN_TIMEOUT)

    def dismiss(self) -> None:
        """Start over: it was a click, and no word."""
        self.unanswered = 0.0


class MuteWatch:
    """Notices that no audio comes from the caller any more, once for each such mute."""

    def __init__(self) -> None:
        """Start before any audio."""
        self._pushed = 0.0
        self._noticed = True
        self._certain_at = inf

    def look(self, pushed: float, now: float) -> bool:
        """Return True if this mute was first seen a while ago, until `noticed` is called.

        A stalled event loop looks like one, but only at first.

        Args:
            pushed: Seconds of audio so far.
            now: Monotonic seconds.
        """
        if self._pushed != pushed:
            self._pushed, self._noticed, self._certain_at = pushed, False, now + _STILL_PAUSED
        return not self._noticed and now >= self._certain_at

    def noticed(self) -> None:
        """Ask for nothing more in this mute."""
        self._noticed = True
