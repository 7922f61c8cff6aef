"""One live transcription: what the caller does, and the loop that opens the connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, stt, utils
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import is_given

from . import errors
from .backlog import Backlog
from .clock import Clock
from .dial import Dialer
from .exchange import Exchange, Parts, wake
from .feed import Feed
from .flusher import mark_flush
from .journal import Journal
from .options import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    ApiKey,
    Options,
    changed_options,
    hidden_headers,
    hidden_key,
)
from .outlet import EventStream, Outlet
from .recovery import Budget, Ending, Next, Progress, Recovery
from .transcript import Transcript
from .watch import MuteWatch

if TYPE_CHECKING:
    import aiohttp

    from .connection import Connection
    from .stats import Stats, Tally

# Hz; audio with a rate that the service does not take is converted to this, as Tiro recommends.
_FALLBACK_RATE = 16000


class SpeechStream(EventStream):
    """A live transcription. Make it with `STT.stream`.

    Push audio with `push_frame` (16-bit, any rate and number of channels) and iterate over the
    stream for events. Times on events are seconds of the pushed audio, pauses in it
    included, plus `start_time_offset`. Iteration raises `APIError` when the stream has failed for
    good.
    """

    _reports_usage = True

    def __init__(
        self,
        *,
        stt: stt.STT[Any],
        options: Options,
        conn_options: APIConnectOptions,
        http_session: Callable[[], aiohttp.ClientSession],
        on_closed: Callable[[SpeechStream], None],
    ) -> None:
        """Start the stream; use `STT.stream` instead.

        Args:
            stt: The STT that it belongs to.
            options: Its settings.
            conn_options: Retries and timeouts.
            http_session: Returns the HTTP session to connect with.
            on_closed: Called once, when its task has ended.
        """
        super().__init__(
            stt=stt, conn_options=conn_options, sample_rate=options.sample_rate or NOT_GIVEN
        )
        self._options = options
        self._clock = clock = Clock()
        self._backlog = backlog = Backlog()
        self._feed = Feed(backlog, clock, time.monotonic())
        said, journal = Transcript(clock, backlog, self._feed), Journal(clock, backlog)
        redact = errors.Redactor(options.api_key)
        self._recovery = Recovery(redact)
        self._dialer = Dialer(http_session, self._recovery, redact, journal)
        send, usage = self._event_ch.send_nowait, self._reports_usage
        self._outlet = outlet = Outlet(send, self.count, backlog, said, usage=usage)
        self._parts = Parts(clock, backlog, said, outlet, journal, MuteWatch(), self._take_rest)
        self._exchange: Exchange | None = None
        self._wanted = asyncio.get_running_loop().create_future()
        self._ended = False
        self._done = False
        self._await_audio = False
        self._task.add_done_callback(lambda _: self._on_task_done(on_closed))

    # -- the caller's side -----------------------------------------------------------------------

    @property
    def start_time_offset(self) -> float:
        """Seconds added to all times; the framework sets it before the first audio."""
        return self._parts.transcript.offset

    @start_time_offset.setter
    def start_time_offset(self, value: float) -> None:
        # Not the base class's copy: that one adds the time of each retry, but the audio runs on.
        self._parts.transcript.set_offset(value)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Push audio to be recognised.

        Args:
            frame: 16-bit samples. Channels are mixed down to one; a rate outside 8000 to 48000 Hz
                is converted to 16000 Hz. A frame without samples is ignored.

        Raises:
            ValueError: The sample rate is not that of the first frame.
            RuntimeError: The stream is closed, or its input ended.
        """
        if not (samples := frame.samples_per_channel):
            self._check_input_not_ended()
            return self._check_not_closed()
        pcm = frame.data
        if len(pcm) != samples:  # More than one channel.
            frame = _mono(frame)
            pcm = frame.data
        now, exchange, backlog = time.monotonic(), self._exchange, self._backlog
        rate = frame.sample_rate
        if not self._pushed_sr:
            self._parts.journal.tally.audio_in(now)
            if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
                self._needed_sr = self._needed_sr or _FALLBACK_RATE
        if exchange and exchange.is_direct and self._pushed_sr == rate == backlog.sample_rate:
            # As the base class does, without the detour through its channel.
            backlog.push(pcm, rate)
        else:
            if self._clock.is_paused(now):
                self._take_rest()
            super().push_frame(frame)
            self._take_in()
        seconds = samples / rate
        self._clock.push(seconds, now)
        if exchange is not None:
            exchange.send_now(seconds, now)
            if backlog.sent_to >= self._outlet.report_at:
                self._outlet.report_usage()
        else:
            wake(self._wanted)

    def flush(self) -> None:
        """Ask for the final of what was pushed so far, now.

        If nothing was said since the last final, an empty one comes at once.

        Raises:
            RuntimeError: The stream is closed, or its input ended.
        """
        super().flush()
        self._take_in()
        waited = self._parts.transcript.flush_pending
        self._outlet.emit(self._parts.transcript.flush())
        if self._exchange is not None:
            self._exchange.flush()
        elif self._parts.transcript.flush_pending:
            mark_flush(self._backlog, self._clock, somebody_waits=waited)
            wake(self._wanted)

    def end_input(self) -> None:
        """Say that no more audio comes: all that was pushed is brought to its final.

        Raises:
            RuntimeError: The stream is closed, or its input ended before.
        """
        super().flush()
        self._input_ch.close()
        self._take_in()
        self._ended = True
        if self._exchange is not None:
            self._exchange.end_input()
        else:
            self._backlog.flush()
            wake(self._wanted)

    def _take_in(self) -> None:
        """Move what the base class left in its channel, resampled or not, to the backlog."""
        while not self._input_ch.empty():
            item = self._input_ch.recv_nowait()
            if isinstance(item, rtc.AudioFrame):
                self._backlog.push(item.data, item.sample_rate)

    def _take_rest(self) -> None:
        """Take in what the resampler holds: no more audio comes for a while."""
        for frame in self._resampler.flush() if self._resampler else ():
            if frame.samples_per_channel:
                self._backlog.push(frame.data, frame.sample_rate)

    def update_options(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        interim_results: NotGivenOr[bool] = NOT_GIVEN,
        punctuate: NotGivenOr[bool] = NOT_GIVEN,
        max_alternatives: NotGivenOr[int] = NOT_GIVEN,
        diarization: NotGivenOr[bool] = NOT_GIVEN,
        min_speakers: NotGivenOr[int | None] = NOT_GIVEN,
        max_speakers: NotGivenOr[int | None] = NOT_GIVEN,
        extra_config: NotGivenOr[Mapping[str, Any] | None] = NOT_GIVEN,
        endpointing: NotGivenOr[float | None] = NOT_GIVEN,
        keyterms: NotGivenOr[Sequence[str] | None] = NOT_GIVEN,
        api_key: NotGivenOr[ApiKey] = NOT_GIVEN,
        extra_headers: NotGivenOr[Mapping[str, str] | None] = NOT_GIVEN,
    ) -> None:
        """Change settings of this stream alone, as `STT.update_options` does for all.

        Raises:
            ValueError: A value is not valid; nothing is changed then.
        """
        # A traceback with locals shows this frame.
        api_key, extra_headers = hidden_key(api_key), hidden_headers(extra_headers)
        self.apply_options(changed_options(self._options, given(locals())))

    def apply_options(self, options: Options) -> None:
        """Put validated settings in place of the present ones."""
        self._options = options
        if self._exchange is not None:
            self._exchange.change_options(options)

    @property
    def options(self) -> Options:
        """The present settings."""
        return self._options

    @property
    def stats(self) -> Stats:
        """What the stream did so far, in figures; also when it is closed."""
        return self.tally().snapshot()

    def tally(self) -> Tally:
        """Return its counts so far."""
        return self._parts.journal.counts(self._feed)

    @property
    def is_done(self) -> bool:
        """Whether all that was pushed is final, as far as the service hears words in it."""
        return self._done

    async def __aenter__(self) -> SpeechStream:
        return self

    async def aclose(self) -> None:
        """Close the stream now, whatever the service does."""
        if self._exchange is not None:
            self._exchange.send_held()
        # Before the input ends: until the stream is closed, it may be pushed to.
        await utils.aio.cancel_and_wait(self._task)
        await super().aclose()

    # -- the loop --------------------------------------------------------------------------------

    async def _run(self) -> None:
        failure: APIError | None = None
        self._dialer.start_over()
        try:
            while await self._run_connection() is not Next.DONE:
                pass
        except Exception as error:
            failure = errors.as_api_error(error)
        finally:
            self._outlet.report_usage(at_least=0.0)
        if failure is None:
            self._done = True
            self._finish()
            return
        self._parts.journal.failed(failure)
        progress = _progress(self._parts, self._feed)
        if not self._recovery.after_failure(failure, progress, self._budget()):
            self._finish()
        raise failure

    def _finish(self) -> None:
        self._parts.journal.no_more_finals(self._parts.transcript.flush_pending)
        self._outlet.emit(self._parts.transcript.finish())

    def _on_task_done(self, on_closed: Callable[[SpeechStream], None]) -> None:
        self._parts.journal.no_more_finals(self._parts.transcript.flush_pending)
        on_closed(self)

    async def _run_connection(self) -> Next:
        """Run one connection from its opening to its end."""
        self._feed.give_up_old_audio(time.monotonic())
        if not await self._wait_for_audio():
            return Next.DONE
        connection = await self._dialer.connect(lambda: self._options, self._budget)
        finals = self._parts.transcript.finals
        try:
            exchange = self._exchange = self._begin(connection)
            self._report_connection_acquired(connection.opened_in, False)
            reason = await exchange.run()
        finally:
            self._exchange = None
            if self._parts.transcript.finals > finals:
                # A connection that worked restores the budget of retries.
                self._num_retries = 0
            await connection.close()
        return await self._after(exchange.ending(reason), connection.id)

    async def _after(self, ending: Ending, request_id: str) -> Next:
        """Go on after the end of a connection, or raise what went wrong."""
        self._parts.journal.ended(request_id, ending)
        try:
            progress = _progress(self._parts, self._feed)
            after = self._recovery.after(ending, progress, self._budget())
        except APIError as failure:
            if ending.answered:
                raise
            # Whoever took the connection has no service behind it, as with a refused handshake.
            await self._dialer.wait_after(failure, self._budget())
            return Next.RECONNECT
        self._dialer.start_over()
        self._parts.journal.went_on(ending, after)
        self._await_audio = after is Next.RECONNECT_ON_AUDIO
        return after

    def _begin(self, connection: Connection) -> Exchange:
        """Feed the new connection with all that no final covers."""
        now = time.monotonic()
        self._wanted = asyncio.get_running_loop().create_future()
        self._feed.give_up_old_audio(now)
        self._parts.journal.take_counts(self._feed)
        insist = self._ended and self._recovery.retried_after_drain
        self._feed = feed = Feed(self._backlog, self._clock, now, insist=insist)
        self._parts.transcript.begin(connection.id, feed)
        self._recovery.connected(_progress(self._parts, feed))
        self._parts.journal.connected(connection.id, connection.opened_in, feed)
        parts, ended, patience = self._parts, self._ended, self._recovery.patience
        return Exchange(connection, feed, parts, self._options, ended=ended, patience=patience)

    def _budget(self) -> Budget:
        return _left_of(self._conn_options, self._num_retries, self._start_time)

    async def _wait_for_audio(self) -> bool:
        """Wait until there is something to connect for. Return False if that will never be."""
        if self._await_audio and not self._ended and not self._backlog.has_unsent_chunk:
            await self._wanted
        self._await_audio = False
        return not self._ended or self._backlog.has_unsent or self._backlog.may_hold_words()


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a method's arguments that the caller gave."""
    return {name: v for name, v in arguments.items() if name != "self" and is_given(v)}


def _progress(parts: Parts, feed: Feed) -> Progress:
    """Return how far the conversation is."""
    backlog, said = parts.backlog, parts.transcript
    return Progress(
        backlog.start,
        said.finals,
        speaking=said.speaking,
        unfinalized=backlog.may_hold_words(),
        awaited=said.flush_pending,
        heard=feed.heard_to / backlog.sample_rate,
    )


def _left_of(options: APIConnectOptions, retries: int, began: float) -> Budget:
    """Return what the base class allows in an attempt that began at epoch seconds `began`.

    The options may change between attempts.
    """
    outlived = time.time() - began > options.timeout
    return Budget(options.max_retry, options.timeout, retries, outlived)


def _mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Return the mean of a frame's channels as a frame of one, whose data holds nothing else."""
    channels, length = frame.num_channels, frame.samples_per_channel
    samples = np.frombuffer(frame.data, np.int16, channels * length).reshape(length, channels)
    mono = np.rint(samples.mean(axis=1)).astype(np.int16)
    return rtc.AudioFrame(mono.tobytes(), frame.sample_rate, 1, length)
