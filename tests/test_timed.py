"""Scripts with times: each word once, at its second, whatever the audio and the connection do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from livekit.agents.utils import is_given
from livekit.plugins import tiro
from livekit.plugins.tiro import feed, loudness, recovery
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.testing import (
    At,
    ConnectionRecord,
    Drop,
    Hooks,
    SpeechConfig,
    TimedRecognizer,
    TiroServer,
    faults,
    timed as timed_module,
)
from livekit.plugins.tiro.testing.conversation import LONGEST_LINE

from .support.caller import RATES
from .support.examples import examples
from .support.harness import (
    END,
    FINAL,
    INTERIM,
    START,
    Pcm,
    collect,
    finals,
    frames,
    read_wav,
    until,
)
from .support.server_client import connect
from .support.server_recordings import audio_message, transcript
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from livekit.agents.stt import SpeechEvent
    from livekit.agents.types import NotGivenOr

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

# With the pace of 2.5 words a second: from 1.2 to 2.0 s, 4.0 to 4.8 s, and 9.0 to 9.8 s.
CALL = [At(1.2, "góðan daginn"), At(4.0, "já takk", speaker=2), At(9.0, "bless bless")]

SAID = [
    ("Góðan", 1.2, 1.6),
    ("daginn.", 1.6, 2.0),
    ("Já", 4.0, 4.4),
    ("takk.", 4.4, 4.8),
    ("Bless", 9.0, 9.4),
    ("bless.", 9.4, 9.8),
]

SECONDS = 11.0

CONFIG = {"encoding": "LINEAR16", "sampleRateHertz": 16000, "languageCode": "is-IS"}

Timed = tuple[str, float, float]


def silence(rate: int) -> Pcm:
    return np.zeros(round(SECONDS * rate), np.int16)


def hiss(rate: int) -> Pcm:
    return np.random.default_rng(0).integers(-20, 20, round(SECONDS * rate)).astype(np.int16)


def tone(rate: int) -> Pcm:
    return (8000 * np.sin(np.arange(round(SECONDS * rate)) / rate * 2764)).astype(np.int16)


def speech(rate: int) -> Pcm:
    return np.resize(read_wav("is2.wav"), round(SECONDS * rate))


def said(events: Sequence[SpeechEvent]) -> list[Timed]:
    """The words of the finals, with their times."""
    words = [w for e in events if e.type is FINAL for w in e.alternatives[0].words or ()]
    return [(str(word), seconds(word.start_time), seconds(word.end_time)) for word in words]


def seconds(time: NotGivenOr[float]) -> float:
    assert is_given(time)
    return round(time, 3)


class ScriptCaller:
    """Pushes a call's audio in parts, as the test goes on."""

    def __init__(self, stt: tiro.STT, audio: Pcm) -> None:
        self.stream = stt.stream()
        self.events: list[SpeechEvent] = []
        self._audio = frames(audio)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.stream:
            self.events.append(event)

    async def talk(self, seconds: float, *, until_shown: str = "", pace: float = 0.0) -> None:
        """Pushes the next seconds, `pace` seconds a frame; waits until a transcript says this."""
        for frame in itertools.islice(self._audio, round(seconds * 20)):
            self.stream.push_frame(frame)
            if pace:
                await asyncio.sleep(pace)
        await until(lambda: not until_shown or until_shown in self.shown)

    @property
    def shown(self) -> list[str]:
        """The texts of all transcripts."""
        return [event.alternatives[0].text for event in self.events if event.alternatives]

    async def finish(self) -> list[Timed]:
        """Pushes what is left; all that was said in the call."""
        await self.talk(SECONDS)
        self.stream.end_input()
        await asyncio.wait_for(self._reading, 10)
        return said(self.events)


@contextlib.asynccontextmanager
async def listening(
    script: Sequence[At] = CALL, **options: Any
) -> AsyncIterator[tuple[TiroServer, tiro.STT]]:
    """A server that says a script, interims with every message, and an STT of it."""
    options = {"interim_interval": 0.0, "script": script, **options}
    async with TiroServer(**options) as server:
        async with tiro.STT(base_url=server.base_url, api_key="test") as stt:
            yield server, stt


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("audio", [silence, hiss, tone, speech])
async def test_words_are_said_at_their_seconds(audio: Callable[[int], Pcm], rate: int) -> None:
    async with listening() as (_, stt):
        events = await collect(stt.stream(), frames(audio(rate), rate))
    assert said(events) == SAID
    shown = [event for event in events if event.type in (START, INTERIM, FINAL, END)]
    kinds = [(kind, len(list(group))) for kind, group in itertools.groupby(e.type for e in shown)]
    assert kinds == [(START, 1), (INTERIM, 4), (FINAL, 1), (END, 1)] * 3
    texts = [event.alternatives[0].text for event in shown if event.type is INTERIM]
    assert texts[:4] == ["Góð", "Góðan", "Góðan dagi", "Góðan daginn."]


