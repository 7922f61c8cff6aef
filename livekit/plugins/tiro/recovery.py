"""What the end of a connection means: done, connect again, or an error. No I/O.

The service ends every connection alike, by dropping it, so a crash looks like success. What tells
them apart is what was said on the connection, and what audio is left that no final covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from livekit.agents import APIError, APIStatusError

from . import errors
from .endpointer import EMPTY_SEGMENT
from .watch import DRAIN_TIMEOUT

if TYPE_CHECKING:
    from .protocol import ServiceError

# Connections in a row that end without a final before an error is reported.
_MAX_WITHOUT_FINAL = 3
# Connections in a row that heard nothing in the remaining audio before that is believed.
_NOTHING_FOR_CERTAIN = 3
# How often the patience after the end marker is doubled at most: to 20 s.
_DRAIN_DOUBLINGS = 2
# s; a connection this short counts as failed unless it was of use: it brought a final, or heard
# seconds in which there were no words.
_SHORT_CONNECTION = 1.0
# s; a connection that ends in silence sooner than this failed: limits for silence are longer.
_SHORTEST_SILENCE = 5.0
# s that a connection waited for its first audio, in which its key can have run out.
_IDLE = 5.0
# s of audio that may be speech and got no answer before the service hung up: less was on its way
# when a limit of the service struck, more was ignored.
_ON_ITS_WAY = 5.0
# s of such audio, at most, that can be a word that just began: it is looked for once a second.
_JUST_BEGUN = 1.5
# s of long quiet that this connection was sent and the next one will not be: with so much, the next
# one does not repeat what this one tried.
_OTHER_AUDIO = 1.0
# s of the same; with so much, a limit for silence can have ended this connection: no failure.
_IN_LONG_QUIET = 3.0


class Reason(Enum):
    """Why the exchange on a connection is over, unless the service sent an error."""

    CLOSED = auto()
    """The peer closed it, a write failed, or the input ended before any audio was sent on it."""
    GONE = auto()
    """The peer takes nothing any more, and did not say so: the line is half-open."""
    OPTIONS_CHANGED = auto()
    """The caller changed the options."""
    UNRESPONSIVE = auto()
    """The service took audio that may be speech and did not answer."""
    DRAIN_TIMEOUT = auto()
    """The service got the end marker and neither said anything new nor closed."""


class Next(Enum):
    """How the stream goes on."""

    DONE = auto()
    RECONNECT = auto()
    RECONNECT_ON_AUDIO = auto()
    """Connect when audio comes: while nobody speaks there is no hurry."""


@dataclass(frozen=True)
class Ending:
    """What is known of a connection that is over."""

    reason: Reason | ServiceError
    age: float
    """Seconds since it was opened."""
    configured: bool = True
    """Whether the config was sent: it follows the first audio."""
    end_sent: bool = False
    """Whether the end marker was sent."""
    answered: bool = False
    """Whether the service said anything but errors."""
    idle: float = 0.0
    """Seconds from its opening to the config."""
    found_nothing: bool = False
    """Whether the service last said that it heard no word, and no sound followed."""
    unanswered: float = 0.0
    """Seconds since audio was sent that may be speech, if there was no answer to it."""
    less_quiet: float = 0.0
    """Seconds of quiet that it was sent, perhaps to be ended in, and that the next one is not."""

    @property
    def key_ran_out(self) -> bool:
        """Whether its key was good once, or can have been, and is refused now."""
        refused = not isinstance(self.reason, Reason) and self.reason.code == errors.UNAUTHENTICATED
        return refused and (self.answered or self.idle > _IDLE)


class Patience(NamedTuple):
    """How long a connection waits for a service that says nothing, by how it went before."""

    unresponsive_before: int
    """How many connections in a row were given up as unresponsive."""
    drain_timeout: float
    """Seconds to wait after the end marker for anything new."""


class Progress(NamedTuple):
    """How far the conversation is."""

    start: int
    """The position of the first sample that a new connection would be fed."""
    finals: int
    """The finals with words so far."""
    speaking: bool
    """Whether an utterance is open."""
    unfinalized: bool
    """Whether there is audio that may hold words which are not final."""
    awaited: bool = False
    """Whether somebody waits for their final."""
    heard: float = 0.0
    """The seconds of audio that the service has processed, as far as known."""


class Budget(NamedTuple):
    """What the framework's base class allows, as it stands in this attempt."""

    max_retry: int
    timeout: float
    """Seconds; `conn_options.timeout`."""
    retries: int
    """How many retries are used up."""
    outlived: bool
    """Whether the attempt lasted longer than the timeout, which makes the base class start over."""

    def covers(self, failure: APIError) -> bool:
        """Tell whether the base class will retry."""
        spare = self.retries < self.max_retry or self.outlived
        return failure.retryable and self.max_retry > 0 and spare


