"""When the service is asked for a final. Ids are of the contract with the framework (L: life).

What is asked for in a word, or by `endpointing`, is in `test_endpointing.py`.
"""

from __future__ import annotations

import asyncio
from math import inf
from unittest import mock

import pytest

from livekit import rtc
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.endpointer import FLUSH_SILENCE
from livekit.plugins.tiro.flusher import Flusher, _Timer as Timer, has_begun_anew, mark_flush

from .support import virtual
from .support.caller import RATE as CALLER_RATE, noise, quiet, samples, tone
from .support.fake_socket import RATE, frame
from .support.harness import FINAL, finals
from .support.numbered import talk
from .support.session_fakes import in_virtual_time
from .support.trial import hear
from .support.trouble import Pace
from .support.wired import EMPTY, WiredCall, hypothesis, said, silence_on, wired

MS = RATE // 1000
QUIET = rtc.AudioFrame(bytes(100 * MS), RATE, 1, 50 * MS)


@in_virtual_time
async def test_an_utterance_is_flushed_when_the_audio_stops() -> None:
    """The service's endpointer runs on audio: without any, it would wait for ever."""
    async with wired(EMPTY) as call:
        await call.push(frame(50), 20)
        await asyncio.sleep(5)
        assert FLUSH_SILENCE <= silence_on(call.wires.last) < FLUSH_SILENCE + 0.5, (
            "once for a pause"
        )


@in_virtual_time
async def test_who_waits_for_a_final_after_a_pause_asks_once_more() -> None:
    """The silence of the pause can have been too short for the service's endpointer."""
    async with wired(EMPTY) as call:
        await call.push(frame(50), 20)
        await asyncio.sleep(5)
        call.stream.flush()
        await asyncio.sleep(1)
        assert silence_on(call.wires.last) < FLUSH_SILENCE + 0.5, "it may yet answer"
        await asyncio.sleep(5)
        assert 2 * FLUSH_SILENCE <= silence_on(call.wires.last) < 2 * FLUSH_SILENCE + 0.5


@in_virtual_time
async def test_what_is_held_stays_so_while_more_comes() -> None:
    async with wired(EMPTY) as call:
        await call.push(QUIET, 21)
        call.stream.flush()
        for frames in range(22, 42):
            await call.push(QUIET)
            assert len(call.wires.last.audio) / 2 / RATE <= frames * 0.05 - 0.15 + 0.001


# -- a service that is behind ----------------------------------------------------------------------


def flusher_of(call: WiredCall) -> Flusher:
    exchange = call.stream._exchange
    assert exchange is not None
    return exchange._flusher


async def begin_anew(call: WiredCall, *, pause: int = 6) -> None:
    """Speak, pause for `pause` frames, and begin another word."""
    await call.push(frame(50), 20)
    call.hear(hypothesis(0.9))
    await call.push(QUIET, pause)
    await call.push(frame(50), 2)


async def fall_behind(call: WiredCall, *, by: float = 2.5) -> None:
    """Speak, flush, and speak on to a service that has yet to work off that silence."""
    await call.push(frame(50), 20)
    call.hear(hypothesis(0.9))
    await asyncio.sleep(0.01)
    call.stream.flush()
    call.hear(said("einn", 0.1, 1.0))
    await call.push(QUIET, 10)
    await call.push(frame(50), 60)
    call.hear(hypothesis(1.0 + FLUSH_SILENCE + 0.5 + 3.0 - by))
    await call.push(QUIET, 4)
    assert silence_on(call.wires.last) == pytest.approx(FLUSH_SILENCE + 0.7, abs=0.05)


@in_virtual_time
async def test_a_service_that_is_behind_is_left_to_the_quiet_of_the_call() -> None:
    """Injected silence takes the service as long as audio, and would put it further behind."""
    async with wired(EMPTY) as call:
        await fall_behind(call)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await call.push(QUIET, 10)
        call.hear(said("tveir", 4.1, 7.0))
        await call.push(QUIET, 40)
        assert silence_on(call.wires.last) - before < 2.6
        assert finals(call.events) == ["einn", "tveir"]


