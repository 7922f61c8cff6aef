# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""One conversation: the reconnect loop, a task that sends and a task that receives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import numpy as np

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, APIStatusError, stt, utils
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import is_given

from . import errors
from .connection import Connection
from .log import logger
from .options import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Options
from .timeline import ASSUMED_PACE, KEEP_SILENT, KEEP_SPEAKING, MAX_AHEAD, PAUSE, Clock, Timeline
from .transcript import Transcript

if TYPE_CHECKING:
    import aiohttp

    from .protocol import ServiceError

# Hz; what audio of a rate that the service does not take is converted to, as Tiro recommends.
_FALLBACK_RATE = 16000
# s without a sign of life, asked for every 2 s, after which the peer is gone: with the second
# between two looks, a half-open socket is noticed within 15 s, whether audio flows or not.
_DEAD_AFTER = 13.0
# s without any answer to audio that may be speech, or to a hypothesis that is open, after which a
# new connection is tried. Doubled each time, because noise that the service does not answer looks
# the same; and doubled where no hypotheses are asked for, because a final can take 20 s.
_MUTE_AFTER = 15.0
# No longer than the audio is kept.
_MUTE_AT_MOST = KEEP_SPEAKING
# Of `conn_options.timeout`, for one handshake. The base class takes an attempt that lasted all of
# it for one that had connected, and would retry for ever; and a `FallbackAdapter`, which makes two
# attempts, is to turn to the next STT within that time.
_HANDSHAKE_SHARE = 0.5
# s between the tries of one attempt to connect, doubled from the first to the last.
_REDIAL_FIRST = 0.1
_REDIAL_AT_MOST = 1.0
# s of audio between usage reports.
_USAGE_INTERVAL = 5.0
# s; how long to wait, once the end marker is out, for a service that says nothing and stays.
_DRAIN_PATIENCE = 5.0
# s; a connection that can not be written to is as good as closed: how long its reader may lag.
_CLOSE_PATIENCE = 1.0
# s; how long to wait for an answer to a flush when nothing was heard so far. The framework waits
# 2 s for it.
_FLUSH_PATIENCE = 1.5
# s; a refusal follows the config at once. Sending a backlog into a connection that is being
# closed would destroy the error frame, so the first chunk goes alone.
_REFUSAL_PATIENCE = 0.05
# Sessions in a row that end without a final for the same audio: the fault is not by chance.
_MAX_FRUITLESS = 3
# s; a session shorter than this got nowhere, whatever it said.
_SHORT_SESSION = 1.0


class _PauseSentinel(stt.RecognizeStream._FlushSentinel):
    """Put into the input when the caller's audio has paused in the middle of an utterance."""


class _Outcome(Enum):
    """Why the exchange on a connection is over, unless the service said why."""

    CLOSED = auto()
    CHANGED = auto()
    MUTE = auto()
    QUIET = auto()


