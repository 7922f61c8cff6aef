"""Tells a service that has stopped answering, and a caller who is muted, from silence. No I/O."""

from __future__ import annotations

from .backlog import KEEP_AT_MOST

DRAIN_TIMEOUT = 5.0
"""Seconds to wait, once the end marker is out, for a service that says nothing new and stays."""

DRAIN_AT_MOST = 120.0
"""Seconds to wait behind the end marker for a service that has always something new to say: what
is sent ahead is 30 s at most, and no service that works is slower than half the pace of speech."""

CLOSE_TIMEOUT = 1.0
"""Seconds to keep reading after a write failed."""

# s without any answer to audio that may be speech, or to a hypothesis that is open, after which a
# new connection is tried. Doubled for each connection that was unresponsive before, because noise
# that the service does not answer looks the same; and where no hypotheses are asked for, because
# a final can take 20 s.
_UNRESPONSIVE_AFTER = 15.0
# No longer than the audio is kept.
_UNRESPONSIVE_AT_MOST = KEEP_AT_MOST


class AnswerWatch:
    """How long audio that may be speech has gone unanswered on one connection."""

    def __init__(self, now: float) -> None:
        """Start with a new connection, at monotonic `now`."""
        self.unanswered = 0.0
        """Seconds since such audio was sent, unless there was an answer."""
        self._looked_at = now

    def look(self, now: float, speech: bool, answered_at: float) -> None:
        """Take in what happened since the last look.

        Args:
            now: Monotonic seconds.
            speech: Whether a hypothesis is open, or there may be speech in what was sent behind
                the audio that the answers are about.
            answered_at: When the service last gave a result, an empty one included.
        """
        if answered_at > self._looked_at:
            self.unanswered = 0.0
        if self.unanswered or speech:
            self.unanswered += now - max(self._looked_at, answered_at)
        self._looked_at = now

    def is_unresponsive(self, doublings: int, busy: float) -> bool:
        """Tell whether audio has gone unanswered for too long.

        Args:
            doublings: How often what is usual is doubled.
            busy: Seconds of audio that a service at the pace of speech has yet to work off.
        """
        limit: float = min(_UNRESPONSIVE_AFTER * 2**doublings, _UNRESPONSIVE_AT_MOST)
        return self.unanswered > max(limit, busy + DRAIN_TIMEOUT)

    def dismiss(self) -> None:
        """Start over: it was a click, and no word."""
        self.unanswered = 0.0


class PauseWatch:
    """Notices that the caller's audio has stopped, once for each pause."""

    def __init__(self) -> None:
        """Start before any audio."""
        self._pushed = 0.0
        self._noticed = True

    def look(self, pushed: float) -> bool:
        """Return True at the second and later looks at the same pause, until `noticed`.

        Args:
            pushed: Seconds of audio so far. A stalled event loop looks like a pause, but only at
                the first look.
        """
        if self._pushed != pushed:
            self._pushed, self._noticed = pushed, False
            return False
        return not self._noticed

    def noticed(self) -> None:
        """Ask for nothing more in this pause."""
        self._noticed = True