@in_virtual_time
async def test_the_final_of_something_earlier_is_no_answer() -> None:
    """The microphone is off, so that nobody else asks."""
    async with wired(EMPTY) as call:
        await fall_behind(call)
        call.stream.flush()
        before = silence_on(call.wires.last)
        call.hear(said("tveir", 4.1, 5.0))
        await asyncio.sleep(0.5)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)


@in_virtual_time
async def test_a_service_that_is_far_away_is_asked_at_once() -> None:
    """All its answers are late, but no later from turn to turn."""
    async with wired(EMPTY) as call:
        await call.push(frame(50), 100)
        call.hear(hypothesis(2.0))
        await call.push(QUIET, 4)
        for _ in range(3):
            before = silence_on(call.wires.last)
            call.stream.flush()
            await asyncio.sleep(0.01)
            assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)
            await call.push(frame(50), 60)
            call.hear(hypothesis(len(call.wires.last.audio) / 2 / RATE - 3.0))
            await call.push(QUIET, 4)


@in_virtual_time
async def test_who_catches_up_is_asked() -> None:
    async with wired(EMPTY) as call:
        await fall_behind(call)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await asyncio.sleep(0.01)
        assert silence_on(call.wires.last) == before
        call.hear(hypothesis(6.9))
        await call.push(QUIET, 10)
        assert silence_on(call.wires.last) - before >= FLUSH_SILENCE + 0.3


@in_virtual_time
async def test_who_is_not_behind_by_much_is_asked_at_once() -> None:
    async with wired(EMPTY) as call:
        await fall_behind(call, by=1.5)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await asyncio.sleep(0.01)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)


@in_virtual_time
async def test_without_more_audio_it_is_asked() -> None:
    """A microphone that is off sends no quiet audio either."""
    async with wired(EMPTY) as call:
        await fall_behind(call)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await asyncio.sleep(0.2)
        assert silence_on(call.wires.last) == before
        await asyncio.sleep(0.2)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)
        await asyncio.sleep(2.0)
        assert silence_on(call.wires.last) - before < FLUSH_SILENCE + 0.5, "it is busy with that"
        await asyncio.sleep(4.0)
        assert silence_on(call.wires.last) - before >= 2 * FLUSH_SILENCE - 0.2, "once more"


@in_virtual_time
async def test_it_is_asked_in_the_end() -> None:
    """There has been more quiet than any rule of the service needs."""
    async with wired(EMPTY) as call:
        await fall_behind(call)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await call.push(QUIET, 20 * 3)
        assert silence_on(call.wires.last) - before < 3.1
        await call.push(QUIET, 20 * 4)
        assert silence_on(call.wires.last) - before >= 7.0 - 0.5 + FLUSH_SILENCE
        assert [event.type for event in call.events].count(FINAL) == 1


