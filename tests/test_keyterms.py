"""Words and phrases to listen for: the caller's, and those that an `AgentSession` adds."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from livekit.agents import stt as agents_stt
from livekit.agents.voice.keyterm_detection import KeytermDetector
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import TiroServer, faults

from .support.harness import FINAL, START, frames, until
from .support.numbered import NumberedRecognizer, Talk, talk
from .support.session_fakes import Call, in_virtual_time, local_server, new_stt, speech

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from livekit import rtc

SAID = talk(4, 3, 2)


@asynccontextmanager
async def talking(
    *hooks: Any, said: Talk = SAID, **options: Any
) -> AsyncIterator[tuple[TiroServer, tiro.STT, tiro.SpeechStream, list[agents_stt.SpeechEvent]]]:
    """A caller who says something, at the pace of speech, and is silent afterwards."""
    events: list[agents_stt.SpeechEvent] = []
    server = TiroServer(
        recognizers={"is": NumberedRecognizer(said)}, hooks=faults.PerConnection(*hooks)
    )
    async with server, new_stt(server, **options) as engine:
        stream = engine.stream()

        async def push(audio: Iterator[rtc.AudioFrame]) -> None:
            for frame in audio:
                stream.push_frame(frame)
                await asyncio.sleep(frame.duration)

        async def listen() -> None:
            async for event in stream:
                # One by one: the tests look at what is there meanwhile.
                events.append(event)  # noqa: PERF401

        pushing = asyncio.create_task(push(frames(said.pcm())))
        listening = asyncio.create_task(listen())
        yield server, engine, stream, events
        await pushing
        await stream.aclose()
        await listening


def phrases(server: TiroServer) -> list[list[str]]:
    """Return what each connection was told to listen for."""
    return [each.phrases for each in server.connections if each.config]


def count(events: list[agents_stt.SpeechEvent], kind: Any) -> int:
    return sum(event.type is kind for event in events)


def all_words(events: list[agents_stt.SpeechEvent]) -> list[str]:
    texts = [event.alternatives[0].text for event in events if event.type is FINAL]
    return " ".join(filter(None, texts)).split()


# -- what is sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "session", "sent"),
    [
        (None, ["Katla"], []),
        ([], [], []),
        ([], ["Katla"], ["Katla"]),
        (["Hekla"], [], ["Hekla"]),
        (["Hekla"], ["Katla", "Hekla"], ["Hekla", "Katla"]),
    ],
)
@in_virtual_time
async def test_the_callers_words_are_sent_with_the_sessions(
    given: list[str] | None, session: list[str], sent: list[str]
) -> None:
    async with talking(keyterms=given) as (server, engine, _, _):
        engine._update_session_keyterms(session)
        await until(lambda: bool(phrases(server)))
        assert phrases(server) == [sent]
        assert ("speechContexts" in server.connections[0].config) is bool(sent)
        if sent:
            assert server.connections[0].config["speechContexts"] == [{"phrases": sent}]
    assert len(server.connections) == 1


def test_the_capability_is_there_once_the_caller_gave_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = tiro.STT(api_key="test")
    assert not engine.capabilities.keyterms
    with caplog.at_level(logging.WARNING):
        engine._update_session_keyterms(["Katla"])
    assert "keyterms are not supported" in caplog.text, "the framework says so"
    engine.update_options(keyterms=[])
    assert engine.capabilities.keyterms
    assert engine._options.phrases == ["Katla"], "which were not forgotten"
    engine.update_options(keyterms=None)
    assert not engine.capabilities.keyterms
    assert tiro.STT(api_key="test", keyterms=[]).capabilities.keyterms


def test_what_a_model_found_can_be_anything() -> None:
    """The framework does not expect an exception."""
    engine = tiro.STT(api_key="test", keyterms=["Hekla"])
    engine._update_session_keyterms(["", " Katla ", "a\x00", "\ud800", None, "Katla"])  # type: ignore[list-item]
    assert engine._options.phrases == ["Hekla", "Katla"]


@pytest.mark.parametrize("bad", ["Hekla", [""], 7])
def test_bad_words_change_nothing(bad: Any) -> None:
    engine = tiro.STT(api_key="test", keyterms=["Hekla"])
    with pytest.raises(ValueError, match="keyterms"):
        engine.update_options(keyterms=bad, language="en-US")
    assert engine._options.phrases == ["Hekla"] and engine.model == "is-IS"


# -- when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["stt", "stream", "session"])
@in_virtual_time
async def test_new_words_wait_until_nobody_speaks(of: str) -> None:
    async with talking(keyterms=["Hekla"]) as (server, engine, stream, events):
        await until(lambda: count(events, START) == 1)
        if of == "session":
            engine._update_session_keyterms(["Katla"])
        else:
            target: Any = engine if of == "stt" else stream
            target.update_options(keyterms=["Hekla", "Katla"])
        await until(lambda: len(server.connections) == 2, 30)
        first = all_words(events)
        assert first == [word.text for word in SAID.words][: len(first)]
        assert count(events, START) == count(events, agents_stt.SpeechEventType.END_OF_SPEECH)
        assert first, "the utterance came to its end first"
    assert phrases(server) == [["Hekla"], ["Hekla", "Katla"]]
    assert all_words(events) == [word.text for word in SAID.words]


@pytest.mark.many
@in_virtual_time
async def test_new_words_wait_while_the_service_cuts_unbroken_speech() -> None:
    """A final in the middle of a sentence is no end of it."""
    said = talk(90)
    async with talking(said=said, keyterms=[]) as (server, engine, _, events):
        await until(lambda: count(events, START) == 1)
        engine._update_session_keyterms(["Katla"])
        await until(lambda: count(events, FINAL) == 1, 30)
        assert len(all_words(events)) < 90, "it is a cut"
        await asyncio.sleep(2.0)
        assert len(server.connections) == 1
        await until(lambda: len(server.connections) == 2, 60)
        # The cut is in the middle of a word.
        assert len(all_words(events)) >= 89


@in_virtual_time
async def test_new_words_go_with_the_next_connection_if_that_is_sooner() -> None:
    async with talking(faults.Disconnect(1.0), keyterms=[]) as (server, engine, _, events):
        await until(lambda: count(events, START) == 1)
        engine._update_session_keyterms(["Katla"])
        await until(lambda: len(server.connections) == 2, 30)
        assert count(events, FINAL) == 0
    assert phrases(server) == [[], ["Katla"]]
    assert all_words(events) == [word.text for word in SAID.words]


@in_virtual_time
async def test_words_that_come_and_go_are_worth_no_connection() -> None:
    async with talking(keyterms=["Hekla"]) as (server, engine, _, events):
        await until(lambda: count(events, START) == 1)
        engine._update_session_keyterms(["Katla"])
        engine._update_session_keyterms(["Hekla"])
        engine.update_options(keyterms=("Hekla",))
    assert len(server.connections) == 1
    assert all_words(events) == [word.text for word in SAID.words]


@in_virtual_time
async def test_another_language_does_not_wait_and_takes_the_words_along() -> None:
    async with talking(keyterms=[]) as (server, engine, _, events):
        await until(lambda: count(events, START) == 1)
        engine._update_session_keyterms(["Katla"])
        engine.update_options(language="is-IS-x-exp")
        await until(lambda: len(server.connections) == 2)
        assert count(events, FINAL) == 0
    assert phrases(server) == [[], ["Katla"]]
    assert all_words(events) == [word.text for word in SAID.words]


@in_virtual_time
async def test_who_waits_for_a_final_gets_it_first() -> None:
    async with talking(keyterms=[]) as (server, engine, stream, events):
        await until(lambda: count(events, START) == 1)
        engine._update_session_keyterms(["Katla"])
        stream.flush()
        await until(lambda: len(server.connections) == 2, 30)
        assert count(events, FINAL) == 1
    assert phrases(server) == [[], ["Katla"]]


# -- in an AgentSession ----------------------------------------------------------------------------


@in_virtual_time
async def test_the_words_of_a_session_reach_the_service() -> None:
    async with (
        local_server() as server,
        new_stt(server, keyterms=["Hekla"]) as engine,
        Call(engine, stt_context_options={"keyterms": ["Katla"]}) as call,
    ):
        await call.microphone.say(speech())
        await call.turns(1)
        assert phrases(server)[-1] == ["Hekla", "Katla"]
        call.session.update_options(keyterms=["Askja"])
        await until(lambda: phrases(server)[-1] == ["Hekla", "Askja"], 30)
        await call.microphone.say(speech())
        await call.turns(2)
    assert len(call.finals) == 2
    assert not call.errors


def test_the_framework_takes_the_words_of_a_detector_to_the_stt() -> None:
    """What this plugin relies on: it is told all words, each time, by this hook."""
    detector = KeytermDetector(static_keyterms=["Katla"])
    engine = tiro.STT(api_key="test", keyterms=[])
    detector.swap_stt(engine)
    assert engine._options.phrases == ["Katla"]
    detector.set_static_keyterms(["Askja", "Krafla"])
    assert engine._options.phrases == ["Askja", "Krafla"]
