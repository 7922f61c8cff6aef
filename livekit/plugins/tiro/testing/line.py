"""The connection under a session, for faults that no frame of the service can make."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import NoReturn

from aiohttp import WSMsgType, web

from .hooks import Drop


class Line:
    """What can be done to a session's connection; a hook finds it as `session.line`."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._transport = transport
        self._websocket: web.WebSocketResponse | None = None
        self._gone = asyncio.Event()
        self.dead = False
        """Whether nothing leaves any more, not even the answer to a ping. TCP stays open."""

    def opened(self, websocket: web.WebSocketResponse) -> None:
        """Takes the websocket, once the handshake has made it one."""
        self._websocket = websocket

    def lost(self) -> None:
        """Notes that the client is gone."""
        self._gone.set()

    @property
    def is_lost(self) -> bool:
        """Whether the client is gone, during the handshake too."""
        closing = self._transport is None or self._transport.is_closing()
        return closing or self._gone.is_set()

    async def send(self, data: str | bytes) -> bool:
        """Sends a frame with any content, text or bytes; returns whether the line took it."""
        kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
        return await self._write(data.encode() if isinstance(data, str) else data, kind)

    async def pong(self, data: bytes) -> None:
        """Answers a ping."""
        await self._write(data, WSMsgType.PONG)

    async def send_close(self, code: int, reason: str = "") -> None:
        """Sends a close frame with any code from 0 to 65535, and leaves the connection open."""
        await self._write(struct.pack("!H", code) + reason.encode(), WSMsgType.CLOSE)

    async def _write(self, data: bytes, kind: WSMsgType) -> bool:
        if self._websocket is None or self.dead:
            return False
        with contextlib.suppress(ConnectionError):
            await self._websocket.send_frame(data, kind)
            return True
        return False

    def reset(self) -> None:
        """Ends the connection by RST: what was not read yet is lost on both sides."""
        if self._transport is None:
            return
        handle = self._transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def stop_reading(self) -> None:
        """Takes no more bytes from the client, whose sending blocks once the buffers are full."""
        if self._transport is not None:
            self._transport.pause_reading()

    def go_on_reading(self) -> None:
        """Ends `stop_reading`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    async def hang(self) -> NoReturn:
        """Says nothing more until the client is gone.

        Raises:
            Drop: The client is gone.
        """
        await self._gone.wait()
        raise Drop
