"""One watched connection: sends audio at a pace, and notes what comes back, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import aiohttp
import numpy as np
import numpy.typing as npt

from livekit.agents import utils

from ..backlog import chunk_samples
from ..connection import Connection

if TYPE_CHECKING:
    from ..options import Options
    from ..protocol import Response, ServiceError

Samples = npt.NDArray[np.int16]

# Of 32767; the root of the mean square of such noise is 18, which opens the service's voice gate.
_FAINT = 32
# s behind the pace from which on a delay is a pause: sending does not catch up after it.
_LATE = 0.5
_DATA = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


def faint_noise(seconds: float, sample_rate: int) -> Samples:
    """Return noise as of a quiet room: a service drops plain zeros before its recogniser.

    Args:
        seconds: Its length.
        sample_rate: Hz.

    Returns:
        Samples of -65 dBFS, the same at each call, shape `(n,)`.
    """
    shape = round(seconds * sample_rate)
    return np.random.default_rng(0).integers(-_FAINT, _FAINT, shape, np.int16, endpoint=True)


class WatchedConnection(Connection):
    """A connection that notes what comes in, besides reading it."""

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse[bool], opened_in: float, odd_path: str = ""
    ) -> None:
        """Take an open websocket; `open` makes one."""
        self.frame = ""
        """The text of the last frame."""
        self.pings = 0
        """How many pings the service sent."""
        self.close_code: int | None = None
        """The code of the service's close frame; None without one."""
        super().__init__(cast(Any, _Tap(ws, self._note)), opened_in, odd_path)

    @classmethod
    async def open(
        cls, http_session: aiohttp.ClientSession, options: Options, timeout: float
    ) -> WatchedConnection:
        """Connect, as `Connection.open` does."""
        connection = await super().open(http_session, options, timeout)
        assert isinstance(connection, cls)
        return connection

    def _note(self, message: aiohttp.WSMessage) -> None:
        if message.type in _DATA:
            data = message.data
            self.frame = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        elif message.type is aiohttp.WSMsgType.PING:
            self.pings += 1
        elif message.type is aiohttp.WSMsgType.CLOSE:
            self.close_code = message.data


class _Tap:
    """A websocket that also passes each message that it receives to a callback."""

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse[bool], note: Callable[[aiohttp.WSMessage], None]
    ) -> None:
        self._ws = ws
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ws, name)

    async def receive(self) -> Any:
        message = await self._ws.receive()
        self._note(cast(aiohttp.WSMessage, message))
        return message


class Answer(NamedTuple):
    """A frame of the service."""

    at: float
    """When it came; monotonic seconds."""
    sent: float
    """Seconds of audio that were sent until then."""
    text: str
    """The frame as it came."""
    response: Response
    """What it means."""


class Call:
    """Sends audio as a caller would, and keeps what is answered. Use as `async with`."""

    def __init__(
        self,
        connection: WatchedConnection,
        sample_rate: int,
        spend: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Take an open connection; it is closed at the end of the `async with` block.

        Args:
            connection: To the service; whoever opened it sends its config.
            sample_rate: Hz of the audio.
            spend: Told how many seconds of audio are about to be sent; what it raises is raised.
        """
        self.connection = connection
        self.answers: list[Answer] = []
        """All frames of the service so far."""
        self.sent = 0.0
        """Seconds of audio sent."""
        self.blocked = 0.0
        """The longest that a message waited to be taken, seconds."""
        self.over_at: float | None = None
        """When the service ended the connection; monotonic seconds."""
        self._rate = sample_rate
        self._spend = spend
        self._due = 0.0
        self._news = asyncio.Event()
        self._receiving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Call:
        self._receiving = asyncio.create_task(self._receive(), name="tiro.cli.receive")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._receiving is not None:
            await utils.aio.cancel_and_wait(self._receiving)
        await self.connection.close()

    async def _receive(self) -> None:
        connection = self.connection
        while (response := await connection.receive()) is not None:
            self.answers.append(Answer(time.monotonic(), self.sent, connection.frame, response))
            self._news.set()
        self.over_at = time.monotonic()
        self._news.set()

    # -- what is known ---------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the service has ended the connection."""
        return self.over_at is not None

    @property
    def error(self) -> ServiceError | None:
        """What the service says went wrong."""
        return next((each.response.error for each in self.answers if each.response.error), None)

    @property
    def finals(self) -> list[Answer]:
        """The answers that hold a final with words."""
        return [each for each in self.answers if any(r.is_final for r in each.response.results)]

    @property
    def interims(self) -> list[Answer]:
        """The answers that hold hypotheses and no final."""
        answers = (each for each in self.answers if each.response.results)
        return [each for each in answers if not any(r.is_final for r in each.response.results)]

    # -- out -------------------------------------------------------------------------------------

    async def send(
        self, samples: Samples, *, pace: float = 1.0, until: Callable[[], bool] | None = None
    ) -> None:
        """Send audio, in messages as the plugin's; stop early if the connection is over.

        Args:
            samples: At the call's rate, shape `(n,)`.
            pace: Seconds of audio in a second.
            until: Stop early once this returns true.
        """
        size = chunk_samples(self._rate)
        for start in range(0, len(samples), size):
            if self.is_over or (until is not None and until()):
                return
            await self.send_message(samples[start : start + size], pace=pace)

    async def send_message(self, samples: Samples, *, pace: float = 1.0) -> None:
        """Send audio as one message, and wait until the next one is due."""
        seconds = len(samples) / self._rate
        self._spend(seconds)
        before = time.monotonic()
        await self.connection.send(samples.tobytes())
        now = time.monotonic()
        self.sent += seconds
        self.blocked = max(self.blocked, now - before)
        if before - self._due > _LATE:
            self._due = before
        self._due += seconds / pace
        await self.until_over(self._due - now)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds. Return whether it does.

        Args:
            condition: Tested each time an answer has come.
            seconds: To wait at most; the end of the connection ends the wait too.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or self.is_over:
                break
            self._news.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)
        return condition()

    async def until_over(self, seconds: float) -> bool:
        """Wait for the end of the connection. Return whether it came."""
        return await self.until(lambda: self.is_over, seconds)
