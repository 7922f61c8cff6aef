"""What leaves a stream: events, and reports of the audio that was used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from livekit.agents.stt import RecognitionUsage, RecognizeStream, SpeechEvent, SpeechEventType
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils.aio import ChanClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable

    from livekit.agents import APIConnectOptions
    from livekit.agents.stt import STT

    from .backlog import Backlog
    from .transcript import Transcript

# s of audio between usage reports. A report costs more than two hypotheses, most of it in the
# framework's metrics; whoever stops listening to those is told the rest first.
_USAGE_INTERVAL = 5.0


class Outlet:
    """Hands out the events of one stream."""

    def __init__(
        self,
        send: Callable[[SpeechEvent], None],
        count: Callable[[SpeechEvent], None],
        backlog: Backlog,
        transcript: Transcript,
        *,
        usage: bool,
    ) -> None:
        """Start with nothing to report.

        Args:
            send: Takes each event.
            count: Takes reports of usage as well, after `send`.
            backlog: Knows how much audio was sent.
            transcript: Knows the id of the connection.
            usage: Whether usage is reported.
        """
        self.report_at = 0
        """The position up to which audio has to be sent for the next report."""
        self._send = send
        self._count = count
        self._backlog = backlog
        self._transcript = transcript
        self._usage = usage
        self._reported = 0.0

    def emit(self, events: Iterable[SpeechEvent]) -> None:
        """Send events."""
        for event in events:
            self._send(event)

    def report_usage(self, *, at_least: float = _USAGE_INTERVAL) -> None:
        """Report the audio sent since the last report, if it is more than `at_least` seconds."""
        backlog = self._backlog
        sent = backlog.seconds_sent
        seconds = sent - self._reported
        if seconds > at_least:
            if self._usage:
                self._report(seconds)
            self._reported, seconds = sent, 0.0
        left = max(0.0, _USAGE_INTERVAL - seconds)
        self.report_at = backlog.sent_to + round(left * backlog.sample_rate) + 1

    def _report(self, seconds: float) -> None:
        usage = RecognitionUsage(audio_duration=seconds)
        kind, request_id = SpeechEventType.RECOGNITION_USAGE, self._transcript.request_id
        event = SpeechEvent(kind, request_id, recognition_usage=usage)
        self._send(event)
        self._count(event)


class EventStream(RecognizeStream):
    """A stream whose events go straight to whoever iterates over it.

    The base class reads each of them a second time, for its metrics. That costs as much as a fifth
    of an interim, and with it a cancelled `__anext__` (`asyncio.wait_for`) ends the iteration.
    """

    _outlet: Outlet

    def __init__(
        self,
        *,
        stt: STT[Any],
        conn_options: APIConnectOptions,
        sample_rate: NotGivenOr[int] = NOT_GIVEN,
    ) -> None:
        """Start the stream. The arguments are those of the base class."""
        self._uncounted: list[SpeechEvent] = []
        super().__init__(stt=stt, conn_options=conn_options, sample_rate=sample_rate)

    def count(self, usage: SpeechEvent) -> None:
        """Have the base class make metrics of a report of usage, soon."""
        self._uncounted.append(usage)
        asyncio.get_running_loop().call_soon(self._count_all)

    def account(self) -> None:
        """Report what was used so far, and have metrics made of it before this returns.

        Does nothing outside of the stream's event loop.
        """
        if asyncio._get_running_loop() is self._task.get_loop():
            self._outlet.report_usage(at_least=0.0)
            self._count_all()

    def _count_all(self) -> None:
        if self._uncounted:
            counting = super()._metrics_monitor_task(_each(self._uncounted))
            self._uncounted = []
            # A task for a coroutine that waits for nothing costs a third more than the metrics do.
            _run_through(counting)

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[SpeechEvent]) -> None:
        """Read nothing: `count` is given what goes into the metrics.

        Finals, by which the base class forgives failures, are up to the subclass.
        """

    async def __anext__(self) -> SpeechEvent:
        try:
            return await self._event_ch.recv()
        except ChanClosed:
            failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None:
            raise failure
        raise StopAsyncIteration


async def _each(events: Iterable[SpeechEvent]) -> AsyncIterator[SpeechEvent]:
    for event in events:
        yield event


def _run_through(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing.

    Raises:
        RuntimeError: It waits for something.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError(f"{coroutine} waits for something: run it as a task")
