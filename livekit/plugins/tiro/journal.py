"""Tells what happens on a stream's line: counts it, logs it, and adds it to the call's trace.

Facts only: no key, no address, and nothing of what is said.
"""

from __future__ import annotations

import sys
import time
from copy import deepcopy
from typing import TYPE_CHECKING

from livekit.agents import APIError, APIStatusError, APITimeoutError

from .backlog import KEEP_AT_MOST
from .log import logger
from .recovery import Ending, Next, Reason
from .stats import Tally

if TYPE_CHECKING:
    from .backlog import Backlog
    from .clock import Clock
    from .feed import Feed
    from .protocol import Response

# s after the end of the last word, by the service's times, in which loud audio belongs to it.
_WORD_TAIL = 0.3


class Journal:
    """What happens to the connections of one stream."""

    def __init__(self, clock: Clock, backlog: Backlog) -> None:
        """Start before the first connection.

        Args:
            clock: Knows how much audio was pushed.
            backlog: Knows how much of it was sent.
        """
        self.tally = Tally()
        """The counts; `counts` has what others count, too."""
        self._clock = clock
        self._backlog = backlog

    def counts(self, feed: Feed) -> Tally:
        """Return all counts so far, with what others count.

        Args:
            feed: Of the present connection, or of the last one.
        """
        tally = deepcopy(self.tally)
        self._count_audio(tally, feed)
        return tally

    def take_counts(self, feed: Feed) -> None:
        """Take in what others count, before the feed is replaced."""
        self._count_audio(self.tally, feed)

    def _count_audio(self, tally: Tally, feed: Feed) -> None:
        backlog = self._backlog
        tally.set_audio(
            pushed=self._clock.pushed,
            sent=backlog.seconds_sent,
            sent_to=feed.sent_to,
            sample_rate=backlog.sample_rate,
        )

    def final_delay(self, response: Response, feed: Feed) -> float | None:
        """Return how long ago the last loud audio was pushed that a response's final is about.

        Args:
            response: What the service says; its audio must not be dropped yet.
            feed: Knows which audio a second of the connection is.

        Returns:
            Seconds; None if the final has no times, or if the audio is not live.
        """
        clock, backlog = self._clock, self._backlog
        ends = [result.end for result in response.results if result.is_final and result.end]
        if not ends or not feed.is_possible(ends[-1]) or not clock.is_live(time.monotonic()):
            return None
        rate, stop = backlog.sample_rate, feed.locate(ends[-1])
        tail = min(stop + round(_WORD_TAIL * rate), feed.sent_to)
        loud = backlog.last_loud(backlog.start, tail)
        seconds = (stop if loud is None else loud) / rate
        recorded = clock.recorded_at(seconds + clock.pause_around(seconds)[0])
        return None if recorded is None else max(0.0, time.monotonic() - recorded)

    # -- what happens ----------------------------------------------------------------------------

    def not_connected(self, failure: APIError) -> None:
        """Note that a connection could not be made; `failed` counts it."""
        _note("could not connect to Tiro", "tiro.not_connected", kind=_kind_of(failure))

    def connected(self, request_id: str, opened_in: float, feed: Feed) -> None:
        """Note a new connection.

        Args:
            request_id: The name of the connection, as on events.
            opened_in: Seconds that it took to open.
            feed: What it is sent, from the start.
        """
        backlog, tally = self._backlog, self.tally
        tally.connected(feed.sent_to, backlog.sent_to)
        seconds = round(opened_in, 3)
        _note("connected to Tiro", "tiro.connected", request_id=request_id, seconds=seconds)
        given_up = backlog.take_given_up()
        if given_up:
            tally.gave_up(given_up)
            _note_event("tiro.audio_given_up", seconds=given_up)
            logger.warning(
                "%.1f s of audio were given up: %.0f s at most are kept while Tiro does not answer",
                given_up,
                KEEP_AT_MOST,
            )

    def ended(self, request_id: str, ending: Ending) -> None:
        """Note the end of a connection."""
        reason = ending.reason
        name = reason.name.lower() if isinstance(reason, Reason) else f"code_{reason.code}"
        seconds = round(ending.age, 3)
        _note(
            "connection to Tiro ended",
            "tiro.disconnected",
            request_id=request_id,
            seconds=seconds,
            reason=name,
        )

    def failed(self, failure: APIError) -> None:
        """Count what went wrong."""
        self.tally.failed(_kind_of(failure))

    def heard(self, finals: int, delay: float | None, *, flush_answered: bool) -> None:
        """Count what a response brought.

        Args:
            finals: How many finals with words.
            delay: The `final_delay` of the response.
            flush_answered: Whether somebody had waited for it.
        """
        for _ in range(finals):
            self.tally.final(delay, time.monotonic())
        if flush_answered:
            self.tally.count("flushes_answered")

    def no_more_finals(self, flush_pending: bool) -> None:
        """Count the flush that is not answered any more, if there is one."""
        if flush_pending:
            self.tally.count("flushes_given_up")

    def went_on(self, ending: Ending, after: Next) -> None:
        """Count a connection that ended without a failure."""
        if ending.reason is Reason.UNRESPONSIVE:
            self.tally.failed("unresponsive")
            logger.warning(
                "Tiro did not answer %.0f s of audio that may be speech; connecting again",
                ending.unanswered,
            )
        elif ending.reason is Reason.GONE:
            self.tally.failed("connection")
            logger.warning("the line to Tiro was dead; connecting again")
        elif ending.reason is Reason.OPTIONS_CHANGED:
            self.tally.count("option_changes")
        elif after is not Next.DONE and ending.configured and not ending.end_sent:
            # After the end marker, the service ends it as it should.
            self.tally.count("rotations")


def _note(message: str, event: str, **facts: str | float) -> None:
    """Log a message, the same text each time, and add an event to the current span."""
    logger.debug(message, extra=_named(facts))
    _note_event(event, **facts)


def _note_event(event: str, **facts: str | float) -> None:
    # The framework brings OpenTelemetry along; this package does not need it.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(event, _named(facts))


def _named(facts: dict[str, str | float]) -> dict[str, str | float]:
    """Return facts under the names that they have for others: none of a log record's own."""
    return {f"tiro.{name}": fact for name, fact in facts.items()}


def _kind_of(failure: APIError) -> str:
    """Return the kind of a failure, as `Stats.failures` has it."""
    if isinstance(failure, APIStatusError):
        return f"status_{failure.status_code}"
    return "timeout" if isinstance(failure, APITimeoutError) else "connection"
