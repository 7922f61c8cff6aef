"""Calls in which a word was once lost, doubled or late, as small as they can be; in virtual time.

Ids are of the contract with the framework (L: life, I: input, E: events, T: time).
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import ConnectionRecord, Drop, Hooks, TiroServer
from livekit.plugins.tiro.testing.faults import (
    Combined,
    Disconnect,
    HalfOpen,
    Moment,
    Mute,
    PerConnection,
    Refuse,
    SessionLimit,
)

from .support import virtual
from .support.harness import FINAL, INTERIM, frames
from .support.numbered import RATE, NumberedRecognizer, Talk, talk
from .support.trial import KEY, Outcome, hear
from .support.trouble import (
    _NOTHING,
    IMPOSSIBLE,
    AtTheEnd,
    Chatter,
    Latency,
    Pace,
    PingWithoutReading,
    SaysTheEnd,
    WithoutTimes,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from livekit.agents.stt import SpeechEvent

NO_HOOKS = Hooks()
SAID = talk(3, 2, gap=1.2)


def exact(trials: Sequence[Coroutine[Any, Any, Outcome]], *, errors: bool = False) -> list[Outcome]:
    """Run trials side by side: each word is final once, and its time is right.

    Args:
        trials: What `hear` returns.
        errors: Whether the framework may have retried.
    """

    async def together() -> list[Outcome]:
        return await asyncio.gather(*trials)

    outcomes = virtual.run(together())
    for outcome in outcomes:
        wrong = outcome.broken() or ("" if outcome.is_exact else str(outcome))
        assert not wrong, f"peak {outcome.said.peak}, noise {outcome.said.noise}: {wrong}"
        assert errors or not outcome.reported, outcome.reported
    return outcomes


# -- push-to-talk --------------------------------------------------------------------------------


class Button:
    """A push-to-talk caller: the microphone is off, and sends nothing, between two presses."""

    def __init__(self, stream: tiro.SpeechStream, server: TiroServer, said: Talk) -> None:
        self.stream = stream
        self.server = server
        self.said = said
        self._finals: asyncio.Queue[str] = asyncio.Queue()
        self._pcm = said.pcm()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.stream:
            if event.type is FINAL:
                self._finals.put_nowait(event.alternatives[0].text)

    async def press(self, start: float, end: float) -> None:
        """Push seconds of the talk live."""
        first, last = round(start * RATE), round(end * RATE)
        for frame in frames(self._pcm[first:last]):
            self.stream.push_frame(frame)
            await asyncio.sleep(frame.duration)

    async def release(self, patience: float = 15.0) -> str:
        """Flush; return the text of the final that answers."""
        self.stream.flush()
        return await asyncio.wait_for(self._finals.get(), patience)

    async def close(self) -> list[str]:
        """Return the finals that nobody asked for."""
        await self.stream.aclose()
        await self._reading
        return [self._finals.get_nowait() for _ in range(self._finals.qsize())]


@asynccontextmanager
async def button(said: Talk, hooks: Hooks = NO_HOOKS) -> AsyncIterator[Button]:
    recognizers = {"is": NumberedRecognizer(said)}
    async with (
        TiroServer(api_key=KEY, recognizers=recognizers, hooks=hooks) as server,
        tiro.STT(base_url=server.base_url, api_key=KEY) as stt,
    ):
        caller = Button(stt.stream(), server, said)
        yield caller
        assert await caller.close() == [], "a final that nobody asked for"


async def turns(said: Talk, hooks: Hooks = NO_HOOKS, *, apart: float = 3.0) -> list[str]:
    """Say each word of a talk with a press of its own; return what each turn came to."""
    heard = []
    async with button(said, hooks) as caller:
        start = 0.0
        for word in said.words:
            await caller.press(start, word.end)
            heard.append(await caller.release())
            await asyncio.sleep(apart)
            start = word.end
    return heard


def short_words(seconds: float, lead: float, *, peak: int = 12000, noise: int = 0) -> Talk:
    """Return four words, each `lead` seconds after the end of the one before."""
    made = talk(1, 1, 1, 1, word=seconds, gap=lead, lead=lead)
    return Talk(made.words, made.blocks, peak, noise)


@pytest.mark.parametrize("seconds", [0.1, 0.18, 0.3, 0.4])
def test_i1_a_short_word_is_heard_in_its_own_turn_wherever_it_starts(seconds: float) -> None:
    """ "Já", "nei", "ha": the commonest answers on a phone, in the first frame of a press too."""

    async def main() -> None:
        leads = (0.0, 0.02, 0.1, 0.3, 1.0)
        talks = [short_words(seconds, lead) for lead in leads]
        heard = await asyncio.gather(*map(turns, talks))
        for lead, words in zip(leads, heard, strict=True):
            assert words == talks[0].texts, f"{lead} s after the last word"

    virtual.run(main())


@pytest.mark.parametrize("late", [0.5, 1.7, 4.0, 10.0])
def test_i1_a_late_answer_is_that_of_its_own_turn(late: float) -> None:
    """The caller decides how long to wait; meanwhile no empty final answers the flush."""

    async def main() -> None:
        said = short_words(0.3, 0.3)
        assert await turns(said, Latency(late)) == said.texts

    virtual.run(main())


@pytest.mark.parametrize("peak", [30, 100, 200])
def test_i1_quiet_words_are_heard_on_push_to_talk(peak: int) -> None:
    async def main() -> None:
        talks = [short_words(0.25, 0.3, peak=peak, noise=noise) for noise in (0, peak // 10)]
        for said, heard in zip(talks, await asyncio.gather(*map(turns, talks)), strict=True):
            assert heard == said.texts, f"noise {said.noise}"

    virtual.run(main())


def test_i1_an_empty_response_to_an_earlier_pause_answers_no_flush() -> None:
    async def main() -> None:
        said = short_words(0.3, 0.3)
        assert await turns(said, Combined(Latency(1.0), Chatter(3, empty=True))) == said.texts

    virtual.run(main())


@pytest.mark.parametrize("flushes", [30, 100])
def test_i1_a_storm_of_flushes_delays_no_word(flushes: int) -> None:
    async def main() -> None:
        def trial(count: int) -> Coroutine[Any, Any, Outcome]:
            return hear(SAID, Pace(4.0), live=True, flushes={1.5: count})

        one, many = await asyncio.gather(trial(1), trial(flushes))
        assert one.is_exact and many.is_exact
        assert when(many, "w3") < when(one, "w3") + 0.1

    virtual.run(main())


def when(outcome: Outcome, word: str) -> float:
    """Return when a word was first shown, in seconds after the first event."""
    return next(
        at - outcome.arrived[0]
        for at, event in zip(outcome.arrived, outcome.events, strict=True)
        if event.type in (INTERIM, FINAL) and word in event.alternatives[0].text.split()
    )


# -- quiet speech --------------------------------------------------------------------------------


def quiet_talks() -> list[Talk]:
    """Return quiet talks over digital silence, and over noise that is 20 dB quieter."""
    levels = [(30, 0), (30, 3), (100, 10), (200, 0)]
    return [Talk(SAID.words, SAID.blocks, peak, noise) for peak, noise in levels]


@pytest.mark.parametrize(
    ("moment", "live"),
    [
        (0.7, False),
        (1.3, True),
        (Moment.INTERIM, False),
        (Moment.FINAL, True),
        (Moment.END, False),
    ],
    ids=str,
)
def test_quiet_speech_survives_a_drop(moment: float | Moment, live: bool) -> None:
    exact(
        [
            hear(said, PerConnection(Disconnect(moment)), live=live, max_retry=1)
            for said in quiet_talks()
        ],
        errors=True,
    )


@pytest.mark.parametrize("fault", [Mute, HalfOpen])
@pytest.mark.parametrize("moment", [0.7, Moment.FINAL], ids=str)
def test_quiet_speech_is_missed_when_it_is_not_answered(
    fault: Callable[[float | Moment], Hooks], moment: float | Moment
) -> None:
    trials = [hear(said, PerConnection(fault(moment)), live=True) for said in quiet_talks()]
    exact(trials, errors=True)


def test_quiet_speech_is_decoded_again_when_an_option_changes() -> None:
    exact([hear(said, live=True, changes=[0.9, 2.8]) for said in quiet_talks()])


@pytest.mark.parametrize("peak", [30, 100, 200])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_quiet_speech_is_asked_for_when_the_microphone_goes_off(peak: int, share: float) -> None:
    """The final comes in the pause: without audio the service's endpointer would wait for ever."""

    async def main() -> None:
        said = Talk(SAID.words, SAID.blocks, peak, round(peak * share))
        async with button(said) as caller:
            await caller.press(0.0, said.words[2].end)
            assert await asyncio.wait_for(caller._finals.get(), 10) == "w0 w1 w2"

    virtual.run(main())


