"""What goes over one connection: a task that sends, one that receives, and a look once a second."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from livekit.agents import utils
from livekit.agents.stt import SpeechEventType

from .endpointer import STILL_TALKING
from .flusher import Flusher
from .lookout import Lookout
from .recovery import Ending, Patience, Reason
from .replay import plan_replay
from .watch import (
    CLOSE_TIMEOUT,
    DRAIN_AT_MOST,
    UNRESPONSIVE_AFTER,
    AnswerWatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backlog import Backlog
    from .clock import Clock
    from .connection import Connection
    from .feed import Feed
    from .journal import Journal
    from .options import Options
    from .outlet import Outlet
    from .protocol import ServiceError
    from .transcript import Transcript
    from .watch import MuteWatch

ANSWERS_WITHIN = 1.0
"""Seconds after a service that keeps up has heard audio, by which it has said what is in it."""

# s; a refusal follows the config at once. Sending a backlog into a connection that is being
# closed would destroy the error frame, so the first message goes alone.
_REFUSAL_WAIT = 0.05
# s of audio that the service has yet to process: only a burst puts it this far behind.
_BURST = 1.0
# s of audio after which a limit of the service for silence can strike: README promises that those
# of 8 s cost nothing, and times are not exact.
_SHORTEST_LIMIT = 7.0
# How many times the pace of speech a service works at most, if it says nothing of what it hears.
_FASTEST = 4.0
# s that a service is behind at most if it keeps up with live speech.
_KEEPS_UP = 1.0
# s that the service may be behind what it is sent before the caller's frames go through the send
# task, which lets the receive task run in between and keeps the pace.
_MAX_DIRECT = 4.0
# s that the service may be behind a file: audio it has not heard must be kept for a replay.
_MAX_BEHIND = 30.0
# s of audio from ping to ping in a burst, so that a slow reader can show that it reads.
_BURST_PER_PING = 2.0


def wake(waiter: asyncio.Future[None]) -> None:
    """Wake whoever waits for a future, which takes a third of the memory of an `Event`."""
    if not waiter.done():
        waiter.set_result(None)


class Parts(NamedTuple):
    """The parts of a stream that outlive its connections."""

    clock: Clock
    backlog: Backlog
    transcript: Transcript
    outlet: Outlet
    journal: Journal
    mute: MuteWatch
    take_rest: Callable[[], None]
    """Moves what the resampler still holds into the backlog."""


class Exchange:
    """One connection's traffic, from the config to its end. `run` says why it is over."""

    def __init__(
        self,
        connection: Connection,
        feed: Feed,
        parts: Parts,
        options: Options,
        *,
        ended: bool,
        patience: Patience,
    ) -> None:
        """Take an open connection.

        Args:
            connection: To the service.
            feed: What it is sent.
            parts: The stream's.
            options: The settings for the config.
            ended: Whether the caller's input has ended.
            patience: How long to wait for a service that says nothing.
        """
        self._connection = connection
        self._feed = feed
        self._parts = parts
        self._options = options
        self._ended = ended
        self._patience = patience
        # Up to where earlier connections were sent the audio, and how many finals came on them.
        self._sent_before, self._finals_before = parts.backlog.sent_to, parts.transcript.finals
        self._is_replay = self._sent_before > feed.sent_to
        self._watch = AnswerWatch(time.monotonic())
        loop = asyncio.get_running_loop()
        # What the send task waits for.
        self._more: asyncio.Future[None] = loop.create_future()
        self._lookout = Lookout(self._look)
        # Once nothing more is to be sent: whether the end marker could be.
        self._writable: bool | None = None
        # Whether new words to listen for wait until nobody speaks.
        self._has_new_phrases = False
        self.is_direct = False
        """Whether audio may go out as it is pushed: the send task does nothing but wait for it."""
        self._flusher = Flusher(
            feed, parts, self._wake_sender, endpointing=options.endpointing, ended=ended
        )
        # Read for each frame.
        self._quiet = self._flusher.quiet

    # -- the caller's side -----------------------------------------------------------------------

    def send_now(self, seconds: float, now: float) -> None:
        """Send what was pushed at once if possible, else leave it to the send task.

        Waking the send task would double the cost of a frame.

        Args:
            seconds: The length of what was pushed.
            now: Monotonic seconds.
        """
        feed, backlog = self._feed, self._parts.backlog
        if not self.is_direct or feed.drained_at + seconds > now + _MAX_DIRECT:
            return self._wake_sender()
        while (chunk := feed.next_chunk(now)) is not None:
            if not self._connection.send_now(chunk):
                # The send task waits until there is room, or sees what is wrong.
                return self._wake_sender()
            if feed.sent_to == backlog.end:
                break
        if backlog.end >= self._quiet.look_from:
            self._flusher.notice_end_of_utterance(seconds, now)

    def flush(self) -> None:
        """Bring the service's endpointer to a decision, if somebody waits for a final."""
        if self._parts.transcript.flush_pending:
            self._flusher.flush()
        else:
            self._flusher.send_held_unless_more_comes()

    def end_input(self) -> None:
        """Send the remaining audio, silence after it, and the end marker."""
        self._ended = True
        self._flusher.end_input()

    def send_held(self) -> None:
        """Send what is held back, as nothing more comes, if that is possible at once."""
        if self._feed.release() and self.is_direct:
            self.send_now(0.0, time.monotonic())

    def change_options(self, options: Options) -> None:
        """Use other settings; end the exchange if the config that was sent no longer fits."""
        self._options = options
        self._flusher.set_endpointing(options.endpointing)
        in_force = self._connection.sent_options
        if in_force is None or self._lookout.over.done():
            return
        self._has_new_phrases = in_force.phrases != options.phrases
        if not in_force.needs_same_config(options):
            self._lookout.end(Reason.OPTIONS_CHANGED)

    def _apply_new_phrases(self) -> None:
        """Have a new connection take over, if nobody speaks and nobody waits for a final."""
        busy = self._ended or self._lookout.over.done()
        if not busy and _is_calm(self._parts.transcript, self._parts.backlog):
            self._lookout.end(Reason.OPTIONS_CHANGED)

    def _wake_sender(self) -> None:
        self.is_direct = False
        wake(self._more)

    # -- its life --------------------------------------------------------------------------------

    async def run(self) -> Reason | ServiceError:
        """Send and receive until the connection ends, or has to."""
        sending = asyncio.create_task(self._send(), name="tiro.send")
        receiving = asyncio.create_task(self._receive(), name="tiro.receive")
        over, first = self._lookout.over, asyncio.FIRST_COMPLETED
        ends: set[asyncio.Future[Any]] = {receiving, over}
        self._lookout.start(self._flusher.ask_again_at - time.monotonic())
        try:
            await asyncio.wait({sending, *ends}, return_when=first)
            if not receiving.done() and not over.done():
                self._writable = sending.result()
                self._lookout.close()
                self._lookout.look()
                await asyncio.wait(ends, return_when=first)
            changed = over.done() and over.result() is Reason.OPTIONS_CHANGED
            if changed or not receiving.done():
                return over.result()
            self._note_wordless_replay()
            return receiving.result()
        finally:
            self.is_direct = False
            self._flusher.close()
            self._lookout.close()
            await utils.aio.cancel_and_wait(receiving, sending)
            self._note_heard(time.monotonic())
            lag = self._feed.lag
            if self._connection.is_taken_at_once and lag is not None and lag < _KEEPS_UP:
                # It took everything: the next connection gets no more quiet audio than usual.
                self._feed.acknowledge(self._feed.sent_to)

    def _note_heard(self, now: float) -> None:
        """Note what a service that keeps up has heard."""
        connection, feed = self._connection, self._feed
        if not connection.answered or (feed.lag or 0.0) >= _KEEPS_UP:
            return
        answerable_to = feed.heard_before(now - ANSWERS_WITHIN)
        if connection.may_have_stalled:
            # It may have since the last ping that was answered.
            answerable_to = min(answerable_to, connection.acknowledged_to)
        self._parts.backlog.note_answerable(answerable_to)

    def _note_wordless_replay(self) -> None:
        """Note how far a replay got, if it brought no hypothesis and no final."""
        feed, finals = self._feed, self._parts.transcript.finals
        heard_word = feed.lag is not None or finals > self._finals_before
        if not self._is_replay or heard_word:
            return
        connection, backlog = self._connection, self._parts.backlog
        lived = connection.answered or connection.age >= _SHORTEST_LIMIT / _FASTEST
        at_limit = lived and feed.samples >= _SHORTEST_LIMIT * backlog.sample_rate
        backlog.note_wordless(min(self._sent_before, feed.sent_to), at_limit=at_limit)

    def ending(self, reason: Reason | ServiceError) -> Ending:
        """Return what is known of the connection, now that it is over."""
        feed, backlog, less = self._feed, self._parts.backlog, 0
        if feed.samples >= _SHORTEST_LIMIT * backlog.sample_rate:
            less = plan_replay(backlog, self._parts.clock).quiet - feed.left_out
        return self._connection.ending(
            reason,
            found_nothing=feed.found_nothing_in_all,
            unanswered=self._watch.unanswered,
            less_quiet=less / backlog.sample_rate,
        )

    def _look(self) -> Reason | float:
        """Look after the connection. Return why it ends, or in how many seconds to look again."""
        flusher, connection = self._flusher, self._connection
        flusher.ask_again()
        flusher.notice_mute(time.monotonic())
        if not self.is_direct:
            self._parts.outlet.report_usage()
        reason = self._look_after()
        if self._writable is None or reason is not None:
            return reason or flusher.ask_again_at - time.monotonic()
        patience = _drain_patience(connection, self._feed, self._patience, writable=self._writable)
        if patience > 0:
            return patience
        return Reason.DRAIN_TIMEOUT if connection.end_sent else Reason.CLOSED

    def _look_after(self) -> Reason | None:
        """Return why the connection has to end, or None."""
        connection, feed, watch = self._connection, self._feed, self._watch
        now = time.monotonic()
        feed.acknowledge(connection.acknowledged_to)
        if now >= feed.drained_at + ANSWERS_WITHIN:
            # The caller is muted. What they say next would make this audio seem unheard again.
            self._note_heard(now)
        backlog, sent_to = self._parts.backlog, feed.sent_to
        self._parts.outlet.emit(self._parts.transcript.reconsider(now - ANSWERS_WITHIN))
        watch.look(
            now,
            connection.answered_at,
            lambda: (
                self._parts.transcript.speaking
                or backlog.first_sound(feed.heard_to, sent_to) is not None
            ),
        )
        if watch.unanswered:
            self._parts.journal.tally.waited(watch.unanswered)
        if self._has_new_phrases:
            self._apply_new_phrases()
        connection.keep_alive(sent_to)
        if connection.is_dead:
            return Reason.GONE
        if connection.end_sent or watch.unanswered < UNRESPONSIVE_AFTER:
            return None
        before = 0 if connection.answered else self._patience.unresponsive_before
        doublings = before + (not self._options.interim_results)
        if not watch.is_unresponsive(doublings, feed.ahead(now)):
            return None
        if backlog.may_hold_words():
            return Reason.UNRESPONSIVE
        # A click, and no word.
        watch.dismiss()
        return None

    # -- its tasks -------------------------------------------------------------------------------

    async def _receive(self) -> Reason | ServiceError:
        connection, journal = self._connection, self._parts.journal
        transcript = self._parts.transcript
        while (response := await connection.receive()) is not None:
            has_final = any(result.is_final for result in response.results)
            delay = journal.final_delay(response, self._feed) if has_final else None
            finals, waiting = transcript.finals, transcript.flush_pending
            events = transcript.on_response(response, time.monotonic())
            if has_final or waiting:
                answered = waiting and not transcript.flush_pending
                journal.heard(transcript.finals - finals, delay, flush_answered=answered)
            if events:
                connection.note_news()
                self._parts.outlet.emit(events)
                if events[0].type is not SpeechEventType.INTERIM_TRANSCRIPT:
                    self._flusher.note_answer()
                if self._has_new_phrases:
                    self._apply_new_phrases()
            if response.error is not None:
                return response.error
        return Reason.CLOSED

    async def _send(self) -> bool:
        """Send audio until the input ends. Return False if the end marker could not be sent.

        That is when the connection is gone, or when nothing was sent on it.
        """
        connection, feed, backlog = self._connection, self._feed, self._parts.backlog
        is_first = True
        while True:
            if connection.sent_options is None and feed.has_audio and not await self._configure():
                return False
            now = time.monotonic()
            chunk = feed.next_chunk(now)
            if chunk is not None:
                if not await connection.send(chunk):
                    return False
                if is_first and feed.has_chunk:
                    await asyncio.sleep(_REFUSAL_WAIT)
                is_first = False
                if feed.ahead(now) > _BURST:
                    await _keep_pace(connection, feed, backlog.sample_rate)
            elif self._ended:
                return connection.sent_options is not None and await connection.end()
            else:
                self.is_direct = connection.sent_options is not None
                self._more = more = asyncio.get_running_loop().create_future()
                self._parts.outlet.report_usage()
                # `send_now` looks for quiet in what it sends; what this task sent was not searched.
                # It need not be, unless somebody waits for a pause or speaks for long.
                if backlog.end >= self._quiet.due_from:
                    seconds = backlog.chunk / backlog.sample_rate
                    self._flusher.notice_end_of_utterance(seconds, now)
                await more
                if not await connection.drain():
                    return False

    async def _configure(self) -> bool:
        """Send the config as soon as there is audio, and its rate is known."""
        options, backlog = self._options, self._parts.backlog
        self._parts.journal.tally.audio_out(time.monotonic())
        self._parts.transcript.set_language(options.language)
        # Without interims, speech is only visible once it is final, so the full minute is kept.
        backlog.set_interims(options.interim_results)
        return await self._connection.configure(options, backlog.sample_rate)