@in_virtual_time
async def test_a_new_connection_is_asked_where_the_flush_was() -> None:
    async with wired(EMPTY) as call:
        await fall_behind(call)
        call.stream.flush()
        await asyncio.sleep(0.01)
        assert silence_on(call.wires.last) < FLUSH_SILENCE + 1.0, "not asked yet"
        await call.push(frame(50), 10)
        call.wires.last.die()
        await call.push(frame(50), 10)
        assert len(call.wires.opened) == 2
        silent = samples(call.wires.last.audio) == 0
        assert silent.sum() / RATE == pytest.approx(FLUSH_SILENCE + 0.7, abs=0.1)
        assert not silent[-RATE // 2 :].any(), "the words after the flush follow its silence"


@in_virtual_time
async def test_a_file_is_asked_for_wherever_the_service_is() -> None:
    """The audio is pushed faster than it was said: no quiet of a call brings the final in time."""
    async with wired(EMPTY) as call:
        for heard in (0.9, 1.0 + FLUSH_SILENCE + 0.5):
            for _ in range(20 * 5):
                call.stream.push_frame(frame(50))
            await asyncio.sleep(0.2)
            call.hear(hypothesis(heard))
            await asyncio.sleep(0.01)
            call.stream.flush()
            await asyncio.sleep(0.2)
        assert silence_on(call.wires.last) == pytest.approx(2 * FLUSH_SILENCE, abs=0.2)


@pytest.mark.many
@pytest.mark.parametrize(("pace", "most"), [(1.0, 6.0), (1.3, 5.0), (2.0, 1.0)])
def test_flushes_do_not_make_a_slow_service_slower(pace: float, most: float) -> None:
    """Each turn of a call is flushed, and each final is that late at most."""
    turns = talk(*[1] * 16, word=1.0, gap=1.5)
    flushes = {word.end + 0.4: 1 for word in turns.words}
    outcome = virtual.run(hear(turns, Pace(pace), live=True, flushes=flushes))
    assert not outcome.broken()
    assert max(outcome.delays) < most, outcome.delays


@in_virtual_time
async def test_endpointing_leaves_it_to_the_quiet_too() -> None:
    async with wired(EMPTY) as call:
        call.stream.update_options(endpointing=0.3)
        await fall_behind(call)
        before = silence_on(call.wires.last)
        await call.push(QUIET, 20)
        assert silence_on(call.wires.last) - before == pytest.approx(1.0, abs=0.06)
        call.hear(hypothesis(6.9))
        await call.push(QUIET, 4)
        assert silence_on(call.wires.last) - before > 1.0 + FLUSH_SILENCE


@in_virtual_time
async def test_an_earlier_flush_does_not_ask_for_one_that_waits() -> None:
    async with wired(EMPTY) as call:
        await fall_behind(call)
        flusher = flusher_of(call)
        before = silence_on(call.wires.last)
        flusher.ask_again_at = asyncio.get_running_loop().time() + 0.01
        call.stream.flush()
        assert flusher.ask_again_at == inf
        await call.push(QUIET, 10)
        assert silence_on(call.wires.last) - before == pytest.approx(0.5, abs=0.06)


@in_virtual_time
async def test_a_monologue_is_cut_at_a_breath_all_the_same() -> None:
    """Otherwise the service would cut a word."""
    async with wired(EMPTY) as call:
        await fall_behind(call)
        await call.push(frame(50), 20 * 12)
        call.hear(hypothesis(16.7 + FLUSH_SILENCE - 2.5))
        await asyncio.sleep(0.01)
        before = silence_on(call.wires.last)
        await call.push(QUIET, 6)
        assert silence_on(call.wires.last) - before > FLUSH_SILENCE


# -- a word that has begun -------------------------------------------------------------------------


@in_virtual_time
async def test_noise_is_no_word_to_wait_for() -> None:
    """It began like a word, but the service keeps up and hears no word in it."""
    async with wired(EMPTY) as call:
        await begin_anew(call, pause=40)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await call.push(frame(50, level=1500), 20)
        assert silence_on(call.wires.last) == before, "it may be a word"
        await call.push(frame(50, level=1500), 20)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)


@in_virtual_time
async def test_nor_is_it_to_a_service_that_has_a_little_to_do() -> None:
    """Live audio always keeps it a little busy: that is no reason to wait for ever."""
    async with wired(EMPTY) as call:
        await begin_anew(call, pause=40)
        before = silence_on(call.wires.last)
        call.stream.flush()
        call.stream._feed.drained_at += 0.4
        await call.push(frame(50, level=1500), 45)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)


@in_virtual_time
async def test_nor_on_a_connection_that_was_opened_in_the_utterance() -> None:
    """Its hypotheses are about an utterance that began on the connection before."""
    async with wired(EMPTY) as call:
        await begin_anew(call)
        call.stream.flush()
        call.wires.last.die()
        await call.push(frame(50, level=1500), 4)
        assert len(call.wires.opened) == 2
        call.hear(hypothesis(0.9))
        await call.push(frame(50, level=1500), 20)
        assert silence_on(call.wires.last) < 0.5, "it may be a word"
        await call.push(frame(50, level=1500), 25)
        assert silence_on(call.wires.last) == pytest.approx(0.3 + FLUSH_SILENCE, abs=0.2)


