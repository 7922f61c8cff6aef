"""Real English words: PocketSphinx behind the local server."""

from __future__ import annotations

import importlib.util
import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from livekit import rtc
from livekit.plugins.tiro.testing import (
    SpeechConfig,
    SphinxRecognizer,
    StatusError,
    TiroServer,
    sphinx as sphinx_module,
)
from livekit.plugins.tiro.testing.backend import Backend, Timing
from livekit.plugins.tiro.testing.wire import FrameStyle

from .support.server_client import TEST, Client, connect, finish, send, start
from .support.server_recordings import Samples, recording, samples, transcript, words
from .support.session_fakes import in_virtual_time

FOX = "the quick brown fox jumps over the lazy dog"

SHINING = "the weather is very nice today and the sun is shining"


@pytest.fixture(scope="module")
def sphinx() -> None:
    pytest.importorskip("pocketsphinx")


async def recognise(
    audio: Samples, *, rate: int = 16000, ms: int = 50, paced: bool = False, **fields: Any
) -> Client:
    """The client after English audio went through a server."""
    async with TiroServer() as server, connect(server, TEST) as client:
        await start(client, "en-US", rate, **fields)
        await send(client, audio, rate, ms=ms, paced=paced)
        await finish(client)
    return client


def texts(client: Client) -> list[str]:
    """What the finals say."""
    return [transcript(frame) for frame in client.settled]


def zeros(seconds: float) -> Samples:
    return np.zeros(round(16000 * seconds), np.int16)


async def test_sphinx_hears_the_fox(sphinx: None) -> None:
    client = await recognise(np.concatenate([zeros(1.33), samples("fox.wav"), zeros(1.5)]))
    assert texts(client) == [FOX]
    assert_rising(words(client.settled[0]), after=1.33)


def assert_rising(heard: list[tuple[str, float, float]], *, after: float) -> None:
    """The words of the fox, one after the other in the 3 s of the recording."""
    edges = [time for _, *span in heard for time in span]
    assert edges == sorted(edges) and after < edges[0] and edges[-1] < after + 2.97


