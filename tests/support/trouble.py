"""What a service may do that is no fault of it, and one that is: for campaigns and trials."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

from aiohttp import WSMsgType

from livekit.plugins.tiro.testing import ConnectionRecord, Hooks
from livekit.plugins.tiro.testing.faults import Fault, Moment, When

_NOTHING = '{"result":{"error":null,"results":[],"speechEventType":"SPEECH_EVENT_UNSPECIFIED"}}'
_EVENTS: tuple[Any, ...] = ("START_OF_SPEECH", "END_OF_SPEECH", "END_OF_AUDIO", 1, "NEW_IN_2030")


class Latency(Hooks):
    """Everything that the service says arrives later, in order, and hanging up too."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"Latency({self._seconds:g} s)"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        loop = asyncio.get_running_loop()

        def deliver() -> None:
            task = asyncio.ensure_future(connection.line.send(text))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())

        loop.call_later(self._seconds, deliver)
        return None

    async def done(self, connection: ConnectionRecord) -> None:
        await asyncio.sleep(self._seconds + 0.01)


class Pace(Hooks):
    """The service works off audio at a pace, 1 being that of speech."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._due: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"Pace({self._pace:g})"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        now = asyncio.get_running_loop().time()
        due = max(self._due.get(connection.number, now), now - 0.1)
        self._due[connection.number] = due + len(pcm) / 2 / connection.sample_rate / self._pace
        await asyncio.sleep(max(0.0, self._due[connection.number] - now))


class Chatter(Hooks):
    """Empty responses and events whenever the service likes."""

    def __init__(self, seed: int, *, empty: bool) -> None:
        self._seed = seed
        self._empty = empty

    def __repr__(self) -> str:
        return f"Chatter({self._seed}, empty={self._empty})"

    async def beside(self, connection: ConnectionRecord) -> None:
        chance = Random(self._seed + connection.number)
        while True:
            await asyncio.sleep(chance.uniform(0.05, 3.0))
            if connection.speech is not None:
                await connection.line.send(_NOTHING if self._empty else _event(chance))


def _event(chance: Random) -> str:
    return json.dumps({"result": {"speechEventType": chance.choice(_EVENTS)}})


class WithoutTimes(Hooks):
    """The service gives no words with times."""

    def __repr__(self) -> str:
        return "WithoutTimes()"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        for result in document.get("result", {}).get("results", ()):
            for alternative in result["alternatives"]:
                alternative.pop("words", None)
        return json.dumps(document)


class PingWithoutReading(Fault):
    """The service takes nothing more, and goes on sending pings."""

    def __init__(self, when: When = Moment.CONFIG) -> None:
        super().__init__(when)

    async def strike(self, connection: ConnectionRecord) -> None:
        connection.line.stop_reading()

    async def beside(self, connection: ConnectionRecord) -> None:
        while True:
            await asyncio.sleep(4)
            if connection.number in self.struck:
                await connection.line._write(b"", WSMsgType.PING)