# -- what is no final ----------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [1.0, 10.0])
def test_l1_an_empty_response_after_the_end_marker_is_no_end(pace: float) -> None:
    hooks = Combined(Pace(pace), PerConnection(SaysTheEnd()))
    exact([hear(talk(2, 2, gap=6.4), hooks)], errors=True)


class DropAfterNothing(Hooks):
    """Says three times that nothing was heard, and crashes after the third time."""

    async def beside(self, connection: ConnectionRecord) -> None:
        while connection.speech is None:
            await asyncio.sleep(0.05)
        for _ in range(3):
            await asyncio.sleep(0.4)
            await connection.line.send(_NOTHING)
        raise Drop


@pytest.mark.parametrize("pace", [1.0, 4.0])
@pytest.mark.parametrize("live", [False, True])
def test_an_empty_response_before_a_drop_lets_nothing_go(pace: float, live: bool) -> None:
    hooks = Combined(Pace(pace), PerConnection(DropAfterNothing()))
    exact([hear(talk(2, 2, gap=1.2), hooks, live=live, takes_back=True)], errors=True)


class DropAfterFirstFinal(Hooks):
    """The first connection ends right after its first final."""

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        if connection.number == 0 and '"isFinal":true' in text:
            raise Drop


@pytest.mark.parametrize("live", [False, True])
def test_a_final_without_times_covers_no_more_than_it_can_be_about(live: bool) -> None:
    hooks = Combined(WithoutTimes(), Pace(0.8), DropAfterFirstFinal())
    exact([hear(talk(2, 2, 2, gap=1.2), hooks, live=live, timed=False)], errors=True)


