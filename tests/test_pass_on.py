"""Audio that goes out as it is pushed, and when it has to wait for the send task instead."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import aiohttp
import numpy as np
import pytest

from livekit import rtc
from livekit.plugins.tiro.feed import FLUSH_SILENCE

from .support.fake_socket import RATE, FakeSocket, calling, frame
from .support.session_fakes import in_virtual_time

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
        socket = cast(Recorder, self._itself)
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
            # As in aiohttp: who gives up waiting does not end it for others.
            await self._drain_waiter
        if self.broken:
            raise aiohttp.ClientConnectionResetError("Connection lost")

    def numbers(self, connection: int = -1) -> list[int]:
        """Return what each 10 ms of audio on a connection hold, silence left out."""
        held = np.frombuffer(self.connections[connection], np.int16)[:: 10 * MS]
        return [int(number) for number in held if number >= FIRST]


def numbered(first: int, count: int, ms: int = 50) -> list[rtc.AudioFrame]:
    """Return frames of `ms` in which each 10 ms hold another number, from `FIRST + first` on."""
    blocks = ms // 10
    numbers = np.arange(FIRST + first, FIRST + first + count * blocks, dtype=np.int16)
    parts = np.repeat(numbers, 10 * MS).reshape(count, -1)
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
async def test_what_follows_a_flush_stays_behind_it() -> None:
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
        before, behind = (int(np.flatnonzero(held == n)[0]) for n in (FIRST + 49, FIRST + 50))
        assert (behind - before) / RATE >= FLUSH_SILENCE


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
