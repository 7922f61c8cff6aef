"""The transport under a connection: what no frame of the service can do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.tiro.testing import Drop, Hooks, TiroServer
from livekit.plugins.tiro.testing.record import ConnectionRecord

from .support.server_client import RawClient, raw_client
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from livekit.plugins.tiro.testing.line import Line


class HeldOpen(Hooks):
    """Leaves the connection to the test."""

    async def opened(self, connection: ConnectionRecord) -> None:
        await connection.line.wait_until_lost()


@asynccontextmanager
async def line() -> AsyncIterator[tuple[Line, RawClient]]:
    """The line of a connection, and its client."""
    async with TiroServer(hooks=HeldOpen()) as server, raw_client(server, "?token=test") as client:
        connection = await server.wait_for_connection()
        await asyncio.sleep(0.01)
        yield connection.line, client


@in_virtual_time
async def test_frames_of_both_kinds_go_out() -> None:
    async with line() as (it, client):
        assert await it.send("já") and await it.send(b"\x00\xff")
        await it.pong(b"?")
        await it.send_close(65535, "bless")
        frames = [await client.frame() for _ in range(4)]
    assert frames == [(1, "já".encode()), (2, b"\x00\xff"), (10, b"?"), (8, b"\xff\xffbless")]


@in_virtual_time
async def test_nothing_leaves_a_dead_line() -> None:
    async with line() as (it, client):
        it.dead = True
        assert not await it.send("já")
        await it.pong(b"?")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 5.0)
        assert not it.is_lost


@in_virtual_time
async def test_a_line_that_is_reset_is_lost_on_both_sides() -> None:
    async with line() as (it, client):
        it.reset()
        with pytest.raises(ConnectionError):
            await client.reader.read(1)
        assert it.is_lost
        assert not await it.send("já")


@in_virtual_time
async def test_a_line_is_read_again() -> None:
    async with line() as (it, client):
        it.stop_reading()
        assert it.is_unread
        client.send(9, b"?")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 5.0)
        it.go_on_reading()
        assert not it.is_unread
        assert await client.frame() == (10, b"?")


@in_virtual_time
async def test_a_client_that_leaves_is_noticed() -> None:
    async with line() as (it, client):
        waiting = asyncio.create_task(it.wait_until_lost())
        await asyncio.sleep(1.0)
        assert not waiting.done()
        client.writer.close()
        with pytest.raises(Drop):
            await asyncio.wait_for(waiting, 5.0)
        assert it.is_lost
        it.go_on_reading()


@in_virtual_time
async def test_a_record_without_a_connection_has_a_line_without_one() -> None:
    it = ConnectionRecord(0, "/", None, 0.0).line
    assert it.is_lost and not await it.send("já")
    it.reset()
    it.stop_reading()
    it.go_on_reading()