# -- the line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "live"), [(0.7, False), (0.7, True), (Moment.FINAL, True)], ids=str
)
def test_a_peer_that_pings_and_does_not_read_is_left_within_15_s(
    moment: float | Moment, live: bool
) -> None:
    """Also while the caller is silent, before the buffers on the way are full."""
    fault = PingWithoutReading(moment)
    trial = hear(talk(3, 2, gap=24.0), PerConnection(fault), live=live, buffer=32768)
    outcomes = exact([trial], errors=True)
    assert outcomes[0].silence_after(fault) < 16


@pytest.mark.parametrize("code", [None, 11])
@pytest.mark.parametrize("into_the_word", [0.02, 0.1, 0.25])
def test_a_session_limit_at_the_onset_of_speech_is_not_seen(
    into_the_word: float, code: int | None
) -> None:
    said = talk(3, lead=6.0)
    limit = PerConnection(SessionLimit(said.words[0].start + into_the_word, code=code))
    exact([hear(said, limit, live=True, max_retry=0)])


@pytest.mark.parametrize("gap", [0.2, 0.5, 0.9])
def test_t1_short_gaps_in_the_callers_audio_add_up(gap: float) -> None:
    """As a microphone with silence suppression makes them."""
    said = talk(*[1] * 12, gap=1.2)
    exact([hear(said, live=True, pauses={word.end + 0.6: gap for word in said.words})])


@pytest.mark.parametrize("lead", [3.0, 5.0])
def test_t6_a_mute_after_audio_from_before_the_call_is_noticed(lead: float) -> None:
    """That audio comes at once. The final comes before the mute is over, and wall times run on."""

    async def main() -> None:
        said = talk(2, 2, 2, 2, gap=2.0)
        async with _server(said) as server, _stt(server) as stt, stt.stream() as stream:
            events: list[SpeechEvent] = []
            reading = asyncio.create_task(_note(stream, events))
            muted_at, ended = said.words[5].end + 0.05, 0.0
            started = time.time() - lead
            for number, frame in enumerate(frames(said.pcm())):
                if number * 0.05 >= lead:
                    await asyncio.sleep(0.05)
                if number == round(muted_at / 0.05):
                    await asyncio.sleep(4)
                    assert _finals(events)[-1] == "w4 w5", "in the mute"
                    ended = time.time()
                stream.push_frame(frame)
            await asyncio.sleep(2)
            starts = [event.speech_start_time for event in events if event.speech_start_time]
            assert starts[2] == pytest.approx(started + said.words[4].start, abs=0.12)
            assert starts[3] == pytest.approx(ended + said.words[6].start - muted_at, abs=0.12)
            reading.cancel()

    virtual.run(main())