@in_virtual_time
async def test_an_empty_flush_stops_nobody_who_waits() -> None:
    """The empty flush and the one that waits share a timer."""
    async with wired(EMPTY) as call:
        await begin_anew(call)
        before = silence_on(call.wires.last)
        call.stream.flush()
        flusher_of(call).send_held_unless_more_comes()
        await asyncio.sleep(0.5)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)


@in_virtual_time
async def test_a_loop_that_is_always_late_asks_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Timer, "is_late", True)
    async with wired(EMPTY) as call:
        await begin_anew(call)
        before = silence_on(call.wires.last)
        call.stream.flush()
        await asyncio.sleep(0.4)
        assert silence_on(call.wires.last) == before
        await asyncio.sleep(0.3)
        assert silence_on(call.wires.last) - before == pytest.approx(FLUSH_SILENCE, abs=0.2)


# -- the end of a connection -----------------------------------------------------------------------


@in_virtual_time
async def test_nothing_is_asked_for_after_the_end() -> None:
    """L: only the service's answer is left to wait for."""
    async with wired(EMPTY) as call:
        await fall_behind(call)
        call.stream.flush()
        flusher = flusher_of(call)
        call.stream.end_input()
        with mock.patch.object(flusher, "_ask") as ask:
            await asyncio.sleep(3.0)
        ask.assert_not_called()


@in_virtual_time
async def test_nothing_is_asked_of_a_connection_that_is_over() -> None:
    async with wired(EMPTY) as call:
        await fall_behind(call)
        call.stream.flush()
        flusher = flusher_of(call)
        call.wires.last.die()
        await asyncio.sleep(0.1)
        assert flusher_of(call) is not flusher
        with (
            mock.patch.object(flusher, "_ask") as ask,
            mock.patch.object(flusher._feed, "release") as release,
        ):
            flusher.send_held_unless_more_comes()
            await asyncio.sleep(1.0)
        ask.assert_not_called()
        release.assert_not_called()


@in_virtual_time
async def test_nor_of_one_that_begins_after_the_end() -> None:
    async with wired(EMPTY) as call:
        await begin_anew(call)
        call.stream.flush()
        call.stream.end_input()
        call.wires.last.die()
        await asyncio.sleep(0.1)
        with mock.patch.object(flusher_of(call), "_ask") as ask:
            await asyncio.sleep(1.0)
        ask.assert_not_called()


# -- without a connection --------------------------------------------------------------------------


@pytest.mark.parametrize("peak", [0, 30, 100, 300])
@pytest.mark.parametrize("silent", [0.5, 0.0])
def test_a_flush_is_marked_in_the_pause_that_somebody_waits_for(silent: float, peak: int) -> None:
    """It is quiet against the words before, however loud the line is."""
    backlog = Backlog()
    for pcm in (quiet(silent), tone(0.6), noise(0.35, peak)):
        backlog.push(pcm, RATE)
    mark_flush(backlog, Clock(), somebody_waits=True)
    assert backlog.flushes == [backlog.end]


@pytest.mark.parametrize("peak", [0, 30, 100, 300])
@pytest.mark.parametrize("paused", [0.0, 0.1, 0.35])
def test_none_is_marked_in_a_word(paused: float, peak: int) -> None:
    """Silence would cut the word: the next connection asks in the pause after it."""
    backlog = Backlog()
    for pcm in (tone(0.6), noise(paused, peak), tone(0.08)):
        backlog.push(pcm, RATE)
    mark_flush(backlog, Clock(), somebody_waits=True)
    assert not backlog.flushes


