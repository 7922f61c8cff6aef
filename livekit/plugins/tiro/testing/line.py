"""The transport of one connection, for faults that no frame of the service can make."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import NoReturn

from aiohttp import WSMsgType, web


class Drop(Exception):
    """Raised by a hook: drop the connection now, without another frame."""


class Line:
    """What can be done to a connection's transport; a hook finds it as `connection.line`."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._transport = transport
        self._websocket: web.WebSocketResponse | None = None
        self._gone = asyncio.Event()
        self.dead = False
        """Whether nothing leaves any more, not even the answer to a ping. TCP stays open."""
        self.is_unread = False
        """Whether no bytes are taken from the client, so that its leaving is not noticed."""

    def opened(self, websocket: web.WebSocketResponse) -> None:
        """Take the websocket, once the handshake has made it one."""
        self._websocket = websocket

    def lost(self) -> None:
        """Note that the client is gone."""
        self._gone.set()

    @property
    def is_lost(self) -> bool:
        """Whether the client is gone, during the handshake too."""
        closing = self._transport is None or self._transport.is_closing()
        return closing or self._gone.is_set()

    async def send(self, data: str | bytes) -> bool:
        """Send a frame with any content, text or bytes; return whether the line took it."""
        kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
        return await self._write(data.encode() if isinstance(data, str) else data, kind)

    async def pong(self, data: bytes) -> None:
        """Answer a ping."""
        await self._write(data, WSMsgType.PONG)

    async def send_close(self, code: int, reason: str = "") -> None:
        """Send a close frame with any code from 0 to 65535, and leave the connection open."""
        await self._write(struct.pack("!H", code) + reason.encode(), WSMsgType.CLOSE)

    async def _write(self, data: bytes, kind: WSMsgType) -> bool:
        if self._websocket is None or self.dead:
            return False
        with contextlib.suppress(ConnectionError):
            await self._websocket.send_frame(data, kind)
            return True
        return False

    def reset(self) -> None:
        """End the connection by RST: what was not read yet is lost on both sides."""
        if self._transport is None:
            return
        handle = self._transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def stop_reading(self) -> None:
        """Take no more bytes from the client, whose sending blocks once the buffers are full."""
        if self._transport is not None:
            self.is_unread = True
            self._transport.pause_reading()

    def go_on_reading(self) -> None:
        """End `stop_reading`."""
        self.is_unread = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    async def wait_until_lost(self) -> NoReturn:
        """Say nothing more until the client is gone.

        Raises:
            Drop: The client is gone.
        """
        await self._gone.wait()
        raise Drop
