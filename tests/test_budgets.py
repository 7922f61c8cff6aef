"""How long, how often, how much: what an outage may cost, and when it is over."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError
from livekit.plugins import tiro
from livekit.plugins.tiro.backlog import KEEP_AT_MOST
from livekit.plugins.tiro.stream import SpeechStream
from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Drop,
    Hooks,
    StatusError,
    TiroServer,
)
from livekit.plugins.tiro.testing.faults import (
    Close,
    Combined,
    Disconnect,
    Fault,
    HalfOpen,
    Moment,
    Mute,
    PerConnection,
    Refuse,
    SessionLimit,
    When,
)

from .support import virtual
from .support.caller import noise
from .support.fake_socket import RATE as FRAME_RATE, frame as spoken
from .support.harness import collect, finals, frames, until, words
from .support.numbered import NumberedRecognizer, Talk, talk
from .support.proxy import Proxy
from .support.session_fakes import Call, in_virtual_time, local_server, new_stt, speech
from .support.trial import KEY, Outcome, hear
from .support.trouble import Cuts, Latency, Outage
from .support.wired import said, wired

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit.plugins.tiro.stream import SpeechStream

# s; what the README promises.
NOTICED_WITHIN = 15.0
# s; the framework's waits between its four attempts.
BACKOFF = 0.1 + 2.0 + 2.0


class Darkness(Hooks):
    """From a second of the audio on the line is a black hole for a while."""

    def __init__(self, proxy: Proxy, at: float, seconds: float) -> None:
        self._proxy, self._at, self._seconds = proxy, at, seconds
        self._began = False

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if not self._began and connection.seconds >= self._at:
            self._began = True
            self._proxy.darken()
            asyncio.get_running_loop().call_later(self._seconds, self._proxy.lighten)


def check_exact(outcome: Outcome) -> None:
    assert not outcome.broken(), outcome.broken()
    assert outcome.is_exact, outcome


# -- accepted, and dropped -----------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["file", "call"])
@pytest.mark.parametrize("max_retry", [0, 3])
@pytest.mark.parametrize(("make", "when"), [(Disconnect, 0.3), (Close, Moment.CONFIG)])
def test_accept_and_drop_for_ever_ends_within_the_budget(
    make: Callable[[When], Fault], when: When, max_retry: int, live: bool
) -> None:
    said = talk(*[3] * 20)
    outcome = virtual.run(hear(said, make(when), live=live, max_retry=max_retry))
    assert isinstance(outcome.error, APIConnectionError) and not outcome.heard
    assert len(outcome.connections) == max_retry + 1
    assert [error.recoverable for error in outcome.reported] == [True] * max_retry + [False]
    assert outcome.seconds < BACKOFF + max_retry + 1.0
    for cause in ("TIRO_API_KEY", "TIRO_SPEECH_KEY", "TIRO_BASE_URL", "proxies", "firewalls"):
        assert cause in str(outcome.error), f"{cause} is one of the things to look at"


def test_a_drop_before_any_audio_is_no_endless_loop_either() -> None:
    """The connection is opened ahead of the audio, and again when there is some."""
    said = talk(*[3] * 20)
    outcome = virtual.run(hear(said, Disconnect(Moment.OPENED), live=True))
    assert isinstance(outcome.error, APIConnectionError) and not outcome.heard
    assert len(outcome.connections) <= 5
    assert outcome.seconds < BACKOFF + 4.0


# -- an outage of 20 s ---------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1.0, 2.0, 2.6, 4.0])
def test_20_s_of_darkness_cost_no_words(at: float) -> None:
    async def trial() -> Outcome:
        proxy = Proxy()
        darkness = Darkness(proxy, at, 20.0)
        return await hear(talk(3, 8, 8, 2, word=0.5, gap=2.0), darkness, live=True, proxy=proxy)

    outcome = virtual.run(trial())
    check_exact(outcome)
    assert outcome.seconds > 20
    assert len(outcome.connections) > 1


@pytest.mark.parametrize("at", [1.0, 2.0, 2.6, 4.0])
def test_20_s_of_refusals_cost_no_words(at: float) -> None:
    """The framework's three retries last for 4 s; each of the four attempts goes on for 5 s."""
    outage = Outage(at, 20.0)
    outcome = virtual.run(hear(talk(3, 8, 8, 2, word=0.5, gap=2.0), outage, live=True))
    check_exact(outcome)
    assert 10 <= outage.refused <= 40
    assert all(error.recoverable for error in outcome.reported)