@pytest.mark.parametrize("ms", [50, 200, 500])
@in_virtual_time
async def test_a_word_is_not_cut_between_two_long_frames(ms: int) -> None:
    """Each frame comes as late as it is long, and there is no pause before it."""
    async with wired() as call:
        await call.push(frame(500), 2)
        call.hear(hypothesis(0.9))
        await call.push(_ends_loud(500))
        call.stream.flush()
        for _ in range(2000 // ms):
            await asyncio.sleep(ms / 1000)
            call.stream.push_frame(frame(ms))
        assert silence_on(call.wires.last) < 0.5, "what was said"
        await asyncio.sleep(ms / 1000 + 0.5)
        assert silence_on(call.wires.last) >= FLUSH_SILENCE, "no more comes"


def _ends_loud(ms: int) -> rtc.AudioFrame:
    """Return quiet in which a word begins 0.1 s before its end."""
    said = frame(100).data.tobytes()
    pcm = bytes(2 * RATE * (ms - 100) // 1000) + said
    return rtc.AudioFrame(pcm, RATE, 1, len(pcm) // 2)


@pytest.mark.parametrize("interims", [True, False])
def test_turns_do_not_put_a_slow_service_further_behind(interims: bool) -> None:
    """Each flush of a VAD adds silence, and finals alone can tell that the service is behind."""
    words = talk(*[1] * 20, word=0.8, gap=1.6)
    flushes = {round(word.end + 0.4, 2): 1 for word in words.words}
    slow = hear(words, Pace(1.15), live=True, flushes=flushes, interims=interims)
    outcome = virtual.run(slow)
    assert outcome.is_exact
    assert max(outcome.delays) < 9


# -- a word that has begun -----------------------------------------------------------------------


def holding(audio: bytes) -> Backlog:
    backlog = Backlog()
    backlog.push(audio, CALLER_RATE)
    return backlog


@pytest.mark.parametrize("ms", [5, 20, 50, 100, 140])
@pytest.mark.parametrize("pause", [0.26, 0.36, 1.0])
def test_a_word_has_begun_after_a_pause(ms: int, pause: float) -> None:
    assert has_begun_anew(holding(tone(0.5) + quiet(pause) + tone(ms / 1000)))


@pytest.mark.parametrize("peak", [1, 30, 100])
def test_so_it_has_where_the_noise_of_the_line_is_not_known_yet(peak: int) -> None:
    audio = noise(0.5, peak) + tone(0.5) + noise(0.3, peak) + tone(0.08)
    backlog = holding(audio)
    assert not backlog.loudness.is_learned
    assert has_begun_anew(backlog)


@pytest.mark.parametrize("peak", [1, 30, 100])
def test_so_it_has_where_all_the_words_before_are_final(peak: int) -> None:
    backlog = holding(tone(0.5) + noise(0.8, peak) + tone(0.08))
    backlog.finalize(0, round(0.5 * CALLER_RATE))
    assert not backlog.loudness.is_learned
    assert has_begun_anew(backlog, after_final=True)
    backlog.push(tone(0.2), CALLER_RATE)
    assert not has_begun_anew(backlog, after_final=True), "it began some time ago"


def test_soft_words_that_are_open_are_no_pause_after_loud_ones_that_are_final() -> None:
    backlog = holding(tone(0.5) + noise(0.8, 1) + tone(2.0, level=250))
    backlog.finalize(0, round(0.5 * CALLER_RATE))
    backlog.set_speaking(True)
    assert not has_begun_anew(backlog, after_final=True)


@pytest.mark.parametrize(
    "audio",
    [
        b"",
        tone(0.05),
        # The end of a word, or of speech with a gap too short for a pause.
        tone(0.5) + quiet(0.3) + tone(0.3),
        tone(0.5) + quiet(0.05) + tone(0.05),
        tone(1.0),
        # A pause goes on.
        tone(0.5) + quiet(0.3),
        tone(0.5) + quiet(0.3) + tone(0.04) + quiet(0.04),
        noise(0.5, 100) + tone(0.5) + noise(0.31, 100),
        # There is no word but that one: a flush as it ends means that the caller is done.
        quiet(2.0) + tone(0.1),
        quiet(0.1) + tone(0.18),
        noise(1.0, 5) + tone(0.12),
        noise(1.0, 300) + tone(0.15),
        # A breath, 20 dB below the words.
        tone(0.5) + quiet(0.3) + noise(0.1, 290),
    ],
    ids=range(13),
)
def test_no_word_has_begun(audio: bytes) -> None:
    assert not has_begun_anew(holding(audio))


def test_a_word_after_a_pause_in_an_open_hypothesis_is_not_its_first() -> None:
    """The words before it may have been dropped."""
    backlog = holding(quiet(2.0) + tone(0.1))
    backlog.set_speaking(True)
    assert has_begun_anew(backlog)