@pytest.mark.parametrize("pace", [3, 10])
@pytest.mark.parametrize("late", [1.1, 1.7])
def test_late_audio_and_a_new_connection_cut_no_word_in_two(late: float, pace: int) -> None:
    """The caller's audio catches up, at `pace` times its own, while the connection is opened."""

    async def main() -> None:
        said = talk(4, 2, word=0.4, gap=1.2)
        middle = round((said.words[1].start + said.words[1].end) / 2 / 0.05)
        async with _server(said) as server, _stt(server) as stt, stt.stream() as stream:
            events: list[SpeechEvent] = []
            reading = asyncio.create_task(_note(stream, events))
            due = asyncio.get_running_loop().time()
            for number, frame in enumerate(frames(said.pcm())):
                if number == middle:
                    await asyncio.sleep(late)
                if number == middle + 3:
                    stream.update_options(punctuate=False)
                stream.push_frame(frame)
                due += 0.05
                behind = asyncio.get_running_loop().time() - due
                await asyncio.sleep(0.05 / pace if behind > 0 else -behind)
            stream.end_input()
            await reading
            assert len(server.connections) == 2
            assert " ".join(_finals(events)).split() == said.texts

    virtual.run(main())


def _server(said: Talk) -> TiroServer:
    return TiroServer(api_key=KEY, recognizers={"is": NumberedRecognizer(said)})


def _stt(server: TiroServer) -> tiro.STT:
    return tiro.STT(base_url=server.base_url, api_key=KEY)


async def _note(stream: tiro.SpeechStream, events: list[SpeechEvent]) -> None:
    async for event in stream:
        events += [event]


def _finals(events: list[SpeechEvent]) -> list[str]:
    return [event.alternatives[0].text for event in events if event.type is FINAL]


# -- a service that takes its time ---------------------------------------------------------------