class Recovery:
    """Judges the ends of a stream's connections, one after the other.

    Call `connected` when a connection begins, and `after` when it is over.
    """

    def __init__(self, redact: errors.Redactor) -> None:
        """Start before the first connection.

        Args:
            redact: Takes the key out of what the service says.
        """
        self._redact = redact
        self._proven = False
        self._began: Progress | None = None
        self._without_final = 0
        self._heard = 0.0
        # Connections in a row without an answer; and those of them whose line was not dead.
        self._without_answer = self._unresponsive = 0
        self._retried_after_drain = False
        self._found_nothing = 0
        self._drain_timeouts = 0
        self._failures = 0
        self._finals_at_failure = 0

    @property
    def retried_after_drain(self) -> bool:
        """Whether a connection got the end marker and left audio that may hold words."""
        return self._retried_after_drain

    @property
    def patience(self) -> Patience:
        """How long the next connection is to wait for a service that says nothing."""
        doublings: int = min(self._drain_timeouts, _DRAIN_DOUBLINGS)
        return Patience(self._unresponsive, DRAIN_TIMEOUT * 2.0**doublings)

    def connected(self, progress: Progress) -> None:
        """Note where the conversation stands as a connection begins."""
        self._began = progress

    def may_redial(self, failure: APIError, budget: Budget) -> bool:
        """Tell whether a connection is worth another try within the same attempt.

        Only in a call that is under way, as most outages are over in seconds; a caller who asks for
        few retries has another STT to turn to.

        Args:
            failure: How the handshake was refused, or the connection ended without an answer.
            budget: What the base class allows.
        """
        over_quota = isinstance(failure, APIStatusError) and failure.status_code == 429
        return self._proven and failure.retryable and not over_quota and budget.max_retry > 1

    def after(self, ending: Ending, progress: Progress, budget: Budget) -> Next:
        """Decide how the stream goes on.

        Raises:
            APIError: It ended by a failure, and not by a limit of the service.
        """
        lasted = ending.answered or ending.age > budget.timeout
        self._proven = self._proven or lasted
        if ending.answered:
            self._without_answer = self._unresponsive = 0
        # The service has not ended a line that is dead.
        is_dead = ending.reason is Reason.GONE
        in_quiet = ending.less_quiet >= _IN_LONG_QUIET
        healthy = lasted or is_dead or in_quiet or _had_nothing_to_answer(ending, progress)
        self._check_error(ending, healthy)
        if ending.reason is Reason.OPTIONS_CHANGED or (ending.key_ran_out and not ending.answered):
            return Next.RECONNECT
        if ending.end_sent:
            return self._after_drain(ending, progress)
        if not ending.configured:
            # It was opened before any audio came. Without audio, the service need not keep it.
            return Next.RECONNECT_ON_AUDIO
        ignored = not ending.answered and ending.unanswered > _ON_ITS_WAY
        if ending.reason is Reason.UNRESPONSIVE or (is_dead and ignored):
            return self._after_silence(ending, progress)
        if not healthy or (ignored and progress.unfinalized):
            raise self._never_answered()
        self._count_without_final(ending, progress)
        if self._without_final >= _MAX_WITHOUT_FINAL:
            if not isinstance(ending.reason, Reason):
                raise errors.from_service(ending.reason, self._redact)
            raise errors.dropped(f"{self._without_final} times in a row without a final")
        # Audio that may be speech is sent once more at once; more often if somebody waits for
        # its final, as their microphone can be off until the answer is there.
        again = progress.awaited or self._without_final <= 1
        hurry = progress.speaking or (progress.unfinalized and again)
        return Next.RECONNECT if hurry else Next.RECONNECT_ON_AUDIO

    def _check_error(self, ending: Ending, healthy: bool) -> None:
        """Raise what the service said went wrong, unless it is a limit of length or time.

        A key that was good until now is out of date: each connection asks for it anew.
        """
        error = ending.reason
        if isinstance(error, Reason) or ending.key_ran_out:
            return
        if error.code not in errors.ROTATION_CODES or (ending.configured and not healthy):
            raise errors.from_service(error, self._redact)

    def _never_answered(self) -> APIError:
        """Return the error for a connection on which the service said nothing."""
        if self._proven:
            return errors.dropped("before it said anything")
        return errors.never_answered()

    def _after_silence(self, ending: Ending, progress: Progress) -> Next:
        """Reconnect after a connection that did not respond; raise at the second in a row."""
        self._count_without_final(ending, progress)
        self._without_answer += 1
        # A dead line says nothing about how long a service takes to answer.
        self._unresponsive += ending.reason is Reason.UNRESPONSIVE
        if self._without_answer > 1 or self._without_final >= _MAX_WITHOUT_FINAL:
            raise errors.unresponsive(ending.unanswered)
        return Next.RECONNECT

    def _count_without_final(self, ending: Ending, progress: Progress) -> None:
        """Count the connections in a row that brought nothing for the audio they began with."""
        assert self._began is not None
        same_audio = self._began.unfinalized or self._began.start == progress.start
        stuck = same_audio and progress.unfinalized
        further = progress.heard - max(self._heard, self._began.heard)
        # Such as music: there are no words to be final, and the service says so.
        heard_no_words = further >= EMPTY_SEGMENT and not progress.speaking
        of_use = progress.finals > self._began.finals or heard_no_words
        of_use = of_use or ending.less_quiet >= _IN_LONG_QUIET
        if of_use:
            self._heard = max(self._heard, progress.heard)
        failed = not of_use and (stuck or ending.age < _SHORT_CONNECTION)
        self._without_final = self._without_final + 1 if failed else 0

    def _after_drain(self, ending: Ending, progress: Progress) -> Next:
        """Decide whether a connection that got the end marker said all there was to say.

        It did if no remaining audio may hold words. Otherwise that audio is sent again, as often as
        that brings finals. An answer that nothing was heard can be about an earlier pause: only
        when connections that were fed nothing else say so too, that audio has no words.
        """
        assert self._began is not None
        if not progress.unfinalized:
            return Next.DONE
        self._found_nothing = self._found_nothing + 1 if ending.found_nothing else 0
        timeout, waited = ending.reason is Reason.DRAIN_TIMEOUT, self.patience.drain_timeout
        self._drain_timeouts += timeout
        brought_finals = progress.finals > self._began.finals
        if brought_finals and self._retried_after_drain and progress.start == self._began.start:
            # Without times, finals may cover nothing; they would come again and again.
            return Next.DONE
        first = not self._retried_after_drain or brought_finals
        if first and not (timeout and not ending.answered):
            self._retried_after_drain = True
            return Next.RECONNECT
        if ending.less_quiet >= _OTHER_AUDIO:
            # A limit can have struck in the quiet that the next connection is not sent. That one
            # has to find nothing, too, whatever was said before.
            return Next.RECONNECT
        # Three connections that hear nothing are believed, unless a hypothesis is still open.
        if ending.found_nothing and not (progress.speaking and timeout):
            if self._found_nothing < _NOTHING_FOR_CERTAIN:
                return Next.RECONNECT
            if not progress.speaking:
                return Next.DONE
        if timeout:
            raise errors.drain_timeout(waited)
        raise errors.dropped("before its last final")

    def after_failure(self, failure: APIError, progress: Progress, budget: Budget) -> bool:
        """Stop the base class from retrying for ever. Return whether it will retry.

        The base class takes an attempt that outlived the timeout for one that went well. One that
        failed slowly, and brought no final for the waiting audio, would be retried without end.
        """
        if progress.finals > self._finals_at_failure or not progress.unfinalized:
            self._failures = 0
        self._finals_at_failure = progress.finals
        self._failures += 1
        if budget.covers(failure) and self._failures > budget.max_retry:
            failure.retryable = False
        return budget.covers(failure)


def _had_nothing_to_answer(ending: Ending, progress: Progress) -> bool:
    """Tell whether nobody spoke but for a moment: then the service said nothing, as it should.

    The service may limit silence, and the limit can strike just as somebody begins to speak. A
    refusal comes sooner than that.
    """
    asked = progress.awaited or ending.unanswered > _JUST_BEGUN
    return ending.age > _SHORTEST_SILENCE and not asked
