"""What happens on the line, for those who look at logs and traces: facts, and no content."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
)
from livekit.agents.telemetry import set_tracer_provider, tracer
from livekit.plugins.tiro import journal as journal_module
from livekit.plugins.tiro.backlog import KEEP_AT_MOST
from livekit.plugins.tiro.journal import Journal
from livekit.plugins.tiro.protocol import Alternative, Response, Result, ServiceError
from livekit.plugins.tiro.recovery import Ending, Next, Reason
from livekit.plugins.tiro.stats import Stats
from livekit.plugins.tiro.testing import TiroServer, faults

from .support.caller import Caller, quiet, tone
from .support.harness import collect, frames
from .support.numbered import NumberedRecognizer, talk
from .support.session_fakes import Call, in_virtual_time, local_server, new_stt, speech

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit.plugins.tiro.testing import Hooks

SAID = talk(3, 2)
KEY = "kanarilykill"
RETRIES = APIConnectOptions(max_retry=3, retry_interval=0.1, timeout=4.0)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Caller:
    """A caller whose clock is the journal's too."""
    caller = Caller()
    monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: caller.now))
    return caller


@pytest.fixture
def journal(caller: Caller) -> Journal:
    return Journal(caller.clock, caller.backlog)


@contextmanager
def traced() -> Iterator[InMemorySpanExporter]:
    """Trace as a worker does that was told to."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    before = tracer._tracer_provider
    set_tracer_provider(provider)
    try:
        yield spans
    finally:
        set_tracer_provider(before)


async def hear(*hooks: Hooks) -> str:
    server = TiroServer(
        api_key=KEY,
        recognizers={"is": NumberedRecognizer(SAID)},
        hooks=faults.PerConnection(*hooks),
    )
    async with server, new_stt(server, api_key=KEY) as stt:
        await collect(stt.stream(conn_options=RETRIES), frames(SAID.pcm()), pace=0.05)
        return server.base_url


def line(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    """Return what the log says of the line: messages, and facts under their own names."""
    return [
        (record.msg, {k[5:]: v for k, v in vars(record).items() if k.startswith("tiro.")})
        for record in caplog.records
        if record.name == "livekit.plugins.tiro" and "Tiro" in record.msg
    ]


@in_virtual_time
async def test_the_log_tells_of_each_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "livekit.plugins.tiro")
    await hear(faults.Refuse(503), faults.SessionLimit(1.0))
    told = line(caplog)
    assert [message for message, _ in told] == [
        "could not connect to Tiro",
        "connected to Tiro",
        "connection to Tiro ended",
        "connected to Tiro",
        "connection to Tiro ended",
    ]
    facts = [facts for _, facts in told]
    assert facts[0] == {"kind": "status_503"}
    assert facts[1].keys() == {"request_id", "seconds"}
    assert facts[2]["reason"] == "code_11" and facts[2]["seconds"] == pytest.approx(1.0, abs=0.1)
    assert facts[4]["reason"] == "closed"
    assert facts[1]["request_id"] == facts[2]["request_id"] != facts[3]["request_id"]
    ours = [each for each in caplog.records if each.name == "livekit.plugins.tiro"]
    assert {record.levelno for record in ours} == {logging.DEBUG}


@in_virtual_time
async def test_the_current_span_has_an_event_for_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "livekit.plugins.tiro")
    with traced() as spans:
        with tracer.start_as_current_span("call"):
            address = await hear(faults.Disconnect(1.2))
        await hear()
    (span,) = spans.get_finished_spans()
    assert [event.name for event in span.events] == [
        "tiro.connected",
        "tiro.disconnected",
        "tiro.connected",
        "tiro.disconnected",
    ]
    logged = [facts for _, facts in line(caplog)][:4]
    assert [dict(event.attributes or {}) for event in span.events] == [
        {f"tiro.{name}": value for name, value in facts.items()} for facts in logged
    ]
    shown = repr([(event.name, event.attributes) for event in span.events])
    assert KEY not in shown and "w1" not in shown and address not in shown


@in_virtual_time
async def test_a_span_that_is_over_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry would warn of each event."""
    async with local_server() as server, new_stt(server) as stt:
        with traced() as spans, tracer.start_as_current_span("short"):
            stream = stt.stream()
        await collect(stream, frames(speech(), 24000))
    assert not spans.get_finished_spans()[0].events
    assert "ended span" not in caplog.text


