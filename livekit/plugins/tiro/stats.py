"""What a stream does, in figures: counted as it happens, read when somebody asks. No I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

# Finals whose delay is remembered, the latest ones; an hour of talk has some 500.
_DELAYS = 500


@dataclass(frozen=True)
class Stats:
    """What a stream did so far, or all streams of an `STT` together.

    A snapshot: it does not change. Counts are whole numbers from 0; times are in seconds. What has
    not happened yet is None. `dataclasses.asdict` makes a dictionary that JSON can hold.
    """

    connections: int = 0
    """Connections that were opened."""
    rotations: int = 0
    """Connections that the service ended, and that another one took over: it ends each connection
    alike, so that a crash can not be told from a limit of its own."""
    option_changes: int = 0
    """Connections that were ended because options changed."""
    failures: dict[str, int] = field(default_factory=dict)
    """How often something failed, by kind: `status_503` (the service or a proxy refused, with the
    HTTP status that fits), `timeout`, `connection` (not reached, no key, hung up without a word, or
    a line that was dead) and `unresponsive` (audio that may be speech got no answer, and a new
    connection was tried). Each try to connect counts."""
    audio_pushed: float = 0.0
    """Seconds of audio that the caller pushed."""
    audio_sent: float = 0.0
    """Seconds of it that were sent, each second counted once."""
    audio_sent_again: float = 0.0
    """Seconds that were sent more than once, counted each further time."""
    audio_given_up: float = 0.0
    """Seconds that were let go without an answer, as more than a minute waited for one."""
    longest_unanswered: float = 0.0
    """Longest time for which audio that may be speech got no answer, looked at once a second; for
    an `STT` that of any stream."""
    finals: int = 0
    """Finals with words."""
    final_delay_last: float | None = None
    """Seconds from the last loud audio to its final, of the latest final with times in live
    audio."""
    final_delay_p50: float | None = None
    """The median delay, over the latest 500 finals; for an `STT` over those of each open stream,
    and of the closed ones together."""
    final_delay_p95: float | None = None
    """The delay that 95 % of them did not exceed."""
    flushes_answered: int = 0
    """Flushes that the service answered. Flushes in a row are one, and one that finds nothing said
    is answered by the plugin, and not counted."""
    flushes_given_up: int = 0
    """Flushes that it had not answered when the stream ended or was closed."""
    first_audio: float | None = None
    """Seconds from the first frame that was pushed until a connection was ready for audio; quiet
    audio follows up to 0.3 s later. For an `STT` the longest of any stream."""


class Tally:
    """Counts for `Stats`, of one stream or of many."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._delays: list[float] = []
        # When the latest final came, and its delay.
        self._last_delay: tuple[float, float] | None = None
        self._longest_unanswered = 0.0
        self._pushed_at: float | None = None
        self._first_audio: float | None = None
        # Of the present connection: what it is sent again, in samples and in seconds.
        self._again_from = self._again_to = 0
        self._again = 0.0

    # -- what happens ----------------------------------------------------------------------------

    def connected(self, start: int, sent_to: int) -> None:
        """Count a connection.

        Args:
            start: The position from which it is fed.
            sent_to: The position up to which audio was sent before.
        """
        self._counts["connections"] += 1
        self._seconds["audio_sent_again"] += self._again
        self._again_from, self._again_to, self._again = start, sent_to, 0.0

    def count(self, what: str) -> None:
        """Count something; `what` is the field of `Stats`."""
        self._counts[what] += 1

    def failed(self, kind: str) -> None:
        """Count a failure."""
        self._failures[kind] += 1

    def gave_up(self, seconds: float) -> None:
        """Count audio that was let go."""
        self._seconds["audio_given_up"] += seconds

    def audio_in(self, now: float) -> None:
        """Note when the first audio was pushed; monotonic seconds."""
        if self._pushed_at is None:
            self._pushed_at = now

    def audio_out(self, now: float) -> None:
        """Note when a connection is ready for audio; monotonic seconds."""
        if self._first_audio is None and self._pushed_at is not None:
            self._first_audio = now - self._pushed_at

    def final(self, delay: float | None, now: float) -> None:
        """Count a final with words.

        Args:
            delay: Seconds that it took; None if that is not known.
            now: Monotonic seconds.
        """
        self._counts["finals"] += 1
        if delay is not None:
            self._delays.append(delay)
            self._last_delay = now, delay
            del self._delays[:-_DELAYS]

    def forget_old(self) -> None:
        """Keep the delays of the latest finals only."""
        del self._delays[:-_DELAYS]

    def waited(self, seconds: float) -> None:
        """Note for how long audio that may be speech got no answer."""
        self._longest_unanswered = max(self._longest_unanswered, seconds)

    def set_audio(self, *, pushed: float, sent: float, sent_to: int, sample_rate: int) -> None:
        """Take over what is counted elsewhere.

        Args:
            pushed: Seconds pushed so far.
            sent: Seconds sent so far, each counted once.
            sent_to: The position up to which the present connection was sent audio.
            sample_rate: Hz.
        """
        self._seconds["audio_pushed"], self._seconds["audio_sent"] = pushed, sent
        again = min(sent_to, self._again_to) - self._again_from
        self._again = max(0, again) / sample_rate

    # -- what it comes to ------------------------------------------------------------------------

    def add(self, other: Tally) -> None:
        """Add the counts of another tally, which stays as it is."""
        self._counts.update(other._counts)
        self._failures.update(other._failures)
        for name, seconds in other._seconds.items():
            self._seconds[name] += seconds
        self._seconds["audio_sent_again"] += other._again
        self._delays.extend(other._delays)
        both = [last for last in (self._last_delay, other._last_delay) if last is not None]
        self._last_delay = max(both, default=None)
        self.waited(other._longest_unanswered)
        if other._first_audio is not None:
            self._first_audio = max(self._first_audio or 0.0, other._first_audio)

    def snapshot(self) -> Stats:
        """Return the figures as they are."""
        counts: dict[str, Any] = {**self._counts, **self._seconds}
        counts["audio_sent_again"] = self._seconds["audio_sent_again"] + self._again
        delays = sorted(self._delays)
        return Stats(
            **counts,
            failures=dict(self._failures),
            longest_unanswered=self._longest_unanswered,
            final_delay_last=None if self._last_delay is None else self._last_delay[1],
            final_delay_p50=delays[len(delays) // 2] if delays else None,
            final_delay_p95=delays[-(len(delays) // 20) - 1] if delays else None,
            first_audio=self._first_audio,
        )