@pytest.mark.parametrize(
    ("at", "refusal"),
    [(1.0, Drop), (2.0, StatusError(14, "no backend")), (2.6, Drop), (4.0, StatusError(14, "off"))],
    ids=repr,
)
def test_20_s_of_a_gateway_without_a_service_cost_no_words(
    at: float, refusal: Exception | type[Exception]
) -> None:
    outage = Outage(at, 20.0, refusal)
    outcome = virtual.run(hear(talk(3, 8, 8, 2, word=0.5, gap=2.0), outage, live=True))
    check_exact(outcome)
    assert 10 <= outage.refused <= 40
    assert all(error.recoverable for error in outcome.reported)
    assert not any("key" in str(error.error) for error in outcome.reported)


@pytest.mark.parametrize("refusal", [StatusError(14, "no backend"), Drop], ids=repr)
def test_a_file_outlasts_a_gateway_without_a_service(
    refusal: Exception | type[Exception],
) -> None:
    outage = Outage(2.6, 15.0, refusal)
    outcome = virtual.run(hear(talk(3, 8, word=0.5), outage))
    check_exact(outcome)
    assert outage.refused >= 10


@pytest.mark.parametrize("refusal", [503, StatusError(14, "no backend"), Drop], ids=repr)
@pytest.mark.parametrize("max_retry", [0, 1])
def test_who_asks_for_few_retries_is_told_at_once(
    max_retry: int, refusal: int | Exception | type[Exception]
) -> None:
    """A `FallbackAdapter` has another STT to turn to."""
    outage = Outage(2.6, 20.0, refusal)
    outcome = virtual.run(hear(talk(3, 8), outage, live=True, max_retry=max_retry))
    assert outcome.error is not None and not outcome.broken()
    assert outcome.heard[:3] == ["w0", "w1", "w2"]
    assert outage.refused == max_retry + 1


def test_a_quota_that_is_used_up_is_not_asked_for_again_and_again() -> None:
    hooks = PerConnection(Disconnect(1.5), *[Refuse(429)] * 4)
    outcome = virtual.run(hear(talk(3, 8), hooks, live=True))
    assert isinstance(outcome.reported[0].error, APIStatusError)
    assert outcome.error is not None and len(outcome.connections) == 5


# -- an outage of 5 minutes ----------------------------------------------------------------------


class BacklogCaller:
    """Somebody who talks on into a stream, and what is kept of it."""

    def __init__(self, stream: SpeechStream, said: Talk) -> None:
        self._stream = stream
        self._said = said
        self.kept = 0.0
        """The most that was ever kept, seconds."""
        self.seconds: list[float] = []
        self.heard: list[str] = []
        self.error: BaseException | None = None

    async def call(self) -> None:
        speaking = asyncio.create_task(self._speak(), name="speaker")
        try:
            async for event in self._stream:
                self.heard += words([event])
        except APIConnectionError as error:
            self.error = error
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
            await self._stream.aclose()

    async def _speak(self) -> None:
        for frame in frames(self._said.pcm(), ms=100):
            self._stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
            backlog = self._stream._backlog
            self.kept = max(self.kept, (backlog.end - backlog.kept_from) / backlog.sample_rate)
        self._stream.end_input()