@pytest.mark.parametrize("pace", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("gap", [3.0, 8.0])
def test_a_slow_service_loses_nothing_of_a_file(pace: float, gap: float) -> None:
    said = talk(4, 4, 4, 4, gap=gap)
    assert len(exact([hear(said, Pace(pace))])[0].connections) == 1


@pytest.mark.parametrize("seconds", [3.0, 4.8, 8.0])
@pytest.mark.parametrize("words", [1, 3])
def test_a_slow_service_behind_a_slow_network_is_waited_for(seconds: float, words: int) -> None:
    """After the end of the audio nothing comes for longer than usual, and then everything does."""
    said = talk(words, word=0.2)
    exact([hear(said, Combined(Latency(seconds), Pace(0.5)))], errors=True)


class NeverHangsUp(Hooks):
    """Never hangs up after the end marker, and goes on sending."""

    def __init__(self, says: Callable[[int], str]) -> None:
        self._says = says

    async def done(self, connection: ConnectionRecord) -> None:
        for count in range(10_000):
            await connection.line.send(self._says(count))
            await asyncio.sleep(1)


def _hypothesis(count: int) -> str:
    result = {"alternatives": [{"transcript": f"x{count}"}], "isFinal": False}
    return json.dumps({"result": {"results": [result]}})


@pytest.mark.parametrize(
    ("says", "longest"),
    [
        (lambda _: _NOTHING, 10.0),
        (lambda _: '{"result":{"speechEventType":"END_OF_AUDIO"}}', 10.0),
        (lambda _: "what is this", 10.0),
        (_hypothesis, 245.0),
    ],
)
def test_l1_a_service_that_talks_on_after_the_end_is_left(
    says: Callable[[int], str], longest: float
) -> None:
    async def main() -> None:
        outcome = await hear(SAID, NeverHangsUp(says), max_retry=0)
        assert outcome.heard[: len(SAID.words)] == SAID.texts
        assert outcome.seconds < longest

    virtual.run(main())


def test_an_option_that_changes_while_a_stream_is_drained_loses_nothing() -> None:
    async def main() -> None:
        hooks = AtTheEnd()
        async with button(SAID, Combined(hooks, Latency(2.0))) as caller:
            stream = caller.stream
            hooks.call = lambda: stream.update_options(extra_config={"metadata": {}})
            for frame in frames(SAID.pcm()):
                stream.push_frame(frame)
            stream.end_input()
            await asyncio.wait_for(caller._reading, 30)
            heard = " ".join(caller._finals.get_nowait() for _ in range(caller._finals.qsize()))
            assert heard.split() == SAID.texts
            assert len(caller.server.connections) == 2

    virtual.run(main())


# -- times that can not be -----------------------------------------------------------------------


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("live", [False, True])
def test_t4_times_that_can_not_be_lose_no_word_and_are_not_told(name: str, live: bool) -> None:
    async def main() -> None:
        outcome = await hear(SAID, IMPOSSIBLE[name], live=live, timed=False)
        assert outcome.error is None
        assert outcome.heard == SAID.texts
        assert all(0 <= at <= outcome.pushed + 0.001 for at in times_of(outcome.events))

    virtual.run(main())


def times_of(events: Sequence[SpeechEvent]) -> list[float]:
    """Return all times on transcripts."""
    spoken = [event.alternatives[0] for event in events if event.type in (INTERIM, FINAL)]
    words = [word for data in spoken for word in data.words or ()]
    times = [at for data in spoken for at in (data.start_time, data.end_time)]
    return times + [
        at for word in words for at in (word.start_time, word.end_time) if isinstance(at, float)
    ]


# -- other hosts, other loops, other ends --------------------------------------------------------

AUDIO = next(frames(SAID.pcm(), ms=10_000))
ONCE = APIConnectOptions(max_retry=0)


@asynccontextmanager
async def answering(head: str) -> AsyncIterator[tuple[int, list[str]]]:
    """Answer each request with a head of HTTP; yield the port, and what was asked."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_l3_no_second_host_gets_key_or_audio_by_a_redirect(status: int) -> None:
    async with TiroServer(api_key=None) as elsewhere:
        target = elsewhere.base_url.replace("ws:", "http:")
        head = f"{status} Found\r\nLocation: {target}/speech:streamingrecognize?token={KEY}"
        async with answering(head) as (port, _):
            async with tiro.STT(base_url=f"ws://127.0.0.1:{port}", api_key=KEY) as stt:
                with pytest.raises(APIStatusError, match="redirects to another") as raised:
                    await stt.recognize(AUDIO)
    assert not raised.value.retryable
    assert elsewhere.connections == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
async def test_l3_outside_a_job_the_proxy_of_the_environment_is_used_and_named(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WSS_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with answering("407 Proxy Authentication Required") as (port, asked):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        async with tiro.STT(base_url="wss://speech.invalid", api_key=KEY) as stt:
            with pytest.raises(APIStatusError, match="the proxy on the way") as raised:
                await stt.recognize(AUDIO, conn_options=ONCE)
    assert raised.value.status_code == 407
    assert asked == ["CONNECT speech.invalid:443 HTTP/1.1"]


@pytest.mark.parametrize("raise_for_status", [False, True])
async def test_l3_a_session_that_raises_for_status_hides_no_refusal(raise_for_status: bool) -> None:
    async with (
        TiroServer(hooks=Refuse(401)) as server,
        aiohttp.ClientSession(raise_for_status=raise_for_status) as session,
        tiro.STT(base_url=server.base_url, api_key=KEY, http_session=session) as stt,
    ):
        with pytest.raises(APIStatusError, match="Check the key") as raised:
            await stt.recognize(AUDIO)
    assert (raised.value.status_code, raised.value.retryable) == (401, False)


def test_an_stt_works_in_one_event_loop_after_the_other() -> None:
    """A module's STT, and an `asyncio.run` for each file."""

    async def hear_in(port: int) -> tuple[str, int]:
        recognizers = {"is": NumberedRecognizer(SAID)}
        async with TiroServer(api_key=KEY, recognizers=recognizers, port=port) as server:
            if not made:
                made.append(tiro.STT(base_url=server.base_url, api_key=KEY))
            event = await made[0].recognize(AUDIO)
            return event.alternatives[0].text, URL(server.base_url).port or 0

    made: list[tiro.STT] = []
    first, port = asyncio.run(hear_in(0))
    second, _ = asyncio.run(hear_in(port))
    assert first == second == " ".join(SAID.texts)
    asyncio.run(made[0].aclose())


async def test_l6_a_closed_stt_starts_no_stream() -> None:
    stt = tiro.STT(api_key=KEY, base_url="ws://localhost")
    await stt.aclose()
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        stt.stream()


def test_l8_closing_the_stt_ends_recognize_with_an_error() -> None:
    """The finals so far are not the whole transcript."""

    async def main() -> None:
        recognizers = {"is": NumberedRecognizer(SAID)}
        server = TiroServer(api_key=KEY, recognizers=recognizers, hooks=Pace(1.0))
        async with server, tiro.STT(base_url=server.base_url, api_key=KEY) as stt:
            recognizing = asyncio.create_task(stt.recognize(AUDIO))
            await asyncio.sleep(3)
            await stt.aclose()
            with pytest.raises(APIConnectionError, match="closed while it recognised"):
                await recognizing

    virtual.run(main())