class SpeechStream(stt.RecognizeStream):
    """A live transcription. Make it with `STT.stream`.

    Push audio with `push_frame` (16-bit, any rate and number of channels) and iterate over the
    stream for events. Times on events are seconds of the pushed audio, pauses of more than 1 s
    included, plus `start_time_offset`. Iteration raises `APIError` when the stream has failed for
    good.
    """

    def __init__(
        self,
        *,
        stt: stt.STT[Any],
        options: Options,
        conn_options: APIConnectOptions,
        session: Callable[[], aiohttp.ClientSession],
    ) -> None:
        """Start the stream; use `STT.stream` instead.

        Args:
            stt: The STT that it belongs to.
            options: Its settings.
            conn_options: Retries and timeouts.
            session: Returns the HTTP session to connect with.
        """
        super().__init__(
            stt=stt, conn_options=conn_options, sample_rate=options.sample_rate or NOT_GIVEN
        )
        self._options = options
        self._session = session
        self._clock = Clock()
        self._timeline = Timeline(self._clock)
        self._transcript = Transcript(self._timeline, self._clock)
        self._configured: Options | None = None
        self._caught_up: Connection | None = None
        self._changed: asyncio.Future[None] | None = None
        self._ended = False
        self._await_audio = False
        self._began_at = 0, 0
        self._began_unsaid = False
        self._proven = False
        self._fruitless = 0
        self._failures = 0
        self._finals_at_failure = 0
        self._drained_before = False
        self._mute_connections = 0
        self._paused_at = 0.0
        self._pause_flushed = False
        self._usage_reported = 0.0
        self._flush_timer: asyncio.TimerHandle | None = None

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
        self._transcript.offset = value

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
        seconds, now = frame.duration, time.monotonic()
        if not self._pass_on(frame, seconds, now):
            super().push_frame(frame)
        self._clock.push(seconds, now, time.time())

    def _pass_on(self, frame: rtc.AudioFrame, seconds: float, now: float) -> bool:
        """Send audio here and now, if the send task does nothing but wait for it.

        That saves waking it up, which costs as much again. Return False if the frame has to take
        its way through the channel.
        """
        connection, timeline = self._caught_up, self._timeline
        if (
            connection is None
            or not self._input_ch.empty()
            or not self._pushed_sr == frame.sample_rate == timeline.sample_rate
            or timeline.ahead(now) + seconds > PAUSE
        ):
            return False
        timeline.push(frame.data, timeline.sample_rate)
        while (chunk := timeline.next_chunk(now)) is not None:
            if not connection.send_now(chunk):
                # The send task has to wait until there is room, or to see what is wrong.
                self._caught_up = None
                break
        return True

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
        extra_config: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> None:
        """Change settings of this stream alone; see `STT` for what they mean.

        A real change opens a new connection, which gets the utterance in progress again from its
        start. Values that change nothing do nothing.

        Raises:
            ValueError: A value is not valid; nothing is changed then.
        """
        changes = locals()
        del changes["self"]
        self.apply_options(changed_options(self._options, changes))

    def apply_options(self, options: Options) -> None:
        """Put validated settings in place of the present ones."""
        self._options = options
        in_force = self._configured is None or self._configured == options
        if not in_force and self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    @property
    def options(self) -> Options:
        """The present settings."""
        return self._options

    async def __aenter__(self) -> SpeechStream:
        return self

    async def aclose(self) -> None:
        """Close the stream now, whatever the service does."""
        # The input is closed only then: its end would have all brought to a final first.
        await utils.aio.cancel_and_wait(self._task)
        # The base class goes on to cancel its metrics task, to which the last usage report is
        # still on its way. It ends by itself as soon as it has read that.
        if self._metrics_task is not None:
            await asyncio.wait({self._metrics_task}, timeout=_CLOSE_PATIENCE)
        await super().aclose()

    # -- the loop --------------------------------------------------------------------------------

    async def _run(self) -> None:
        failure: APIError | None = None
        try:
            while not await self._run_session():
                pass
        except APIError as error:
            failure = error
        except Exception as error:
            failure = errors.unexpected(error)
        finally:
            self._cancel_flush_timer()
            self._report_usage(at_least=0.0)
        if failure is not None and self._is_hopeless(failure):
            failure.retryable = False
        if failure is None or not self._will_retry(failure):
            self._emit(self._transcript.finish())
        if failure is not None:
            raise failure

    def _is_hopeless(self, failure: APIError) -> bool:
        """Tell whether the base class would retry more often than it was asked to.

        It takes an attempt that outlived the timeout for one that went well. One that failed
        slowly, and brought no final for what is waiting, would be retried for ever.
        """
        if self._transcript.finals > self._finals_at_failure or not self._has_unsaid():
            self._failures = 0
        self._finals_at_failure = self._transcript.finals
        self._failures += 1
        return self._will_retry(failure) and self._failures > self._conn_options.max_retry

    def _will_retry(self, failure: APIError) -> bool:
        """Tell what the base class will do with a failure."""
        limit = self._conn_options.max_retry
        outlived = time.time() - self._start_time > self._conn_options.timeout
        return failure.retryable and limit > 0 and (self._num_retries < limit or outlived)

    async def _run_session(self) -> bool:
        """Run one connection from its opening to its end. Return True when all has been said."""
        if self._clock.is_live(time.monotonic()):
            self._take_all()
            self._timeline.limit(time.monotonic())
        if not await self._wait_for_audio():
            return True
        connection = await self._connect()
        try:
            self._report_connection_acquired(connection.opened_in, False)
            logger.debug("connected to Tiro", extra={"request_id": connection.id})
            self._begin(connection)
            outcome = await self._exchange(connection)
        finally:
            self._configured = None
            await connection.close()
        logger.debug("connection to Tiro ended", extra={"request_id": connection.id})
        return self._judge(connection, outcome)

    async def _connect(self) -> Connection:
        """Open a connection; in a call that is under way, try again while the attempt lasts.

        Most outages are over in seconds, and the framework's retries alone would be used up by
        then, as a service that is down refuses at once.
        """
        deadline = time.monotonic() + self._conn_options.timeout * _HANDSHAKE_SHARE
        wait = _REDIAL_FIRST
        while True:
            try:
                timeout = deadline - time.monotonic()
                return await Connection.open(self._session(), self._options, timeout)
            except APIError as failure:
                over = time.monotonic() + wait > deadline
                if over or not self._proven or not self._can_pass(failure):
                    raise
            await asyncio.sleep(wait)
            wait = min(2 * wait, _REDIAL_AT_MOST)

    def _can_pass(self, failure: APIError) -> bool:
        """Tell whether to try again soon; who asks for few retries has another STT to turn to."""
        used_up = isinstance(failure, APIStatusError) and failure.status_code == 429
        return failure.retryable and not used_up and self._conn_options.max_retry > 1

    def _begin(self, connection: Connection) -> None:
        """Set the timeline back to what has to be said to the new connection."""
        self._transcript.request_id = connection.id
        if self._transcript.flush_owed:
            self._arm_flush_timer()
        self._timeline.rewind(time.monotonic())
        self._began_at = self._timeline.start, self._transcript.finals
        self._began_unsaid = self._has_unsaid()
        given_up = self._timeline.take_given_up()
        if given_up:
            logger.warning(
                "%.1f s of audio were given up: no more than %.0f s are kept while Tiro does not "
                "answer",
                given_up,
                KEEP_SPEAKING,
            )

    async def _wait_for_audio(self) -> bool:
        """Wait until there is something to connect for. Return False if that will never be."""
        while self._await_audio and not self._ended:
            try:
                self._await_audio = not self._take(await self._input_ch.recv())
            except utils.aio.ChanClosed:
                self._end_input()
        self._await_audio = False
        return not self._ended or self._has_unsaid()

    async def _exchange(self, connection: Connection) -> _Outcome | ServiceError:
        """Send and receive until the connection ends, or must."""
        sending = asyncio.create_task(self._send(connection), name="tiro.send")
        receiving = asyncio.create_task(self._receive(connection), name="tiro.receive")
        changed = self._changed = asyncio.get_running_loop().create_future()
        waited_for: set[asyncio.Future[Any]] = {sending, receiving, changed}
        try:
            while not receiving.done() and not changed.done():
                patience = PAUSE
                if sending.done():
                    waited_for.discard(sending)
                    patience = self._patience(connection, alive=sending.result())
                    if patience <= 0:
                        return _Outcome.QUIET
                await asyncio.wait(
                    waited_for, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                outcome = self._watch(connection)
                if outcome is not None and not receiving.done():
                    return outcome
            return _Outcome.CHANGED if changed.done() else receiving.result()
        finally:
            await utils.aio.cancel_and_wait(receiving, sending)

    def _watch(self, connection: Connection) -> _Outcome | None:
        """Look after a connection, once a second. Return why it has to end, if it has."""
        self._notice_pause()
        self._report_usage(at_least=_USAGE_INTERVAL)
        if connection.silence > _DEAD_AFTER:
            return _Outcome.CLOSED
        timeline = self._timeline
        timeline.reach(connection.reached)
        now = time.monotonic()
        if (
            connection.unanswered
            or self._transcript.speaking
            or timeline.is_loud_since(connection.watched_to)
        ):
            connection.unanswered += now - connection.watched_at
        timeline.in_doubt = connection.unanswered > 0
        connection.watched_to, connection.watched_at = timeline.position, now
        connection.ping(timeline.position)
        return _Outcome.MUTE if self._is_mute(connection) else None

    def _is_mute(self, connection: Connection) -> bool:
        """Tell whether the service takes audio and does not answer it."""
        doublings = self._mute_connections + (not self._options.interim_results)
        if connection.ended or connection.unanswered <= min(
            _MUTE_AFTER * 2**doublings, _MUTE_AT_MOST
        ):
            return False
        if not self._has_unsaid():
            # A click, and no word.
            connection.unanswered = 0.0
            return False
        return True

    def _patience(self, connection: Connection, *, alive: bool) -> float:
        """Return the seconds that the receiver may still take, once the sender is done."""
        if connection.configured is None:
            return 0.0
        limit = _DRAIN_PATIENCE if alive else _CLOSE_PATIENCE
        return limit - (time.monotonic() - max(connection.sent_at, connection.last_message_at))

    def _notice_pause(self) -> None:
        """Bring an utterance to its end when the caller's audio stops in the middle of it.

        The service's endpointer runs on audio: without any, it would wait for ever.
        """
        pushed = self._clock.pushed
        if self._input_ch.closed or not self._clock.is_paused(time.monotonic()):
            return
        if self._paused_at != pushed:
            # Looked at once more before anything is done: a stalled event loop looks the same.
            self._paused_at, self._pause_flushed = pushed, False
        elif not self._pause_flushed and self._has_unsaid():
            self._pause_flushed = True
            self._input_ch.send_nowait(_PauseSentinel())

    async def _receive(self, connection: Connection) -> _Outcome | ServiceError:
        while (response := await connection.receive()) is not None:
            self._timeline.in_doubt = False
            self._mute_connections = 0
            self._emit(self._transcript.on_response(response, time.monotonic()))
            if response.error is not None:
                return response.error
        return _Outcome.CLOSED

    async def _send(self, connection: Connection) -> bool:
        """Send audio until the input ends. Return False if the connection is gone."""
        timeline = self._timeline
        while True:
            now = time.monotonic()
            chunk = timeline.next_chunk(now)
            if chunk is not None:
                if connection.configured is None:
                    sent = await self._send_first_chunk(connection, chunk)
                else:
                    sent = await connection.send(chunk)
                if not sent:
                    return False
                if timeline.ahead(now) > PAUSE:
                    await self._keep_pace()
            elif self._ended:
                return connection.configured is not None and await connection.end()
            else:
                if connection.configured is not None:
                    self._caught_up = connection
                try:
                    self._take(await self._input_ch.recv())
                except utils.aio.ChanClosed:
                    self._end_input()
                finally:
                    self._caught_up = None

    async def _send_first_chunk(self, connection: Connection, chunk: bytes) -> bool:
        self._configure()
        if not await connection.configure(self._options, self._timeline.sample_rate):
            return False
        if not await connection.send(chunk):
            return False
        if self._timeline.has_backlog or not self._input_ch.empty():
            await asyncio.sleep(_REFUSAL_PATIENCE)
        return True

    def _configure(self) -> None:
        """Note which settings are in force: a change before this needs no new connection."""
        self._configured = self._options
        self._transcript.set_language(self._options.language)
        # Without interims nobody knows that somebody speaks, until the final.
        interims = self._options.interim_results
        self._timeline.keep_silent = KEEP_SILENT if interims else KEEP_SPEAKING

    async def _keep_pace(self) -> None:
        """Let a burst go no further ahead of the service than can be sent again."""
        # An error that has come in must be read before more audio goes out.
        await asyncio.sleep(0)
        while (ahead := self._timeline.ahead(time.monotonic())) > MAX_AHEAD:
            await asyncio.sleep(min(_REFUSAL_PATIENCE, (ahead - MAX_AHEAD) / ASSUMED_PACE))

    # -- what the end of a connection means ------------------------------------------------------

    def _judge(self, connection: Connection, outcome: _Outcome | ServiceError) -> bool:
        """Decide how it goes on. Return True when all has been said.

        Raises:
            APIError: It ended by a failure, and not by a limit of the service.
        """
        healthy = connection.is_healthy(self._conn_options.timeout)
        self._proven = self._proven or healthy
        idle = connection.configured is None
        if not isinstance(outcome, _Outcome) and not (
            (healthy or idle) and outcome.code in errors.ROTATION_CODES
        ):
            raise errors.from_service(outcome, errors.Redactor(self._options.api_key))
        if outcome is _Outcome.CHANGED:
            return False
        if connection.ended:
            return self._judge_drained(connection, outcome)
        if idle:
            # It was opened ahead of the audio. Without any, the service need not keep it.
            self._await_audio = True
            return False
        mute = outcome is _Outcome.MUTE
        if not mute and (not healthy or connection.last_response is None and self._has_unsaid()):
            raise errors.never_answered()
        self._count_fruitless(connection)
        if mute:
            self._judge_mute(connection)
            return False
        if self._fruitless >= _MAX_FRUITLESS:
            raise errors.dropped(f"{self._fruitless} times in a row without a final")
        # While nobody speaks there is nothing to hurry for. What may be speech is tried once more.
        self._await_audio = not self._transcript.speaking and (
            self._fruitless > 1 or not self._has_unsaid()
        )
        return False

    def _judge_mute(self, connection: Connection) -> None:
        """Go on after a connection that fell silent, unless it is not the first one."""
        self._mute_connections += 1
        if self._mute_connections > 1 or self._fruitless >= _MAX_FRUITLESS:
            raise errors.mute(connection.unanswered)
        logger.warning(
            "Tiro said nothing for %.0f s to audio that may be speech; connecting anew",
            connection.unanswered,
        )

    def _count_fruitless(self, connection: Connection) -> None:
        """Count the sessions in a row that brought nothing for the audio they began with."""
        start, finals = self._began_at
        same = self._began_unsaid or self._timeline.start == start
        stuck = same and self._has_unsaid()
        if self._transcript.finals > finals:
            self._fruitless = 0
        elif stuck or connection.age < _SHORT_SESSION:
            self._fruitless += 1
        else:
            self._fruitless = 0

    def _judge_drained(self, connection: Connection, outcome: _Outcome | ServiceError) -> bool:
        """Decide whether a connection that got the end marker said all there was to say.

        The service ends every connection alike, by dropping it: a crash looks like success. It
        has said all if no hypothesis is open and what no final covers is quiet, or if it said
        itself that there is nothing more. Otherwise what is left is said once more, and again as
        long as that brings finals.
        """
        # No response in a local: tracebacks can show those, and it holds what was said.
        if not self._has_unsaid() or (connection.concluded and not self._transcript.speaking):
            return True
        quiet = outcome is _Outcome.QUIET
        first = not self._drained_before or self._transcript.finals > self._began_at[1]
        if first and not (quiet and connection.last_response is None):
            self._drained_before = True
            return False
        if quiet:
            raise errors.unanswered(_DRAIN_PATIENCE)
        raise errors.dropped("before its last final")

    def _has_unsaid(self) -> bool:
        """Tell whether there is audio that can hold words which are not final."""
        timeline = self._timeline
        return self._transcript.speaking or timeline.has_given_up or timeline.is_loud()

    # -- input and output ------------------------------------------------------------------------

    def _take_all(self) -> None:
        while not self._input_ch.empty():
            self._take(self._input_ch.recv_nowait())

    def _take(self, item: rtc.AudioFrame | stt.RecognizeStream._FlushSentinel) -> bool:
        """Take in what the caller pushed. Return True if it is a reason to connect."""
        if isinstance(item, rtc.AudioFrame):
            self._timeline.push(item.data, item.sample_rate)
            return True
        if isinstance(item, _PauseSentinel):
            self._timeline.flush()
            return True
        if self._input_ch.closed and self._input_ch.empty():
            # `end_input` flushes first; the end itself brings all to its final.
            return False
        return self._flush()

    def _flush(self) -> bool:
        """Have the service decide now. Return True if it has anything to decide."""
        self._transcript.flush()
        if not self._has_unsaid():
            self._give_up_flush()
            return False
        self._timeline.flush()
        self._arm_flush_timer()
        return True

    def _arm_flush_timer(self) -> None:
        self._cancel_flush_timer()
        loop = asyncio.get_running_loop()
        self._flush_timer = loop.call_later(_FLUSH_PATIENCE, self._on_flush_timeout)

    def _on_flush_timeout(self) -> None:
        waiting = self._transcript.speaking and self._transcript.flush_owed
        up_to_date = self._input_ch.empty() and not self._input_ch.closed
        if waiting and up_to_date and not self._timeline.is_loud_behind_flush():
            # The service waits for longer silence than it was sent; this doubles it.
            self._input_ch.send_nowait(_PauseSentinel())
        self._give_up_flush()

    def _give_up_flush(self) -> None:
        self._emit(self._transcript.give_up_flush())

    def _cancel_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _end_input(self) -> None:
        self._ended = True
        if not self._timeline.is_empty:
            self._timeline.flush()

    def _report_usage(self, *, at_least: float) -> None:
        """Report the audio sent since the last report, if it is more than `at_least` seconds."""
        seconds = self._timeline.sent - self._usage_reported
        if seconds > at_least:
            self._usage_reported += seconds
            event = stt.SpeechEvent(
                stt.SpeechEventType.RECOGNITION_USAGE,
                self._transcript.request_id,
                recognition_usage=stt.RecognitionUsage(audio_duration=seconds),
            )
            self._emit([event])

    def _emit(self, events: Iterable[stt.SpeechEvent]) -> None:
        for event in events:
            self._event_ch.send_nowait(event)


def changed_options(options: Options, changes: dict[str, Any]) -> Options:
    """Return a validated copy of `options` with the values of `changes` that are given."""
    try:
        return replace(options, **{name: v for name, v in changes.items() if is_given(v)})
    except ValueError as error:
        why = str(error)
    # Raised anew: the frames of the first one hold the key.
    raise ValueError(why)


def _mix_down(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Return the mean of a frame's channels as a frame of one."""
    samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
    mono = np.rint(samples.mean(axis=1)).astype(np.int16)
    return rtc.AudioFrame(mono.tobytes(), frame.sample_rate, 1, frame.samples_per_channel)