@in_virtual_time
async def test_the_line_is_part_of_the_trace_of_a_session() -> None:
    with traced() as spans:
        hooks = faults.PerConnection(faults.Disconnect(1.0))
        async with local_server(hooks=hooks) as server, new_stt(server) as stt:
            async with Call(stt, "vad") as call:
                await call.microphone.say(speech())
                await call.turns(1)
                await asyncio.sleep(1.0)
    (session,) = [each for each in spans.get_finished_spans() if each.name == "agent_session"]
    names = [event.name for event in session.events if event.name.startswith("tiro.")]
    assert names[:3] == ["tiro.connected", "tiro.disconnected", "tiro.connected"]


def test_without_a_trace_there_is_a_log(
    journal: Journal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with traced() as spans:
        with tracer.start_as_current_span("traced"):
            journal.not_connected(APITimeoutError())
        with tracer.start_as_current_span("not traced"):
            monkeypatch.delitem(sys.modules, "opentelemetry.trace")
            journal.not_connected(APITimeoutError())
    assert [[event.name for event in span.events] for span in spans.get_finished_spans()] == [
        ["tiro.not_connected"],
        [],
    ]
    assert line(caplog) == [("could not connect to Tiro", {"kind": "timeout"})] * 2


# -- how long ago the last sound of a final was ---------------------------------------------------


def delay_of(journal: Journal, caller: Caller, end: float | None) -> float | None:
    """Return the delay of a final that is there now, and ends at a second of the connection."""
    interim = Result(False, (Alternative("og"),), 0.1, 0.2)
    final = Result(True, (Alternative("já"),), end and 0.1, end)
    return journal.final_delay(Response((final, interim)), caller.feed)


def test_the_delay_is_from_the_last_sound_of_the_word(journal: Journal, caller: Caller) -> None:
    """The service puts the end of a word a little early, or late."""
    for part in (quiet(0.5), tone(1.0), quiet(0.5)):
        caller.say(part)
    for end in (1.3, 1.5, 1.8):
        assert delay_of(journal, caller, end) == pytest.approx(0.5)
    caller.say(tone(0.5))
    caller.say(quiet(0.25))
    assert delay_of(journal, caller, 1.5) == pytest.approx(1.25), "not of the next word"
    assert delay_of(journal, caller, 2.4) == pytest.approx(0.25)


def test_without_a_sound_the_delay_is_from_the_end_by_the_service(
    journal: Journal, caller: Caller
) -> None:
    caller.say(quiet(2.0))
    assert delay_of(journal, caller, 0.5) == pytest.approx(1.5)


def test_pauses_of_the_audio_count(journal: Journal, caller: Caller) -> None:
    caller.say(tone(1.0))
    caller.now += 5.0
    caller.say(quiet(2.0))
    assert delay_of(journal, caller, 1.0) == pytest.approx(7.0)


@pytest.mark.parametrize("end", [None, 0.0, 100.0])
def test_a_time_that_is_missing_or_impossible_has_no_delay(
    journal: Journal, caller: Caller, end: float | None
) -> None:
    assert delay_of(journal, caller, end) is None, "no audio yet"
    caller.say(tone(1.0))
    assert delay_of(journal, caller, end) is None


def test_a_file_has_no_delay(journal: Journal, caller: Caller) -> None:
    caller.push(tone(60.0), waits=False)
    caller.send()
    assert delay_of(journal, caller, 1.0) is None


# -- what is counted ----------------------------------------------------------------------------


def test_nothing_is_counted_at_first(journal: Journal, caller: Caller) -> None:
    assert journal.counts(caller.feed).snapshot() == Stats(
        audio_pushed=0.0, audio_sent=0.0, audio_sent_again=0.0
    )


def test_audio_is_counted_once_and_again(journal: Journal, caller: Caller) -> None:
    journal.connected("tiro_1", 0.1, caller.feed)
    caller.say(tone(2.0))
    caller.push(tone(1.0))
    stats = journal.counts(caller.feed).snapshot()
    assert stats.audio_pushed == pytest.approx(3.0)
    assert (stats.audio_sent, stats.audio_sent_again) == (2.0, 0.0)
    caller.reconnect()
    journal.connected("tiro_2", 0.1, caller.feed)
    caller.send()
    stats = journal.counts(caller.feed).snapshot()
    assert stats.audio_pushed == pytest.approx(3.0)
    assert (stats.audio_sent, stats.audio_sent_again) == (3.0, 2.0)
    assert stats.connections == 2


def test_finals_and_flushes_are_counted(journal: Journal, caller: Caller) -> None:
    journal.heard(2, 0.25, flush_answered=False)
    caller.now += 1
    journal.heard(1, 0.75, flush_answered=True)
    journal.heard(0, None, flush_answered=True)
    journal.no_more_finals(False)
    stats = journal.tally.snapshot()
    assert (stats.finals, stats.final_delay_last, stats.final_delay_p50) == (3, 0.75, 0.25)
    assert (stats.flushes_answered, stats.flushes_given_up) == (2, 0)
    journal.no_more_finals(True)
    assert journal.tally.snapshot().flushes_given_up == 1


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (APIStatusError("no", status_code=503), "status_503"),
        (APITimeoutError(), "timeout"),
        (APIConnectionError(), "connection"),
        (APIError("no"), "connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failures_are_counted_by_kind(journal: Journal, failure: APIError, kind: str) -> None:
    journal.not_connected(failure)
    assert journal.tally.snapshot().failures == {}, "it is told, and counted once"
    journal.failed(failure)
    assert journal.tally.snapshot().failures == {kind: 1}


def test_audio_that_is_given_up_is_told_once(
    journal: Journal, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caller.say(2.0)
    for _ in range(70):
        caller.push(1.0)
        caller.feed.give_up_old_audio(caller.now)
    caller.reconnect()
    with traced() as spans, tracer.start_as_current_span("call"):
        for request_id in ("tiro_1", "tiro_2"):
            journal.connected(request_id, 0.1234, caller.feed)
    assert journal.tally.snapshot().audio_given_up == 72 - KEEP_AT_MOST
    warnings = [each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG]
    assert warnings == [
        "12.0 s of audio were given up: 60 s at most are kept while Tiro does not answer"
    ]
    (span,) = spans.get_finished_spans()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("tiro.connected", {"tiro.request_id": "tiro_1", "tiro.seconds": 0.123}),
        ("tiro.audio_given_up", {"tiro.seconds": 12.0}),
        ("tiro.connected", {"tiro.request_id": "tiro_2", "tiro.seconds": 0.123}),
    ]


CLOSED = Ending(Reason.CLOSED, 9.0)
UNRESPONSIVE = Ending(Reason.UNRESPONSIVE, 30.0, unanswered=20.0)
NO_ANSWER = "Tiro did not answer 20 s of audio that may be speech; connecting again"


@pytest.mark.parametrize(
    ("ending", "after", "counted", "warning"),
    [
        (UNRESPONSIVE, Next.RECONNECT, Stats(failures={"unresponsive": 1}), NO_ANSWER),
        (
            replace(CLOSED, reason=Reason.GONE),
            Next.RECONNECT,
            Stats(failures={"connection": 1}),
            "the line to Tiro was dead; connecting again",
        ),
        (
            replace(CLOSED, reason=Reason.OPTIONS_CHANGED),
            Next.RECONNECT,
            Stats(option_changes=1),
            "",
        ),
        (CLOSED, Next.RECONNECT, Stats(rotations=1), ""),
        (
            replace(CLOSED, reason=ServiceError(11)),
            Next.RECONNECT_ON_AUDIO,
            Stats(rotations=1),
            "",
        ),
        (CLOSED, Next.DONE, Stats(), ""),
        (replace(CLOSED, end_sent=True), Next.RECONNECT, Stats(), ""),
        (replace(CLOSED, configured=False), Next.RECONNECT_ON_AUDIO, Stats(), ""),
    ],
)
def test_the_end_of_a_connection_is_counted_as_what_it_is(
    journal: Journal,
    ending: Ending,
    after: Next,
    counted: Stats,
    warning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal.went_on(ending, after)
    assert journal.tally.snapshot() == replace(counted, audio_sent_again=0.0)
    assert [record.getMessage() for record in caplog.records] == ([warning] if warning else [])
