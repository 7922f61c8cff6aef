"""A call in a process of its own: an `AgentSession` that listens to a caller who takes turns."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext, JobProcess
from livekit.agents.voice import io

from .targets import make_stt
from .world import utterance

if TYPE_CHECKING:
    from livekit.agents import UserInputTranscribedEvent

TARGET = "BENCHMARK_TARGET"
"""The variable that names the plugin to the processes of a worker."""
RATE = 24000
"""Hz; what an `AgentSession` gets from a room."""
_FRAME = RATE // 20
# s of speech and of silence, by turns: 40 % speech, as on a call.
_TURNS = ((2.0, 5.0), (6.0, 7.0))
CYCLE = sum(map(sum, _TURNS))
"""s after which the turns come again: over this time, every caller says the same."""
# Of 32767; a line is never quite silent.
_HISS = 20


@dataclass(frozen=True)
class Order:
    """What a call is to do; it stands in the name of its room."""

    url: str
    """Where the service is, as `http://host/run/index`."""
    index: int
    report: str
    """The file to which the call writes what it heard."""

    @property
    def room(self) -> str:
        return json.dumps(asdict(self))


class Caller(io.AudioInput):
    """Speaks for 2 or 6 s, then listens, in frames of 50 ms, in real time."""

    def __init__(self, index: int) -> None:
        super().__init__(label="Caller")
        self._utterance = utterance(RATE)
        self._hiss = np.random.default_rng(index).integers(-_HISS, _HISS, RATE, np.int16)
        # Every second caller begins with the long turn.
        self._turns = _TURNS if index % 2 == 0 else _TURNS[::-1]
        self._frames = 0
        self._began: float | None = None

    async def __anext__(self) -> rtc.AudioFrame:
        now = asyncio.get_running_loop().time
        if self._began is None:
            self._began = now()
        pcm = self._utterance if self._speaks(self._frames * _FRAME / RATE) else self._hiss
        at = np.arange(self._frames * _FRAME, (self._frames + 1) * _FRAME) % len(pcm)
        self._frames += 1
        await asyncio.sleep(self._began + self._frames * _FRAME / RATE - now())
        return rtc.AudioFrame(pcm[at].tobytes(), RATE, 1, _FRAME)

    def _speaks(self, second: float) -> bool:
        second %= CYCLE
        (first, pause), (last, _) = self._turns
        return second < first or first + pause <= second < first + pause + last


def set_up(process: JobProcess) -> None:
    """Get a process ready, as every plugin may."""
    make_stt(os.environ[TARGET], None, "http://127.0.0.1:9", None).prewarm()


async def entrypoint(ctx: JobContext) -> None:
    """Take the call that the room's name describes."""
    order = Order(**json.loads(ctx.job.room.name))
    finals: list[str] = []

    def hear(event: UserInputTranscribedEvent) -> None:
        if event.is_final and event.transcript:
            finals.append(event.transcript)

    async def report(reason: str) -> None:
        await asyncio.to_thread(Path(order.report).write_text, json.dumps(finals))

    ctx.add_shutdown_callback(report)
    handling: Any = {"turn_detection": "vad"}
    session = AgentSession[None](
        stt=make_stt(os.environ[TARGET], None, order.url, None), turn_handling=handling
    )
    session.on("user_input_transcribed", hear)
    session.input.audio = Caller(order.index)
    await session.start(Agent(instructions=""))
