"""What hears the audio behind the local server: the script, PocketSphinx, and the resampler."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st

from livekit import rtc
from livekit.plugins.tiro.testing import (
    DEFAULT_SCRIPT,
    Recognition,
    Script,
    ScriptedRecognizer,
    SpeechConfig,
    SphinxRecognizer,
    StatusError,
    TiroServer,
    Word,
    sphinx as sphinx_module,
)
from livekit.plugins.tiro.testing.backend import BLOCKING_SAMPLES
from livekit.plugins.tiro.testing.resample import Resampler

from .support.server_client import Client, connect
from .support.server_recordings import audio_message, pcm, recording, transcript, words

Samples = npt.NDArray[np.int16]

FOX = "the quick brown fox jumps over the lazy dog"
SHINING = "the weather is very nice today and the sun is shining"
PATH = "/speech:streamingrecognize?token=test"

# Loud enough to be voiced, and silence, by 20 ms frames.
VOICED = np.full(320, 2000, np.int16)
QUIET = np.zeros(320, np.int16)


def samples(name: str) -> Samples:
    return np.frombuffer(pcm(name), np.int16)


def scripted(script: Script | None = None, *, per_second: float = 10, **config: Any) -> Recognition:
    """A recognition whose words take 100 ms, unless said otherwise."""
    return ScriptedRecognizer(script, words_per_second=per_second)(SpeechConfig(**config))


def text(hypothesis: Sequence[Word]) -> str:
    return " ".join(word.text for word in hypothesis)


def test_a_word_is_said_for_each_stretch_of_voiced_audio() -> None:
    heard = scripted("eitt tvö þrjú")
    heard.feed(np.concatenate([QUIET] * 3 + [VOICED] * 7 + [QUIET] * 2 + [VOICED] * 3), 1.0)
    (best,) = heard.final(1)
    assert [(w.text, round(w.start, 3), round(w.end, 3)) for w in best] == [
        ("eitt", 1.06, 1.16),
        ("tvö", 1.16, 1.30),
    ]


def test_half_a_word_shows_in_interims_only() -> None:
    heard = scripted("sólskin")
    shown = []
    for _ in range(5):
        heard.feed(VOICED, 0.0)
        shown.append(text(heard.partial()))
    assert shown == ["", "", "sóls", "sóls", "sólskin"]


def test_word_that_is_cut_short_is_said_again_from_its_start() -> None:
    heard = scripted("eitt tvö þrjú")
    heard.feed(np.concatenate([VOICED] * 9), 0.0)
    assert text(heard.final(1)[0]) == "eitt"
    heard.feed(np.concatenate([VOICED] * 4), 3.0)
    assert heard.final(1) == []
    heard.feed(np.concatenate([VOICED] * 10), 6.0)
    (best,) = heard.final(1)
    assert text(best) == "tvö þrjú" and best[0].start == 6.0


def test_the_script_loops() -> None:
    heard = scripted("eitt tvö")
    heard.feed(np.concatenate([VOICED] * 25), 0.0)
    assert text(heard.final(1)[0]) == "eitt tvö eitt tvö eitt"


def test_silence_is_counted_from_the_last_voiced_frame() -> None:
    heard = scripted()
    heard.feed(np.concatenate([QUIET] * 4), 0.0)
    assert heard.silence() is None
    heard.feed(np.concatenate([VOICED, QUIET, QUIET, QUIET[:100]]), 0.08)
    assert heard.silence() == pytest.approx(0.04)
    heard.final(1)
    assert heard.silence() is None


@pytest.mark.parametrize(("punctuation", "expected"), [(False, 0), (True, 1)])
@pytest.mark.parametrize(
    ("script", "spellings"),
    [
        ("já takk", ("já takk", "Já takk.")),
        ("Já, takk. Ég kem!", ("já takk ég kem", "Já, takk. Ég kem!")),
        (["Hvað er að", "ekkert?"], ("hvað er að ekkert", "Hvað er að. Ekkert?")),
        ("hann er í Vík", ("hann er í Vík", "Hann er í Vík.")),
        ("já - nei", ("já - nei", "Já - nei.")),
        ("já ... nei", ("já nei", "Já Nei.")),
    ],
)
def test_spelling(
    script: Script, spellings: tuple[str, str], punctuation: bool, expected: int
) -> None:
    heard = scripted(script, punctuation=punctuation)
    count = len(spellings[0].split())
    heard.feed(np.concatenate([VOICED] * 5 * count), 0.0)
    assert text(heard.final(1)[0]) == spellings[expected]


def test_speakers() -> None:
    script = [(1, "eitt tvö"), (2, "þrjú")]
    heard = scripted(script, diarization=True)
    heard.feed(np.concatenate([VOICED] * 15), 0.0)
    assert [word.speaker for word in heard.final(1)[0]] == [1, 1, 2]


def test_alternatives_differ() -> None:
    heard = scripted("eitt tvö")
    heard.feed(np.concatenate([VOICED] * 10), 0.0)
    texts = [text(each) for each in heard.final(6)]
    assert texts[:3] == ["eitt tvö", "eitta tvö", "eitt tvöa"]
    assert len(set(texts)) == 6


@pytest.mark.parametrize("wrong", [{"script": " ... "}, {"words_per_second": 0}])
def test_senseless_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ScriptedRecognizer(**wrong)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_borders_of_messages_change_nothing(sizes: list[int]) -> None:
    """The words hang on the audio alone, not on how it is cut."""
    audio = samples("is.wav")[10240 : 10240 + 32000]
    whole, cut = scripted(per_second=2.5), scripted(per_second=2.5)
    whole.feed(audio, 0.64)
    position = 0
    while position < len(audio):
        for size in sizes:
            cut.feed(audio[position : position + size], 0.64 + position / 16000)
            position += size
    assert cut.partial() == whole.partial() and cut.silence() == whole.silence()
    assert cut.final(2) == whole.final(2) != []


def test_default_script_is_the_recorded_one() -> None:
    """Every word of it was recorded, in this order."""
    said = [transcript(frame) for frame in recording("stalled_backend", "full").received]
    once = " ".join(said).split()[: len(" ".join(DEFAULT_SCRIPT).split())]
    heard = scripted()
    heard.feed(np.concatenate([VOICED] * 5 * len(once)), 0.0)
    assert text(heard.final(1)[0]).split() == once


def test_segment_without_a_word_is_an_empty_response() -> None:
    heard = scripted()
    heard.feed(VOICED, 0.0)
    assert heard.final(3) == []


class Slow:
    """A recogniser that blocks in its thread until it is let go."""

    blocking = True

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()
        self.calls: list[str] = []

    def __call__(self, config: SpeechConfig) -> Slow:
        return self

    def feed(self, samples: Samples, start: float) -> None:
        self.calls.append(f"feed {len(samples)} at {start:.2f}")
        self.started.set()
        assert self.go.wait(10)
        self.calls.append("fed")

    def silence(self) -> float | None:
        return None

    def partial(self) -> tuple[Word, ...]:
        return ()

    def final(self, alternatives: int) -> list[tuple[Word, ...]]:
        self.calls.append("final")
        return [(Word("loksins", 0.0, 1.0),)]

    def close(self) -> None:
        self.calls.append("close")


async def test_recogniser_that_blocks_does_not_hold_up_the_others() -> None:
    slow = Slow()
    async with TiroServer(recognizers={"xx": slow}) as server, connect(server, PATH) as client:
        await start(client, "xx")
        await send(client, np.concatenate([VOICED] * 25))
        await asyncio.to_thread(slow.started.wait, 10)
        async with connect(server, PATH) as other:
            await start(other, "is-IS")
            await send(other, samples("is.wav")[10000:40000])
            await finish(other)
        assert other.settled and not client.gone
        slow.go.set()
        await finish(client)
    assert [transcript(frame) for frame in client.settled] == ["loksins"]
    # Half a second less the look-ahead, in pieces that keep each call short.
    pieces = [f"feed {BLOCKING_SAMPLES} at {n * 0.05:.2f}" for n in range(4)]
    assert slow.calls == [call for piece in pieces for call in (piece, "fed")] + ["final", "close"]


async def test_closing_the_server_waits_for_a_recogniser_in_its_thread() -> None:
    """It is closed only when it is out of its call, for two threads in it might crash."""
    slow = Slow()
    async with TiroServer(recognizers={"xx": slow}) as server, connect(server, PATH) as client:
        await start(client, "xx")
        await send(client, np.concatenate([VOICED] * 16))
        await asyncio.to_thread(slow.started.wait, 10)
        closing = asyncio.create_task(server.aclose())
        await asyncio.wait([closing], timeout=0.1)
        assert slow.calls == ["feed 320 at 0.00"]
        slow.go.set()
        await closing
    assert slow.calls == ["feed 320 at 0.00", "fed", "close"]


async def test_failure_of_a_recogniser_ends_its_session(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Slow):
        def feed(self, samples: Samples, start: float) -> None:
            raise RuntimeError("no such luck")

    broken = Broken()
    async with TiroServer(recognizers={"xx": broken}) as server, connect(server, PATH) as client:
        await start(client, "xx")
        await send(client, np.concatenate([VOICED] * 25))
        await client.end()
    assert json.loads(client.frames[0])["error"]["grpcCode"] == 13
    assert broken.calls == ["close"] and "no such luck" in caplog.text


async def start(client: Client, language: str, rate: int = 16000, **fields: Any) -> None:
    """Sends a config."""
    config = {
        "encoding": "LINEAR16",
        "sampleRateHertz": rate,
        "languageCode": language,
        "enableWordTimeOffsets": True,
        **fields,
    }
    await client.send(json.dumps({"streamingConfig": {"config": config, "interimResults": True}}))


async def send(
    client: Client, audio: Samples, rate: int = 16000, *, ms: int = 50, paced: bool = False
) -> None:
    """Sends audio in messages of `ms` milliseconds, at the speed of speech if `paced`."""
    loop = asyncio.get_running_loop()
    size, due = rate * ms // 1000, loop.time()
    for at in range(0, len(audio), size):
        await client.send(audio_message(audio[at : at + size].tobytes()))
        due += ms / 1000
        if paced:
            await asyncio.sleep(due - loop.time())


async def finish(client: Client) -> None:
    """Sends the end marker and waits for the end."""
    await client.send(audio_message(b""))
    await client.end()


@pytest.fixture(scope="module")
def sphinx() -> None:
    pytest.importorskip("pocketsphinx")


async def recognise(
    audio: Samples, *, rate: int = 16000, ms: int = 50, paced: bool = False, **fields: Any
) -> Client:
    """The client after English audio went through a server."""
    async with TiroServer() as server, connect(server, PATH) as client:
        await start(client, "en-US", rate, **fields)
        await send(client, audio, rate, ms=ms, paced=paced)
        await finish(client)
    return client


def texts(client: Client) -> list[str]:
    """What the finals say."""
    return [transcript(frame) for frame in client.settled]


def zeros(seconds: float) -> Samples:
    return np.zeros(round(16000 * seconds), np.int16)


@pytest.mark.parametrize(("lead", "trail"), [(0.0, 1.0), (1.0, 1.5), (1.33, 1.0)])
async def test_sphinx_hears_the_fox(sphinx: None, lead: float, trail: float) -> None:
    client = await recognise(np.concatenate([zeros(lead), samples("fox.wav"), zeros(trail)]))
    assert texts(client) == [FOX]
    heard = words(client.settled[0])
    edges = [time for _, *span in heard for time in span]
    assert edges == sorted(edges) and lead < edges[0] and edges[-1] < lead + 2.97


async def test_sphinx_hears_the_fox_in_real_time(sphinx: None) -> None:
    """With interims on the way, and the final before the end marker."""
    async with TiroServer() as server, connect(server, PATH) as client:
        await start(client, "en-US")
        await send(client, np.concatenate([samples("fox.wav"), zeros(1.0)]), paced=True)
        await client.until(1)
        assert texts(client) == [FOX] and not client.gone
        await finish(client)
    assert texts(client) == [FOX]
    shown = [transcript(frame) for frame in client.interims]
    assert 4 <= len(shown) <= 11 and len(set(shown)) == len(shown)
    assert shown[-1].startswith("the quick brown fox ")


async def test_sphinx_finds_two_utterances(sphinx: None) -> None:
    """The words of the recording at the times of the recording, up to 60 ms."""
    recorded = recording("two_utterances_en", "full").received
    client = await recognise(samples("two.wav"), ms=64)
    assert texts(client)[1:] == [SHINING]
    finals = [frame for frame in recorded if '"isFinal":true' in frame]
    for ours, theirs in zip(client.settled, finals, strict=True):
        assert transcript(ours) == transcript(theirs)
        for (_, *span), (_, *recorded_span) in zip(words(ours), words(theirs), strict=True):
            assert span == pytest.approx(recorded_span, abs=0.06)


@pytest.mark.parametrize(("scenario", "padding"), [("tail_tight", 0.0), ("tail_padded", 0.8)])
async def test_sphinx_does_not_hear_the_tail(sphinx: None, scenario: str, padding: float) -> None:
    """As recorded: the last 300 ms are lost at the end, unless zeros come behind them."""
    speech = samples("two.wav")[9600:63920]
    client = await recognise(np.concatenate([speech, zeros(padding)]), ms=64)
    (ours,), theirs = client.settled, recording(scenario, "full").received[-1]
    assert words(ours)[-1][2] == pytest.approx(words(theirs)[-1][2], abs=0.06)
    assert (transcript(ours).split()[-1] == "hounds") == (padding > 0)


async def test_sphinx_has_alternatives(sphinx: None) -> None:
    speech = np.concatenate([samples("fox.wav"), zeros(1.0)])
    client = await recognise(speech, maxAlternatives=3)
    (result,) = json.loads(client.settled[0])["result"]["results"]
    first, *others = result["alternatives"]
    assert first["transcript"] == FOX and len(first["words"]) == 9
    assert len({each["transcript"] for each in result["alternatives"]}) == 3
    assert [each["words"] for each in others] == [[], []]


async def test_sphinx_hears_nothing_in_hiss(sphinx: None) -> None:
    client = await recognise(samples("hiss.wav"))
    assert [json.loads(frame)["result"]["results"] for frame in client.frames] == [[]]


def test_sphinx_sessions_share_decoders_but_no_memory(sphinx: None) -> None:
    """The second session of a decoder hears what the first one heard, and so does the third."""
    speech = samples("fox.wav")[:16000]
    heard = []
    for _ in range(2):
        session = SphinxRecognizer()(SpeechConfig(language="en-US"))
        for start in (1.0, 8.0):
            session.feed(speech, start)
            assert session.silence() is not None
            (best,) = session.final(1)
            assert session.silence() is None and session.partial() == ()
            heard.append(
                [(w.text, round(w.start - start, 3), round(w.end - start, 3)) for w in best]
            )
        decoder = session._decoder
        session.close()
        assert decoder in sphinx_module._idle
    assert heard == [heard[0]] * 4
    broken_off = SphinxRecognizer()(SpeechConfig(language="en-US"))
    broken_off.feed(speech[:8000], 0.0)
    decoder = broken_off._decoder
    broken_off.close()
    assert decoder not in sphinx_module._idle


def test_sphinx_session_without_audio_needs_no_decoder() -> None:
    session = sphinx_module.SphinxRecognition()
    assert session.final(1) == [] and session.partial() == () and session.silence() is None
    session.close()


def test_sphinx_hears_so_many_connections_at_a_time(
    sphinx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sphinx_module, "MAX_CONNECTIONS", 1)
    first = SphinxRecognizer()(SpeechConfig(language="en-US"))
    with pytest.raises(StatusError, match="1 connections are recognised already"):
        SphinxRecognizer()(SpeechConfig(language="en-US"))
    first.close()
    SphinxRecognizer()(SpeechConfig(language="en-US")).close()


async def test_sphinx_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StatusError, match=r"livekit-plugins-tiro\[local\]"):
        SphinxRecognizer()(SpeechConfig(language="en-US"))
    client = await recognise(samples("fox.wav"))
    error = json.loads(client.frames[0])["error"]
    assert error["grpcCode"] == 9 and "livekit-plugins-tiro[local]" in error["message"]


def at_rate(audio: Samples, rate: int) -> Samples:
    """16 kHz audio at another rate, by LiveKit's resampler."""
    resampler = rtc.AudioResampler(16000, rate, quality=rtc.AudioResamplerQuality.HIGH)
    parts = [rtc.AudioFrame(part.tobytes(), 16000, 1, len(part)) for part in np.split(audio, 10)]
    frames = [frame for part in parts for frame in resampler.push(part)] + resampler.flush()
    return np.concatenate([np.frombuffer(frame.data, np.int16) for frame in frames])


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
async def test_sphinx_hears_the_fox_at_other_rates(sphinx: None, rate: int) -> None:
    speech = np.concatenate([samples("fox.wav"), zeros(1.0)])
    speech = speech[: len(speech) // 10 * 10]
    client = await recognise(at_rate(speech, rate), rate=rate)
    # The resampler at the client leaves a little noise, so an empty response may come last.
    assert texts(client)[:1] == [FOX] and not any(texts(client)[1:])
    heard = words(client.settled[0])
    assert (heard[0][1], heard[-1][2]) == pytest.approx((0.15, 2.85), abs=0.06)


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000])
def test_resampler_keeps_a_tone(rate: int) -> None:
    """1 kHz comes out as loud as it went in, up to 0.8 ms late."""
    tone = np.rint(10000 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)).astype(np.int16)
    out = Resampler(rate).feed(tone)[800:].astype(np.float64)
    at = np.arange(len(out)) / 16000
    basis = np.stack([np.sin(2 * np.pi * 1000 * at), np.cos(2 * np.pi * 1000 * at)])
    weights = basis @ out * 2 / len(out)
    assert np.hypot(*weights) == pytest.approx(10000, rel=0.05 if rate > 16000 else 0.06)
    residual = out - weights @ basis
    assert np.abs(residual).max() < (50 if rate > 16000 else 1500)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_resampler_removes_what_16_khz_cannot_hold(rate: int) -> None:
    tone = np.rint(10000 * np.sin(2 * np.pi * 10000 * np.arange(rate) / rate)).astype(np.int16)
    assert np.abs(Resampler(rate).feed(tone)[800:]).max() < 300


@given(
    st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000]),
    st.lists(st.integers(0, 3000), min_size=1, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_resampler_does_not_see_the_borders_of_messages(rate: int, sizes: list[int]) -> None:
    audio = np.random.default_rng(1).integers(-3000, 3000, rate // 2).astype(np.int16)
    whole = Resampler(rate).feed(audio)
    cut, parts, position = Resampler(rate), [], 0
    while position < len(audio):
        for size in [*sizes, 999]:
            parts.append(cut.feed(audio[position : position + size]))
            position += size
    assert np.array_equal(np.concatenate(parts), whole)
    assert len(whole) == -(-len(audio) * 16000 // rate)


def test_resampler_leaves_silence_alone() -> None:
    """The speech gate of the server hangs on it."""
    assert not Resampler(44100).feed(np.zeros(4410, np.int16)).any()