@in_virtual_time
async def test_sphinx_hears_the_fox_at_the_pace_of_speech(
    sphinx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With interims on the way, and the final before the end marker."""
    # In a thread it would take time that is not this one's.
    monkeypatch.setattr(sphinx_module.SphinxRecognition, "blocking", False)
    async with TiroServer() as server, connect(server, TEST) as client:
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
    """As recorded: the last 300 ms are lost at the end, unless zeros follow them."""
    speech = samples("two.wav")[9600:63920]
    client = await recognise(np.concatenate([speech, zeros(padding)]), ms=64)
    (ours,), theirs = client.settled, recording(scenario, "full").received[-1]
    assert words(ours)[-1][2] == pytest.approx(words(theirs)[-1][2], abs=0.06)
    assert (transcript(ours).split()[-1] == "hounds") == (padding > 0)


async def test_sphinx_has_alternatives(sphinx: None) -> None:
    """In a recording that begins with the words."""
    speech = np.concatenate([samples("fox.wav"), zeros(1.0)])
    client = await recognise(speech, maxAlternatives=3)
    (result,) = json.loads(client.settled[0])["result"]["results"]
    first, *others = result["alternatives"]
    assert first["transcript"] == FOX and len(first["words"]) == 9
    assert_rising(words(client.settled[0]), after=0.0)
    assert len({each["transcript"] for each in result["alternatives"]}) == 3
    assert [each["words"] for each in others] == [[], []]


async def test_sphinx_hears_nothing_in_hiss(sphinx: None) -> None:
    client = await recognise(samples("hiss.wav"))
    assert [json.loads(frame)["result"]["results"] for frame in client.frames] == [[]]


def test_sphinx_recognitions_share_decoders_but_no_memory(sphinx: None) -> None:
    """The second recognition of a decoder hears what the first one heard, to the frame."""
    speech = samples("fox.wav")[:16000]
    heard = []
    for _ in range(2):
        recognition = SphinxRecognizer()(SpeechConfig(language="en-US"))
        for begin in (1.0, 8.0):
            recognition.feed(speech, begin)
            assert recognition.silence() is not None
            (best,) = recognition.final(1)
            assert recognition.silence() is None and recognition.partial() == ()
            assert begin < best[0].start < best[-1].end < begin + 1.0
            heard.append([(word.text, round(word.start - begin, 3)) for word in best])
        decoder = recognition._decoder
        recognition.close()
        assert decoder in sphinx_module._idle
    assert heard[:2] == heard[2:]
    broken_off = SphinxRecognizer()(SpeechConfig(language="en-US"))
    broken_off.feed(speech[:8000], 0.0)
    decoder = broken_off._decoder
    broken_off.close()
    assert decoder not in sphinx_module._idle


def test_sphinx_recognition_without_audio_needs_no_decoder() -> None:
    recognition = sphinx_module.SphinxRecognition()
    assert (
        recognition.final(1) == [] and recognition.partial() == () and recognition.silence() is None
    )
    recognition.close()


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
    with pytest.raises(StatusError, match="pip install pocketsphinx"):
        SphinxRecognizer()(SpeechConfig(language="en-US"))
    client = await recognise(samples("fox.wav"))
    error = json.loads(client.frames[0])["error"]
    assert error["grpcCode"] == 9 and "pip install pocketsphinx" in error["message"]


def at_rate(audio: Samples, rate: int) -> Samples:
    """16 kHz audio at another rate, by LiveKit's resampler."""
    resampler = rtc.AudioResampler(16000, rate, quality=rtc.AudioResamplerQuality.HIGH)
    parts = [rtc.AudioFrame(part.tobytes(), 16000, 1, len(part)) for part in np.split(audio, 10)]
    frames = [frame for part in parts for frame in resampler.push(part)] + resampler.flush()
    return np.concatenate([np.frombuffer(frame.data, np.int16) for frame in frames])


@pytest.mark.many
async def test_sphinx_hears_the_fox_at_another_rate(sphinx: None) -> None:
    speech = np.concatenate([samples("fox.wav")[:19200], zeros(1.0)])
    client = await recognise(at_rate(speech, 44100), rate=44100)
    # The resampler at the client leaves a little noise, so an empty response may come last.
    assert texts(client)[:1] == ["the quick brown fox"] and not any(texts(client)[1:])
    heard = words(client.settled[0])
    assert (heard[0][1], heard[2][2]) == pytest.approx((0.15, 0.91), abs=0.06)


# -- without PocketSphinx: what it is given, and when ----------------------------------------------


class RunDecoder:
    """A decoder for which samples of one value in a row are a word, and zeros are silence."""

    def __init__(self) -> None:
        self.utterances: list[Samples] = []

    def set_cmn(self, mean: str) -> None: ...

    def start_utt(self) -> None:
        self.utterances.append(zeros(0))

    def process_raw(self, data: bytes) -> None:
        new = np.frombuffer(data, np.int16)
        self.utterances[-1] = np.concatenate((self.utterances[-1], new))

    def end_utt(self) -> None: ...

    def hyp(self) -> bool:
        return True

    def seg(self) -> list[SimpleNamespace]:
        heard = self.utterances[-1]
        edges = [0, *(np.flatnonzero(np.diff(heard)) + 1).tolist(), len(heard)]
        return [
            SimpleNamespace(
                word=str(heard[start]) if heard[start] else "<sil>",
                start_frame=start // 160,
                end_frame=end // 160 - 1,
            )
            for start, end in pairwise(edges)
        ]


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> RunDecoder:
    decoder = RunDecoder()
    vad = SimpleNamespace(frame_bytes=960, is_speech=lambda frame: any(frame))
    monkeypatch.setattr(sphinx_module, "_take", lambda: decoder)
    monkeypatch.setattr(sphinx_module, "_vad", lambda: vad)
    return decoder


async def said(audio: Samples, ms: int) -> list[str]:
    """The finals that come of audio in messages of one length."""
    config = SpeechConfig(language="en-US", sample_rate=16000)
    backend = Backend(
        config,
        sphinx_module.SphinxRecognition(),
        style=FrameStyle("v1", True),
        timing=Timing(),
        clock=lambda: 0.0,
    )
    frames = []
    for at in range(0, len(audio), 16 * ms):
        frames += await backend.audio(audio[at : at + 16 * ms].tobytes())
    frames += await backend.end()
    return [transcript(frame) for frame in frames]


def voice(*seconds: float) -> Samples:
    """Words of some seconds, each with a number of its own; below 0 it is silence."""
    parts = [
        np.full(round(16000 * abs(each)), number if each > 0 else 0, np.int16)
        for number, each in enumerate(seconds, 1)
    ]
    return np.concatenate(parts)


async def test_sphinx_hears_all_audio_around_an_endpoint(decoder: RunDecoder) -> None:
    """The next word begins in the 300 ms that are not decoded yet."""
    audio = voice(1.0, 0.5, -0.6, 0.8, 0.4, -1.0)
    assert [text for text in await said(audio, 50) if text] == ["1 2", "4 5"]
    heard = np.concatenate(decoder.utterances)
    assert len(decoder.utterances[0]) / 16000 == pytest.approx(2.0, abs=0.06)
    assert np.array_equal(heard, audio[: len(heard)]) and len(heard) > 16000 * 3.2


async def test_sphinx_leaves_no_silence_over(decoder: RunDecoder) -> None:
    assert await said(voice(1.0, -9.0), 50) == ["1"]
    assert len(decoder.utterances) == 1


async def test_sphinx_hears_a_word_that_is_cut_once_and_whole(decoder: RunDecoder) -> None:
    words = [0.9] * 24
    first, second = await said(voice(*words, -0.4), 500)
    assert f"{first} {second}".split() == [str(number) for number in range(1, 25)]
    assert len(second.split()) > 1 and np.count_nonzero(decoder.utterances[1] == 23) == 14400


async def test_sphinx_cuts_a_word_that_has_no_end(decoder: RunDecoder) -> None:
    assert await said(voice(30.0, -0.4), 500) == ["1", "1"]
    heard = np.concatenate(decoder.utterances)
    assert np.array_equal(heard, voice(30.0, -0.4)[: len(heard)])


def test_sphinx_takes_silence_from_the_audio(decoder: RunDecoder) -> None:
    """A hypothesis that is behind says nothing, unless it is far behind."""
    recognition = sphinx_module.SphinxRecognition()
    recognition.feed(voice(1.0), 0.0)
    assert recognition.silence() == 0.0
    behind = SimpleNamespace(word="a", start_frame=0, end_frame=29)
    decoder.seg = lambda: [behind]  # type: ignore[method-assign]
    assert recognition.silence() == 0.0
    recognition.feed(voice(1.3), 1.0)
    assert recognition.silence() == pytest.approx(1.0)
    recognition.feed(voice(-1.5), 2.3)
    assert recognition.silence() == pytest.approx(2.5)
    decoder.seg = lambda: []  # type: ignore[method-assign]
    assert recognition.silence() is None
