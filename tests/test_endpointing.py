"""`endpointing`: the plugin asks for the final itself, after so many seconds of quiet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livekit import rtc
from livekit.plugins import tiro
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.endpointing import NEXT_PAUSE, QuietWatch
from livekit.plugins.tiro.loudness import Loudness
from livekit.plugins.tiro.testing import TiroServer
from livekit.plugins.tiro.testing.faults import Disconnect, PerConnection, Refuse, StalledHandshake

from .support.caller import noise, tone
from .support.harness import FINAL, frames
from .support.numbered import RATE, NumberedRecognizer, Spoken, Talk, talk
from .support.session_fakes import in_virtual_time, local_server, new_stt
from .support.trial import hear

if TYPE_CHECKING:
    import numpy.typing as npt

    from livekit.agents.stt import SpeechEvent
    from livekit.plugins.tiro.testing import Hooks

SAID = talk(3, gap=4.0)


async def final_after(endpointing: float | None, said: Talk = SAID) -> float:
    """Return the seconds from the end of an utterance to its final, as heard live."""
    server = TiroServer(
        recognizers={"is": NumberedRecognizer(said)}, endpoint_silence=2.0, interim_interval=0.1
    )
    clock = asyncio.get_running_loop().time
    async with server, tiro.STT(base_url=server.base_url, api_key="test") as stt:
        stt.update_options(endpointing=endpointing)
        stream = stt.stream()
        heard: list[tuple[float, SpeechEvent]] = []

        async def listen() -> None:
            heard.extend([(clock(), event) async for event in stream if event.type is FINAL])

        listening = asyncio.create_task(listen())
        started = clock()
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
        await stream.aclose()
        await listening
        assert len(server.connections) == 1
    (at, event) = heard[0]
    assert event.alternatives[0].text == " ".join(said.texts)
    return at - started - said.words[-1].end


@pytest.mark.many
@pytest.mark.parametrize("lead", [0.5, 0.51, 0.52, 0.53, 0.54, 0.57, 0.58])
@pytest.mark.parametrize("endpointing", [0.2, 0.8])
@in_virtual_time
async def test_the_final_comes_after_so_much_quiet(endpointing: float, lead: float) -> None:
    """As exactly as frames of 50 ms allow, wherever in a frame the utterance ends."""
    # Here a frame is pushed at the time it begins; a room delivers it when it is over.
    waited = await final_after(endpointing, talk(3, gap=4.0, lead=lead)) + 0.05
    assert waited == pytest.approx(endpointing, abs=0.035)


BEGUN = Talk(
    (Spoken("einn", 50, 90), Spoken("tveir", 120, 160), Spoken("ekki", 400, 440)), 800, noise=100
)
"""The second word begins 0.3 s after the end of the first."""


async def finals_of(
    flush_at: float,
    change: dict[str, Any] | None = None,
    *,
    said: Talk = BEGUN,
    pcm: npt.NDArray[np.int16] | None = None,
    ms: int = 50,
    hooks: Hooks | None = None,
    is_muted: bool = False,
    again_in: float | None = None,
    stall: float = 0.0,
    endpoint_silence: float = 2.0,
    **options: Any,
) -> list[tuple[float, str]]:
    """Return the finals of a call with a flush, and the second of the call at which each came.

    Args:
        flush_at: Seconds of audio after which the caller flushes.
        change: Options that change 0.1 s after the flush, or at once if the microphone is off.
        said: What is said.
        pcm: What is heard, if there are other sounds too.
        ms: Milliseconds of a frame.
        hooks: What goes wrong.
        is_muted: Whether the microphone is off for 2 s after the flush.
        again_in: Seconds from the flush to another one.
        stall: Seconds for which the event loop stalls after the flush.
        endpoint_silence: Seconds of silence that the service waits for.
        options: Of the STT.
    """
    server = TiroServer(
        recognizers={"is": NumberedRecognizer(said)},
        endpoint_silence=endpoint_silence,
        hooks=hooks,
    )
    change_at = flush_at if is_muted else flush_at + 0.1
    again_at = inf if again_in is None else flush_at + again_in
    async with server, new_stt(server, **options) as stt:
        stream, loop = stt.stream(), asyncio.get_running_loop()

        async def listen() -> list[tuple[float, str]]:
            return [
                (loop.time() - began, event.alternatives[0].text)
                async for event in stream
                if event.type is FINAL
            ]

        began, listening, due, pushed = loop.time(), asyncio.create_task(listen()), 0.0, 0.0
        for frame in frames(said.pcm() if pcm is None else pcm, ms=ms):
            stream.push_frame(frame)
            if pushed < flush_at <= pushed + frame.duration:
                stream.flush()
                due += 2.0 * is_muted
                loop._selector.now += stall  # type: ignore[attr-defined]
                for _ in range(5 if stall else 0):
                    # What came meanwhile takes a few steps of the loop to get here.
                    await asyncio.sleep(0)
            if pushed < again_at <= pushed + frame.duration:
                stream.flush()
            if change and pushed < change_at <= pushed + frame.duration:
                stream.update_options(**change)
            pushed, due = pushed + frame.duration, due + frame.duration
            await asyncio.sleep(began + due - loop.time())
        await stream.aclose()
        return await listening


@pytest.mark.many
@pytest.mark.parametrize("ms", [10, 30, 50])
@pytest.mark.parametrize("interim_results", [True, False])
@in_virtual_time
async def test_a_flush_in_a_word_that_has_just_begun_waits_for_its_end(
    interim_results: bool, ms: int
) -> None:
    """A VAD tells that the caller is done 0.1 s late, when the next word can have begun."""
    first, second = await finals_of(1.26, ms=ms, interim_results=interim_results)
    assert (first[1], second[1]) == ("einn tveir", "ekki")
    assert 1.6 + 0.1 < first[0] < 1.6 + 0.35


@pytest.mark.parametrize("change", [{"endpointing": 1.0}, {"api_key": "test"}, {"language": "is"}])
@pytest.mark.parametrize("interim_results", [True, False])
@in_virtual_time
async def test_so_it_does_whatever_options_change_meanwhile(
    change: dict[str, Any], interim_results: bool
) -> None:
    first, *_ = await finals_of(1.26, change, interim_results=interim_results)
    assert first[1] == "einn tveir"
    assert 1.6 + 0.1 < first[0] < 1.6 + 0.45


@pytest.mark.parametrize("second", [1.3, 1.5, 1.7])
@in_virtual_time
async def test_so_it_does_on_a_new_connection(second: float) -> None:
    first, *_ = await finals_of(1.26, hooks=PerConnection(Disconnect(second)))
    assert first[1] == "einn tveir"
    assert 1.6 + 0.1 < first[0] < 1.6 + 0.6


@pytest.mark.many
@pytest.mark.parametrize(
    ("asked", "granted_in"),
    [(1.22, 0.02), (1.22, 0.3), (1.24, 0.1), (1.24, 1.0), (1.26, 0.02), (1.26, 0.3)],
)
@in_virtual_time
async def test_so_it_does_while_there_is_no_connection(asked: float, granted_in: float) -> None:
    hooks = PerConnection(Disconnect(1.15), StalledHandshake(granted_in))
    first, second = await finals_of(asked, hooks=hooks, ms=10)
    assert (first[1], second[1]) == ("einn tveir", "ekki")
    assert first[0] < max(1.6 + 0.1, 1.15 + granted_in + 0.5) + 0.5


@pytest.mark.many
@pytest.mark.parametrize("again_in", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("dropped", [1.15, 1.35])
@in_virtual_time
async def test_who_asks_again_without_a_connection_waits_too(
    dropped: float, again_in: float
) -> None:
    hooks = PerConnection(Disconnect(dropped), StalledHandshake(0.4))
    first, second = await finals_of(1.26, hooks=hooks, ms=10, again_in=again_in)
    assert (first[1], second[1]) == ("einn tveir", "ekki")
    assert first[0] < dropped + 0.4 + 1.0


@pytest.mark.parametrize("granted_in", [0.1, 0.3, 1.0])
@in_virtual_time
async def test_what_is_said_without_a_connection_is_asked_for(granted_in: float) -> None:
    """The microphone goes off at the end of a short word."""
    said = Talk((Spoken("einn", 50, 90), Spoken("ha", 120, 132), Spoken("ekki", 400, 440)), 800)
    hooks = PerConnection(Disconnect(1.15), StalledHandshake(granted_in))
    first, *_ = await finals_of(1.32, hooks=hooks, said=said, ms=10, is_muted=True)
    assert first[1] == "einn ha"
    assert first[0] < 1.32 + granted_in + 0.6


@pytest.mark.parametrize("ms", [10, 50])
@in_virtual_time
async def test_it_waits_for_no_pause_in_audio_that_does_not_come(ms: int) -> None:
    """A button is let go at the end of a short word."""
    said = Talk((Spoken("einn", 50, 90), Spoken("ha", 120, 132), Spoken("ekki", 400, 440)), 800)
    first, *_ = await finals_of(1.32, said=said, ms=ms, is_muted=True)
    assert first[1] == "einn ha"
    assert first[0] < 1.35 + 0.35


@pytest.mark.parametrize("change", [{"punctuate": True}, {"extra_config": {"metadata": {}}}])
@in_virtual_time
async def test_nor_on_a_new_connection(change: dict[str, Any]) -> None:
    said = Talk((Spoken("einn", 50, 90), Spoken("ha", 107, 119), Spoken("ekki", 400, 440)), 800)
    first, *_ = await finals_of(1.19, change, said=said, ms=10, is_muted=True)
    assert first[1] == "einn ha"
    assert first[0] < 1.19 + 0.6


@in_virtual_time
async def test_it_is_asked_once_more_if_that_was_not_enough() -> None:
    """As any flush is, for a service that waits for longer silence."""
    said = Talk((Spoken("einn", 50, 90), Spoken("ha", 120, 132), Spoken("ekki", 400, 440)), 800)
    first, *_ = await finals_of(1.32, said=said, ms=10, is_muted=True, endpoint_silence=3.5)
    assert first[1] == "einn ha"
    assert first[0] < 1.32 + 0.3 + 1.5 + 0.1


@pytest.mark.parametrize("stall", [0.2, 0.35, 0.8])
@in_virtual_time
async def test_a_stalled_loop_is_no_end_of_the_audio(stall: float) -> None:
    """The audio of that time comes right after the stall."""
    first, *_ = await finals_of(1.26, stall=stall)
    assert first[1] == "einn tveir"


@pytest.mark.many
@pytest.mark.parametrize("again_in", [0.05, 0.1, 0.15, 0.2, 0.25])
@pytest.mark.parametrize("ms", [10, 50])
@in_virtual_time
async def test_who_asks_again_waits_too(ms: int, again_in: float) -> None:
    first, second = await finals_of(1.28, ms=ms, again_in=again_in)
    assert (first[1], second[1]) == ("einn tveir", "ekki")
    assert 1.6 + 0.1 < first[0] < 1.6 + 0.35


@pytest.mark.many
@pytest.mark.parametrize("pause", [110, 150, 310])
@pytest.mark.parametrize(("lead", "ms"), [(0, 10), (10, 50), (50, 10)])
@in_virtual_time
async def test_a_late_flush_cuts_no_word_after_a_final(lead: int, ms: int, pause: int) -> None:
    """An end-of-turn detector flushes late, when the service has decided by itself.

    Where a call begins with words, the noise of the line is not known yet.
    """
    begins = lead + 40 + pause
    words = (Spoken("einn", lead, lead + 40), Spoken("tveir", begins, begins + 40))
    said = Talk(words, begins + 300, noise=100)
    finals = await finals_of(begins / 100 + 0.08, said=said, ms=ms, endpoint_silence=0.5)
    assert [text for _, text in finals] == ["einn", "tveir"]
    assert finals[1][0] < begins / 100 + 0.4 + 0.4


@in_virtual_time
async def test_many_who_wait_ask_once() -> None:
    async with TiroServer() as server, new_stt(server) as stt:
        stream, speech = stt.stream(), tone(0.4) + bytes(round(0.3 * RATE) * 2) + tone(0.1)
        for frame in frames(np.frombuffer(speech, np.int16)):
            stream.push_frame(frame)
            await asyncio.sleep(0.05)
        for _ in range(5):
            stream.flush()
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)
        assert server.connections[0].seconds == pytest.approx(0.8 + 2.5, abs=0.051)
        await stream.aclose()


@pytest.mark.parametrize("begins", [1.15, 1.2, 1.24])
@in_virtual_time
async def test_a_breath_is_no_word(begins: float) -> None:
    """The breath is 26 dB below the words, and lasts for a second."""
    said = replace(BEGUN, words=BEGUN.words[::2], noise=1)
    pcm, start = said.pcm(), round(begins * RATE)
    pcm[start : start + RATE] = np.resize([said.peak // 20, -said.peak // 20], RATE)
    first, *_ = await finals_of(1.26, said=said, pcm=pcm)
    assert first[1] == "einn"
    assert first[0] < 1.26 + 0.1


@pytest.mark.parametrize("text", ["Einn tveir.", "einn tveir,", "einn tveir…"])
@pytest.mark.parametrize("asking", ["endpointing", "flush"])
@in_virtual_time
async def test_silence_is_long_enough_for_every_rule(asking: str, text: str) -> None:
    """The endpointer waits for 0.5, 1.0 or 2.0 s, and the model looks 0.3 s ahead."""
    server = local_server(script=text, words_per_second=4)
    endpointing = 0.2 if asking == "endpointing" else None
    async with server, new_stt(server, endpointing=endpointing) as stt:
        stream = stt.stream()
        for frame in frames(talk(2, word=0.3, lead=0.3, gap=0.0).pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
        ended = asyncio.get_running_loop().time()
        if asking == "flush":
            stream.flush()
        for _ in range(8):
            stream.push_frame(rtc.AudioFrame(bytes(1600), 16000, 1, 800))
            await asyncio.sleep(0.05)
        event = await anext(event async for event in stream if event.type is FINAL)
        assert event.alternatives[0].text == "einn tveir"
        await stream.aclose()
    assert asyncio.get_running_loop().time() - ended < 0.45


@in_virtual_time
async def test_without_it_the_service_decides() -> None:
    assert await final_after(None) > 2.0


@pytest.mark.parametrize("value", [0.05, 2.1, "0.5", True])
def test_what_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"endpointing must be a number of seconds, from 0\.1 to 2"
    ):
        tiro.STT(api_key="test", endpointing=value)  # type: ignore[arg-type]


# -- what is quiet -------------------------------------------------------------------------------


def levels(*parts: tuple[float, int]) -> Loudness:
    """Return the measure of audio of so many seconds and such a level, one part after the other."""
    loudness = Loudness()
    loudness.set_rate(RATE)
    loudness.measure(b"".join(tone(seconds, level) for seconds, level in parts))
    return loudness


@pytest.mark.parametrize("peak", [12000, 120])
def test_quiet_is_measured_against_the_utterance(peak: int) -> None:
    """Room noise far below the voice is quiet, also where the same call is as soft as a whisper."""
    assert levels((1, peak), (0.5, peak // 20)).quiet_from(0) == RATE


def test_a_line_noisier_than_that_is_left_to_the_service() -> None:
    loudness = levels((3, 1500), (1, 12000), (2, 1500))
    assert loudness.quiet_from(0) == 6 * RATE, "nothing is quiet"


def test_a_click_is_no_measure() -> None:
    assert levels((1, 0), (0.04, 30000), (1, 900)).quiet_from(0) == 2.04 * RATE


def test_who_comes_to_speak_softly_is_not_cut() -> None:
    assert levels((1, 30000), (6, 900)).quiet_from(0) == 7 * RATE


def test_without_a_sound_nothing_is_quiet() -> None:
    assert levels((1, 0)).quiet_from(0) is None
    assert levels((0.04, 9000)).quiet_from(0) is None


# -- when it is asked ----------------------------------------------------------------------------

STEP = 800
"""Samples of 50 ms."""


class Asking:
    """A call in which audio is pushed, and the seconds at which its final is asked for."""

    def __init__(self, endpointing: float | None) -> None:
        self.watch = QuietWatch()
        self.endpointing = endpointing
        self.position = self.finals = self.looks = 0
        self.quiet_from: int | None = None
        self.asked: list[float] = []

    def hear(self, *, is_open: bool = True, final: bool = False) -> None:
        self.finals += final
        self.watch.note(
            self.position,
            is_open=is_open,
            finals=self.finals,
            endpointing=self.endpointing,
            rate=RATE,
        )

    def push(self, seconds: float, *, quiet: bool = False) -> None:
        for _ in range(round(seconds * 20)):
            self.position += STEP
            if not quiet:
                self.quiet_from = self.position
            now = self.position / RATE
            if self.position < self.watch.look_from:
                continue
            self.looks += 1
            if self.watch.is_due(self.position, self.quiet_from, now, STEP, silent=True):
                self.watch.asked(self.position, now + 2.5)
                self.asked.append(now)
            self.watch.look_again(self.quiet_from, STEP)


def test_it_asks_once_for_a_quiet() -> None:
    call = Asking(0.3)
    call.push(1)
    call.hear()
    call.push(3, quiet=True)
    call.push(1)
    call.push(1, quiet=True)
    assert call.asked == pytest.approx([1.3, 5.3])


def test_it_looks_when_the_quiet_can_be_long_enough_only() -> None:
    """Each look measures audio, and the shortest `endpointing` is 0.2 s."""
    call = Asking(0.3)
    call.push(0.05)
    call.hear()
    call.push(2)
    assert call.asked == [] and call.looks <= 2 / 0.15
    call.push(1, quiet=True)
    assert call.asked == pytest.approx([2.35])


@pytest.mark.parametrize("ms", [400, 500, 1000])
def test_the_end_of_a_long_frame_is_no_breath(ms: int) -> None:
    watch, step = QuietWatch(), ms * RATE // 1000
    watch.note(0, is_open=True, finals=0, endpointing=None, rate=RATE)
    for position in range(step, 19 * RATE, step):
        quiet_from = position - RATE // 50
        assert not watch.is_due(position, quiet_from, position / RATE, step, silent=True)
    position, long_ago = 19 * RATE, 19 * RATE - RATE // 5
    assert watch.is_due(position, long_ago, position / RATE, step, silent=True)


def test_soft_words_are_no_breath_until_it_is_late() -> None:
    watch = QuietWatch()
    watch.note(0, is_open=True, finals=0, endpointing=None, rate=RATE)

    def due(second: float, *, silent: bool) -> bool:
        position = round(second * RATE)
        return watch.is_due(position, position - RATE // 2, second, STEP, silent=silent)

    assert not due(11.9, silent=True)
    assert due(12.1, silent=True)
    assert not due(14.9, silent=False)
    assert due(15.1, silent=False)


def test_it_does_not_ask_while_it_is_answered() -> None:
    call = Asking(0.3)
    call.push(1)
    call.hear()
    call.push(0.5, quiet=True)
    call.push(1)
    call.push(0.5, quiet=True)
    assert call.asked == pytest.approx([1.3]), "the silence takes 2.5 s at the pace of speech"
    call.hear(final=True)
    call.push(0.5)
    call.push(0.5, quiet=True)
    assert call.asked == pytest.approx([1.3, 3.8])


def test_it_does_not_ask_again_for_what_others_asked_for() -> None:
    call = Asking(0.3)
    call.push(1)
    call.hear()
    call.push(0.1, quiet=True)
    call.watch.asked(call.position, call.position / RATE + 2.5)
    call.push(5, quiet=True)
    assert call.asked == []


@pytest.mark.parametrize("endpointing", [0.1, 0.5, None])
def test_nothing_is_asked_without_a_hypothesis(endpointing: float | None) -> None:
    call = Asking(endpointing)
    for is_open in (True, False):
        call.hear(is_open=is_open)
    call.push(15)
    call.push(5, quiet=True)
    assert call.asked == []


@pytest.mark.parametrize(("endpointing", "at"), [(None, 0.2), (1.0, 0.2), (0.1, 0.1)])
def test_a_monologue_is_cut_at_the_first_short_quiet(endpointing: float | None, at: float) -> None:
    call = Asking(endpointing)
    call.hear()
    call.push(11)
    call.push(0.05, quiet=True)
    call.push(2)
    call.push(0.4, quiet=True)
    assert call.asked == pytest.approx([13.05 + at])
    call.hear(final=True)
    call.push(11)
    call.push(0.05, quiet=True)
    assert len(call.asked) == 1, "the time is that since the final"


# -- a flush that waits for a pause ----------------------------------------------------------------


@pytest.mark.parametrize("ms", [5, 10, 15, 20])
@pytest.mark.parametrize("peak", [0, 300])
def test_the_next_word_ends_the_quiet_from_its_first_samples(peak: int, ms: int) -> None:
    """Less than 20 ms of it is not measured yet."""
    backlog, watch = Backlog(), QuietWatch()
    backlog.push(noise(0.5, peak) + tone(0.5), RATE)
    watch.wait_for_pause(backlog)
    backlog.push(noise(0.19, peak), RATE)
    assert watch.quiet_from(backlog) == RATE
    backlog.push(tone(ms / 1000), RATE)
    assert watch.quiet_from(backlog) == backlog.end


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("somebody_waits", [False, True])
def test_a_new_connection_waits_for_a_pause_after_what_nobody_has_asked_for(
    somebody_waits: bool, flushed: bool
) -> None:
    backlog, watch = Backlog(), QuietWatch()
    backlog.push(noise(0.5, 0) + tone(0.5), RATE)
    if flushed:
        backlog.flush()
        backlog.push(noise(0.1, 0), RATE)
    watch.take_over(backlog, somebody_waits=somebody_waits)
    assert watch.is_waiting == (somebody_waits and not flushed)
    assert watch.waits_from == (RATE // 2 if watch.is_waiting else 0)
    assert watch.look_from == watch.due_from == (RATE // 2 if watch.is_waiting else inf)


def test_a_flush_waits_for_so_much_quiet_and_looks_no_sooner() -> None:
    backlog, watch = Backlog(), QuietWatch()
    backlog.push(tone(1.0), RATE)
    watch.wait_for_pause(backlog)
    watch.look_again(None, STEP)
    assert watch.look_from == RATE, "no quiet is known"
    watch.look_again(RATE, STEP)
    assert watch.look_from == RATE + NEXT_PAUSE * RATE - STEP / 2

    def due(seconds: float) -> bool:
        return watch.is_due(round((1 + seconds) * RATE), RATE, 99.0, STEP, silent=False)

    assert not due(NEXT_PAUSE - 0.026)
    assert due(NEXT_PAUSE - 0.024)
    watch.asked(2 * RATE, 101.5)
    assert not watch.is_waiting and not due(5.0)


# -- in a monologue -------------------------------------------------------------------------------


@in_virtual_time
async def test_the_service_is_asked_in_a_monologue() -> None:
    """It would cut after 20 s, in the middle of a word."""
    said = talk(44, 30, gap=0.3)
    server = TiroServer(recognizers={"is": NumberedRecognizer(said)}, endpoint_silence=1.0)
    async with server, tiro.STT(base_url=server.base_url, api_key="test") as stt:
        stream = stt.stream()
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
        stream.end_input()
        texts = [e.alternatives[0].text async for e in stream if e.type is FINAL]
    assert texts == [" ".join(said.texts[:44]), " ".join(said.texts[44:])]


@pytest.mark.many
@pytest.mark.parametrize("dropped_at", [5.5, 8.0])
@in_virtual_time
async def test_the_service_is_asked_in_a_monologue_that_is_sent_again(dropped_at: float) -> None:
    """Open speech counts from where the new connection is fed, not from where the caller is."""
    said = talk(44, 30, gap=0.3, word=0.4)
    outcome = await hear(said, PerConnection(Disconnect(dropped_at)), live=True, patience=6)
    assert outcome.is_exact, str(outcome)


@in_virtual_time
async def test_the_service_is_asked_in_a_monologue_that_began_without_a_connection() -> None:
    said = talk(44, 30, gap=0.3, word=0.4)
    away = PerConnection(Disconnect(0.3), *[Refuse(503, delay=2.0)] * 2)
    outcome = await hear(said, away, live=True, patience=6, max_retry=7)
    assert outcome.is_exact, str(outcome)
