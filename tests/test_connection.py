"""A connection that nobody wants any more is closed, at whatever step of its way."""

from __future__ import annotations

import asyncio
from typing import cast

import aiohttp
import pytest

from livekit.agents import APITimeoutError
from livekit.plugins.tiro.connection import Connection
from livekit.plugins.tiro.options import Options

from .support.fake_socket import FakeSocket

OPTIONS = Options(api_key="test", base_url="ws://localhost")
STEPS = 12
"""Rounds of the event loop; more than it takes to open or to close."""


class SlowSocket(FakeSocket):
    """Opens and closes in some rounds of the event loop."""

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        await rounds(3)
        return self._itself

    async def close(self) -> bool:
        await rounds(3)
        self._release()
        return True


class Stubborn(SlowSocket):
    """Opens in spite of being told to stop."""

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return self._itself
        raise AssertionError


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def opening(socket: FakeSocket, timeout: float = 5.0) -> asyncio.Task[Connection]:
    session = cast(aiohttp.ClientSession, socket)
    return asyncio.create_task(Connection.open(session, OPTIONS, timeout))


@pytest.mark.parametrize("step", range(STEPS))
async def test_opening_that_is_cancelled_leaves_nothing_open(step: int) -> None:
    socket = SlowSocket()
    task = opening(socket)
    await rounds(step)
    task.cancel()
    try:
        await (await task).close()
    except asyncio.CancelledError:
        # What it opened in the same moment is closed in the next one.
        await rounds(2)
        assert socket.is_released or step < 5, "it could have been open"
    else:
        assert step > 5


@pytest.mark.parametrize("step", range(STEPS))
async def test_closing_that_is_cancelled_closes_all_the_same(step: int) -> None:
    socket = SlowSocket()
    connection = await opening(socket)
    task = asyncio.create_task(connection.close())
    await rounds(step + 1)
    task.cancel()
    await asyncio.wait({task})
    assert socket.is_released


async def test_what_opens_too_late_is_closed() -> None:
    socket = Stubborn()
    with pytest.raises(APITimeoutError):
        await opening(socket, timeout=0.01)
    await rounds(2)
    assert socket.is_released
