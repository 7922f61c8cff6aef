"""What happens on the line, for those who look at logs and traces: facts, and no content."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from livekit.agents import APIConnectOptions
from livekit.agents.telemetry import set_tracer_provider, tracer
from livekit.plugins.tiro.testing import TiroServer, faults

from .support.harness import collect, frames
from .support.numbered import NumberedRecognizer, talk
from .support.session_fakes import Call, in_virtual_time, local_server, new_stt, speech

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit.plugins.tiro.testing import Hooks

SAID = talk(3, 2)
KEY = "kanarilykill"
RETRIES = APIConnectOptions(max_retry=3, retry_interval=0.1, timeout=4.0)


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