def _drain_patience(
    connection: Connection, feed: Feed, patience: Patience, *, writable: bool
) -> float:
    """Return the seconds that the receiver may still take, once the sender is done.

    A service that works at the pace of speech is given the time to come to the end.
    """
    now = time.monotonic()
    if connection.sent_options is None:
        return 0.0
    if not writable:
        return CLOSE_TIMEOUT - (now - connection.quiet_since)
    since_end = now - connection.done_sending_at
    quiet = now - max(connection.quiet_since, feed.drained_at)
    return min(patience.drain_timeout - quiet, DRAIN_AT_MOST - since_end)


async def _keep_pace(connection: Connection, feed: Feed, sample_rate: int) -> None:
    """Keep a burst from getting further ahead of the service than can be sent again."""
    if feed.sent_to - connection.pinged_to > _BURST_PER_PING * sample_rate:
        connection.ping(feed.sent_to)
    # An error that has come in must be read before more audio goes out.
    wait = 0.0
    while True:
        await asyncio.sleep(min(_REFUSAL_WAIT, wait))
        # What the service says meanwhile shortens the wait.
        wait = feed.throttle(time.monotonic(), _MAX_BEHIND)
        if not wait:
            return


def _is_calm(transcript: Transcript, backlog: Backlog) -> bool:
    """Tell whether nobody speaks, as far as can be known, and nobody waits for a final."""
    if transcript.flush_pending or backlog.may_hold_words():
        return False
    since = max(0, backlog.end - round(STILL_TALKING * backlog.sample_rate))
    return backlog.first_loud(since, backlog.end) is None