class Finals(Hooks):
    """Notes the second of the connection's audio at which each final goes out."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        if '"isFinal":true' in text:
            self.at.append(round(connection.seconds, 3))


@in_virtual_time
async def test_finals_come_when_the_words_are_over() -> None:
    """After half a second of silence and the look-ahead, and no sooner than `endpoint_silence`."""
    for endpoint_silence, finals_at in ((0.5, [2.8, 5.6, 10.6]), (0.7, [3.0, 5.8, 10.8])):
        hooks = Finals()
        async with listening(hooks=hooks, endpoint_silence=endpoint_silence) as (_, stt):
            await collect(stt.stream(), frames(silence(16000)))
        # Quiet audio comes in messages of 150 ms, and the last of it is held back.
        assert len(hooks.at) == len(finals_at)
        late = [at - due for at, due in zip(hooks.at, finals_at, strict=True)]
        assert 0 <= min(late) and max(late) <= 0.3


@pytest.mark.parametrize(
    ("script", "per_second", "expected"),
    [
        # Out of order, and one that starts before the previous one is over.
        ([At(1.0, "c"), At(0.2, "a b")], 2, [("A", 0.2, 0.7), ("b.", 0.7, 1.2), ("C.", 1.2, 1.7)]),
        ([At(1.0, "Já. Nei!")], 4, [("Já.", 1.0, 1.25), ("Nei!", 1.25, 1.5)]),
        ([At(0, "strax")], 1, [("Strax.", 0.0, 1.0)]),
        # The last word is not over when the audio ends.
        ([At(10.0, "a b c")], 2, [("A", 10.0, 10.5), ("b", 10.5, 11.0)]),
    ],
)
async def test_order_and_pace(
    script: Sequence[At], per_second: float, expected: Sequence[Timed]
) -> None:
    async with listening(script, words_per_second=per_second) as (_, stt):
        assert said(await collect(stt.stream(), frames(silence(16000)))) == expected


@in_virtual_time
async def test_an_utterance_longer_than_a_segment_goes_on_in_the_next() -> None:
    words = [f"orð{n}" for n in range(55)]
    async with listening([At(0.5, " ".join(words))]) as (_, stt):
        events = await collect(stt.stream(), frames(np.zeros(24 * 16000, np.int16)))
    assert len(finals(events)) == 2
    heard = said(events)
    assert [text.strip(".").lower() for text, *_ in heard] == words
    assert heard[-1][1:] == (22.1, 22.5)


async def test_speakers_spelling_and_alternatives() -> None:
    async with TiroServer(script=CALL) as server:
        stt = tiro.STT(
            base_url=server.base_url,
            api_key="test",
            diarization=True,
            punctuate=False,
            max_alternatives=2,
        )
        async with stt:
            events = await collect(stt.stream(), frames(silence(16000)))
    heard = [event.alternatives for event in events if event.type is FINAL]
    assert [[each.text for each in alternatives] for alternatives in heard] == [
        ["góðan daginn", "góðana daginn"],
        ["já takk", "jáa takk"],
        ["bless bless", "blessa bless"],
    ]
    assert [alternatives[0].speaker_id for alternatives in heard] == [None, "2", None]


@pytest.mark.parametrize("audio", [silence, tone])
@in_virtual_time
async def test_silence_of_a_flush_takes_no_time_of_the_script(
    audio: Callable[[int], Pcm],
) -> None:
    async with listening() as (server, stt):
        caller = ScriptCaller(stt, audio(16000))
        await caller.talk(2.3, until_shown="Góðan daginn.")
        assert finals(caller.events) == []
        caller.stream.flush()
        await until(lambda: finals(caller.events) == ["Góðan daginn."])
        assert await caller.finish() == SAID
    assert server.connections[0].seconds > SECONDS + 1


async def test_a_flush_in_a_word_leaves_it_to_what_follows() -> None:
    async with listening() as (_, stt):
        caller = ScriptCaller(stt, tone(16000))
        await caller.talk(1.95, until_shown="Góðan")
        caller.stream.flush()
        await until(lambda: finals(caller.events) == ["Góðan"])
        # From where the caller goes on.
        assert await caller.finish() == [SAID[0], ("daginn.", 1.95, 2.0), *SAID[2:]]


class First(Hooks):
    """Breaks the first connection off, and no other."""

    def __init__(self, moment: str) -> None:
        self._moment = moment

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if connection.number == 0 and connection.seconds >= _number(self._moment):
            raise Drop

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        # The gateway breaks off at a line that is too long.
        too_long = self._moment == ("last final too long" if connection.end else "final too long")
        final = connection.number == 0 and '"isFinal":true' in text
        return text + " " * LONGEST_LINE if final and too_long else text

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        if connection.number == 0 and '"isFinal":true' in text and self._moment == "final sent":
            raise Drop

    async def end(self, connection: ConnectionRecord) -> None:
        if connection.number == 0 and self._moment == "end":
            raise Drop


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


@pytest.mark.many
@pytest.mark.parametrize(
    "moment", ["0.5", "1.7", "2.5", "3.5", "6.0", "9.6", "final sent", "final too long"]
)
async def test_a_call_goes_on_after_a_fault(moment: str) -> None:
    """No word is missing and none is said again; the caller makes a sound, so all is sent again."""
    async with listening(hooks=First(moment)) as (server, stt):
        assert await ScriptCaller(stt, tone(16000)).finish() == SAID
        assert len(server.connections) == 2


@pytest.mark.parametrize("moment", ["end", "last final too long"])
async def test_a_call_goes_on_after_a_fault_at_its_end(moment: str) -> None:
    """The last final is due after the end marker, but is never sent."""
    options = {"hooks": First(moment), "endpoint_silence": 4.5}
    async with listening(CALL[1:], **options) as (server, stt):
        assert await ScriptCaller(stt, tone(16000)).finish() == SAID[2:]
        assert server.connections[0].ended and len(server.connections) > 1


async def test_after_silence_that_is_not_live_a_call_goes_on_late() -> None:
    """How much silence the client sends again is up to it; no word may come early."""
    async with listening(hooks=First("7.9")) as (server, stt):
        caller = ScriptCaller(stt, silence(16000))
        # Some of the audio is held back.
        await caller.talk(8.4, until_shown="Já takk.")
        await asyncio.wait_for(server.connections[0].closed.wait(), 5)
        # The audio that makes the client reconnect has to come after the first connection is gone.
        await caller.talk(SECONDS, pace=0.005)
        heard = await caller.finish()
    assert heard[:4] == SAID[:4]
    assert all(start >= 9.0 for _, start, _ in heard[4:])


LIVE = [0.5, 5.0, 12.0, 20.0, 30.0, 40.0]


async def live_call(hooks: Hooks, audio: Pcm) -> list[tuple[str, float]]:
    """What a live caller is told, each sentence with its start."""
    script = [At(second, f"setning {n}") for n, second in enumerate(LIVE)]
    async with listening(script, hooks=hooks, interim_interval=0.35) as (_, stt):
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def push(stream: tiro.SpeechStream) -> None:
            for n, frame in enumerate(frames(audio), 1):
                await asyncio.sleep(began + n / 20 - loop.time())
                stream.push_frame(frame)
            stream.end_input()

        async with stt.stream() as stream:
            pushing = asyncio.create_task(push(stream))
            heard = said([event async for event in stream])
            await pushing
    return [
        (text, start) for (_, start, _), (text, *_) in zip(heard[::2], heard[1::2], strict=True)
    ]


def spoken(rate: int) -> Pcm:
    """Noise where the script speaks, and nothing else."""
    audio = np.zeros(48 * rate, np.int16)
    for second in LIVE:
        start, size = round(second * rate), round(0.8 * rate)
        noise = np.random.default_rng(0).integers(-8000, 8000, size)
        audio[start : start + size] = noise.astype(np.int16)
    return audio


def long(audio: Callable[[int], Pcm]) -> Callable[[int], Pcm]:
    """The same over and over, for 48 s."""
    return lambda rate: np.resize(audio(rate), 48 * rate)


def noisy(rate: int) -> Pcm:
    return np.random.default_rng(0).integers(-20, 20, 48 * rate).astype(np.int16)


LIVE_FAULTS: list[Callable[[], Hooks]] = [
    lambda: faults.PerConnection(faults.StopReading(4.0, seconds=20)),
    lambda: faults.SessionLimit(7, None),
    lambda: faults.Disconnect(faults.Moment.INTERIM),
    lambda: faults.PerConnection(faults.HalfOpen(0.4)),
    lambda: faults.PerConnection(faults.Close(6.0)),
]


@pytest.mark.many
@pytest.mark.parametrize(
    ("fault", "audio"),
    [
        *itertools.product(LIVE_FAULTS, [noisy]),
        *zip(LIVE_FAULTS, itertools.cycle([long(silence), spoken, long(speech)]), strict=False),
    ],
)
@in_virtual_time
async def test_a_live_call_goes_on_at_its_seconds(
    fault: Callable[[], Hooks], audio: Callable[[int], Pcm]
) -> None:
    """Each sentence once, never early, and at its second unless its audio was lost."""
    heard = await live_call(fault(), audio(16000))
    assert [text for text, _ in heard] == [f"{n}." for n in range(len(LIVE))]
    late = [start - second for (_, start), second in zip(heard, LIVE, strict=True)]
    assert min(late) >= -0.002
    # Nobody sends silence of more than some seconds again.
    assert max(late[3:]) <= 0.25
    if audio is noisy:
        assert max(late) <= 0.002


@pytest.mark.parametrize(("seconds", "shown"), [(1.95, "Góðan"), (3.5, "Góðan daginn.")])
@in_virtual_time
async def test_a_call_goes_on_with_other_options(seconds: float, shown: str) -> None:
    async with listening() as (server, stt):
        caller = ScriptCaller(stt, silence(16000))
        await caller.talk(seconds, until_shown=shown)
        await until(lambda: seconds < 3 or finals(caller.events) == [shown])
        caller.stream.update_options(punctuate=False)
        await asyncio.wait_for(server.wait_for_connection(1), 5)
        heard = await caller.finish()
    plain = [(text.strip(".").lower(), *span) for text, *span in SAID]
    assert heard == (plain if seconds < 3 else SAID[:2] + plain[2:])


async def test_the_end_marker_ends_a_call() -> None:
    """The part of the script that was not said is not left to the next call."""
    async with listening() as (_, stt):
        for _ in range(2):
            events = await collect(stt.stream(), frames(silence(16000)[: 3 * 16000]))
            assert said(events) == SAID[:2]


@pytest.mark.parametrize(
    ("audio", "connections"), [(speech, recovery._NOTHING_FOR_CERTAIN), (tone, 1), (hiss, 1)]
)
async def test_a_sound_after_the_last_word_does_not_start_the_script_again(
    audio: Callable[[int], Pcm], connections: int
) -> None:
    """After the end marker the client sends it again, until it is sure that it is no word."""
    async with listening(CALL[:2]) as (server, stt):
        for calls in (1, 2):
            events = await collect(stt.stream(), frames(audio(16000)))
            assert said(events) == SAID[:4]
            assert len(server.connections) == calls * connections


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
@in_virtual_time
async def test_an_end_as_loud_as_all_of_the_call_does_not_start_the_script_again(rate: int) -> None:
    """The client has not learned yet that it is noise, and sends it again."""
    noise = np.random.default_rng(0).integers(-8000, 8000, 5 * rate).astype(np.int16)
    async with listening([At(0.5, "góðan daginn"), At(2.5, "já takk")]) as (server, stt):
        for calls in (1, 2):
            events = await collect(stt.stream(), frames(noise, rate), pace=0.05)
            assert [word for word, *_ in said(events)] == ["Góðan", "daginn.", "Já", "takk."]
            assert len(server.connections) == calls * recovery._NOTHING_FOR_CERTAIN


def test_whoever_goes_on_with_a_call_may_come_after_another_call() -> None:
    noise = np.random.default_rng(0).integers(-8000, 8000, 5 * 16000).astype(np.int16)
    recognizer = TimedRecognizer([At(0.5, "góðan daginn")])
    first = recognizer(SpeechConfig())
    hear(first, messages(noise, 5))
    assert first.final(1)
    first.delivered()
    first.final(1)
    first.ended(hung_up=False)
    first.close()
    another = recognizer(SpeechConfig())
    hear(another, np.split(hiss(16000)[:80000], 10))
    assert [word.start for word in another.final(1)[0]] == pytest.approx([0.5, 0.9])
    again = recognizer(SpeechConfig())
    hear(again, np.split(noise[2 * 16000 :], 5))
    assert not again.final(1)


def in_noise(*parts: tuple[float, int]) -> Pcm:
    """Noise of so many seconds at such peaks."""
    rng = np.random.default_rng(5)
    pieces = [rng.integers(-peak, peak + 1, round(s * 16000)) for s, peak in parts]
    return np.concatenate(pieces).astype(np.int16)


@pytest.mark.parametrize("between", ["nothing", "a drop", "an option", "a short stream"])
@in_virtual_time
async def test_calls_in_noise_one_after_the_other_hear_the_whole_script_each(between: str) -> None:
    """Each may be sent its end again, and none is taken for what goes on with another."""
    audio = in_noise((0.2, 300), (0.4, 8000), (1.6, 300), (1.2, 8000), (1.0, 300))
    fault = faults.Disconnect(2.6) if between == "a drop" else None
    script = [At(0.2, "einn"), At(2.2, "tveir þrír fjórir")]
    async with listening(script, hooks=faults.PerConnection(None, fault)) as (_, stt):
        for calls in range(3):
            stream = stt.stream()
            pushed = frames(audio)
            if between == "a short stream" and calls == 1:
                stream.push_frame(next(pushed))
                await asyncio.sleep(0.1)
                await stream.aclose()
                stream, pushed = stt.stream(), frames(audio)
            elif between == "an option" and calls == 1:
                for frame in itertools.islice(pushed, 12):
                    stream.push_frame(frame)
                    await asyncio.sleep(0.05)
                stream.update_options(max_alternatives=2)
            events = await collect(stream, pushed, pace=0.05)
            texts = [word for word, *_ in said(events)]
            assert texts == ["Einn.", "Tveir", "þrír", "fjórir."]


def test_a_last_sound_is_settled_as_soon_as_it_is_for_the_client() -> None:
    assert timed_module.NOTHING_FOR_CERTAIN == recovery._NOTHING_FOR_CERTAIN
    rest = loudness.REST_AT_MOST
    assert timed_module.REST_OF_WORD == rest


def test_what_stands_out_does_so_for_the_client_too() -> None:
    assert timed_module.SOUND == loudness._RATIO


@pytest.mark.parametrize("rate", RATES)
def test_the_silence_of_the_client_is_taken_for_that(rate: int) -> None:
    backlog = Backlog()
    backlog.push(bytes(2 * rate), rate)
    shortest, longest = timed_module.ADDED_SILENCE
    assert shortest < feed._SILENCE_PIECE < longest
    assert shortest < feed._silence_piece(backlog) / rate < longest


@pytest.mark.parametrize(("back_within", "said_then"), [(30.0, "já takk"), (0.0, "góðan daginn")])
async def test_hanging_up_ends_a_call_unless_the_client_is_back_at_once(
    back_within: float, said_then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_module, "BACK_AT_ONCE", back_within)
    async with TiroServer(script=CALL, api_key=None) as server:
        for expected in ("góðan daginn", said_then):
            async with connect(server) as client:
                await client.send(json.dumps({"streamingConfig": {"config": CONFIG}}))
                for _ in range(80):
                    await client.send(audio_message(bytes(1600)))
                assert transcript((await client.until(1))[0]) == expected
            await asyncio.wait_for(server.connections[-1].closed.wait(), 5)


async def test_calls_at_the_same_time_have_the_whole_script_each() -> None:
    async with listening() as (_, stt):
        callers = [ScriptCaller(stt, silence(16000)) for _ in range(3)]
        for caller in callers:
            await caller.talk(3.0, until_shown="Góðan daginn.")
        assert [await caller.finish() for caller in callers] == [SAID] * 3


@pytest.mark.parametrize(
    ("audio", "start"),
    [
        (hiss, 5.3),
        (speech, 5.3),
        (tone, 5.3),
        # All of it is the same: as from the last final on, before which no client begins.
        (silence, 2.0),
        (lambda rate: np.resize(tone(rate)[: rate // 100], round(SECONDS * rate)), 2.0),
    ],
)
def test_the_next_session_starts_where_its_audio_is(
    audio: Callable[[int], Pcm], start: float
) -> None:
    recognizer = TimedRecognizer([CALL[0], CALL[2]])
    first = recognizer(SpeechConfig(interim_results=True))
    said = audio(16000)
    hear(first, messages(said, 3))
    assert first.final(1)
    first.delivered()
    hear(first, messages(said[48000:], 5), at=3.0)
    first.close()
    again = np.resize(said[round(5.3 * 16000) :], len(said))
    assert starts_at(recognizer, again) == pytest.approx(9.0 - start)


def test_words_whose_audio_does_not_come_again_are_said_at_once() -> None:
    recognizer = TimedRecognizer(CALL)
    first = recognizer(SpeechConfig(interim_results=True))
    hear(first, messages(hiss(16000), 8))
    first.close()
    assert starts_at(recognizer, hiss(16000)[4 * 16000 :]) == pytest.approx(0.0)


def test_one_session_goes_on_for_one_that_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new connection opens in time."""
    recognizer = TimedRecognizer(CALL)
    for patience, expected in ((30.0, [2.0, 1.2]), (-1.0, [1.2, 1.2])):
        monkeypatch.setattr(timed_module, "BACK_AFTER_BREAKING_OFF", patience)
        first = recognizer(SpeechConfig(interim_results=True))
        hear(first, messages(silence(16000), 3))
        assert first.final(1)
        first.delivered()
        hear(first, messages(silence(16000), 2), at=3.0)
        first.close()
        assert [starts_at(recognizer) for _ in range(2)] == pytest.approx(expected)


