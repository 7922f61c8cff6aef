"""A websocket that fills up, drains and breaks as that of aiohttp does, without a network."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from dataclasses import dataclass, field

import aiohttp

from .fake_socket import FakeMessage, FakeSocket


@dataclass
class Wire(FakeSocket):
    """One connection. A message is written first; only then its sender waits for room."""

    sent: list[tuple[aiohttp.WSMsgType, bytes]] = field(default_factory=list)
    reads = True
    """Whether the peer reads, so that it answers pings."""
    _paused = False
    _dead = False
    _drain_waiter: asyncio.Future[None] | None = None

    def fill(self) -> None:
        """Have no room until `empty`."""
        self._paused = True

    def empty(self) -> None:
        """Have room again, and wake whoever waits for it."""
        self._paused = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def die(self, fault: Exception | None = None, *, seen: bool = True) -> None:
        """Break.

        Args:
            fault: What whoever waits for room gets.
            seen: Whether the one who receives sees it as well.
        """
        self._dead = True
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            if fault is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(fault)
        if seen:
            self.inbox.put_nowait(FakeMessage(b"", aiohttp.WSMsgType.CLOSED))

    async def send_frame(self, message: bytes, kind: aiohttp.WSMsgType) -> None:
        if self._dead:
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        self.sent.append((kind, message))
        if kind is aiohttp.WSMsgType.PING and self.reads:
            self.inbox.put_nowait(FakeMessage(message, aiohttp.WSMsgType.PONG))
        if self._paused:
            # As in aiohttp: one future for all waiting senders, whichever of them gives up.
            if self._drain_waiter is None:
                self._drain_waiter = asyncio.get_running_loop().create_future()
            await self._drain_waiter

    def of(self, kind: aiohttp.WSMsgType) -> list[bytes]:
        """Return the messages of a kind that were sent."""
        return [message for sent, message in self.sent if sent is kind]

    @property
    def texts(self) -> list[bytes]:
        """The text messages that were sent, the config first."""
        return self.of(aiohttp.WSMsgType.TEXT)

    @property
    def audio(self) -> bytes:
        """The audio that was sent, silence included."""
        return b"".join(b64decode(json.loads(text)["audioContent"]) for text in self.texts[1:])


@dataclass
class Wires(FakeSocket):
    """The HTTP session: a new wire for each connection."""

    opened: list[Wire] = field(default_factory=list)
    says: tuple[bytes, ...] = ()
    """What the service says on each as soon as it is open."""
    at_most = 50

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        wires = self._own
        assert len(wires.opened) < wires.at_most, "connections without end"
        wires.opened.append(wire := Wire())
        for message in wires.says:
            wire.inbox.put_nowait(FakeMessage(message))
        return wire

    @property
    def _own(self) -> Wires:
        # `_ws_connect` gets a stand-in for the session.
        return self

    @property
    def last(self) -> Wire:
        return self.opened[-1]
