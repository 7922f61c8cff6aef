"""What goes over a connection: as it is pushed, or by the send task; and when it is looked after.

Ids are of the contract with the framework (L: life, I: input).
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, strategies as st

from livekit import rtc
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins import tiro
from livekit.plugins.tiro.endpointer import FLUSH_SILENCE
from livekit.plugins.tiro.protocol import END_OF_AUDIO
from livekit.plugins.tiro.testing import ConnectionRecord, TiroServer
from livekit.plugins.tiro.testing.faults import Combined, Disconnect, PerConnection
from livekit.plugins.tiro.watch import DRAIN_TIMEOUT

from .support import virtual
from .support.caller import numbers, samples
from .support.examples import examples
from .support.fake_socket import RATE, FakeMessage, FakeSocket, calling, frame
from .support.harness import FINAL, finals, frames
from .support.numbered import NumberedRecognizer, Spoken, Talk
from .support.session_fakes import in_virtual_time
from .support.trial import hear
from .support.trouble import Pace, SilenceLimit
from .support.wired import EMPTY, hypothesis, said, silence_on, wired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .support.wire import Wire
    from .support.wired import WiredCall

MS = RATE // 1000
FIRST = 400
"""What the first 10 ms of numbered audio hold: no quieter than speech can be."""


@dataclass
class Recorder(FakeSocket):
    """Keeps the audio of each connection, and can be full or broken."""

    connections: list[bytearray] = field(default_factory=list)
    _drain_waiter: asyncio.Future[None] | None = None
    """What a message waits for, once it is sent, while there is no room."""
    broken = False
    """Whether no more can be sent on this connection, which its reader does not notice."""

    def fill(self) -> None:
        """Have no room until `empty`."""
        self._drain_waiter = asyncio.get_running_loop().create_future()

    def empty(self) -> None:
        if self._drain_waiter is not None:
            self._drain_waiter.set_result(None)
            self._drain_waiter = None

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        socket = cast("Recorder", self._itself)
        socket.connections.append(bytearray())
        socket.config, socket.broken = b"", False
        return socket

    async def send_frame(self, message: bytes, kind: aiohttp.WSMsgType) -> None:
        if self.broken:
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        if self.config and kind is aiohttp.WSMsgType.TEXT:
            self.connections[-1] += b64decode(json.loads(message)["audioContent"])
        await super().send_frame(message, kind)
        if self._drain_waiter is not None:
            # As in aiohttp: one that gives up waiting does not end the wait of others.
            await self._drain_waiter
        if self.broken:
            raise aiohttp.ClientConnectionResetError("Connection lost")

    def numbers(self, connection: int = -1) -> list[int]:
        """Return the number that each 10 ms of audio on a connection hold, silence left out."""
        held = np.frombuffer(self.connections[connection], np.int16)[:: 10 * MS]
        return [int(number) for number in held if number >= FIRST]


def numbered(first: int, count: int, ms: int = 50) -> list[rtc.AudioFrame]:
    """Return frames of `ms` in which each 10 ms hold another number, from `FIRST + first` on.

    Samples alternate in sign: audio of one sign only is no sound.
    """
    blocks = ms // 10
    numbers = np.arange(FIRST + first, FIRST + first + count * blocks, dtype=np.int16)
    pairs = np.stack((numbers, -numbers), axis=1)
    parts = np.tile(pairs, 5 * MS).reshape(count, -1)
    return [rtc.AudioFrame(part.tobytes(), RATE, 1, part.size) for part in parts]


def all_of(frames: Sequence[rtc.AudioFrame]) -> list[int]:
    """Return the numbers that frames hold."""
    return [int(n) for pushed in frames for n in np.frombuffer(pushed.data, np.int16)[:: 10 * MS]]


QUIET = frame(50, FIRST - 1)
"""Loud enough for the line not to be silent, so that nothing is held back."""


@in_virtual_time
async def test_a_chunk_is_out_before_push_frame_returns() -> None:
    async with calling(QUIET, socket := Recorder()) as call:
        for number, pushed in enumerate(numbered(0, 20)):
            call.stream.push_frame(pushed)
            assert len(socket.numbers()) == 5 * (number + 1)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("ms", [10, 30, 60, 120])
@in_virtual_time
async def test_frames_of_any_length_lose_nothing(ms: int) -> None:
    pushed = numbered(0, 1200 // ms, ms)
    async with calling(QUIET, socket := Recorder()) as call:
        for number, part in enumerate(pushed):
            call.stream.push_frame(part)
            # All whole chunks are out.
            assert len(socket.numbers()) == (number + 1) * ms // 50 * 5
            await asyncio.sleep(part.duration)
        assert socket.numbers() == all_of(pushed)


@in_virtual_time
async def test_a_chunk_that_has_to_wait_for_room_is_sent_once_and_stops_all_that_follow() -> None:
    pushed = numbered(0, 30)
    async with calling(QUIET, socket := Recorder()) as call:
        socket.fill()
        await call.push(*pushed[:20])
        assert socket.numbers() == all_of(pushed[:1])
        socket.empty()
        await call.push(*pushed[20:])
        assert socket.numbers() == all_of(pushed)


@in_virtual_time
async def test_a_connection_can_fail_while_a_chunk_waits_for_room() -> None:
    pushed = numbered(0, 40)
    async with calling(QUIET, socket := Recorder()) as call:
        await call.hear(b'{"result": {"results": []}}')
        socket.fill()
        await call.push(*pushed[:10])
        socket.broken = True
        socket.empty()
        await call.push(*pushed[10:])
        assert len(socket.connections) == 2
        assert socket.numbers(0) == all_of(pushed[:1])
        assert socket.numbers(1) == all_of(pushed)


@in_virtual_time
async def test_a_stream_can_be_closed_while_a_chunk_waits_for_room() -> None:
    async with calling(QUIET, socket := Recorder()) as call:
        socket.fill()
        await call.push(*numbered(0, 10))
        await call.stream.aclose()
        assert socket.is_released


@in_virtual_time
async def test_a_chunk_that_fails_is_sent_again_on_the_next_connection() -> None:
    pushed = numbered(0, 40)
    async with calling(QUIET, socket := Recorder()) as call:
        await call.hear(b'{"result": {"results": []}}')
        await call.push(*pushed[:10])
        socket.broken = True
        await call.push(*pushed[10:])
        assert len(socket.connections) == 2
        assert socket.numbers(0) == all_of(pushed[:10])
        assert socket.numbers(1) == all_of(pushed)


@in_virtual_time
async def test_what_follows_a_flush_stays_after_it() -> None:
    pushed = numbered(0, 20)
    async with calling(QUIET, socket := Recorder()) as call:
        for part in pushed[:10]:
            call.stream.push_frame(part)
        call.stream.flush()
        for part in pushed[10:]:
            call.stream.push_frame(part)
        assert socket.numbers() == all_of(pushed[:10])
        await asyncio.sleep(0.1)
        assert socket.numbers() == all_of(pushed)
        held = np.frombuffer(socket.connections[-1], np.int16)
        before, after = (int(np.flatnonzero(held == n)[0]) for n in (FIRST + 49, FIRST + 50))
        assert (after - before) / RATE >= FLUSH_SILENCE


@in_virtual_time
async def test_a_burst_goes_at_its_pace() -> None:
    """The rest is for the send task, which lets the receive task have its turn."""
    pushed = numbered(0, 200)
    async with calling(QUIET, socket := Recorder()) as call:
        for part in pushed:
            call.stream.push_frame(part)
        assert len(socket.numbers()) <= 400
        await asyncio.sleep(0.1)
        assert socket.numbers() == all_of(pushed)


@in_virtual_time
async def test_a_burst_is_pinged_each_two_seconds_of_it() -> None:
    """A slow reader can show that it reads."""
    async with wired(EMPTY) as call:
        for _ in range(20 * 20):
            call.stream.push_frame(frame(50))
        await asyncio.sleep(0.5)
        pings = call.wires.last.of(aiohttp.WSMsgType.PING)
        asked = [0, *(int.from_bytes(position, "big") / RATE for position in pings)]
        assert len(call.wires.last.audio) / 2 / RATE == pytest.approx(20, abs=0.1)
        assert asked == pytest.approx([2.05 * number for number in range(10)]), "and a message"


@in_virtual_time
async def test_a_frame_of_another_rate_is_refused_in_mid_call() -> None:
    pushed = numbered(0, 10)
    async with calling(QUIET, socket := Recorder()) as call:
        await call.push(*pushed[:5])
        with pytest.raises(ValueError, match="sample rate"):
            call.stream.push_frame(rtc.AudioFrame(bytes(3200), 16000, 1, 1600))
        await call.push(*pushed[5:])
        assert socket.numbers() == all_of(pushed)


@in_virtual_time
async def test_nothing_is_passed_on_once_the_input_ended() -> None:
    async with calling(QUIET, socket := Recorder()) as call:
        call.stream.end_input()
        with pytest.raises(RuntimeError, match="input ended"):
            call.stream.push_frame(numbered(0, 1)[0])
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="input ended"):
            call.stream.push_frame(numbered(0, 1)[0])
        assert socket.numbers() == []


# -- a call on wires that fill up and break ------------------------------------------------------


def tagged(first: int, ms: int) -> rtc.AudioFrame:
    """Return audio in which each sample tells where it is."""
    count = RATE * ms // 1000
    return rtc.AudioFrame(numbers(first, count).astype(np.int16).tobytes(), RATE, 1, count)


HELD_AT_MOST = 0.3
"""Seconds: 150 ms of quiet and the first 100 ms of a sound are held back, and a chunk is 50 ms."""


def assert_whole(wires: Sequence[Wire], pushed: int) -> None:
    """Each connection got the audio from its start on, in order, each sample once."""
    for wire in wires:
        values = samples(wire.audio)
        voiced = values[values != 0]
        assert np.array_equal(voiced, numbers(0, len(voiced))), "lost, doubled or out of order"
    last = samples(wires[-1].audio)
    assert pushed - np.count_nonzero(last) < HELD_AT_MOST * RATE, "not all of it is out"


# -- the line does what it likes -----------------------------------------------------------------

ACTS = st.sampled_from(
    ["push", "push", "push", "wait", "fill", "empty", "die", "vanish", "break", "ping", "flush"]
)


async def act(call: WiredCall, what: str) -> None:
    """Do one thing to the line."""
    wire = call.wires.last
    if what == "wait":
        await asyncio.sleep(0.02)
    elif what == "fill":
        wire.fill()
    elif what == "empty":
        wire.empty()
    elif what == "ping":
        wire.inbox.put_nowait(FakeMessage(b"?", aiohttp.WSMsgType.PING))
    elif what == "flush":
        call.stream.flush()
    elif len(call.wires.opened) < 3:
        wire.die(ConnectionError("x") if what == "break" else None, seen=what != "vanish")


@examples(60)
@given(
    st.sampled_from([5, 10, 20, 30, 50, 60, 100]),
    st.lists(st.tuples(ACTS, st.integers(0, 3)), min_size=5, max_size=30),
)
@example(5, [("push", 0), ("push", 0), ("die", 0)])
def test_nothing_is_lost_whatever_the_line_does(ms: int, acts: list[tuple[str, int]]) -> None:
    """`push_frame` never raises for the line; the loop gets its turns at random places."""

    async def conversation() -> None:
        async with wired(EMPTY) as call:
            pushed = 0
            for what, turns in acts:
                if what == "push":
                    audio = tagged(pushed, ms)
                    call.stream.push_frame(audio)
                    pushed += audio.samples_per_channel
                else:
                    await act(call, what)
                for _ in range(turns):
                    await asyncio.sleep(0)
            for _ in range(8):
                # A connection that opens late has room as well.
                call.wires.last.empty()
                await asyncio.sleep(1)
                # Long enough for held-back audio to go out.
                audio = tagged(pushed, max(ms, 30))
                call.stream.push_frame(audio)
                pushed += audio.samples_per_channel
            await asyncio.sleep(0.1)
            assert call.fault is None
            assert_whole(call.wires.opened, pushed)

    virtual.run(conversation(), debug=False)


@pytest.mark.parametrize("ms", [5, 20, 100])
@pytest.mark.parametrize("full", [False, True])
@in_virtual_time
async def test_a_stream_can_be_closed_at_any_step(ms: int, full: bool) -> None:
    """L5: pushes go on meanwhile; the only error they may raise is that the stream is closed."""
    for steps in range(12):
        async with wired(EMPTY) as call:
            await call.push(tagged(0, 50), 4)
            if full:
                call.wires.last.fill()
            call.stream.push_frame(tagged(0, ms))
            closing = asyncio.create_task(call.stream.aclose())
            for _ in range(steps):
                await asyncio.sleep(0)
                try:
                    call.stream.push_frame(tagged(0, ms))
                    call.stream.flush()
                except RuntimeError as fault:
                    assert "closed" in str(fault)
            await closing
            assert call.wires.last.is_released


@in_virtual_time
async def test_a_line_that_stalls_keeps_the_audio() -> None:
    """Frames shorter than a chunk, for 3 s without room."""
    async with wired(EMPTY) as call:
        for step in range(400):
            if step == 50:
                call.wires.last.fill()
            if step == 200:
                call.wires.last.empty()
            await call.push(tagged(step * RATE // 50, 20))
        assert_whole(call.wires.opened, 400 * RATE // 50)
        assert len(call.wires.opened) == 1


# -- the config ----------------------------------------------------------------------------------


@in_virtual_time
async def test_the_config_follows_the_first_audio() -> None:
    async with wired() as call:
        await asyncio.sleep(3)
        assert call.wires.last.texts == []
        await call.push(frame(50), 2)
        config = json.loads(call.wires.last.texts[0])
        assert config["streamingConfig"]["config"]["sampleRateHertz"] == RATE


@in_virtual_time
async def test_a_line_that_breaks_at_the_config_is_a_failure_that_loses_nothing() -> None:
    async with wired(EMPTY) as call:
        call.wires.last.die(seen=False)
        for step in range(80):
            await call.push(tagged(step * RATE // 20, 50))
        assert call.fault is None
        assert_whole(call.wires.opened[1:], 80 * RATE // 20)


@in_virtual_time
async def test_options_that_were_not_sent_yet_need_no_new_connection() -> None:
    async with wired() as call:
        call.stream.update_options(language="en-US")
        await call.push(frame(50), 2)
        assert len(call.wires.opened) == 1
        assert b"en-US" in call.wires.last.texts[0]
        call.stream.update_options(language="en-US")
        await asyncio.sleep(0.1)
        assert len(call.wires.opened) == 1
        call.stream.update_options(language="is-IS")
        call.stream.update_options(language="fo-FO")
        await call.push(frame(50), 2)
        assert len(call.wires.opened) == 2
        assert b"fo-FO" in call.wires.last.texts[0]


@in_virtual_time
async def test_new_words_wait_until_the_utterance_is_final_and_nobody_speaks() -> None:
    async with wired(EMPTY, keyterms=["Hekla"]) as call:
        await call.push(frame(50), 20)
        call.hear(hypothesis(0.9))
        call.stream.update_options(keyterms=["Hekla", "Katla"])
        await call.push(frame(50), 40)
        call.hear(said("orð", 0.1, 3.0))
        await call.push(frame(50), 2)
        assert len(call.wires.opened) == 1, "somebody speaks"
        await call.push(frame(50, level=1), 5)
        call.hear(said("orð", 3.0, 3.1))
        await call.push(frame(50, level=1), 30)
        assert len(call.wires.opened) == 2
        assert b"Katla" in call.wires.last.texts[0]


@in_virtual_time
async def test_new_words_wait_for_the_final_that_somebody_waits_for() -> None:
    async with wired(EMPTY, keyterms=["Hekla"]) as call:
        await call.push(frame(50), 20)
        call.hear(hypothesis(0.9))
        await call.push(frame(50, level=1), 10)
        call.stream.flush()
        call.stream.update_options(keyterms=["Katla"])
        await call.push(frame(50, level=1), 25)
        assert len(call.wires.opened) == 1
        call.hear(said("orð", 0.1, 1.0))
        await call.push(frame(50, level=1), 2)
        assert len(call.wires.opened) == 2


# -- looking after it ----------------------------------------------------------------------------


@in_virtual_time
async def test_a_peer_that_takes_nothing_is_left_and_nothing_is_lost() -> None:
    async with wired(EMPTY) as call:
        await call.push(tagged(0, 50))
        call.wires.last.reads = False
        for step in range(1, 340):
            await call.push(tagged(step * RATE // 20, 50))
        assert len(call.wires.opened) == 2
        assert_whole(call.wires.opened, 340 * RATE // 20)


@in_virtual_time
async def test_a_peer_that_takes_nothing_is_left_while_a_file_is_drained() -> None:
    """The peer has 30 s for the file, and 15 s to show that it is there."""
    async with wired(EMPTY) as call:
        for step in range(600):
            call.stream.push_frame(tagged(step * RATE // 20, 50))
        await asyncio.sleep(0.2)
        call.wires.last.reads = False
        call.stream.end_input()
        await asyncio.sleep(17)
        assert len(call.wires.opened) == 2


@in_virtual_time
async def test_speech_that_is_not_answered_gets_another_connection() -> None:
    async with wired(EMPTY) as call:
        await asyncio.sleep(0.1)
        await call.push(frame(50), 20 * 20)
        assert len(call.wires.opened) == 2
        call.hear(EMPTY)
        await call.push(frame(50), 20 * 5)
        assert len(call.wires.opened) == 2


@in_virtual_time
async def test_without_hypotheses_an_answer_may_take_twice_as_long() -> None:
    async with wired(EMPTY, interim_results=False) as call:
        await asyncio.sleep(0.1)
        await call.push(frame(50), 20 * 29)
        assert len(call.wires.opened) == 1
        await call.push(frame(50), 20 * 3)
        assert len(call.wires.opened) == 2


@pytest.mark.parametrize("keeps_up", [True, False])
@in_virtual_time
async def test_a_new_connection_gets_the_latest_quiet_of_a_service_that_kept_up(
    keeps_up: bool,
) -> None:
    """The audio since the last ping is not sent too: in 5 s of it the service finds no word."""
    async with wired(EMPTY) as call:
        await call.push(frame(50), 20)
        call.hear(hypothesis(0.9) if keeps_up else EMPTY)
        call.hear(said("orð", 0.1, 1.0))
        await call.push(frame(50, level=1), 20 * 9 + 15)
        call.wires.last.die()
        await call.push(frame(50, level=1), 1)
        await asyncio.sleep(0.1)
        again = len(call.wires.last.audio) / 2 / RATE
        assert (again < 3.5) == keeps_up


# -- the end of the input ------------------------------------------------------------------------


@in_virtual_time
async def test_the_end_sends_the_tail_silence_and_the_marker() -> None:
    async with wired(EMPTY) as call:
        await call.push(tagged(0, 50), 1)
        await call.push(tagged(RATE // 20, 30), 1)
        call.stream.end_input()
        await asyncio.sleep(0.5)
        wire = call.wires.last
        assert wire.texts[-1] == END_OF_AUDIO
        pcm = samples(
            b"".join(b64decode(json.loads(text)["audioContent"]) for text in wire.texts[1:-1])
        )
        assert np.array_equal(pcm[: RATE * 80 // 1000], numbers(0, RATE * 80 // 1000))
        assert np.count_nonzero(pcm == 0) / RATE >= FLUSH_SILENCE
        call.hear(said("já", 0.01, 0.08))
        wire.die()
        await call.over(5)
        assert call.fault is None
        assert finals(call.events) == ["já"]


@in_virtual_time
async def test_a_tail_after_a_flush_is_sent_though_it_holds_no_word() -> None:
    async with wired(EMPTY) as call:
        await call.push(frame(50), 20)
        call.stream.flush()
        await asyncio.sleep(0.1)
        call.stream.push_frame(frame(30))
        call.stream.end_input()
        await asyncio.sleep(0.5)
        assert call.wires.last.texts[-1] == END_OF_AUDIO
        held = samples(call.wires.last.audio)
        assert np.count_nonzero(held) / RATE == pytest.approx(1.03)


@in_virtual_time
async def test_a_flush_sends_what_is_held_though_nothing_was_said() -> None:
    """If no audio follows. No silence is sent after it, as there is nothing to decide."""
    async with wired(EMPTY) as call:
        await call.push(rtc.AudioFrame(bytes(100 * MS), RATE, 1, 50 * MS), 21)
        assert len(call.wires.last.audio) < 2 * 1050 * MS
        call.stream.flush()
        await asyncio.sleep(0.5)
        assert len(call.wires.last.audio) == 2 * 1050 * MS
        assert [event.type for event in call.events] == [FINAL]


@in_virtual_time
async def test_what_is_held_and_flushed_is_the_onset_of_what_follows() -> None:
    """The two go out in one message: otherwise a voice gate would drop the held audio."""
    async with wired(EMPTY) as call:
        quiet = rtc.AudioFrame(bytes(100 * MS), RATE, 1, 50 * MS)
        await call.push(quiet, 21)
        call.stream.flush()
        messages = len(call.wires.last.texts)
        assert len(call.wires.last.audio) <= 2 * 900 * MS
        await call.push(frame(50), 2)
        assert len(call.wires.last.audio) == 2 * 1150 * MS
        assert len(call.wires.last.texts) == messages + 1


@in_virtual_time
async def test_a_service_that_stays_is_left() -> None:
    async with wired(EMPTY) as call:
        await call.push(frame(50), 20)
        call.stream.end_input()
        call.hear(said("já", 0.0, 1.0))
        waited = await call.over(20)
        assert DRAIN_TIMEOUT - 0.1 <= waited <= DRAIN_TIMEOUT + 5, "and the silence is worked off"
        assert call.fault is None


@in_virtual_time
async def test_a_service_that_stays_and_says_nothing_is_a_failure() -> None:
    async with wired() as call:
        await call.push(frame(50), 20)
        call.stream.end_input()
        await call.over(120)
        assert isinstance(call.fault, APITimeoutError), (
            "not what the framework makes of its retries"
        )


@in_virtual_time
async def test_a_service_that_left_sound_at_the_end_is_asked_whether_it_heard_no_word() -> None:
    """A first message of 20 ms opens its voice gate, and the silence is longer than at a flush."""
    async with wired(EMPTY) as call:
        await call.push(frame(50), 20)
        call.stream.end_input()
        await asyncio.sleep(0.5)
        assert FLUSH_SILENCE <= silence_on(call.wires.last) < FLUSH_SILENCE + 0.5
        call.wires.last.die()
        await asyncio.sleep(0.5)
        assert len(call.wires.opened) == 2
        again = call.wires.last
        assert len(b64decode(json.loads(again.texts[1])["audioContent"])) == 2 * RATE // 50
        assert 6.0 <= silence_on(again) < 6.5


@in_virtual_time
async def test_without_any_audio_the_end_is_the_end() -> None:
    async with wired() as call:
        call.stream.end_input()
        assert await call.over(5) < 2
        assert call.fault is None
        assert [event for event in call.events if event.type is FINAL] == []


@in_virtual_time
async def test_a_hypothesis_after_the_last_final_is_asked_for_and_shown() -> None:
    """L4: no audio is left to send again, so a new connection would have nothing to do."""
    async with wired() as call:
        for _ in range(20):
            await call.push(frame(50))
        call.hear(EMPTY)
        call.stream.end_input()
        await asyncio.sleep(0.2)
        call.hear(said("já", 0.1, 1.0, "og"))
        for _ in range(80):
            call.wires.last.die()
            if call.stream._task.done():
                break
            await asyncio.sleep(0.5)
        await call.over(20)
        assert len(call.wires.opened) <= 40, "as in an outage"
        assert isinstance(call.fault, APIConnectionError)
        assert finals(call.events) == ["já", "og"], "no word that was shown is lost"
        assert all(len(wire.texts) > 2 for wire in call.wires.opened[1:2]), "it is asked"


# -- errors --------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_error_of_the_service_ends_it() -> None:
    async with wired() as call:
        await call.push(frame(50), 2)
        call.hear(b'{"error":{"code":16,"message":"the key is no good"}}')
        await call.over(5)
        assert isinstance(call.fault, APIStatusError)
        assert call.fault.status_code == 401


@in_virtual_time
async def test_what_came_beside_an_error_is_heard() -> None:
    frame_with_both = json.loads(said("já", 0.1, 0.9))
    frame_with_both["error"] = {"code": 3, "message": "no"}
    async with wired() as call:
        await call.push(frame(50), 20)
        call.hear(json.dumps(frame_with_both).encode())
        await call.over(5)
        assert isinstance(call.fault, APIStatusError)
        assert finals(call.events) == ["já"]


@in_virtual_time
@pytest.mark.parametrize("after", [0.5, 3.0])
@pytest.mark.parametrize("answered", [False, True])
async def test_quiet_audio_before_a_mute_is_sent_again_unless_the_service_could_answer(
    answered: bool, after: float
) -> None:
    """A word can be too soft to count as a sound, and a service that is mute hears nothing."""
    async with wired() as call:
        call.stream._backlog.loudness._set_floor(100.0)
        quiet, loud = frame(50, 250), frame(50, 5000)
        if answered:
            call.hear(EMPTY)
        await call.push(quiet, 40)
        await asyncio.sleep(after)
        call.wires.last.die()
        await asyncio.sleep(3.0)
        await call.push(loud, 10)
        again = samples(call.wires.last.audio)
        assert np.any(again == 250) == (not answered or after < 1)
        assert np.any(again == 5000)


@in_virtual_time
async def test_a_ping_that_is_not_answered_yet_makes_no_quiet_unheard() -> None:
    """It is on its way when the connection ends; the one before was answered after the mute."""
    async with wired(EMPTY) as call:
        call.stream._backlog.loudness._set_floor(100.0)
        await call.push(frame(50, 250), 40)
        await asyncio.sleep(1.5)
        await call.push(frame(50, 200), 50)
        call.wires.last.reads = False
        await call.push(frame(50), 50)
        call.wires.last.die()
        await call.push(frame(50), 1)
        await asyncio.sleep(0.1)
        again = samples(call.wires.last.audio)
        assert np.any(again == 5000) and not np.any(again == 250)


# -- a service that limits how long nobody may speak ---------------------------------------------


class LimitInNoise(SilenceLimit):
    """A limit for how long nobody speaks, where noise is no speech."""

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        await super().audio(connection, pcm if samples(pcm).max(initial=0) > 2000 else b"")


@pytest.mark.parametrize(
    ("code", "pace", "noise"), [(None, 2.0, 0), (None, 10.0, 100), (11, 2.0, 100), (11, 10.0, 0)]
)
def test_a_file_gets_past_a_pause_that_is_longer_than_the_limit(
    code: int | None, pace: float, noise: int
) -> None:
    """The service says of the first 5 s that no word is in them; that is not about the rest."""
    words = (Spoken("w0", 50, 90), Spoken("w1", 1290, 1330), Spoken("w2", 1430, 1500))
    limit = Combined(LimitInNoise(10.0, code), Pace(pace))
    outcome = virtual.run(hear(Talk(words, 1600, noise=noise), limit, live=False))
    assert outcome.is_exact and not outcome.reported, str(outcome)
    assert len(outcome.connections) <= 3


@in_virtual_time
@pytest.mark.parametrize("hears", [False, True])
async def test_quiet_is_left_out_only_if_the_service_heard_no_word_on_the_connection(
    hears: bool,
) -> None:
    """Two connections are sent the same quiet; the second has words, and takes them back."""
    async with wired(interim_results=False) as call:
        backlog = call.stream._backlog
        await call.push(frame(50, 0), 200)
        call.wires.last.die()
        await call.push(frame(50, 0), 10)
        call.hear(*([hypothesis(2.0), EMPTY, EMPTY] if hears else [EMPTY]))
        await asyncio.sleep(0.1)
        assert call.stream._feed.left_out == 0 and not backlog.speaking
        call.wires.last.die()
        await asyncio.sleep(0.1)
        assert (call.stream._feed.left_out == 0) == hears


@pytest.mark.parametrize("pause", [500, 510, 700])
def test_noise_at_the_end_of_a_file_after_a_long_pause_is_no_failure(pause: int) -> None:
    """The service can say once only that it hears no word in either."""
    noise = ((88 + pause, 96 + pause),)
    talk = Talk((Spoken("w0", 5, 88),), 96 + pause, noise=0, hums=noise)
    outcome = virtual.run(hear(talk, live=False))
    assert outcome.is_exact and not outcome.reported, str(outcome)
    assert len(outcome.connections) <= 4


@in_virtual_time
@pytest.mark.parametrize(
    ("seconds", "answers", "at_limit"),
    [(10.0, True, True), (10.0, False, False), (6.0, True, False), (10.0, None, True)],
)
async def test_only_a_connection_that_lived_can_have_been_ended_by_a_limit(
    seconds: float, answers: bool | None, at_limit: bool
) -> None:
    """It answered, or was there for a while; and it was sent more than any limit allows."""
    async with wired(interim_results=False) as call:
        await call.push(frame(50, 0), round(20 * seconds))
        call.hear(EMPTY)
        call.wires.last.die()
        await asyncio.sleep(0.1)
        await call.push(frame(50, 0), 10)
        if answers:
            call.hear(EMPTY)
        if answers is None:
            await asyncio.sleep(2.0)
        call.wires.last.die()
        await asyncio.sleep(0.1)
        assert (call.stream._backlog.wordless_at_limit_to > 0) == at_limit


@pytest.mark.parametrize("interims", [True, False])
def test_coughs_at_the_end_of_a_file_take_three_connections(interims: bool) -> None:
    """However many there are: no limit has ended the first two."""
    coughs = tuple((500 + 800 * n, 530 + 800 * n) for n in range(5))
    talk = Talk((Spoken("w0", 50, 90),), 3900, 12000, noise=0, hums=coughs)
    outcome = virtual.run(hear(talk, Pace(2.0), live=False, interims=interims))
    assert outcome.is_exact and not outcome.reported, str(outcome)
    assert len(outcome.connections) == 3


@in_virtual_time
@pytest.mark.parametrize("mute", [0.0, 3.0])
async def test_only_what_was_sent_again_was_sent_in_vain(mute: float) -> None:
    """After a mute, a connection begins with what is new."""
    async with wired(interim_results=False) as call:
        backlog = call.stream._backlog
        await call.push(frame(50, 0), 200)
        call.hear(EMPTY)
        await asyncio.sleep(mute)
        for _ in range(2):
            assert backlog.wordless_to == 0
            call.wires.last.die()
            await asyncio.sleep(0.1)
            await call.push(frame(50, 0), 10)
            call.hear(EMPTY)
        assert (backlog.wordless_to > 0) == (mute == 0)


@pytest.mark.parametrize("interims", [True, False])
def test_quiet_before_a_mute_is_not_sent_again_when_the_mute_is_just_over(interims: bool) -> None:
    """The service had all of the mute to answer."""
    words = (Spoken("w0", 50, 90), Spoken("w1", 1130, 1160), Spoken("w2", 1160, 1200))
    talk, mute = Talk(words, 1300, noise=1), {11.0: 6.0}
    faults = Combined(PerConnection(Disconnect(11.3)), Pace(1.3))
    slow = hear(talk, faults, live=True, pauses=mute, interims=interims)
    outcome = virtual.run(slow)
    assert outcome.is_exact
    assert outcome.connections[1].seconds < 6, "no quiet of before"


@pytest.mark.parametrize("interims", [True, False])
def test_a_call_gets_past_silence_that_is_longer_than_the_limit(interims: bool) -> None:
    """Without interims, a minute of quiet audio is kept; all of it is sent at once."""
    words = (Spoken("w0", 3000, 3040), Spoken("w1", 3300, 3340))
    limit = SilenceLimit(20.0)
    outcome = virtual.run(hear(Talk(words, 3500, noise=0), limit, live=True, interims=interims))
    assert outcome.is_exact and not outcome.reported, str(outcome)
    assert len(outcome.connections) == (2 if interims else 3)


def test_so_does_recognize() -> None:
    talk = Talk((Spoken("w0", 50, 90), Spoken("w1", 1290, 1330)), 1430, noise=0)

    async def recognize() -> str:
        recognizers = {"is": NumberedRecognizer(talk)}
        async with (
            TiroServer(api_key=None, recognizers=recognizers, hooks=SilenceLimit(10.0)) as server,
            tiro.STT(base_url=server.base_url, api_key="key") as stt,
        ):
            return (await stt.recognize(list(frames(talk.pcm())))).alternatives[0].text

    assert virtual.run(recognize()) == "w0 w1"


COUGHED = Talk(
    (Spoken("w0", 50, 80), Spoken("w1", 1600, 1640)), 1800, 12000, noise=0, hums=((300, 310),)
)


@pytest.mark.parametrize("interims", [True, False])
def test_so_does_a_call_if_somebody_coughs_in_the_silence(interims: bool) -> None:
    """A cough can be a word, so it is sent again, but not all of the silence after it."""
    outcome = virtual.run(hear(COUGHED, SilenceLimit(10.0), live=True, interims=interims))
    assert outcome.is_exact and not outcome.reported, str(outcome)


@pytest.mark.parametrize("code", [None, 11])
def test_so_does_a_file_instead_of_ending_before_its_last_words(code: int | None) -> None:
    outcome = virtual.run(hear(COUGHED, Combined(Pace(4.0), SilenceLimit(10.0, code))))
    assert outcome.is_exact and not outcome.reported, str(outcome)


@pytest.mark.parametrize("interims", [True, False])
def test_noise_that_is_not_steady_is_silence_too(interims: bool) -> None:
    class Clicked(Talk):
        def pcm(self) -> npt.NDArray[np.int16]:
            audio = super().pcm()
            audio[48000:48320] = np.where(np.arange(320) % 2, 150, -150)
            return audio

    words = (Spoken("w0", 50, 80), Spoken("w1", 2100, 2140))
    limit = SilenceLimit(10.0, noise=3000)
    clicked = Clicked(words, 2300, 12000, noise=30)
    outcome = virtual.run(hear(clicked, limit, live=True, interims=interims))
    assert outcome.is_exact and not outcome.reported, str(outcome)


def test_words_are_not_taken_back_for_what_is_said_of_the_quiet_before_them() -> None:
    """They are flushed, and the connection ends before its answer."""
    words = tuple(Spoken(f"w{n}", 3000 + 40 * n, 3040 + 40 * n) for n in range(3))
    talk = Talk(words, 3300, 12000, noise=100, hums=((200, 230),))
    outcome = virtual.run(hear(talk, Disconnect(31.25), live=True, flushes={31.3: 1}))
    assert not outcome.broken()
    assert [event.alternatives[0].text for event in outcome.events if event.type is FINAL] == [
        "w0 w1 w2"
    ]


@pytest.mark.parametrize("coughs", [True, False])
def test_a_slow_service_is_not_busy_with_quiet_when_somebody_speaks(coughs: bool) -> None:
    words = (Spoken("w0", 50, 80), Spoken("w1", 4000, 4040))
    hums = ((300, 310),) if coughs else ()
    talk = Talk(words, 4200, 12000, noise=0, hums=hums)
    faults = Combined(PerConnection(Disconnect(39.0)), Pace(2.0))
    outcome = virtual.run(hear(talk, faults, live=True))
    assert outcome.is_exact and not outcome.reported, str(outcome)
    assert outcome.delays[1] < 7.0
    assert outcome.connections[1].seconds < 17.0, "37 s are quiet"


def test_silence_for_a_cough_does_not_outlast_a_limit_for_silence() -> None:
    """The second press holds a cough alone; then the microphone is off."""
    words = (Spoken("w0", 20, 60), Spoken("w1", 160, 200))
    talk = Talk(words, 200, 12000, noise=30, hums=((90, 110),))
    off = hear(
        talk,
        SilenceLimit(7.2),
        live=True,
        flushes={1.2: 1},
        pauses={1.2: 20.0},
        presses=[0.6, 2.0],
    )
    outcome = virtual.run(off)
    assert outcome.is_exact and not outcome.reported, str(outcome)


@pytest.mark.parametrize("after", [2.0, 4.0])
@pytest.mark.parametrize("interims", [True, False])
def test_a_service_that_ends_each_connection_in_silence_is_a_failure(
    after: float, interims: bool
) -> None:
    """No limit for silence is that short."""
    talk = Talk((Spoken("w0", 50, 90),), 9000, noise=0)
    limit = SilenceLimit(after)
    outcome = virtual.run(hear(talk, limit, live=True, interims=interims))
    assert isinstance(outcome.error, APIError)
    assert len(outcome.connections) < 60


@pytest.mark.parametrize("softer", [20, 60])
def test_an_utterance_that_is_going_on_is_no_quiet(softer: int) -> None:
    """Without interims it is shown by nothing, and it can be softer than most words."""
    first = Spoken("w0", 50, 90)
    soft = tuple(Spoken(f"w{n}", 300 + 40 * n, 340 + 40 * n, softer) for n in range(1, 20))
    talk = Talk((first, *soft), 1400, 12000, noise=100)
    faults = PerConnection(Disconnect(10.5))
    outcome = virtual.run(hear(talk, faults, live=True, interims=False))
    assert outcome.is_exact, str(outcome)