def test_a_word_is_out_when_its_audio_is() -> None:
    """Also where binary fractions do not add up."""
    for tick in range(1, 40):
        recognition = TimedRecognizer([At(tick / 20, "já")], words_per_second=5)(SpeechConfig())
        hear(recognition, messages(silence(16000), tick / 20 + 0.2))
        assert recognition.final(1), f"at {tick / 20} s"


def test_long_messages_are_no_flush_if_all_are() -> None:
    recognition = TimedRecognizer(CALL)(SpeechConfig())
    hear(recognition, np.split(silence(16000)[:48000], 12))
    assert [word.start for word in recognition.final(1)[0]] == pytest.approx([1.2, 1.6])


@given(st.lists(st.integers(20, 2000), min_size=1, max_size=30))
@examples(10)
def test_borders_of_messages_change_nothing(sizes: list[int]) -> None:
    audio = hiss(16000)[:40000]
    whole, cut = (TimedRecognizer(CALL)(SpeechConfig()) for _ in range(2))
    hear(whole, [audio])
    position, parts = 0, []
    for size in itertools.cycle(sizes):
        parts.append(audio[position : position + size])
        position += size
        if position >= len(audio):
            break
    hear(cut, parts)
    assert cut.partial() == whole.partial() and cut.silence() == whole.silence()
    assert cut.final(2) == whole.final(2) != []