def given_up(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [r for r in caplog.records if r.name == "livekit.plugins.tiro"]
    messages = [r.getMessage() for r in records if r.levelno >= logging.WARNING]
    return [message for message in messages if "given up" in message]


@in_virtual_time
async def test_failures_before_a_final_do_not_count_after_it() -> None:
    """As in the framework: a success restores the whole budget, which is 3 retries here."""
    busy = b'{"error": {"grpcCode": 8, "httpCode": 429, "message": "busy"}}'

    async with wired() as call:

        async def opened(count: int) -> None:
            await until(lambda: len(call.wires.opened) == count)

        for turn in range(4):
            await call.push(spoken(50), 20)
            second = len(call.wires.last.audio) / 2 / FRAME_RATE
            call.hear(said(f"orð {turn}", second - 0.9, second - 0.1))
            await asyncio.sleep(0.1)
            call.wires.says = (busy,)
            call.hear(busy)
            await opened(3 * turn + 3)
            call.wires.says = ()
            await opened(3 * turn + 4)
        assert finals(call.events) == [f"orð {turn}" for turn in range(4)]
        assert call.fault is None and not call.stream._task.done()


@pytest.mark.parametrize("kind", ["dark", "refused"])
def test_the_backlog_of_5_minutes_is_bounded_and_what_is_given_up_is_said_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With retries for all of it; the framework's own end the stream long before."""
    said = talk(3, *[10] * 75, word=0.4, gap=1.0)
    assert said.seconds > 5 * 60 + 60

    async def trial() -> BacklogCaller:
        proxy = Proxy()
        hooks = Darkness(proxy, 2.6, 300.0) if kind == "dark" else Outage(2.6, 300.0)
        server = TiroServer(api_key=KEY, recognizers={"is": NumberedRecognizer(said)}, hooks=hooks)
        async with server, proxy:
            url = proxy.before(server.base_url)
            async with tiro.STT(base_url=url, api_key=KEY) as stt:
                conn = APIConnectOptions(max_retry=1000)
                caller = BacklogCaller(stt.stream(conn_options=conn), said)
                await caller.call()
        return caller

    caller = virtual.run(trial())
    assert caller.error is None
    # More is pushed during one handshake and the wait after it.
    assert KEEP_AT_MOST - 1 < caller.kept < KEEP_AT_MOST + 5.0 + 2.0 + 1.0
    (message,) = given_up(caplog)
    lost = float(message.split()[0])
    assert 300 - KEEP_AT_MOST - 8 < lost < 300 - KEEP_AT_MOST + 8
    # The first words, and all of the last ones.
    whole = [word for word in caller.heard if not word.startswith("#")]
    assert whole[:3] == said.texts[:3]
    assert whole[-200:] == said.texts[-200:]
    missing = [word for word in said.words if word.text not in whole]
    assert sum(word.end - word.start for word in missing) <= lost + 1.0


def test_5_minutes_of_darkness_end_the_stream_and_a_new_one_starts_clean() -> None:
    said, later = talk(*[3] * 60, gap=2.0), talk(3, 2)
    # The first three words, which end at 1.4 s, have been shown by then.
    dark_from = 2.3

    async def trial() -> tuple[Outcome, Outcome]:
        proxy = Proxy()
        darkness = Darkness(proxy, dark_from, 300.0)
        started = asyncio.get_running_loop().time()
        first = await hear(said, darkness, live=True, proxy=proxy)
        await asyncio.sleep(300.0 - (asyncio.get_running_loop().time() - started) + 3.0)
        return first, await hear(later, Hooks(), live=True, max_retry=0)

    first, second = virtual.run(trial())
    assert isinstance(first.error, APIConnectionError)
    assert not first.reported[-1].recoverable
    # The time to notice it, four handshakes of 5 s, and the waits between them.
    assert first.seconds < dark_from + NOTICED_WITHIN + 4 * 5.0 + BACKOFF + 1.0
    assert first.heard[:3] == said.texts[:3]
    check_exact(second)


@in_virtual_time
async def test_a_session_ends_after_four_streams_that_failed() -> None:
    """The framework's tolerance: three in a row, and words in between start the count anew."""
    outage = Outage(2.5, 300.0)
    async with local_server(hooks=outage) as server, new_stt(server) as stt:
        async with Call(stt, "stt", vad=None) as call:
            await call.microphone.say(speech())
            await call.turns(1)
            started = time.monotonic()
            await until(lambda: bool(call.closed), 200)
            assert time.monotonic() - started < 4 * (BACKOFF + 4 * 5.0) + 3.0
        assert [error.recoverable for error in call.errors].count(False) == 4
        assert outage.refused >= 15
        (event,) = call.closed
        assert event.reason.value == "error"


@in_virtual_time
async def test_a_session_that_outlives_an_outage_hears_again() -> None:
    outage = Outage(2.5, 10.0)
    async with local_server(hooks=outage) as server, new_stt(server) as stt:
        async with Call(stt, "stt", vad=None) as call:
            await call.microphone.say(speech())
            await call.turns(1)
            await asyncio.sleep(14.0)
            assert outage.refused and not call.closed
            await call.microphone.say(speech())
            await call.turns(2)
        assert all(error.recoverable for error in call.errors), "the stream outlived it"


# -- half-open -----------------------------------------------------------------------------------


def noticed_after(at: float, pauses: dict[float, float]) -> float:
    """Return after how many seconds a stream leaves a peer that is gone."""
    fault = HalfOpen(at)
    outcome = virtual.run(
        hear(talk(3, 2), PerConnection(fault), live=True, pauses=pauses, max_retry=3)
    )
    check_exact(outcome)
    first = outcome.connections[0]
    assert first.closed_by == "client" and first.closed_at is not None
    return first.closed_at - fault.struck[0]


@pytest.mark.parametrize("at", [0.1, 1.2, 2.9])
def test_a_half_open_peer_is_noticed_while_audio_flows(at: float) -> None:
    assert 10.0 < noticed_after(at, {}) <= NOTICED_WITHIN


@pytest.mark.parametrize("at", [0.3, 1.5, 2.25])
def test_a_half_open_peer_is_noticed_while_none_does(at: float) -> None:
    """The microphone is muted in the same moment, between words."""
    assert 10.0 < noticed_after(at, {at + 0.06: 60.0}) <= NOTICED_WITHIN


# -- back at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1.0, 1.2, 1.35, 2.7])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_audio_flows_again_at_once(reset: bool, at: float) -> None:
    """No wait of any kind, while somebody speaks; the framework's own would be 100 ms."""
    fault = Disconnect(at, reset=reset)
    outcome = virtual.run(hear(talk(3, 2), PerConnection(fault), live=True))
    check_exact(outcome)
    assert fault.struck
    assert outcome.silence_after(fault) < 0.01


def test_a_late_answer_to_the_first_words_is_none_to_those_after_them() -> None:
    """The service falls silent after the first words, whose final comes 8 s late."""
    said = talk(4, 1, 1, gap=1.0)
    silent = PerConnection(Mute(2.6), then=Hooks())
    outcome = virtual.run(hear(said, Combined(silent, Latency(8.0)), live=True))
    check_exact(outcome)


# -- a call on hold ------------------------------------------------------------------------------


@in_virtual_time
async def test_music_on_hold_outlasts_the_limits_of_the_service() -> None:
    """Music brings no words and no finals; what is said after it is heard."""
    said = talk(3)
    server = TiroServer(
        recognizers={"is": NumberedRecognizer(said)}, api_key=KEY, hooks=SessionLimit(20)
    )
    async with server, new_stt(server) as stt:
        failures: list[object] = []
        stt.on("error", failures.append)
        # Steady noise would be taken for the noise of the line.
        music = np.frombuffer((noise(0.8, 9000) + noise(0.2, 100)) * 86, np.int16)
        call = frames(np.append(music, said.pcm()))
        events = await collect(stt.stream(), call, pace=0.05)
    assert words(events) == said.texts
    assert not failures
    assert len(server.connections) > 4, "more than may be without a final"


@pytest.mark.parametrize("softer", [4, 12])
def test_a_service_that_hangs_at_a_soft_word_right_after_a_cut_is_noticed(softer: int) -> None:
    """The soft word could be the rest of the word before it; the caller says nothing more."""
    said = talk(4, gap=1.0)
    words_said = [*said.words[:-1], replace(said.words[-1], softer=softer)]
    hung = Mute(Moment.FINAL)
    hooks = PerConnection(Combined(Cuts(), hung))
    outcome = virtual.run(hear(replace(said, words=tuple(words_said), noise=1), hooks, live=True))
    check_exact(outcome)
    assert len(outcome.connections) == 2
    assert outcome.silence_after(hung) < NOTICED_WITHIN + 3
