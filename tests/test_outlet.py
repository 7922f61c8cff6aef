"""Events and reports of usage, in the order in which a stream hands them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from livekit.agents.stt import SpeechEvent, SpeechEventType
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.outlet import Outlet
from livekit.plugins.tiro.transcript import Transcript

from .support.harness import END, FINAL, START, USAGE, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE = 16000


class Stream:
    """An outlet with what it asks."""

    def __init__(self, *, usage: bool = True) -> None:
        self.backlog, clock = Backlog(), Clock()
        feed = Feed(self.backlog, clock, 0.0)
        transcript = Transcript(clock, self.backlog, feed)
        transcript.begin("tiro_1", feed)
        self.events: list[SpeechEvent] = []
        self.outlet = Outlet(self.events.append, self.backlog, transcript, usage=usage)

    def send(self, seconds: float) -> None:
        """Send audio, and report as a stream does that sends it as it is pushed."""
        start = self.backlog.end
        self.backlog.push(bytes(2 * round(seconds * RATE)), RATE)
        self.backlog.take(start, self.backlog.end)
        if self.backlog.sent_to >= self.outlet.report_at:
            self.outlet.report_usage()

    def emit(self, *kinds: SpeechEventType) -> None:
        self.outlet.emit([SpeechEvent(kind) for kind in kinds])

    @property
    def kinds(self) -> Sequence[SpeechEventType]:
        return [event.type for event in self.events]


@pytest.mark.parametrize("frame", [0.01, 0.05, 0.1])
def test_usage_is_reported_while_audio_goes_out(frame: float) -> None:
    stream = Stream()
    for n in range(round(10 / frame)):
        stream.send(frame)
        # What is held back (0.15 s) and makes no message yet (0.05 s) is not counted here.
        assert (n + 1) * frame - usage(stream.events) < 1.8 + frame
    reported = [event.recognition_usage.audio_duration for event in stream.events]  # type: ignore[union-attr]
    assert 1.75 < min(reported) <= max(reported) < 1.76 + frame
    stream.outlet.report_usage(at_least=0.0)
    assert usage(stream.events) == pytest.approx(10)


def test_a_report_says_on_which_connection() -> None:
    stream = Stream()
    stream.emit(START, FINAL)
    stream.send(0.3)
    stream.emit(END)
    stream.outlet.report_usage(at_least=0.0)
    stream.outlet.report_usage(at_least=0.0)
    assert stream.kinds == [START, FINAL, END, USAGE], "nothing was sent in between"
    assert usage(stream.events) == pytest.approx(0.3)
    assert stream.events[-1].request_id == "tiro_1"


def test_little_is_left_for_later() -> None:
    stream = Stream()
    stream.send(0.3)
    stream.outlet.report_usage()
    assert not stream.events


def test_who_reports_usage_himself_gets_no_report() -> None:
    stream = Stream(usage=False)
    stream.send(3.0)
    stream.emit(START, END)
    stream.outlet.report_usage(at_least=0.0)
    assert stream.kinds == [START, END]