def hear(recognition: timed_module.TimedRecognition, parts: Sequence[Pcm], at: float = 0.0) -> None:
    """Feeds messages as the server does, without a look-ahead."""
    position = 0
    for part in parts:
        assert recognition.place(part, at + position / 16000)
        recognition.attend(part, at + position / 16000)
        recognition.feed(part, at + position / 16000)
        position += len(part)


def messages(audio: Pcm, seconds: float) -> Sequence[Pcm]:
    """The first seconds of audio, in messages of 50 ms."""
    return np.split(audio[: round(seconds * 16000)], round(seconds * 20))


def starts_at(recognizer: TimedRecognizer, audio: Pcm | None = None) -> float:
    """The second of a new connection at which its first word is said."""
    recognition = recognizer(SpeechConfig())
    audio = silence(16000) if audio is None else audio
    hear(recognition, messages(audio, len(audio) / 16000))
    return recognition.final(1)[0][0].start


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: At(-1, "já"), "time"),
        (lambda: At(float("nan"), "já"), "time"),
        (lambda: At("x", "a"), "'x' is no time .*: give seconds"),  # type: ignore[arg-type]
        (lambda: At(True, "a"), "True is no time"),
        (lambda: At(1, 7), "7 is nothing to say: give a sentence"),  # type: ignore[arg-type]
        (lambda: At(1, "a", "b"), "speakers are numbered from 1"),  # type: ignore[arg-type]
        (lambda: At(1, " ... "), "no words"),
        (lambda: At(1, "já", -2), "speakers"),
        (lambda: TimedRecognizer([]), "no words"),
        (lambda: TimedRecognizer(["já"]), "'já' has no time: give At"),  # type: ignore[list-item]
        (lambda: TimedRecognizer(CALL[0]), "a script must be"),  # type: ignore[arg-type]
        (lambda: TimedRecognizer(CALL, words_per_second=0), "words_per_second"),
        (lambda: TiroServer(script=[*CALL, "já"]), "all parts"),  # type: ignore[arg-type]
    ],
)
def test_senseless_scripts(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
