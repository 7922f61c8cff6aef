"""A proxy on loopback for what a server cannot do to itself: a slow, a dark or a broken line.

Delays are drawn from a seed. The order of bytes is kept, as TCP keeps it, and what a dark line
swallows comes after it, as TCP sends it again.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from types import TracebackType

# Bytes in a read, and how many reads may be under way: together, what a narrow line buffers.
_PIECE = 4096
_ON_THE_WAY = 64

Direction = Literal["up", "down"]
Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Reset:
    """RST on both sides as soon as so many bytes have passed."""

    direction: Direction
    passed: int


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection now. With TLS, asyncio can not any more where it was closed twice."""
    if getattr(writer.transport, "_ssl_protocol", writer) is not None:
        writer.transport.abort()


class Proxy:
    """Forwards connections to a local port; use as `async with`.

    Args:
        latency: Seconds that each way takes.
        jitter: Seconds on top of the latency, at most.
        bandwidth: Bytes a second, each way.
        resets: What ends each connection, from the first on; None for nothing.
        seed: Where the jitter comes from.
        listener: The socket to listen on; None for a free port of loopback.
        tls: The TLS settings for clients; None for plain TCP.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        bandwidth: float = math.inf,
        resets: Sequence[Reset | None] = (),
        seed: int = 0,
        listener: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = 0
        self._upstream = 0
        self._latency, self._jitter, self._bandwidth = latency, jitter, bandwidth
        self._resets = resets
        self._chance = random.Random(seed)
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: dict[int, tuple[Pipe, Pipe]] = {}
        self._severed: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._light = asyncio.Event()
        self._light.set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, sock=self._listener, ssl=self._tls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def before(self, base_url: str) -> str:
        """Forward to the local server at `base_url`. Return the base URL of the proxy."""
        self._upstream = urlsplit(base_url).port or 0
        host, port = self._listener.getsockname()[:2]
        return f"{'wss' if self._tls else 'ws'}://{host}:{port}/v2beta1"

    def darken(self) -> None:
        """Let nothing pass any more, in either direction, nor on new connections: a black hole."""
        self._light.clear()

    def lighten(self) -> None:
        """Let all pass again, with what came meanwhile."""
        self._light.set()

    def sever(self) -> None:
        """Leave the clients that are there half-open: the server is gone, and they hear nothing."""
        for number, (_, above) in self._open.items():
            self._severed.add(number)
            _abort(above[1])

    def _accept(self, *client: Any) -> None:
        # asyncio sets this only if the listener names the protocol. Without it, the kernel would
        # hold back a write until the one before is acknowledged, for 40 real ms.
        handle = client[1].get_extra_info("socket")
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # If this method were a coroutine, asyncio would report its cancellation as an error.
        task = asyncio.create_task(self._connect(self.connections, client), name="proxy")
        self.connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, number: int, below: Pipe) -> None:
        try:
            above = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            _abort(below[1])
            return
        self._open[number] = below, above
        ways = [
            asyncio.create_task(self._forward(number, "up", below[0], above[1])),
            asyncio.create_task(self._forward(number, "down", above[0], below[1])),
        ]
        try:
            await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            del self._open[number]
            _abort(below[1])
            _abort(above[1])

    async def _forward(
        self,
        number: int,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Forward one way of a connection until it ends."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_ON_THE_WAY)
        reading = asyncio.create_task(self._read(reader, pieces))
        reset = self._resets[number] if number < len(self._resets) else None
        left = reset.passed if reset is not None and reset.direction == direction else math.inf
        clock = asyncio.get_running_loop().time
        writer.transport.set_write_buffer_limits(0)
        try:
            while left > 0:
                due, piece = await pieces.get()
                await asyncio.sleep(due - clock())
                await self._light.wait()
                if number in self._severed:
                    continue
                if not piece:
                    # TLS can not close one way alone.
                    writer.write_eof() if writer.can_write_eof() else writer.close()
                    return
                piece = piece[: int(min(left, len(piece)))]
                writer.write(piece)
                await writer.drain()
                left -= len(piece)
            self._reset(number)
        except OSError:
            self._end(number)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Note when each piece is to arrive; nothing overtakes what came before it."""
        clock = asyncio.get_running_loop().time
        due = 0.0
        piece = b"."
        while piece:
            try:
                piece = await reader.read(_PIECE)
            except OSError:
                piece = b""
            await asyncio.sleep(len(piece) / self._bandwidth)
            delay = self._latency + self._jitter * self._chance.random()
            due = max(due, clock() + delay)
            await pieces.put((due, piece))

    def _reset(self, number: int) -> None:
        for _, writer in self._open[number]:
            handle = writer.get_extra_info("socket")
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(number)

    def _end(self, number: int) -> None:
        if number not in self._severed:
            for _, writer in self._open[number]:
                _abort(writer)
