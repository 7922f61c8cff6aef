"""One live transcription: the reconnect loop, a task that sends and a task that receives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, stt, utils
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import is_given

from . import errors
from .backlog import KEEP_AT_MOST, Backlog
from .clock import Clock
from .dial import Dialer
from .exchange import Exchange, Parts
from .feed import Feed
from .log import logger
from .options import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    ApiKey,
    Options,
    changed_options,
    hidden_headers,
    hidden_key,
)
from .recovery import Budget, Next, Progress, Reason, Recovery
from .transcript import Transcript
from .watch import CLOSE_TIMEOUT, PauseWatch

if TYPE_CHECKING:
    import aiohttp

    from .connection import Connection

# Hz; what audio of a rate that the service does not take is converted to, as Tiro recommends.
_FALLBACK_RATE = 16000
# s of audio between usage reports. An `AgentSession` lets go of the STT's metrics before it closes
# the stream, so what is not reported by then is missing from its account: with what is held back
# (0.15 s) and what makes no message yet, 1 s at most.
_USAGE_INTERVAL = 0.75


class SpeechStream(stt.RecognizeStream):
    """A live transcription. Make it with `STT.stream`.

    Push audio with `push_frame` (16-bit, any rate and number of channels) and iterate over the
    stream for events. Times on events are seconds of the pushed audio, pauses in it
    included, plus `start_time_offset`. Iteration raises `APIError` when the stream has failed for
    good.
    """

    def __init__(
        self,
        *,
        stt: stt.STT[Any],
        options: Options,
        conn_options: APIConnectOptions,
        http_session: Callable[[], aiohttp.ClientSession],
    ) -> None:
        """Start the stream; use `STT.stream` instead.

        Args:
            stt: The STT that it belongs to.
            options: Its settings.
            conn_options: Retries and timeouts.
            http_session: Returns the HTTP session to connect with.
        """
        super().__init__(
            stt=stt, conn_options=conn_options, sample_rate=options.sample_rate or NOT_GIVEN
        )
        self._options = options
        self._clock = Clock()
        self._backlog = Backlog()
        self._feed = Feed(self._backlog, self._clock, time.monotonic())
        self._transcript = Transcript(self._clock, self._backlog, self._feed)
        redact = errors.Redactor(options.api_key)
        self._recovery = Recovery(redact)
        self._dialer = Dialer(http_session, self._recovery, redact)
        self._parts = Parts(
            self._clock,
            self._backlog,
            self._transcript,
            PauseWatch(),
            self._emit,
            self._report_usage,
        )
        self._exchange: Exchange | None = None
        self._wanted = asyncio.Event()
        self._ended = False
        self._done = False
        self._await_audio = False
        self._report_at = 0

    # -- the caller's side -----------------------------------------------------------------------

    @property
    def start_time_offset(self) -> float:
        """Seconds added to all times; the framework sets it before the first audio."""
        return self._transcript.offset

    @start_time_offset.setter
    def start_time_offset(self, value: float) -> None:
        # The base class adds the wall-clock time of every retry to its own copy. That is not
        # followed: the audio clock runs on through retries.
        if value < 0:
            raise ValueError("start_time_offset must be non-negative")
        self._transcript.set_offset(value)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Push audio to be recognised.

        Args:
            frame: 16-bit samples. Channels are mixed down to one; a rate outside 8000 to 48000 Hz
                is converted to 16000 Hz.

        Raises:
            ValueError: The sample rate is not that of the first frame.
            RuntimeError: The stream is closed, or its input ended.
        """
        if frame.num_channels != 1:
            frame = _mix_down(frame)
        if not self._pushed_sr and not MIN_SAMPLE_RATE <= frame.sample_rate <= MAX_SAMPLE_RATE:
            self._needed_sr = self._needed_sr or _FALLBACK_RATE
        now, exchange = time.monotonic(), self._exchange
        direct = exchange is not None and exchange.is_direct
        if direct and self._pushed_sr == frame.sample_rate == self._backlog.sample_rate:
            # As the base class does, without a detour over its channel.
            self._backlog.push(frame.data, frame.sample_rate)
        else:
            super().push_frame(frame)
            self._take_in()
        self._clock.push(frame.duration, now, time.time())
        if exchange is not None:
            exchange.send_now(frame.duration, now)
            if self._backlog.sent_to >= self._report_at:
                self._report_usage()
        else:
            self._wanted.set()

    def flush(self) -> None:
        """Ask for the final of what was pushed so far, now.

        If nothing was said since the last final, an empty one comes at once.

        Raises:
            RuntimeError: The stream is closed, or its input ended.
        """
        super().flush()
        self._take_in()
        self._emit(self._transcript.flush())
        if not self._transcript.flush_pending:
            return
        if self._exchange is not None:
            self._exchange.flush()
        else:
            self._backlog.flush()
            self._wanted.set()

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
            self._wanted.set()

    def _take_in(self) -> None:
        """Move what the base class left in its channel, resampled or not, to the backlog."""
        while not self._input_ch.empty():
            item = self._input_ch.recv_nowait()
            if isinstance(item, rtc.AudioFrame):
                self._backlog.push(item.data, item.sample_rate)

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
        extra_config: NotGivenOr[Mapping[str, Any]] = NOT_GIVEN,
        endpointing: NotGivenOr[float | None] = NOT_GIVEN,
        keyterms: NotGivenOr[Sequence[str] | None] = NOT_GIVEN,
        api_key: NotGivenOr[ApiKey] = NOT_GIVEN,
        extra_headers: NotGivenOr[Mapping[str, str]] = NOT_GIVEN,
    ) -> None:
        """Change settings of this stream alone; see `STT` for what they mean.

        A real change opens a new connection, which gets the utterance in progress again from its
        start; `endpointing` needs none. New `keyterms` wait for the next connection, which is
        opened when nobody speaks; `api_key` and `extra_headers` are used from the next one on.
        Values that change nothing do nothing.

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
    def is_done(self) -> bool:
        """Whether all that was pushed is final, as far as the service hears words in it."""
        return self._done

    async def __aenter__(self) -> SpeechStream:
        return self

    async def aclose(self) -> None:
        """Close the stream now, whatever the service does."""
        if self._exchange is not None:
            self._exchange.send_held()
        # Cancel first: closing the input would make the send task flush and wait for the last
        # final.
        await utils.aio.cancel_and_wait(self._task)
        # The base class goes on to cancel its metrics task, to which the last usage report is
        # still on its way. It ends by itself as soon as it has read that.
        if self._metrics_task is not None:
            await asyncio.wait({self._metrics_task}, timeout=CLOSE_TIMEOUT)
        await super().aclose()

    # -- the loop --------------------------------------------------------------------------------

    async def _run(self) -> None:
        failure: APIError | None = None
        try:
            while await self._run_connection() is not Next.DONE:
                pass
        except APIError as error:
            failure = error
        except Exception as error:
            failure = errors.unexpected(error)
        finally:
            self._report_usage(at_least=0.0)
        if failure is None:
            self._done = True
            self._emit(self._transcript.finish())
            return
        if not self._recovery.after_failure(failure, self._progress(), self._budget()):
            self._emit(self._transcript.finish())
        raise failure

    async def _run_connection(self) -> Next:
        """Run one connection from its opening to its end."""
        self._take_in()
        self._feed.limit(time.monotonic())
        if not await self._wait_for_audio():
            return Next.DONE
        connection = await self._dialer.connect(self._options, self._budget)
        try:
            self._report_connection_acquired(connection.opened_in, False)
            logger.debug("connected to Tiro", extra={"request_id": connection.id})
            exchange = self._exchange = self._begin(connection)
            reason = await exchange.run()
        finally:
            self._exchange = None
            await connection.close()
        logger.debug("connection to Tiro ended", extra={"request_id": connection.id})
        ending = exchange.ending(reason)
        after = self._recovery.after(ending, self._progress(), self._budget())
        if reason is Reason.UNRESPONSIVE:
            logger.warning(
                "Tiro did not answer %.0f s of audio that may be speech; connecting again",
                ending.unanswered,
            )
        self._await_audio = after is Next.RECONNECT_ON_AUDIO
        return after

    def _begin(self, connection: Connection) -> Exchange:
        """Feed the new connection with all that no final covers."""
        now = time.monotonic()
        self._feed.limit(now)
        asking = self._ended and self._recovery.retried_after_drain
        self._feed = Feed(self._backlog, self._clock, now, asking=asking)
        self._transcript.begin(connection.id, self._feed)
        self._recovery.connected(self._progress())
        _warn_of(self._backlog.take_given_up())
        return Exchange(
            connection,
            self._feed,
            self._parts,
            self._options,
            ended=self._ended,
            unresponsive_before=self._recovery.unresponsive_connections,
        )

    def _progress(self) -> Progress:
        backlog, said = self._backlog, self._transcript
        return Progress(backlog.start, said.finals, said.speaking, backlog.may_hold_words())

    def _budget(self) -> Budget:
        """Return what the base class allows; its options may change between attempts."""
        options = self._conn_options
        outlived = time.time() - self._start_time > options.timeout
        return Budget(options.max_retry, options.timeout, self._num_retries, outlived)

    async def _wait_for_audio(self) -> bool:
        """Wait until there is something to connect for. Return False if that will never be."""
        if self._await_audio and not self._ended:
            self._wanted.clear()
            await self._wanted.wait()
        self._await_audio = False
        backlog = self._backlog
        return not self._ended or backlog.has_unsent or backlog.may_hold_words()

    # -- usage, events ---------------------------------------------------------------------------

    def _report_usage(self, *, at_least: float = _USAGE_INTERVAL) -> None:
        """Report the audio sent since the last report, if it is more than `at_least` seconds."""
        backlog = self._backlog
        seconds = backlog.take_usage(at_least)
        if seconds:
            self._report_at = backlog.sent_to + round(_USAGE_INTERVAL * backlog.sample_rate) + 1
            event = stt.SpeechEvent(
                stt.SpeechEventType.RECOGNITION_USAGE,
                self._transcript.request_id,
                recognition_usage=stt.RecognitionUsage(audio_duration=seconds),
            )
            self._emit([event])

    def _emit(self, events: Iterable[stt.SpeechEvent]) -> None:
        for event in events:
            self._event_ch.send_nowait(event)
            if event.type is stt.SpeechEventType.END_OF_SPEECH:
                self._report_usage(at_least=0.0)


def _warn_of(given_up: float) -> None:
    if given_up:
        logger.warning(
            "%.1f s of audio were given up: %.0f s at most are kept while Tiro does not answer",
            given_up,
            KEEP_AT_MOST,
        )


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a method's arguments that the caller gave."""
    return {name: v for name, v in arguments.items() if name != "self" and is_given(v)}


def _mix_down(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Return the mean of a frame's channels as a frame of one."""
    samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
    mono = np.rint(samples.mean(axis=1)).astype(np.int16)
    return rtc.AudioFrame(mono.tobytes(), frame.sample_rate, 1, frame.samples_per_channel)
